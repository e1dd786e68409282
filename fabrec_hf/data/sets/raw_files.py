"""What the readers of the published sets share: finding pictures, and reading lists, CSV and MATLAB files."""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError


__all__ = ["box_of_corners", "csv_lines", "find_file", "picture_folder", "numbers", "read_mat", "text_lines"]


def find_file(candidates: Sequence[Path], layout: str) -> Path:
    """Return the first of the candidates that is a file.

    Args:
        candidates: Where the file may be.
        layout: What the folder of the set should look like, for the error.

    Raises:
        DataError: If none of them is there.
    """
    for file in candidates:
        if file.is_file():
            return file
    raise DataError(f"There is no file {' or '.join(map(str, candidates))}; expected {layout}.")


def picture_folder(folders: Sequence[Path], first: str, listed_in: Path, layout: str) -> Path:
    """Return the first of the folders that holds a picture of a list.

    Looking for one picture tells the layouts apart without asking the disk for millions.

    Args:
        folders: Where the pictures may be.
        first: The first picture of the list, relative to its folder.
        listed_in: The list.
        layout: What the folder of the set should look like, for the error.

    Raises:
        DataError: If none of them holds it.
    """
    for folder in folders:
        if (folder / first).is_file():
            return folder
    places = " or ".join(map(str, folders))
    raise DataError(f"{first}, the first picture of {listed_in}, is not in {places}; expected {layout}.")


def text_lines(file: Path) -> Iterator[str]:
    """Yield the lines of a text file, one at a time.

    Raises:
        DataError: If it is not UTF-8 text.
    """
    with open(file, encoding="utf-8-sig", newline="") as lines:
        try:
            yield from lines
        except UnicodeDecodeError as error:
            raise DataError(f"{file} is not a text file in UTF-8.") from error


def csv_lines(file: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines of a CSV file that are not empty: where each stands, as `FILE, line N`, and its fields.

    Raises:
        DataError: If it is not CSV.
    """
    reader = csv.reader(text_lines(file))
    try:
        for fields in reader:
            if fields:
                yield f"{file}, line {reader.line_num}", fields
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num} is not CSV: {error}.") from error


def numbers(fields: Sequence[str], place: str) -> list[float]:
    """Parse numbers; `place` says in the error where they stand.

    Raises:
        DataError: If a field is not a number.
    """
    try:
        return [float(field) for field in fields]
    except ValueError as error:
        raise DataError(f"{place} has something else where a number should be: {error}.") from error


def box_of_corners(x1: float, y1: float, x2: float, y2: float) -> tuple[float, float, float, float]:
    """Turn the left, top, right and bottom edges of a box into (x, y, width, height)."""
    return x1, y1, x2 - x1, y2 - y1


def read_mat(file: Path, *names: str) -> list[Any]:
    """Read variables of a MATLAB file: arrays without axes of length 1, structs as dicts, cells as lists or arrays.

    Raises:
        DataError: If the file is not readable, or lacks a variable.
    """
    import scipy.io  # only two of the sets need it

    try:
        content = scipy.io.loadmat(file, simplify_cells=True)
    except Exception as error:  # what a damaged file raises depends on where the damage is
        raise DataError(f"{file} is not a readable MATLAB file of version 7.2 or older: {error}.") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise DataError(f"{file} has no variable {', '.join(missing)}.")
    return [content[name] for name in names]
