"""Scores that mean something: how often a point whose heatmap is so high lies near the truth.

The height of a heatmap at its peak orders points by how sure they are, but its number says nothing by itself. Counted
on faces that were not learned from, the share of points of each height that lie within a tolerance of the truth is a
rising curve (isotonic regression), and that share is the score.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..errors import DataError


__all__ = ["TOLERANCE", "ScoreCalibration", "fit_calibration"]

TOLERANCE = 5.0
"""Error up to which a point counts as found, in percent of the scheme's normalising length."""

POINTS_PER_BIN = 20
MOST_BINS = 24


@dataclass(frozen=True)
class ScoreCalibration:
    """A rising curve from heights of heatmaps to scores, linear between its knots and flat beyond them.

    Attributes:
        heights: Heights at the knots, strictly rising.
        scores: Share of the points of such a height within the tolerance, from 0 to 1, never falling.
        tolerance: In percent of the scheme's normalising length.
        count: Points that it was fitted to.
    """

    heights: tuple[float, ...]
    scores: tuple[float, ...]
    tolerance: float
    count: int

    def __call__(self, heights: np.ndarray) -> np.ndarray:
        """Return the scores of heights, in their shape."""
        return np.interp(heights, self.heights, self.scores)

    def to_dict(self) -> dict[str, Any]:
        """Return what a checkpoint's configuration holds."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def fit_calibration(heights: np.ndarray, errors: np.ndarray, tolerance: float = TOLERANCE) -> ScoreCalibration:
    """Fit a calibration to points of faces that were not learned from.

    Args:
        heights: (N,) uncalibrated scores.
        errors: (N,) in percent of the normalising length; infinite is allowed, NaN is left out.
        tolerance: Error up to which a point counts as found, in percent.

    Raises:
        DataError: There are fewer than 40 points to count.
    """
    from scipy.optimize import isotonic_regression

    heights, errors = np.asarray(heights, dtype=float).ravel(), np.asarray(errors, dtype=float).ravel()
    known = np.isfinite(heights) & ~np.isnan(errors)
    heights, found = heights[known], errors[known] <= tolerance
    bins = min(MOST_BINS, len(heights) // POINTS_PER_BIN)
    if bins < 2:
        raise DataError(f"{len(heights)} points are too few to calibrate scores by: {2 * POINTS_PER_BIN} are needed.")
    parts = np.array_split(np.argsort(heights, kind="stable"), bins)
    centers = np.array([heights[part].mean() for part in parts])
    # Half a hit and half a miss more: no finite count proves that a point can never, or always, be found.
    rates = np.array([(found[part].sum() + 0.5) / (len(part) + 1) for part in parts])
    fitted = isotonic_regression(rates, weights=[len(part) for part in parts], increasing=True).x
    distinct = np.append(True, np.diff(centers) > 1e-6)
    return ScoreCalibration(
        heights=tuple(np.round(centers[distinct], 6).tolist()),
        scores=tuple(np.round(fitted[distinct], 4).tolist()),
        tolerance=float(tolerance),
        count=len(heights),
    )
