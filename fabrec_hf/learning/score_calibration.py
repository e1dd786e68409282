"""Scores that mean something: how far off each point probably is, learned on faces that were not learned from.

The height of a heatmap orders points by how sure they are, but its number says nothing by itself. Together with how
much the detector's sources disagree, and with which point it is, it tells the error to expect: see `error_model`.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from ..model.error_model import gather_evidence


__all__ = ["TOLERANCE", "ErrorModel", "fit_error_model"]

TOLERANCE = 5.0
"""Error up to which a point counts as found, in percent of the scheme's normalizing length."""

FEWEST_POINTS = 40
# What the evidence adds where many faces were there to tell, about the same for detectors of one, ten and 1,913
# annotated faces of 300-W (293 and 99 validation faces): the ridge draws weights there.
KNOWN_WEIGHTS = np.array([-0.9, 0.05, -0.25, 0.35, -1.3, 0.1, -0.5, 1.1])
# Its strengths: for what is known of a point, of its face, and for the offset of each point. With ten faces the means
# over a face are ten numbers only. Chosen on validation faces of 300-W.
RIDGE = np.array([500.0] * 4 + [5000.0] * 4)
OFFSET_RIDGE = 5.0
# What may make an error larger, in columns: a lower heatmap, disagreement, a long first move, and a second one that is
# long beside it. Weights are sums of these and of nothing else. A few faces might say otherwise, and then what is no
# face at all would score highest.
CAUSES = np.kron(np.eye(2), [[-1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -1], [0, 0, 0, 1]])
# Errors are compared from here on, in percent: how exactly a click was made is no part of what is to be told.
ERROR_FLOOR = 0.3
# What an error counts as that has no end, of a point that was not found at all.
LARGEST_ERROR = 100.0


@dataclass(frozen=True)
class ErrorModel:
    """Tells the error of a point from the evidence for it.

    Attributes:
        weights: (8,) what each piece of evidence adds to the logarithm of the error.
        offsets: (L,) the rest, of each point.
        spread: Standard deviation of the logarithm of the error about what is told.
        tolerance: Error up to which a point counts as found, in percent of the scheme's normalizing length.
        count: Points that it was fitted to.
    """

    weights: tuple[float, ...]
    offsets: tuple[float, ...]
    spread: float
    tolerance: float
    count: int

    def to_dict(self) -> dict[str, Any]:
        """Return what a checkpoint's configuration holds."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def fit_error_model(
    heights: np.ndarray,
    drawn: np.ndarray,
    landmarks: np.ndarray,
    moves: np.ndarray,
    errors: np.ndarray,
    tolerance: float = TOLERANCE,
) -> ErrorModel:
    """Fit an error model to points of faces that were not learned from, by ridge regression.

    Args:
        heights: (N, L) uncalibrated scores.
        drawn: (N, L, 2) points of the heatmaps alone.
        landmarks: (N, L, 2) predicted points, in the same units; a face with NaN is left out.
        moves: (N, L, 2) how far a closer look moved each point and would move it again.
        errors: (N, L) in percent of the normalizing length; infinite is allowed, NaN is left out.
        tolerance: Error up to which a point counts as found, in percent.

    Raises:
        DataError: There are fewer than 40 points to learn from.
    """
    predicted = np.isfinite(landmarks).all((1, 2)) & np.isfinite(drawn).all((1, 2))
    given = (
        torch.as_tensor(np.asarray(values[predicted], dtype=float)) for values in (heights, drawn, landmarks, moves)
    )
    evidence, errors = gather_evidence(*given).numpy(), np.asarray(errors, dtype=float)[predicted]
    faces, places = np.nonzero(~np.isnan(errors))
    if len(faces) < FEWEST_POINTS:
        raise DataError(f"{len(faces)} points are too few to calibrate scores by: {FEWEST_POINTS} are needed.")
    known = evidence[faces, places]
    targets = np.log(np.clip(errors[faces, places], ERROR_FLOOR, LARGEST_ERROR))
    middle, scale = known.mean(0), known.std(0) + 1e-6
    each_point = np.eye(errors.shape[1])[places]
    design = np.column_stack([known - middle, each_point])
    average = targets.mean()
    # Ridge on evidence of unit variance.
    strengths = np.concatenate([RIDGE * scale**2, np.full(errors.shape[1], OFFSET_RIDGE)])
    expected = np.concatenate([KNOWN_WEIGHTS, np.zeros(errors.shape[1])])
    solution, freedom = _solve(design, targets - average, strengths, expected)
    weights = solution[: len(RIDGE)]
    offsets = average + solution[len(RIDGE) :] - weights @ middle
    spread = np.sqrt(((targets - average - design @ solution) ** 2).sum() / max(len(targets) - freedom - 1, 1))
    return ErrorModel(
        weights=tuple(np.round(weights, 5).tolist()),
        offsets=tuple(np.round(offsets, 4).tolist()),
        spread=round(float(max(spread, 0.05)), 4),
        tolerance=float(tolerance),
        count=len(targets),
    )


def _solve(
    design: np.ndarray, targets: np.ndarray, strengths: np.ndarray, expected: np.ndarray
) -> tuple[np.ndarray, float]:
    """Solve a ridge about an expected solution, in which evidence makes errors larger by its `CAUSES` alone.

    Returns:
        The solution, and how many degrees of freedom it takes.
    """
    from scipy.optimize import lsq_linear

    causes = np.eye(design.shape[1])
    causes[: len(CAUSES), : len(CAUSES)] = CAUSES
    least = np.where(np.arange(len(causes)) < len(CAUSES), 0.0, -np.inf)
    # The same as least squares with a row for each penalty.
    penalties = np.diag(np.sqrt(strengths))
    rows, goals = np.vstack([design, penalties]) @ causes, np.concatenate([targets, penalties @ expected])
    found = lsq_linear(rows, goals, (least, np.inf), tol=1e-12).x
    free = (found > 1e-6) | np.isinf(least)  # the others are held at 0
    found = np.where(free, found, 0.0)
    seen = design @ causes[:, free]
    products, penalty = seen.T @ seen, causes[:, free].T @ np.diag(strengths) @ causes[:, free]
    return causes @ found, float(np.trace(np.linalg.solve(products + penalty, products)))
