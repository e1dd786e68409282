"""Data sets as people have them: columns of other names, and faces without boxes."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .face_boxes import points_box
from .face_table import FaceTable


if TYPE_CHECKING:
    import datasets


__all__ = ["DERIVED", "adapt_columns"]

logger = logging.getLogger(__name__)

DERIVED = {"box": "landmarks"}
"""Columns that may be missing, and the column that they are made from."""

ROWS = 1024
"""Annotations that are read at a time."""


def adapt_columns(
    faces: "datasets.Dataset | datasets.IterableDataset",
    columns: Sequence[str],
    names: Mapping[str, str] | None = None,
    source: str = "The data",
) -> "datasets.Dataset | datasets.IterableDataset":
    """Give a data set the columns that the package reads.

    Columns are renamed, what holds pictures is decoded as pictures, points that come as (x, y, visibility) lose the
    third number (0 means that the point is not annotated, as in COCO), and boxes that are asked for but missing become
    the tight boxes of the points. The last is said in one line of the log.

    Args:
        faces: The rows. One column may stand in for several.
        columns: What is needed of `image`, `landmarks`, `box` and others.
        names: For a column of the package, what it is called here: `{"landmarks": "keypoints", "box": "bbox"}`.
        source: What the rows are called in an error.

    Raises:
        DataError: If a column is missing.
    """
    for name, here in (names or {}).items():
        if here not in faces.column_names:
            raise DataError(f"{source} has no column {here}, found {', '.join(faces.column_names)}.")
        if here != name:
            faces = faces.remove_columns([name]) if name in faces.column_names else faces
            faces = faces.rename_column(here, name)
    found = list(faces.column_names)
    missing = [name for name in columns if name not in found and DERIVED.get(name) not in found]
    if missing:
        raise DataError(
            f"{source} has no column {', '.join(missing)}; expected {', '.join(columns)}, found {', '.join(found)}."
        )
    if "image" in found and not isinstance(faces, FaceTable):  # whose pictures are pictures already
        faces = _decode_images(faces)
    if "landmarks" in columns and _has_visibilities(faces):
        faces = _put_column(faces, "landmarks", "landmarks", _without_visibility)
    if "box" in columns and "box" not in found:
        logger.warning("%s has no column box: the box of a face is the tight box of its points.", source)
        faces = _put_column(faces, "box", "landmarks", _box_of)
    return faces


def _box_of(points: Any) -> list[float] | None:
    box = None if points is None else points_box(points)
    return None if box is None else box.tolist()


def _decode_images(faces: Any) -> Any:
    """Declare the column `image` to hold pictures, if its files do not say so."""
    import datasets

    declared = isinstance((faces.features or {}).get("image"), datasets.Image)
    return faces if declared else faces.cast_column("image", datasets.Image())


def _has_visibilities(faces: "datasets.Dataset | datasets.IterableDataset") -> bool:
    """Tell from the first row whether points have three numbers."""
    first = next(iter(faces.select_columns(["landmarks"])), None)
    point = next((point for point in (first or {}).get("landmarks") or [] if point is not None), None)
    return isinstance(point, (list, tuple, np.ndarray)) and len(point) == 3


def _without_visibility(points: Any) -> Any:
    if points is None:
        return None
    return [None if point is None else [float("nan")] * 2 if not point[2] else list(point[:2]) for point in points]


def _put_column(faces: Any, name: str, origin: str, make: Any) -> Any:
    """Set a column to what `make` says of each value of another one, without copying the pictures."""
    if isinstance(faces, FaceTable):
        return faces.add_column(name, _make_values(faces, origin, make))
    import datasets

    if isinstance(faces, datasets.IterableDataset):
        return faces.map(lambda value: {name: make(value)}, input_columns=[origin])
    values = _make_values(faces, origin, make)
    if name in faces.column_names:
        faces = faces.remove_columns([name])
    number = datasets.List(datasets.Value("float32"))
    feature = number if name == "box" else datasets.List(number)
    return faces.add_column(name, values, feature=feature)


def _make_values(faces: Any, origin: str, make: Any) -> list[Any]:
    column = faces.select_columns([origin])
    return [make(value) for start in range(0, len(faces), ROWS) for value in column[start : start + ROWS][origin]]
