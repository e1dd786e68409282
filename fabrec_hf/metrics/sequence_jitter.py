"""How much landmarks tremble over a video, as plain NumPy functions on one sequence of frames.

Two measures, for two situations:

- with ground truth, the *normalized mean flicker* (NMF) of Micaelli et al. (CVPR 2023, "Recurrence without
  Recurrence: Stable Video Landmark Detection with Deep Equilibrium Models"): how much the *error* changes from a frame
  to the next. Motion of the face itself costs nothing, and neither does a constant offset. The formula, with its
  unit, is that of the evaluation code which the authors published (github.com/polo5/LDEQ_RwR, `video_NMJ`);
- without ground truth, the *acceleration* of the points: a face that moves evenly has none, tremor has much, and so
  has a face that really shakes.

One rule for what is missing: a point that is NaN in one of the frames compared is left out of that comparison. So a
frame without a face breaks the chain, and nothing is measured across it; a frame that a video lost must be there as a
row of NaNs, or else its neighbors pass for consecutive ones.
"""

from collections import deque

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .landmark_errors import mean_of_known


__all__ = [
    "RunningAcceleration",
    "accelerations",
    "flicker",
    "mean_acceleration",
    "normalized_mean_flicker",
    "summarize_jitter",
]

_STANDARD_SIDE = 256
"""The face of the NMF has the area of a square of 256 px: the authors' inputs, and their unit."""


def flicker(predictions: ArrayLike, targets: ArrayLike) -> np.ndarray:
    """Measure how far the error of each point moves from a frame to the next: `||r(t) - r(t-1)|| / d(t)`.

    Args:
        predictions: (T, L, 2) predicted points of consecutive frames in pixels, NaN where there is none.
        targets: (T, L, 2) ground-truth points in pixels, NaN where a point is not annotated.

    Returns:
        (T - 1, L) movements, NaN where a point is missing. r is the error, prediction less target; d is
        `sqrt(width * height) / 256` of the box around the annotated points of the later frame. The unit is a hundredth
        of a pixel of a face of 256 x 256 pixels.

    Raises:
        DataError: If the shapes do not fit, or the annotated points of a frame span no area.
    """
    predictions, targets = _frames(predictions), _frames(targets)
    if predictions.shape != targets.shape:
        raise DataError(
            f"Predictions and targets must have the same shape (T, L, 2), not {predictions.shape} and {targets.shape}."
        )
    residuals = predictions - targets
    moved = np.linalg.norm(np.diff(residuals, axis=0), axis=-1)
    return 100 * _STANDARD_SIDE * moved / _face_sizes(targets)[1:, None]


def normalized_mean_flicker(predictions: ArrayLike, targets: ArrayLike) -> float:
    """Compute the normalized mean flicker (NMF) of one sequence (Micaelli et al., CVPR 2023).

    The root of the mean square over the points of a pair of frames, and of those over the pairs, of `flicker`. The
    NMF of several videos is the mean of theirs.

    Args:
        predictions: (T, L, 2) predicted points of consecutive frames in pixels, NaN where there is none.
        targets: (T, L, 2) ground-truth points in pixels, NaN where a point is not annotated.

    Returns:
        The NMF, at least 0, in hundredths of a pixel of a face of 256 x 256 pixels (divided by 256 it is in percent of
        the face's size). NaN if no two consecutive frames share a point.

    Raises:
        DataError: If the shapes do not fit, or a face has no area.
    """
    return float(np.sqrt(mean_of_known(mean_of_known(flicker(predictions, targets) ** 2, axis=1), axis=0)))


def accelerations(predictions: ArrayLike, lengths: ArrayLike) -> np.ndarray:
    """Measure the second difference of each point's path: `100 * ||p(t-1) - 2 p(t) + p(t+1)|| / d(t)`.

    Args:
        predictions: (T, L, 2) predicted points of consecutive frames in pixels, NaN where there is none.
        lengths: (T,) what to divide by in each frame, in pixels, from `normalizing_distance`. NaN where unknown.

    Returns:
        (T - 2, L) accelerations in percent of the length of the middle frame, per frame squared; NaN where a point is
        missing in one of the three frames.

    Raises:
        DataError: If the shapes do not fit.
    """
    predictions, lengths = _frames(predictions), np.asarray(lengths, dtype=np.float64)
    if lengths.shape != predictions.shape[:1]:
        raise DataError(f"There must be one length a frame, {len(predictions)}, not {lengths.shape}.")
    second_differences = np.linalg.norm(np.diff(predictions, n=2, axis=0), axis=-1)
    return 100 * second_differences / lengths[1:-1, None]


