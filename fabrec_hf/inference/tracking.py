"""Follow faces through a video: crops from the last frame's landmarks, stable ids, smoothing.

A detector costs many times what the landmarks cost, and its boxes jump. So it looks at every N-th frame only; in
between, the crop of a face is moved and scaled as its landmarks have been since the detector saw it. A face
is lost when its landmarks stop making sense, or when the detector has not confirmed it for a while; it is then
searched for more often, and keeps its id if it is found again near where it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..model.geometry import box_overlap
from ..model.second_look import FaceBox
from ..model.turned_crops import wrapped
from .smoothing import FaceSmoother


__all__ = ["FaceTracker", "TrackedFace", "follow_box"]

# A track is lost whose mean score falls below this share of its score when the detector last confirmed it.
SCORE_SHARE = 0.8
# ... whose box grows or shrinks by more than this factor, or moves by more of its size, from a frame to the next,
LARGEST_GROWTH = 1.5
LARGEST_STEP = 0.5
# ... or that has less than this share of its box inside the picture.
INSIDE_SHARE = 0.25
# Overlap (intersection over union) from which a detection is the face of a track, and below which the crop starts
# anew from the detection: it has drifted.
SAME_FACE = 0.3
DRIFTED = 0.6
# Two tracks that overlap more than this follow the same face.
DOUBLE = 0.6
# Seconds that a lost face is remembered.
MEMORY = 2.0


@dataclass(frozen=True)
class TrackedFace:
    """A face in a frame.

    Attributes:
        id: Number of the face in the video, from 1.
        box: (4,) the box that its landmarks were found in, as (x, y, width, height) in pixels.
        keypoints: (L, 2) smoothed landmarks in pixels.
        raw_keypoints: (L, 2) landmarks as the model found them.
        scores: (L,) scores of the landmarks.
        roll: Degrees by which the box is turned clockwise about its middle.
    """

    id: int
    box: np.ndarray
    keypoints: np.ndarray
    raw_keypoints: np.ndarray
    scores: np.ndarray
    roll: float = 0.0


@dataclass
class _Track:
    """What is known of a face: where it is, and how the detector last saw it."""

    id: int
    box: np.ndarray
    reference_box: np.ndarray
    smooth: FaceSmoother | None
    reference_points: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    points: np.ndarray = field(default_factory=lambda: np.empty((0, 2)))
    scores: np.ndarray = field(default_factory=lambda: np.empty(0))
    roll: float = 0.0
    reference_roll: float = 0.0
    confirmed_score: float = 0.0
    confirmed_frame: int = 0
    lost_since: float | None = None


class FaceTracker:
    """Finds the faces of one video frame after the other.

    Args:
        find: `find(image, boxes)` returns for each box a mapping with `keypoints` (L, 2), `scores` (L,) and, where
            they were found in a turned crop, its `roll`. A box is a `FaceBox`, or what `detect` returned.
        detect: `detect(image)` returns the boxes of the faces, of any kind that `find` takes; None follows the given
            faces only.
        detect_every: Frames from a look of the detector to the next.
        smoothing: Makes the filter of a face; None leaves landmarks as they are found.
        boxes: Faces of the first frame; the detector looks at it if None.

    Raises:
        ValueError: If `detect_every` is not positive, or there is neither a detector nor a box.
    """

    def __init__(
        self,
        find: Callable[[Any, list[Any]], Sequence[Any]],
        detect: Callable[[Any], Sequence[Any]] | None,
        detect_every: int = 15,
        smoothing: Callable[[], FaceSmoother] | None = FaceSmoother,
        boxes: Sequence[Sequence[float]] | None = None,
    ):
        if detect_every < 1:
            raise ValueError(f"detect_every must be at least 1, not {detect_every}.")
        if detect is None and boxes is None:
            raise ValueError("Give a detector, or the faces of the first frame.")
        self._find, self._detect, self._smoothing = find, detect, smoothing
        self.detect_every = detect_every
        self._given = boxes
        self._tracks: list[_Track] = []
        self._next_id = 1
        self._last_search = -1
        self._shape: tuple[int, ...] | None = None

    def wants_detections(self, index: int) -> bool:
        """Whether the detector looks at a frame in any case, so that it may do so beforehand."""
        return self._detect is not None and index % self.detect_every == 0 and not (self._given and index == 0)

    def __call__(
        self, image: np.ndarray, index: int, time: float, detections: Sequence[Sequence[float]] | None = None
    ) -> list[TrackedFace]:
        """Find the faces of the next frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            index: Number of the frame, from 0.
            time: Its time in seconds.
            detections: What the detector finds in it, where `wants_detections` says so and it has looked already.

        Returns:
            The faces, by id.
        """
        if self._shape not in (None, image.shape[:2]):  # pixels mean something else now
            for track in self._live():
                track.lost_since = time
        self._shape = image.shape[:2]
        self._follow(image, index, time)
        if index == 0 and self._given:
            self._start(image, [np.asarray(box, dtype=np.float64) for box in self._given], index)
        elif detections is None and self._must_detect(index):
            detections = self._detect(image)  # type: ignore[misc]
        if detections is not None:
            self._last_search = index
            self._match(image, list(detections), index, time)
        self._tracks = [
            track for track in self._tracks if track.lost_since is None or time - track.lost_since < MEMORY
        ]
        return [self._report(track, time) for track in sorted(self._live(), key=lambda track: track.id)]

    def _live(self) -> list[_Track]:
        return [track for track in self._tracks if track.lost_since is None]

    def _must_detect(self, index: int) -> bool:
        """Look when the time has come, and while a face is lost four times as often."""
        if self._detect is None:
            return False
        lost = [track for track in self._tracks if track.lost_since is not None]
        return self.wants_detections(index) or bool(lost and (index - self._last_search) * 4 >= self.detect_every)

    def _follow(self, image: np.ndarray, index: int, time: float) -> None:
        """Find the landmarks of the known faces, in crops that follow the landmarks of the last frame."""
        tracks = self._live()
        boxes = [follow_box(track.reference_box, track.reference_points, track.points) for track in tracks]
        turned = [FaceBox(box, _follow_roll(track)) for track, box in zip(tracks, boxes, strict=True)]
        for track, box, face in zip(tracks, boxes, self._found(image, turned), strict=True):
            points, scores, roll = face
            if _is_plausible(track, box, points, scores, image.shape):
                track.box, track.points, track.scores, track.roll = box, points, scores, roll
            else:
                track.lost_since = time
        for track in sorted(self._live(), key=lambda track: track.scores.mean() / track.confirmed_score):
            others = [other for other in self._live() if other is not track]
            if any(box_overlap(track.box, other.box) > DOUBLE for other in others):
                track.lost_since = time

    def _match(self, image: np.ndarray, boxes: list[Any], index: int, time: float) -> None:
        """Confirm the known faces by detections, find lost ones again, and begin new ones."""
        live = self._live()
        confirmed = _pairs(live, boxes, lambda track, box: 1 - box_overlap(track.box, box), 1 - SAME_FACE)
        renewed: list[tuple[_Track, Any]] = []
        for track, box in confirmed:
            if box_overlap(track.box, box) < DRIFTED:
                renewed.append((track, box))
            else:
                self._confirm(track, index)
        for track in live:
            is_confirmed = any(track is other for other, _ in confirmed)
            if not is_confirmed and index - track.confirmed_frame >= 2 * self.detect_every:
                track.lost_since = time
        taken = [box for _, box in confirmed]
        free = [box for box in boxes if not any(box is other for other in taken)]
        lost = [track for track in self._tracks if track.lost_since is not None]
        found = _pairs(lost, free, _distance, 1.0)
        renewed += found
        self._renew(image, renewed, index)
        taken = [box for _, box in found]
        self._start(image, [box for box in free if not any(box is other for other in taken)], index)

    def _start(self, image: np.ndarray, boxes: list[Any], index: int) -> None:
        """Begin to follow new faces, the largest first as the detector gives them."""
        new: list[tuple[_Track, Any]] = []
        for box in boxes:
            smooth = self._smoothing() if self._smoothing else None
            place = np.asarray(box, dtype=np.float64)
            new.append((_Track(self._next_id, place, place, smooth), box))
            self._next_id += 1
        self._renew(image, new, index)
        self._tracks += [track for track, _ in new]

    def _renew(self, image: np.ndarray, faces: list[tuple[_Track, Any]], index: int) -> None:
        """Let tracks go on from the boxes of detections."""
        boxes = [box for _, box in faces]
        for (track, box), (points, scores, roll) in zip(faces, self._found(image, boxes), strict=True):
            if track.lost_since is not None and track.smooth is not None:
                track.smooth.reset()
            track.lost_since = None
            track.box = track.reference_box = np.asarray(box, dtype=np.float64)
            track.roll = track.reference_roll = roll
            track.points = track.reference_points = points
            track.scores = scores
            self._confirm(track, index)

    @staticmethod
    def _confirm(track: _Track, index: int) -> None:
        track.confirmed_frame, track.confirmed_score = index, float(track.scores.mean())

    def _found(self, image: np.ndarray, boxes: list[Any]) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """Return the landmarks in boxes, their scores, and by how much each crop was turned."""
        if not boxes:
            return []
        faces = self._find(image, boxes)
        read = [[np.asarray(face[name], dtype=np.float64) for name in ("keypoints", "scores")] for face in faces]
        rolls = [float(face["roll"]) if "roll" in face else 0.0 for face in faces]
        return [(points, scores, roll) for (points, scores), roll in zip(read, rolls, strict=True)]

    @staticmethod
    def _report(track: _Track, time: float) -> TrackedFace:
        size = float(np.sqrt(track.box[2] * track.box[3]))
        smooth = track.points if track.smooth is None else track.smooth(track.points, time, size)
        return TrackedFace(track.id, track.box, smooth, track.points, track.scores, track.roll)


def follow_box(box: np.ndarray, points_then: np.ndarray, points_now: np.ndarray) -> np.ndarray:
    """Move and scale a box as the landmarks have moved since.

    The similarity between the two sets of points in the sense of least squares says how; no scheme need span the
    face. Where a turn of the head moves the points' center off the box's, the box follows the turn, too.

    Args:
        box: (x, y, width, height), the box as it was.
        points_then: (L, 2) landmarks in that box.
        points_now: (L, 2) the same landmarks now.

    Returns:
        (4,) the box now, of the same proportions.
    """
    corner, size = np.asarray(box[:2], dtype=np.float64), np.asarray(box[2:], dtype=np.float64)
    center_then, center_now = points_then.mean(axis=0), points_now.mean(axis=0)
    along, across = _similarity(points_then, points_now)
    scale = float(np.hypot(along, across))
    offset = corner + size / 2 - 0.5 - center_then  # edges to pixel centers
    turned = np.array([along * offset[0] - across * offset[1], across * offset[0] + along * offset[1]])
    return np.concatenate([center_now + turned + 0.5 - scale * size / 2, scale * size])


def _similarity(points_then: np.ndarray, points_now: np.ndarray) -> tuple[float, float]:
    """Return the similarity between centered points (L, 2) in the sense of least squares, as a complex factor."""
    then, now = points_then - points_then.mean(axis=0), points_now - points_now.mean(axis=0)
    spread = float((then**2).sum())
    if spread == 0:  # a single point moves only
        return 1.0, 0.0
    across = float((then[:, 0] * now[:, 1] - then[:, 1] * now[:, 0]).sum()) / spread
    return float((then * now).sum()) / spread, across


def _follow_roll(track: _Track) -> float:
    """Turn a roll as the landmarks have turned since, in degrees in [-180, 180)."""
    along, across = _similarity(track.reference_points, track.points)
    return float(wrapped(track.reference_roll + np.degrees(np.arctan2(across, along))))


def _is_plausible(
    track: _Track, box: np.ndarray, points: np.ndarray, scores: np.ndarray, shape: Sequence[int]
) -> bool:
    if not (np.isfinite(points).all() and np.isfinite(box).all() and (box[2:] >= 2).all()):
        return False
    next_box = follow_box(track.reference_box, track.reference_points, points)
    growth = np.sqrt((next_box[2] * next_box[3]) / (box[2] * box[3]))
    step = np.abs(_center(next_box) - _center(box)) / box[2:]
    low, high = np.maximum(next_box[:2], 0), np.minimum(next_box[:2] + next_box[2:], [shape[1], shape[0]])
    inside = np.maximum(high - low, 0).prod() / next_box[2:].prod() if (next_box[2:] > 0).all() else 0.0
    return bool(
        1 / LARGEST_GROWTH < growth < LARGEST_GROWTH
        and (step < LARGEST_STEP).all()
        and inside >= INSIDE_SHARE
        and scores.mean() >= SCORE_SHARE * track.confirmed_score
    )


def _pairs(
    tracks: list[_Track], boxes: list[Any], cost: Callable[[_Track, np.ndarray], float], limit: float
) -> list[tuple[_Track, Any]]:
    """Pair tracks and boxes, the cheapest pair first, each at most once, as long as the cost is below a limit."""
    places = [np.asarray(box, dtype=np.float64) for box in boxes]
    costs = sorted(
        (cost(track, place), row, column) for row, track in enumerate(tracks) for column, place in enumerate(places)
    )
    pairs: list[tuple[int, int]] = []
    for value, row, column in costs:
        if value < limit and all(row != other_row and column != other for other_row, other in pairs):
            pairs.append((row, column))
    return [(tracks[row], boxes[column]) for row, column in pairs]


def _distance(track: _Track, box: np.ndarray) -> float:
    """Distance of a lost face from a box in their mean size; without limit where the sizes differ twofold."""
    sizes = np.sqrt([track.box[2:].prod(), box[2:].prod()])
    if sizes.max() > 2 * sizes.min():
        return float("inf")
    return float(np.linalg.norm(_center(track.box) - _center(box)) / sizes.mean())


def _center(box: np.ndarray) -> np.ndarray:
    return box[:2] + box[2:] / 2
