"""Does a score say how wrong a landmark is? Rank correlation and risk against coverage."""

import numpy as np


__all__ = ["area_under_risk_coverage", "rank_correlation", "risk_coverage"]


def rank_correlation(scores: np.ndarray, errors: np.ndarray) -> float:
    """Spearman's correlation of the scores with the errors, with its sign turned: 1 if every higher score is better.

    Args:
        scores: (N,), higher for surer.
        errors: (N,), of the same points; infinite ones rank highest.

    Returns:
        From -1 to 1; NaN if there are fewer than two points, or all scores or all errors are the same.
    """
    scores, errors = _paired(scores, errors)
    if len(scores) < 2 or np.ptp(scores) == 0 or len(np.unique(errors)) == 1:
        return float("nan")
    from scipy.stats import rankdata

    return -float(np.corrcoef(rankdata(scores), rankdata(errors))[0, 1])


def risk_coverage(scores: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean error of the surest points, for every share of the points that is kept.

    Points of equal score are kept or left out together, as a threshold does it.

    Args:
        scores: (N,), higher for surer.
        errors: (N,) finite, of the same points.

    Returns:
        Shares kept, rising to 1, and the mean error of what is kept; both (K,), K different scores.
    """
    scores, errors = _paired(scores, errors)
    order = np.argsort(-scores, kind="stable")
    scores, errors = scores[order], errors[order]
    last = np.append(scores[1:] != scores[:-1], True)  # where the next point has another score
    kept = np.arange(1, len(scores) + 1)[last]
    return kept / len(scores), np.cumsum(errors)[last] / kept


def area_under_risk_coverage(scores: np.ndarray, errors: np.ndarray) -> float:
    """Mean over all points of the mean error of those that are at least as sure (AURC), in the unit of the errors.

    It lies between that of scores which order the points by their true errors and, for scores that say nothing, the
    mean error.

    Args:
        scores: (N,), higher for surer.
        errors: (N,) finite, of the same points.
    """
    coverage, risk = risk_coverage(scores, errors)
    return float(np.sum(risk * np.diff(coverage, prepend=0.0)))


def _paired(scores: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, errors = np.asarray(scores, dtype=float).ravel(), np.asarray(errors, dtype=float).ravel()
    if len(scores) != len(errors):
        raise ValueError(f"There are {len(scores)} scores but {len(errors)} errors.")
    if np.isnan(scores).any() or np.isnan(errors).any():
        raise ValueError("Leave out points without score or error first: NaN cannot be ranked.")
    return scores, errors
