"""Smooth landmarks over time: still faces stop trembling, moving ones are not left behind."""

import math

import numpy as np


__all__ = ["FaceSmoother", "OneEuroFilter"]

# What the cutoff gains with speed: a shift of the whole face is known well, as the mean of all points, and must not
# be late; against it a single point moves slowly, and its own tremor shows.
# `training/benchmarks/benchmark_video.py` measures it.
CENTER_BETA = 80.0
SHAPE_BETA = 10.0


class OneEuroFilter:
    """The One-Euro filter of Casiez, Roussel and Vogel (CHI 2012) for the points of one face.

    A first-order low-pass filter whose cutoff frequency grows with the speed of the point: low at rest, where tremor
    shows, and high in motion, where a delay would. As in the paper, the speed is that from the last smoothed point.
    Each point has one speed, so x and y stay together. It is measured in face sizes a second, which makes the same
    settings right for small and large faces.

    Args:
        min_cutoff: Cutoff frequency of a point at rest in Hz. Lower: steadier, and later to follow slow motion.
        beta: What the cutoff gains, in Hz, for each face size a second. Higher: less delay in motion.
        speed_cutoff: Cutoff frequency of the speed itself in Hz; the authors' 1.

    Raises:
        ValueError: If a cutoff is not positive, or beta is negative.

    Example:
        >>> import numpy as np
        >>> from fabrec_hf.inference.smoothing import OneEuroFilter
        >>> smooth = OneEuroFilter()
        >>> first = smooth(np.zeros((68, 2)), time=0.0, size=100.0)
        >>> bool((smooth(np.ones((68, 2)), time=0.04, size=100.0) < 0.5).all())
        True
    """

    def __init__(self, min_cutoff: float = 1.0, beta: float = 20.0, speed_cutoff: float = 1.0):
        if not (min_cutoff > 0 and speed_cutoff > 0 and beta >= 0):
            raise ValueError("The cutoffs must be positive, and beta at least 0.")
        self.min_cutoff, self.beta, self.speed_cutoff = min_cutoff, beta, speed_cutoff
        self.reset()

    def reset(self) -> None:
        """Forget the past: the next points are taken as they are."""
        self._points: np.ndarray | None = None
        self._velocities = np.zeros(0)
        self._times = np.zeros(0)

    def __call__(self, points: np.ndarray, time: float, size: float) -> np.ndarray:
        """Smooth the points of the next frame.

        Args:
            points: (L, 2) points in pixels; NaN for a point that is missing in this frame. When it is back, it goes
                on from where it was, with the weight that the time since then gives it.
            time: Time of the frame in seconds, later than the time of the frame before.
            size: Size of the face in pixels, positive.

        Returns:
            (L, 2) float64, NaN where `points` is.

        Raises:
            ValueError: If time does not advance, or the number of points changes.
        """
        points = np.asarray(points, dtype=np.float64)
        if self._points is None:
            self._points = points.copy()
            self._velocities = np.zeros_like(points)
            self._times = np.full(len(points), float(time))
            return points.copy()
        if points.shape != self._points.shape:
            raise ValueError(f"The points were {self._points.shape}, now they are {points.shape}: reset the filter.")
        known = ~np.isnan(points).any(axis=1)
        fresh = known & np.isnan(self._points).any(axis=1)
        passed = known & ~fresh
        elapsed = time - self._times[passed, None]
        if (elapsed <= 0).any():
            raise ValueError(f"The time {time:g} s does not lie after the frame before.")
        moved = (points[passed] - self._points[passed]) / elapsed
        velocities = self._velocities[passed]
        velocities += _weight(self.speed_cutoff, elapsed) * (moved - velocities)
        speeds = np.linalg.norm(velocities, axis=1, keepdims=True) / size
        weights = _weight(self.min_cutoff + self.beta * speeds, elapsed)
        self._points[passed] += weights * (points[passed] - self._points[passed])
        self._velocities[passed] = velocities
        self._points[fresh] = points[fresh]
        self._times[known] = time
        return np.where(known[:, None], self._points, np.nan)


class FaceSmoother:
    """Smooths the points of a face, its motion and its shape each with a `OneEuroFilter` of its own.

    One filter a point has to choose, while the face moves, between trailing behind and letting the tremor through. The
    mean of the points trembles far less than each of them: it is followed closely, and what the points do against it
    is smoothed as strongly as in a face at rest.
    """

    def __init__(self):
        self._center = OneEuroFilter(beta=CENTER_BETA)
        self._shape = OneEuroFilter(beta=SHAPE_BETA)

    def reset(self) -> None:
        """Forget the past: the next points are taken as they are."""
        self._center.reset()
        self._shape.reset()

    def __call__(self, points: np.ndarray, time: float, size: float) -> np.ndarray:
        """Smooth the points of the next frame; arguments, result and errors are as in `OneEuroFilter`."""
        points = np.asarray(points, dtype=np.float64)
        known = points[~np.isnan(points).any(axis=1)]
        if not len(known):
            return np.full_like(points, np.nan)
        center = known.mean(axis=0, keepdims=True)
        return self._shape(points - center, time, size) + self._center(center, time, size)


def _weight(cutoff: float | np.ndarray, elapsed: np.ndarray) -> np.ndarray:
    """Weight of a new value in a low-pass filter of a cutoff in Hz, after so many seconds."""
    return 1 / (1 + 1 / (2 * math.pi * cutoff * elapsed))
