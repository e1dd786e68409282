"""WFLW (Wu et al., CVPR 2018): 98 points, and six attributes whose subsets are evaluated on their own.

Its lists, a face a line, are also what other sets of 98 points are written as.
"""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import datasets
import numpy as np

from ...errors import DataError
from ...model.known_schemes import get_scheme
from ..face_set import find_face_set
from ..formats.layouts import files_by_split, option_folder, refuse_split
from ..source import FaceSource, Row
from ..split_names import SPLITS, canonical_split
from .raw_files import box_of_corners, find_file, numbers, picture_folder, text_lines


__all__ = ["ATTRIBUTES", "LISTS", "LIST_NAME", "NUM_POINTS", "PICTURES", "open_source"]

ATTRIBUTES = ("pose", "expression", "illumination", "make_up", "occlusion", "blur")
"""Columns of 0 or 1, in the order of the lists."""

LISTS, LIST_NAME = "WFLW_annotations/list_98pt_rect_attr_train_test", "list_98pt_rect_attr"
"""Where the lists are, and what their names begin with, before the split."""

PICTURES = "WFLW_images"
NUM_POINTS = 98

_LAYOUT = f"{LISTS}/{LIST_NAME}_train.txt, {LIST_NAME}_test.txt beside it, and {PICTURES}/"
_COORDINATES = 2 * NUM_POINTS
_FIELDS = _COORDINATES + 4 + len(ATTRIBUTES) + 1


def open_source(path: Path, split: str | None = None, images: str | os.PathLike | None = None) -> FaceSource:
    """Open WFLW as it is distributed, `WFLW_annotations/` beside `WFLW_images/`, an export like it, or a list alone.

    The splits are the official `train` (7,500 faces) and `test` (2,500), in the order of the lists; the test set's
    subsets are the attributes. The box is the rectangle of the lists. Points and rectangles are taken as they stand
    there, as the paper's authors do. Several faces share a picture, so `name` is `PICTURE#LINE`.

    Args:
        path: The folder that holds both, a list, or a folder of lists.
        split: What to call the split of a list alone; what its name says, else `"train"`, by default.
        images: Folder of the pictures; else they are in `WFLW_images/`, or beside a list that is alone.

    Raises:
        DataError: If a list is missing or malformed, or its first picture is not there.
    """
    known = find_face_set(path)  # what an export of this package says of itself
    lists, is_published = _lists(path, split, exported=known is not None)
    folder = _picture_folder(path, lists, images)
    for file in lists.values():
        first = next(_faces(file), None)
        if first is None:
            raise DataError(f"{file} lists no face.")
        picture_folder([folder], first["picture"], file, _LAYOUT)
    return FaceSource(
        kind="wflw",
        splits={split: partial(_rows, file, folder) for split, file in lists.items()},
        scheme=get_scheme("wflw"),
        files=tuple(lists.values()),
        extend_top=known.extend_top if known else 0.0,
        extend_bottom=known.extend_bottom if known else 0.10,
        attributes={name: datasets.Value("int8") for name in ATTRIBUTES},
        unverified=not (known or is_published),
    )


def _lists(path: Path, split: str | None, exported: bool) -> tuple[dict[str, Path], bool]:
    """Return the list of every split, and whether these are the two of the published set."""
    if path.is_file():
        return files_by_split([path], split), False
    if exported and (path / LISTS).is_dir():
        found = sorted((path / LISTS).glob(f"{LIST_NAME}_*.txt"))
        refuse_split(split, path)
        named = {canonical_split(file.stem.removeprefix(f"{LIST_NAME}_"), str(file)): file for file in found}
        return {name: named[name] for name in dict.fromkeys([*SPLITS.values(), *named]) if name in named}, False
    alone = sorted(path.glob(f"{LIST_NAME}*.txt"))
    if alone:
        return files_by_split(alone, split), False
    refuse_split(split, path)
    both = {name: find_file([path / LISTS / f"{LIST_NAME}_{name}.txt"], _LAYOUT) for name in ("train", "test")}
    return both, True


def _picture_folder(path: Path, lists: dict[str, Path], images: str | os.PathLike | None) -> Path:
    """Return the folder of the pictures: the given one, `WFLW_images/` of the set, or that of a list alone."""
    if images is not None:
        return option_folder(images, path if path.is_dir() else path.parent, "pictures")
    beside = next(iter(lists.values())).parent
    places = [path, beside, *list(beside.parents)[:2]]
    return next((place / PICTURES for place in places if (place / PICTURES).is_dir()), beside)


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
