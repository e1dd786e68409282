"""Faces on their way to an annotation tool: what every writer of a tool's files takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...model.known_schemes import LandmarkScheme
from .layouts import shortest


__all__ = ["FaceToWrite", "PictureToWrite", "labels_of", "plain_points"]


@dataclass(frozen=True)
class FaceToWrite:
    """A face to write.

    Attributes:
        points: (L, 2) in pixels; NaN: not annotated.
        visible: Whether each point is visible.
        box: (x, y, width, height) in pixels, if there is one.
        scores: How sure a detector is of each point, for proposals.
        attributes: What else is known of the face, by name.
    """

    points: np.ndarray
    visible: Sequence[bool]
    box: Sequence[float] | None = None
    scores: Sequence[float] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PictureToWrite:
    """A picture to write.

    Attributes:
        name: Its file, as the tool is to call it.
        size: (width, height) upright.
        bytes: The size of its file.
        faces: What is annotated.
    """

    name: str
    size: tuple[int, int]
    bytes: int
    faces: Sequence[FaceToWrite]


def labels_of(scheme: LandmarkScheme) -> tuple[str, ...]:
    """Return the labels of a scheme's points: their names, else their numbers from 0."""
    return scheme.point_names or tuple(map(str, range(scheme.num_landmarks)))


def plain_points(face: FaceToWrite) -> list[tuple[float, float] | None]:
    """Return the points of a face as numbers with no more digits than they need; None: not annotated."""
    return [
        (shortest(x), shortest(y)) if np.isfinite(x) and np.isfinite(y) else None
        for x, y in np.asarray(face.points, dtype=np.float32)
    ]
