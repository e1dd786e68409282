"""The box of a face: what a given one means, how it becomes the box that faces are found by, and one made up.

Training and detection must crop alike. Faces are found by the tight box of the points from the brows to the chin, as
the face detector gives it. The boxes of annotations are often something else: the tight box of five points, a whole
head, corners instead of width and height.
"""

import io
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..model.face_detection import Detection, default_face_detector
from ..model.geometry import box_overlap
from .picture_files import heic_is_readable


__all__ = ["BoxPlan", "Relation", "detected_box", "is_tight", "points_box", "upright_boxes"]

# A box this near to the tight box of the points, in pixels and in units of its size, was made from them.
_TIGHT_PIXELS, _TIGHT_SHARE = 1.6, 0.02

# How a box is made by each rule: the first of these ways that gives one.
_WAYS = {
    "detector": ("detector", "converted", "points", "image"),
    "points": ("points", "converted", "image"),
    "image": ("converted", "image"),
    "none": (),
}


@dataclass(frozen=True)
class Relation:
    """How the boxes that faces are found by lie relative to the given ones, by the median.

    Attributes:
        shift: Distance of the centers (x, y), in units of the given width and height.
        ratio: Width and height, in units of the given ones.
        faces: How many faces it was measured on.
    """

    shift: tuple[float, float]
    ratio: tuple[float, float]
    faces: int

    def convert(self, box: np.ndarray) -> np.ndarray:
        """Return the box (x, y, width, height) that a given one stands for."""
        size = box[2:] * np.array(self.ratio)
        center = box[:2] + box[2:] * (0.5 + np.array(self.shift))
        return np.concatenate([center - size / 2, size]).astype(np.float32)


@dataclass(frozen=True)
class BoxPlan:
    """What becomes of the boxes of a set of faces.

    Attributes:
        missing: Where a face's box comes from that has none: `points`, `detector`, `image` or `none`.
        given: What becomes of the others: `keep`, `convert` by the relation, or `replace` as if there was none.
        corners: Whether the given boxes are (x1, y1, x2, y2).
        tight_is_none: Whether a given box that is the tight box of the points says nothing of the face.
        relation: What the given boxes stand for, where that was measured.
    """

    missing: str
    given: str = "keep"
    corners: bool = False
    tight_is_none: bool = False
    relation: Relation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    def box(
        self, given: np.ndarray | None, content: bytes, landmarks: np.ndarray | None, size: tuple[int, int]
    ) -> tuple[np.ndarray | None, str]:
        """Return a face's box (x, y, width, height) and where it comes from.

        Args:
            given: The box in the annotations, as width and height and upright, or None.
            content: The encoded picture.
            landmarks: (L, 2) points in pixels of the upright picture, NaN where not annotated; None without points.
            size: (width, height) of the upright picture.
        """
        if given is not None and self.tight_is_none and landmarks is not None and is_tight(given, landmarks):
            given = None
        if given is not None and self.given == "keep":
            return given, "given"
        meant = self.relation.convert(given) if given is not None and self.relation else given
        if meant is not None and self.given == "convert":
            return meant, "converted"
        # Points that are missing may be those at the rim, so that the others' box would be too small.
        rimless = self.relation is not None and landmarks is not None and bool(np.isnan(landmarks).any())
        if meant is not None and self.missing == "points" and rimless:
            return meant, "converted"
        made, rule = _make_box(self.missing, content, landmarks, size, meant)
        return made, "given" if rule == "converted" and self.relation is None else rule


def _make_box(
    rule: str, content: bytes, landmarks: np.ndarray | None, size: tuple[int, int], fallback: np.ndarray | None
) -> tuple[np.ndarray | None, str]:
    """Make up a face box as the rule says, or as the next one does where that is impossible; says which."""
    makers = {
        "detector": lambda: detected_box(content, landmarks, fallback),
        "points": lambda: None if landmarks is None else points_box(landmarks),
        "converted": lambda: fallback,
        "image": lambda: np.array([0.0, 0.0, *size], dtype=np.float32),
    }
    for way in _WAYS[rule]:
        box = makers[way]()
        if box is not None:
            return box.astype(np.float32), way
    return None, "none"


def points_box(landmarks: Any) -> np.ndarray | None:
    """Return the box of the annotated points.

    Args:
        landmarks: (L, 2) pixels; a point that is None or not finite is not annotated.

    Returns:
        (x, y, width, height) in float64; None where the points enclose no area.
    """
    points = np.array([point for point in landmarks if point is not None], dtype=np.float64).reshape(-1, 2)
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    return np.concatenate([low, high - low]) if (high > low).all() else None


def is_tight(box: np.ndarray, landmarks: np.ndarray) -> bool:
    """Whether a box is that of the points, but for what tools round."""
    tight = points_box(landmarks)
    if tight is None:
        return False
    edges = np.array([*box[:2], *(box[:2] + box[2:])]) - [*tight[:2], *(tight[:2] + tight[2:])]
    return bool(np.abs(edges).max() <= max(_TIGHT_PIXELS, _TIGHT_SHARE * tight[2:].max()))


def detected_box(content: bytes, landmarks: np.ndarray | None, near: np.ndarray | None = None) -> np.ndarray | None:
    """Return the detected face that holds most of the points; without points the one near a box, or the largest."""
    heic_is_readable()
    with Image.open(io.BytesIO(content)) as image:
        boxes = upright_boxes(default_face_detector()(image))
    if near is not None and (landmarks is None or np.isnan(landmarks).all()):
        return nearest_box(boxes, near)
    return box_of_points(boxes, landmarks)


def upright_boxes(found: Iterable[Detection]) -> np.ndarray:
    """Return the boxes (N, 4) of detected faces as upright ones, as boxes of annotations are.

    The box of a turned face is turned, too. Its points fill an ellipse more than they fill the corners, so that the
    upright box of the turned ellipse is about the tight box of the points.
    """
    boxes = []
    for face in found:
        x, y, width, height = face.box
        angle = math.radians(face.roll or 0.0)
        across = math.hypot(width * math.cos(angle), height * math.sin(angle))
        down = math.hypot(width * math.sin(angle), height * math.cos(angle))
        boxes.append((x + (width - across) / 2, y + (height - down) / 2, across, down))
    return np.array(boxes).reshape(-1, 4)


def nearest_box(boxes: np.ndarray, near: np.ndarray) -> np.ndarray | None:
    """Return the box that overlaps most with another one; None where none does by a tenth."""
    best = max(boxes, key=lambda box: box_overlap(box, near), default=None) if len(boxes) else None
    return None if best is None or box_overlap(best, near) < 0.1 else best.astype(np.float32)


def box_of_points(boxes: np.ndarray, landmarks: np.ndarray | None) -> np.ndarray | None:
    """Return the box that holds most of the points, if it holds half of them; the first where there are no points."""
    if not len(boxes):
        return None
    if landmarks is None or np.isnan(landmarks).all():
        return boxes[0].astype(np.float32)
    best = max(boxes, key=lambda box: share_inside(landmarks, box))
    return best.astype(np.float32) if share_inside(landmarks, best) >= 0.5 else None


def share_inside(landmarks: np.ndarray, box: np.ndarray) -> float:
    """Share of the annotated points in the box, grown by a quarter of its size: ears and brows lie outside."""
    margin = box[2:] / 4
    inside = ((landmarks >= box[:2] - margin) & (landmarks <= box[:2] + box[2:] + margin)).all(axis=1)
    return float(inside.sum() / max(1, (~np.isnan(landmarks).any(axis=1)).sum()))
