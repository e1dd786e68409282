"""Errors of predicted landmarks, as plain NumPy functions (paper section 4.3, "Evaluation Metrics").

One unit everywhere: errors, thresholds and failure rates are in percent, as the paper prints them; only the area
under the curve is a fraction of 1. One rule for what is missing:

- a ground-truth point that is NaN is left out of its face's mean;
- a predicted point that is NaN is left out too, but a face with no prediction for any of its annotated points has an
  error of infinity: a failure, with no area under the curve, and left out of the mean error only;
- a face that cannot be scored (no annotated point, or the normalizer's points are not annotated) has an error of NaN
  and is left out of everything.

`summarize_errors` counts the faces, `count_missing` the points.
"""

import numpy as np
from numpy.typing import ArrayLike

from ..errors import BoxError, DataError
from ..model.known_schemes import Normalizer


__all__ = [
    "NO_LENGTH",
    "area_under_curve",
    "count_missing",
    "cumulative_error_distribution",
    "failure_rate",
    "mean_of_known",
    "normalized_mean_error",
    "normalizing_distance",
    "part_errors",
    "point_errors",
    "summarize_errors",
]

NO_LENGTH = "has a normalizing length of zero: the points or the box that it is measured by are wrong."
"""What is said of a face whose errors cannot be divided by the length of its normalizer."""


def normalizing_distance(targets: ArrayLike, normalizer: Normalizer, boxes: ArrayLike | None = None) -> np.ndarray:
    """Measure the length that each face's error is divided by.

    Args:
        targets: (N, L, 2) ground-truth points in pixels, NaN where a point is not annotated.
        normalizer: What to measure, see `Normalizer`.
        boxes: (N, 4) face boxes (x, y, width, height) in pixels; needed by the kinds `"box"` and `"box_diagonal"`.

    Returns:
        (N,) lengths in pixels, NaN where the points to measure are not annotated.

    Raises:
        BoxError: If boxes are needed and missing, or of another shape.
        DataError: If a length is zero or negative.
    """
    targets = np.asarray(targets, dtype=np.float64)
    if normalizer.kind == "points":
        first, second = (targets[:, list(end)].mean(axis=1) for end in normalizer.points)
        lengths = np.linalg.norm(first - second, axis=-1)
    else:
        if boxes is None:
            raise BoxError(f"A normalizer of kind {normalizer.kind!r} needs the face boxes; give boxes of (N, 4).")
        boxes = np.asarray(boxes, dtype=np.float64)
        if boxes.shape != (len(targets), 4):
            raise BoxError(f"Boxes must have shape ({len(targets)}, 4), not {boxes.shape}.")
        sides = boxes[:, 2:]
        lengths = sides.max(axis=-1) if normalizer.kind == "box" else np.linalg.norm(sides, axis=-1)
    if (lengths <= 0).any():
        raise DataError(f"Face {int(np.argmax(lengths <= 0))} {NO_LENGTH}")
    return lengths


def point_errors(
    predictions: ArrayLike, targets: ArrayLike, normalizer: Normalizer, boxes: ArrayLike | None = None
) -> np.ndarray:
    """Measure every point's distance from the ground truth in percent of its face's normalizing length.

    Args:
        predictions: (N, L, 2) predicted points in pixels, NaN where there is none.
        targets: (N, L, 2) ground-truth points in pixels, NaN where a point is not annotated.
        normalizer: The length to divide by; `get_scheme(name).normalizer` for a built-in scheme.
        boxes: (N, 4) face boxes, needed by box normalizers only.

    Returns:
        (N, L) errors in percent: NaN for a point or face that cannot be scored, infinity for every annotated point of
        a face without a prediction.

    Raises:
        DataError: If the points do not fit each other, or a face has no length to divide by.
        BoxError: If boxes are needed and missing, or of another shape.
    """
    predictions, targets = _paired_points(predictions, targets)
    lengths = normalizing_distance(targets, normalizer, boxes)
    errors = 100 * np.linalg.norm(predictions - targets, axis=-1) / lengths[:, None]
    scorable = ~np.isnan(targets).any(axis=-1) & ~np.isnan(lengths)[:, None]
    without_prediction = scorable.any(axis=1) & ~(scorable & ~np.isnan(errors)).any(axis=1)
    errors[without_prediction[:, None] & scorable] = np.inf
    return errors


