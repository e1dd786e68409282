"""WFLW (Wu et al., CVPR 2018): 98 points, and six attributes whose subsets are evaluated on their own."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import datasets
import numpy as np

from ...errors import DataError
from ...model.known_schemes import get_scheme
from ..source import FaceSource, Row
from .raw_files import box_of_corners, find_file, find_pictures, numbers, text_lines


__all__ = ["ATTRIBUTES", "open_source"]

ATTRIBUTES = ("pose", "expression", "illumination", "make_up", "occlusion", "blur")
"""Columns of 0 or 1, in the order of the lists."""

_LISTS = "WFLW_annotations/list_98pt_rect_attr_train_test"
_LAYOUT = f"{_LISTS}/list_98pt_rect_attr_train.txt, list_98pt_rect_attr_test.txt beside it, and WFLW_images/"
_COORDINATES = 2 * 98
_FIELDS = _COORDINATES + 4 + len(ATTRIBUTES) + 1


def open_source(path: Path) -> FaceSource:
    """Open WFLW as it is distributed: `WFLW_annotations/` beside `WFLW_images/`.

    The splits are the official `train` (7,500 faces) and `test` (2,500), in the order of the lists; the test set's
    subsets are the attributes. The box is the rectangle of the lists. Points and rectangles are taken as they stand
    there, as the paper's authors do. Several faces share a picture, so `name` is `PICTURE#LINE`.

    Args:
        path: The folder that holds both.

    Raises:
        DataError: If a list is missing or malformed, or its first picture is not there.
    """
    lists = {
        split: find_file([path / _LISTS / f"list_98pt_rect_attr_{split}.txt"], _LAYOUT) for split in ("train", "test")
    }
    folder = path / "WFLW_images"
    for file in lists.values():
        first = next(_faces(file), None)
        if first is None:
            raise DataError(f"{file} lists no face.")
        find_pictures([folder], first["picture"], file, _LAYOUT)
    return FaceSource(
        kind="wflw",
        splits={split: partial(_rows, file, folder) for split, file in lists.items()},
        scheme=get_scheme("wflw"),
        files=tuple(lists.values()),
        extend_bottom=0.10,
        attributes={name: datasets.Value("int8") for name in ATTRIBUTES},
    )


def _rows(file: Path, folder: Path) -> Iterator[Row]:
    for face in _faces(file):
        yield face | {"image": folder / face["picture"]}


def _faces(file: Path) -> Iterator[Row]:
    """Yield what the list says of each face."""
    for number, line in enumerate(text_lines(file), start=1):
        fields = line.split()
        if not fields:
            continue
        place = f"{file}, line {number}"
        if len(fields) != _FIELDS:
            raise DataError(
                f"{place} has {len(fields)} fields, not {_FIELDS}: 98 points, 4 numbers of the box, 6 attributes and "
                "the picture."
            )
        values = numbers(fields[:-1], place)
        attributes = values[_COORDINATES + 4 :]
        if not set(attributes) <= {0, 1}:
            raise DataError(f"{place} has an attribute that is neither 0 nor 1.")
        yield {
            "landmarks": np.array(values[:_COORDINATES]).reshape(-1, 2),
            "box": box_of_corners(*values[_COORDINATES : _COORDINATES + 4]),
            "name": f"{fields[-1]}#{number}",
            "picture": fields[-1],
            **dict(zip(ATTRIBUTES, map(int, attributes), strict=True)),
        }
