"""AffectNet (Mollahosseini et al., 2017), the manually annotated part: faces with expressions, without landmarks."""

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import datasets
import numpy as np

from ...errors import DataError
from ..source import FaceSource, Row
from .raw_files import csv_lines, find_file, numbers, picture_folder


__all__ = ["EXPRESSIONS", "open_source"]

EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
"""What the values of the column `expression` mean."""

_LAYOUT = "training.csv and validation.csv, and the pictures in Manually_Annotated_Images/"
_LISTS = (".", "Manually_Annotated_file_lists")
_PICTURES = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", "cropped_Annotated", ".")
_PATH, _BOX = "subDirectory_filePath", ("face_x", "face_y", "face_width", "face_height")
# The columns of a list without a header, in its order.
_COLUMNS = (_PATH, *_BOX, "facial_landmarks", "expression", "valence", "arousal")
_NEEDED = (_PATH, *_BOX, "expression", "valence", "arousal")
_NO_NUMBER = ("", "null", "nan")


def open_source(path: Path) -> FaceSource:
    """Open AffectNet as it is distributed.

    The splits are `train` (`training.csv`) and `validation` (`validation.csv`, which may lack a header), in the order
    of the lists. Kept are faces with one of the eight `EXPRESSIONS` and a box: the other rows are no face, no such
    expression or uncertain. The columns `expression`, `valence` and `arousal` are the annotators'.

    The boxes are (x, y, width, height), as the lists' columns say; the paper's authors' released code takes width and
    height for the right and bottom edges. The 68 points of the lists are left out: a program found them.

    Only the first picture of each list is looked for.

    Args:
        path: The folder of the lists, or of `Manually_Annotated_file_lists/`, and of the folder of pictures.

    Raises:
        DataError: If a list or its first picture is missing, or a list is malformed.
    """
    lists = {
        split: find_file([path / folder / f"{name}.csv" for folder in _LISTS], _LAYOUT)
        for split, name in (("train", "training"), ("validation", "validation"))
    }
    return FaceSource(
        kind="affectnet",
        splits={split: partial(_rows, file, _pictures(file, path)) for split, file in lists.items()},
        files=tuple(lists.values()),
        extend_top=0.05,
        extend_bottom=0.25,
        attributes={
            "expression": datasets.Value("int8"),
            "valence": datasets.Value("float32"),
            "arousal": datasets.Value("float32"),
        },
    )


def _pictures(file: Path, path: Path) -> Path:
    first = next(_faces(file), None)
    if first is None:
        raise DataError(f"{file} lists no face with one of the {len(EXPRESSIONS)} expressions.")
    return picture_folder([path / folder for folder in _PICTURES], first["picture"], file, _LAYOUT)


def _rows(file: Path, folder: Path) -> Iterator[Row]:
    for face in _faces(file):
        yield face | {"image": folder / face["picture"]}


def _faces(file: Path) -> Iterator[Row]:
    """Yield what the list says of each face that is kept."""
    columns: tuple[str, ...] = ()
    for place, fields in csv_lines(file):
        if not columns:
            columns = _columns(file, fields)
            if _PATH in fields:
                continue
        if len(fields) != len(columns):
            raise DataError(f"{place} has {len(fields)} fields, not {len(columns)}: {','.join(columns)}.")
        values = dict(zip(columns, fields, strict=True))
        (expression,) = numbers([values["expression"]], place)
        if not 0 <= expression < len(EXPRESSIONS) or not _number(values["face_width"], place) > 0:
            continue
        # Rounded as it is stored, or a stream, which `datasets` does not cast, would give other values.
        valence, arousal = map(np.float32, numbers([values["valence"], values["arousal"]], place))
        yield {
            "box": tuple(numbers([values[name] for name in _BOX], place)),
            "name": values[_PATH],
            "picture": values[_PATH],
            "expression": int(expression),
            "valence": valence,
            "arousal": arousal,
        }


def _columns(file: Path, first: list[str]) -> tuple[str, ...]:
    """Return the names of the columns, from the first line if it is a header."""
    if _PATH not in first:
        return _COLUMNS
    missing = [name for name in _NEEDED if name not in first]
    if missing:
        raise DataError(f"{file} has no column {', '.join(missing)}.")
    return tuple(first)


def _number(text: str, place: str) -> float:
    """Parse a number that may be missing: NaN."""
    return math.nan if text.strip().lower() in _NO_NUMBER else numbers([text], place)[0]