def mean_acceleration(predictions: ArrayLike, lengths: ArrayLike) -> float:
    """Average `accelerations` over the points of each three frames, and those over one sequence.

    Args:
        predictions: (T, L, 2) predicted points of consecutive frames in pixels, NaN where there is none.
        lengths: (T,) what to divide by in each frame, in pixels, from `normalizing_distance`.

    Returns:
        Percent of the length per frame squared, at least 0. NaN if no three consecutive frames share a point.

    Raises:
        DataError: If the shapes do not fit.
    """
    return float(mean_of_known(mean_of_known(accelerations(predictions, lengths), axis=1), axis=0))


class RunningAcceleration:
    """`mean_acceleration` of a sequence of any length that is given frame by frame; three of them are kept.

    Attributes:
        triples: Three consecutive frames so far that an acceleration was measured in.
    """

    def __init__(self):
        self.triples = 0
        self._sum = 0.0
        self._window: deque[tuple[int, np.ndarray, float]] = deque(maxlen=3)

    def add(self, frame: int, points: ArrayLike, length: float) -> None:
        """Add a frame.

        Args:
            frame: Its number; nothing is measured across frames that are left out.
            points: (L, 2) points in pixels, NaN where there is none.
            length: What to divide by in this frame, in pixels; NaN if unknown.
        """
        if self._window and frame != self._window[-1][0] + 1:
            self._window.clear()
        self._window.append((frame, np.asarray(points, dtype=np.float64), length))
        if len(self._window) == 3:
            _, sequence, lengths = zip(*self._window, strict=True)
            value = mean_acceleration(sequence, lengths)
            if not np.isnan(value):
                self._sum += value
                self.triples += 1

    @property
    def mean(self) -> float:
        """Percent of the length per frame squared; NaN if no three consecutive frames share a point."""
        return self._sum / self.triples if self.triples else float("nan")


def summarize_jitter(
    predictions: ArrayLike, lengths: ArrayLike, targets: ArrayLike | None = None
) -> dict[str, float | int]:
    """Summarize the jitter of one sequence.

    Args:
        predictions: (T, L, 2) predicted points of consecutive frames in pixels, NaN where there is none.
        lengths: (T,) what to divide accelerations by in each frame, in pixels, from `normalizing_distance`.
        targets: (T, L, 2) ground-truth points in pixels, if there are any.

    Returns:
        `acceleration`: from `mean_acceleration`. `nmf`: from `normalized_mean_flicker`, only with targets.
        `frames`: T. `frames_without_prediction`: how many of them have no point at all. `triples_left_out`: three
        consecutive frames, of T - 2, without an acceleration. `pairs_left_out`: two, of T - 1, without a flicker, only
        with targets.

    Raises:
        DataError: If the shapes do not fit, or a face has no area.
    """
    predictions = _frames(predictions)
    summary: dict[str, float | int] = {
        "acceleration": mean_acceleration(predictions, lengths),
        "frames": len(predictions),
        "frames_without_prediction": _without_value(predictions.sum(axis=-1)),
        "triples_left_out": _without_value(accelerations(predictions, lengths)),
    }
    if targets is not None:
        summary["nmf"] = normalized_mean_flicker(predictions, targets)
        summary["pairs_left_out"] = _without_value(flicker(predictions, targets))
    return summary


def _frames(points: ArrayLike) -> np.ndarray:
    points = np.asarray(points, dtype=np.float64)
    if points.ndim != 3 or points.shape[-1] != 2:
        raise DataError(f"The points of a sequence must have shape (T, L, 2), not {points.shape}.")
    return points


def _face_sizes(targets: np.ndarray) -> np.ndarray:
    """Square root of the area of the box around each frame's annotated points; NaN where there is none."""
    annotated = ~np.isnan(targets).any(axis=-1, keepdims=True)
    highest = np.where(annotated, targets, -np.inf).max(axis=1)
    lowest = np.where(annotated, targets, np.inf).min(axis=1)
    areas = np.where(annotated.any(axis=(1, 2)), (highest - lowest).prod(axis=-1), np.nan)
    if (areas <= 0).any():
        raise DataError(f"The annotated points of frame {int(np.argmax(areas <= 0))} span no area to measure by.")
    return np.sqrt(areas)


def _without_value(values: np.ndarray) -> int:
    return int(np.isnan(values).all(axis=1).sum())
