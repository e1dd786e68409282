"""The landmarks and boxes of annotated faces as arrays, checked row by row."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..common.choices import COLUMNS
from ..errors import DataError


if TYPE_CHECKING:
    import datasets


__all__ = ["COLUMNS", "ROWS", "annotation_pieces", "annotations", "count_points", "to_arrays"]

ROWS = 1024
"""Annotations that are read at a time; one picture takes more memory than all of them."""


def annotations(dataset: "datasets.Dataset") -> tuple[np.ndarray, np.ndarray]:
    """Return the landmarks (N, L, 2) and boxes (N, 4) of a data set.

    Raises:
        DataError: If a column is missing, there is no face, or a row has no usable box or landmarks.
    """
    targets, boxes = np.empty((len(dataset), count_points(dataset), 2)), np.empty((len(dataset), 4))
    for start, found, found_boxes in annotation_pieces(dataset, targets.shape[1]):
        targets[start : start + ROWS], boxes[start : start + ROWS] = found, found_boxes
    return targets, boxes


def count_points(dataset: "datasets.Dataset") -> int:
    """Return how many points the first face has."""
    missing = [name for name in COLUMNS if name not in dataset.column_names]
    if missing:
        raise DataError(f"The data has no column {', '.join(missing)}; it takes {', '.join(COLUMNS)} to evaluate.")
    if not len(dataset):
        raise DataError("The data holds no face.")
    targets, _ = to_arrays(dataset.select_columns(["landmarks", "box"])[:1], 0)
    return targets.shape[1]


def annotation_pieces(dataset: "datasets.Dataset", num_points: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield (first row, landmarks, boxes) over all rows."""
    columns = dataset.select_columns(["landmarks", "box"])
    for start in range(0, len(dataset), ROWS):
        targets, boxes = to_arrays(columns[start : start + ROWS], start)
        if targets.shape[1] != num_points:
            raise DataError(f"Row {start} has {targets.shape[1]} landmarks, the first row has {num_points}.")
        yield start, targets, boxes


def to_arrays(columns: Mapping[str, list], start: int) -> tuple[np.ndarray, np.ndarray]:
    """Return landmarks (n, L, 2) and boxes (n, 4) of rows `start` and following as float64."""
    for name, what in (("landmarks", "landmarks"), ("box", "face box")):
        if any(value is None for value in columns[name]):
            row = start + next(index for index, value in enumerate(columns[name]) if value is None)
            raise DataError(f"Row {row} has no {what}; leave such rows out.")
    try:
        targets = np.array(columns["landmarks"], dtype=np.float64)
        boxes = np.array(columns["box"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            "Every row must have the same number of landmarks, and a box (x, y, width, height)."
        ) from error
    if targets.ndim != 3 or targets.shape[-1] != 2 or boxes.ndim != 2 or boxes.shape[-1] != 4:
        raise DataError(f"Landmarks must be (L, 2) and boxes (4,), not {targets.shape[1:]} and {boxes.shape[1:]}.")
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
    if bad.any():
        index = int(np.argmax(bad))
        box = boxes[index].tolist()
        raise DataError(f"Row {start + index} has a box without area: {box} as (x, y, width, height).")
    return targets, boxes
