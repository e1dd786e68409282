"""VGGFace2 (Cao et al., FG 2018): 3.3 million faces of 9,131 people, without landmarks."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import datasets

from ...errors import DataError
from ..source import FaceSource, Row
from .raw_files import csv_lines, find_file, numbers, picture_folder


__all__ = ["open_source"]

_LAYOUT = "bb_landmark/loose_bb_train.csv and pictures train/n000002/0001_01.jpg or train/imgs/..., the same for test"
_COLUMNS = ("NAME_ID", "X", "Y", "W", "H")


def open_source(path: Path, min_height: float = 100) -> FaceSource:
    """Open VGGFace2 as it is distributed, with the loose boxes of `bb_landmark/`.

    The splits are the official `train` and `test`, as far as their folders of pictures are there, in the order of the
    lists (the paper's authors shuffle without a seed). `identity` is the person, such as `n000002`. The lists are
    read line by line and of their pictures only the first is looked for.

    Args:
        path: The folder of `bb_landmark/`, `train/` and `test/`.
        min_height: Faces whose box is higher than this many pixels are kept, the others left out; the paper's
            authors take 100.

    Raises:
        DataError: If a list or its first picture is missing, or a list is malformed.
    """
    present = [split for split in ("train", "test") if (path / split).is_dir()]
    if not present:
        raise DataError(f"{path} has neither a folder train nor test; expected {_LAYOUT}.")
    lists = {split: find_file([path / "bb_landmark" / f"loose_bb_{split}.csv"], _LAYOUT) for split in present}
    return FaceSource(
        kind="vggface2",
        splits={
            split: partial(_rows, file, _pictures(file, path / split), min_height) for split, file in lists.items()
        },
        files=tuple(lists.values()),
        extend_top=0.05,
        extend_bottom=0.10,
        attributes={"identity": datasets.Value("string")},
    )


def _pictures(file: Path, folder: Path) -> Path:
    first = next(_faces(file), None)
    if first is None:
        raise DataError(f"{file} lists no face.")
    return picture_folder([folder, folder / "imgs"], f"{first['name']}.jpg", file, _LAYOUT)


def _rows(file: Path, folder: Path, min_height: float) -> Iterator[Row]:
    for face in _faces(file):
        if face["box"][3] > min_height:
            yield face | {"image": folder / f"{face['name']}.jpg"}


def _faces(file: Path) -> Iterator[Row]:
    """Yield what the list says of each face."""
    lines = csv_lines(file)
    header = next(lines, ("", []))[1]
    if tuple(name.strip().upper() for name in header) != _COLUMNS:
        raise DataError(f"{file} does not start with the columns {','.join(_COLUMNS)}.")
    for place, fields in lines:
        if len(fields) != len(_COLUMNS):
            raise DataError(f"{place} has {len(fields)} fields, not {len(_COLUMNS)}: {','.join(_COLUMNS)}.")
        name = fields[0]
        yield {
            "box": tuple(numbers(fields[1:], place)),
            "name": name,
            "picture": name,
            "identity": name.split("/")[0],
        }