def count_missing(predictions: ArrayLike, targets: ArrayLike) -> dict[str, int]:
    """Count the points that no error is computed for, and why.

    Args:
        predictions: (N, L, 2) predicted points, NaN where there is none.
        targets: (N, L, 2) ground-truth points, NaN where a point is not annotated.

    Returns:
        `points`: N x L. `points_not_annotated`: how many are missing in the ground truth. `points_without_prediction`:
        how many are annotated and not predicted. A point counts as missing when one of its coordinates is.

    Raises:
        DataError: If the shapes do not fit.
    """
    predictions, targets = _paired_points(predictions, targets)
    annotated = ~np.isnan(targets).any(axis=-1)
    predicted = ~np.isnan(predictions).any(axis=-1)
    return {
        "points": annotated.size,
        "points_not_annotated": int((~annotated).sum()),
        "points_without_prediction": int((annotated & ~predicted).sum()),
    }


def normalized_mean_error(
    predictions: ArrayLike, targets: ArrayLike, normalizer: Normalizer, boxes: ArrayLike | None = None
) -> np.ndarray:
    """Compute each face's normalized mean error (NME) in percent.

    Args:
        predictions: (N, L, 2) predicted points in pixels, NaN where there is none.
        targets: (N, L, 2) ground-truth points in pixels, NaN where a point is not annotated.
        normalizer: The length to divide by; `get_scheme(name).normalizer` for a built-in scheme.
        boxes: (N, 4) face boxes, needed by box normalizers only.

    Returns:
        (N,) errors in percent: infinity for a face without a prediction, NaN for one that cannot be scored.

    Raises:
        DataError: If the points do not fit each other, or a face has no length to divide by.
        BoxError: If boxes are needed and missing, or of another shape.
    """
    return mean_of_known(point_errors(predictions, targets, normalizer, boxes), axis=1)


def part_errors(errors: np.ndarray, parts: dict[str, tuple[int, ...]]) -> dict[str, float]:
    """Average point errors over the faces for each part on its own.

    Args:
        errors: (N, L) from `point_errors`.
        parts: Points of each part, for example `get_scheme("300w").parts`.

    Returns:
        The NME of each part in percent, over the faces that have it; NaN where no face has it.
    """
    return {part: _finite_mean(mean_of_known(errors[:, list(points)], axis=1)) for part, points in parts.items()}


def failure_rate(errors: ArrayLike, threshold: float = 10.0) -> float:
    """Return the percentage of faces whose error is above the threshold.

    Args:
        errors: (N,) errors of faces in percent, from `normalized_mean_error`.
        threshold: The largest error that is no failure, in percent.

    Raises:
        DataError: If no face can be scored.
        ValueError: If the threshold is not positive and finite.
    """
    _check_threshold(threshold)
    return float(100 * np.mean(_scored(errors) > threshold))


def area_under_curve(errors: ArrayLike, threshold: float = 10.0) -> float:
    """Return the area under the cumulative error distribution up to the threshold, as a fraction in [0, 1].

    The distribution is a staircase, so its integral is exact: a face of error e adds the stretch from e to the
    threshold. (The authors average 50 samples of the staircase instead.)

    Args:
        errors: (N,) errors of faces in percent, from `normalized_mean_error`.
        threshold: Where the curve ends, in percent.

    Raises:
        DataError: If no face can be scored.
        ValueError: If the threshold is not positive and finite.
    """
    _check_threshold(threshold)
    return float(np.mean(np.clip(1 - _scored(errors) / threshold, 0, 1)))


