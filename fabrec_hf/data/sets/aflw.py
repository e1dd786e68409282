"""AFLW (Koestinger et al., 2011) with the 19 points of Zhu et al. (CVPR 2016): strong poses, hidden points too."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...model.known_schemes import get_scheme
from ..source import FaceSource, Row
from .raw_files import box_of_corners, find_file, picture_folder, read_mat


__all__ = ["TRAIN_COUNT", "open_source"]

TRAIN_COUNT = 20_000
"""Faces of the training set; the test set is the rest."""

_LAYOUT = "AFLWinfo_release.mat, and the pictures 0/image00002.jpg and so on in data/flickr/, flickr/ or images/"
_PICTURES = ("data/flickr", "flickr", "images")
_POINTS = 19


def open_source(path: Path) -> FaceSource:
    """Open AFLW by `AFLWinfo_release.mat`.

    The splits are `train`, the faces of the first 20,000 numbers of the file's permutation `ra`, and `test`, those of
    the other 4,386; each in the order of the file, whose first face has number 0. `name` is `PICTURE#NUMBER`. The
    paper's authors keep the same faces in the same order, but only those that a table of their own, which is not
    published, has too: it may be fewer.

    A point that is hidden, or beyond the edge of the picture, is annotated all the same, and kept: public code drops
    none, and published errors are means over all 19. `visibility` says which are hidden; the subset `frontal` is the
    test faces without any. NaN are only points that are not numbers, or lie exactly at (0, 0), MATLAB's filling.
    Points and boxes are taken as they stand in the file.

    Args:
        path: The folder of the MATLAB file and of the pictures.

    Raises:
        DataError: If the MATLAB file or its first picture is missing, or the file is malformed.
    """
    file = find_file([path / "AFLWinfo_release.mat"], _LAYOUT)
    names = _read(file).names
    folder = picture_folder([path / name for name in _PICTURES], names[0], file, _LAYOUT)
    return FaceSource(
        kind="aflw",
        splits={
            "train": partial(_rows, file, folder, 0, TRAIN_COUNT),
            "test": partial(_rows, file, folder, TRAIN_COUNT, None),
        },
        scheme=get_scheme("aflw"),
        files=(file,),
        visibility=True,
        split_by_face=True,
    )


@dataclass(frozen=True)
class _Annotations:
    """The faces in the order of the file.

    Attributes:
        names: N pictures.
        points: (N, 19, 2), NaN where there is none.
        visible: (N, 19) booleans.
        boxes: (N, 4) as x1, x2, y1, y2.
        order: (N,) the permutation that divides them, from 0.
    """

    names: list[str]
    points: np.ndarray
    visible: np.ndarray
    boxes: np.ndarray
    order: np.ndarray


def _read(file: Path) -> _Annotations:
    names, *values = read_mat(file, "nameList", "data", "mask_new", "bbox", "ra")
    names = [names] if isinstance(names, str) else list(names)
    if not names or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} has no list of pictures in its variable nameList.")
    try:
        points = np.asarray(values[0], dtype=np.float64).reshape(len(names), 2, _POINTS).transpose(0, 2, 1)
        mask = np.asarray(values[1], dtype=np.float64).reshape(len(names), _POINTS)
        boxes = np.asarray(values[2], dtype=np.float64).reshape(len(names), 4)
        order = np.asarray(values[3], dtype=np.int64).reshape(len(names)) - 1
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{file} does not have, for each of its {len(names)} pictures, 38 numbers in data, 19 in mask_new, 4 in "
            "bbox and 1 in ra."
        ) from error
    if not np.array_equal(np.sort(order), np.arange(len(names))):
        raise DataError(f"{file}: ra is not a permutation of the numbers from 1 to {len(names)}.")
    missing = ~np.isfinite(points).all(-1) | (points == 0).all(-1)
    return _Annotations(names, np.where(missing[..., None], np.nan, points), mask == 1, boxes, order)


def _rows(file: Path, folder: Path, start: int, stop: int | None) -> Iterator[Row]:
    faces = _read(file)
    for number in np.sort(faces.order[start:stop]).tolist():
        x1, x2, y1, y2 = faces.boxes[number].tolist()
        yield {
            "image": folder / faces.names[number],
            "landmarks": faces.points[number],
            "box": box_of_corners(x1, y1, x2, y2),
            "visibility": faces.visible[number].tolist(),
            "name": f"{faces.names[number]}#{number}",
            "picture": faces.names[number],
        }
