"""Does a score say how wrong a landmark is? Rank correlation, risk against coverage, and reliability."""

from typing import Any

import numpy as np


__all__ = [
    "area_under_roc",
    "area_under_risk_coverage",
    "points_with_both",
    "rank_correlation",
    "reliability",
    "risk_coverage",
    "summarize_confidence",
]

KEPT_PERCENT = 80
"""Share of the points that a summary keeps, to say what leaving out the others is good for."""


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
    return -float(np.corrcoef(_mean_ranks(scores), _mean_ranks(errors))[0, 1])


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    """Rank values from 1 on; equal ones share the mean of their ranks."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def area_under_roc(higher: np.ndarray, lower: np.ndarray) -> float:
    """How probable it is that a score of one kind is higher than one of another: the area under the ROC curve.

    Args:
        higher: (N,) scores that should be high.
        lower: (M,) scores that should be low.

    Returns:
        From 0 to 1, a tie counting one half; NaN if there is none of a kind.
    """
    higher, lower = np.asarray(higher, dtype=float), np.asarray(lower, dtype=float)
    count = len(higher)
    if not count or not len(lower):
        return float("nan")
    ranks = _mean_ranks(np.concatenate([higher, lower]))[:count]
    return float((ranks.sum() - count * (count + 1) / 2) / (count * len(lower)))


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


def reliability(scores: np.ndarray, found: np.ndarray, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare scores that claim to be probabilities with how often they come true, in bins of equal width.

    Args:
        scores: (N,) from 0 to 1.
        found: (N,) whether the point lay within the tolerance.
        bins: Number of bins between 0 and 1.

    Returns:
        Mean score, share found and number of points of every bin that is not empty, by rising score; all (K,).
    """
    scores, found = _paired(scores, found)
    places = np.clip((scores * bins).astype(int), 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    filled = counts > 0
    sums = (np.bincount(places, weights=values, minlength=bins) for values in (scores, found))
    mean_scores, shares = (values[filled] / counts[filled] for values in sums)
    return mean_scores, shares, counts[filled]


def points_with_both(scores: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores and errors, both (N,), of the points of which both are finite; any shape goes in."""
    scores, errors = _flat(scores), _flat(errors)
    known = np.isfinite(scores) & np.isfinite(errors)
    return scores[known], errors[known]


def summarize_confidence(scores: np.ndarray, errors: np.ndarray, tolerance: float | None = None) -> dict[str, Any]:
    """Say in a few numbers whether scores order points by their errors, and what leaving points out is good for.

    Args:
        scores: Of points, in any shape; higher for surer.
        errors: Of the same points in percent: NaN where it cannot be told, infinite without a prediction.
        tolerance: Error in percent up to which a point counts as found, if the scores claim to be the share of such
            points that are found; None if they do not.

    Returns:
        `points`, which have a finite score and error, and `left_out`, which have an error but not both of them finite.
        If there are points: `rank_correlation` (None where it is not defined), `area_under_risk_coverage`, the same
        area of a `perfect_order` by the errors themselves, `mean_error` (the area of no order), and `kept`: a `score`,
        and the `share` (at least 0.8) and mean `error` of the points that score that much or more. With a tolerance,
        `calibration`: the `tolerance`, mean `score`, share `found`, and mean distance of the two over ten bins of
        scores (`error`, the expected calibration error).
    """
    annotated = int((~np.isnan(np.asarray(errors, dtype=float))).sum())
    scores, errors = points_with_both(scores, errors)
    summary: dict[str, Any] = {"points": len(errors), "left_out": annotated - len(errors)}
    if not len(errors):
        return summary
    correlation = rank_correlation(scores, errors)
    lowest = np.sort(scores)[::-1][-(-KEPT_PERCENT * len(scores) // 100) - 1]
    threshold = np.floor(1e4 * lowest) / 1e4  # a number to type, which loses none of those points
    kept = scores >= threshold
    summary |= {
        "rank_correlation": None if np.isnan(correlation) else correlation,
        "area_under_risk_coverage": area_under_risk_coverage(scores, errors),
        "perfect_order": area_under_risk_coverage(-errors, errors),
        "mean_error": float(errors.mean()),
        "kept": {"share": float(kept.mean()), "score": float(threshold), "error": float(errors[kept].mean())},
    }
    if tolerance is not None:
        found = errors <= tolerance
        claimed, shares, counts = reliability(scores, found)
        summary["calibration"] = {
            "tolerance": tolerance,
            "score": float(scores.mean()),
            "found": float(found.mean()),
            "error": float(np.average(np.abs(claimed - shares), weights=counts)),
        }
    return summary


def _flat(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=float).ravel()


def _paired(scores: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, errors = _flat(scores), _flat(errors)
    if len(scores) != len(errors):
        raise ValueError(f"There are {len(scores)} scores but {len(errors)} errors.")
    if np.isnan(scores).any() or np.isnan(errors).any():
        raise ValueError("Leave out points without score or error first: NaN cannot be ranked.")
    return scores, errors