def cumulative_error_distribution(
    errors: ArrayLike, threshold: float = 10.0, num: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of faces up to each error: the curve that `area_under_curve` measures the area under.

    The curve is a staircase that rises at every face's error. Draw its points as steps that hold their height until
    the next one, `drawstyle="steps-post"` in matplotlib: the area is then that of `area_under_curve` (times the
    threshold), and the height at the end is what the failure rate lacks of 100 %.

    Args:
        errors: (N,) errors of faces in percent, from `normalized_mean_error`.
        threshold: Where the curve ends, in percent.
        num: Nothing for every corner of the staircase, or the number of evenly spaced samples from 0 to the threshold,
            which is the same for every data set.

    Returns:
        Two arrays of one length: errors in percent, rising from 0 to the threshold, and the fractions of the scored
        faces, in [0, 1], whose error is at most that.

    Raises:
        DataError: If no face can be scored.
        ValueError: If the threshold is not positive and finite, or num is below 2.
    """
    _check_threshold(threshold)
    errors = np.sort(_scored(errors))
    if num is None:
        thresholds = np.unique([0.0, *errors[errors < threshold], threshold])
    elif num >= 2:
        thresholds = np.linspace(0, threshold, num)
    else:
        raise ValueError(f"A curve has at least 2 points, not {num}.")
    return thresholds, np.searchsorted(errors, thresholds, side="right") / len(errors)


def summarize_errors(errors: ArrayLike, threshold: float = 10.0) -> dict[str, float | int]:
    """Summarize the errors of many faces.

    Args:
        errors: (N,) errors of faces in percent, from `normalized_mean_error`.
        threshold: The error that separates failures, and ends the curve, in percent.

    Returns:
        `nme`: mean over the faces with a prediction, percent. `failure_rate`: percent. `auc`: fraction of 1.
        `count`: faces scored. `without_prediction`: how many of those have none. `not_scored`: faces left out.

    Raises:
        DataError: If no face can be scored.
        ValueError: If the threshold is not positive and finite.
    """
    scored = _scored(errors)
    return {
        "nme": _finite_mean(scored),
        "failure_rate": failure_rate(scored, threshold),
        "auc": area_under_curve(scored, threshold),
        "count": len(scored),
        "without_prediction": int(np.isinf(scored).sum()),
        "not_scored": int(np.size(errors)) - len(scored),
    }


def mean_of_known(values: np.ndarray, axis: int) -> np.ndarray:
    """Average along an axis without the NaNs; NaN where all are (`np.nanmean` would warn)."""
    known = ~np.isnan(values)
    counts = known.sum(axis=axis)
    sums = np.where(known, values, 0.0).sum(axis=axis)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _paired_points(predictions: ArrayLike, targets: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    predictions = np.asarray(predictions, dtype=np.float64)
    targets = np.asarray(targets, dtype=np.float64)
    if predictions.shape != targets.shape or predictions.ndim != 3 or predictions.shape[-1] != 2:
        raise DataError(
            f"Predictions and targets must both have shape (N, L, 2), not {predictions.shape} and {targets.shape}."
        )
    return predictions, targets


def _check_threshold(threshold: float) -> None:
    """Refuse what every comparison with an error answers the same: NaN, infinity (a missed face's error), below 0."""
    if not 0 < threshold < np.inf:
        raise ValueError(f"The threshold must be positive and finite, not {threshold}.")


def _scored(errors: ArrayLike) -> np.ndarray:
    errors = np.asarray(errors, dtype=np.float64)
    errors = errors[~np.isnan(errors)]
    if not len(errors):
        raise DataError("There is no face to score: none has both an annotated point and a normalizing length.")
    return errors


def _finite_mean(errors: np.ndarray) -> float:
    finite = errors[np.isfinite(errors)]
    return float(finite.mean()) if len(finite) else float("nan")
