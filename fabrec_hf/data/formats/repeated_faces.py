"""Faces that a set holds more than once, since several people annotated the same picture."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


__all__ = ["REPEATED", "count_repeated"]

REPEATED = "faces are annotated more than once, as by a second annotator; all are kept"
"""What is said of them, after their number."""

# Mean distance of two faces' points, in units of the extent of the points, below which they are one face. Neighbors
# are a whole extent apart at least; two annotators differ by a few hundredths.
SAME_FACE = 0.25
LARGEST_CROWD = 200  # faces of one picture; the comparison of all pairs takes their square


def count_repeated(faces: Iterable[tuple[str, Sequence[Any]]]) -> int:
    """Count the faces that an earlier one of the same picture is already.

    Args:
        faces: The picture of each face, and its points as x, y, v for each, as COCO has them; v = 0: not annotated.
    """
    by_picture: dict[str, list[np.ndarray]] = defaultdict(list)
    for picture, keypoints in faces:
        by_picture[picture].append(_points(keypoints))
    repeated = 0
    for found in by_picture.values():
        if 1 < len(found) <= LARGEST_CROWD:
            repeated += sum(any(_same(face, other) for other in found[:i]) for i, face in enumerate(found))
    return repeated


def _points(keypoints: Sequence[Any]) -> np.ndarray:
    """Return (L, 2) points, NaN where one is not annotated or is no number."""
    numbers = [value if isinstance(value, (int, float)) else np.nan for value in keypoints]
    points = np.array(numbers, dtype=np.float64).reshape(-1, 3)
    return np.where(points[:, 2:] > 0, points[:, :2], np.nan)


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    if first.shape != second.shape:
        return False
    both = ~np.isnan(first + second).any(axis=1)
    if both.sum() < 2:
        return False
    extent = np.ptp(first[both], axis=0).max()
    distance = np.linalg.norm(first[both] - second[both], axis=1).mean()
    return bool(extent > 0 and distance < SAME_FACE * extent)
