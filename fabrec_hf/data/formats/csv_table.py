"""Tables of faces: a CSV file with one face a line, and the parser that other readers use for their tables.

The first line names the columns:

| column | what |
|---|---|
| `image`, `file_name`, `filename` or `path` | the picture, relative to the table |
| `<name>_x`, `<name>_y` (or `<name>.x`, `<name>.y`) | a point; empty or `nan` where it is not annotated |
| `x0`, `y0`, `x1`, `y1`, ... (or `x_0`, `y_0`) | a point without a name |
| `box_x`, `box_y`, `box_width`, `box_height` (or without `box_`) | the face box; empty where there is none |
| `name`, `picture`, `subset`, `split` | as in every set of faces |

Other columns are attributes: numbers or true and false if all their values are, otherwise text.
"""

import csv
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...model.geometry import EXTEND_BOTTOM, EXTEND_TOP
from ...model.known_schemes import LandmarkScheme
from ..scheme_files import match_scheme
from ..source import FaceSource, Row
from .foreign import name_foreign_header
from .layouts import (
    COMMON_COLUMNS,
    TEXT_COLUMNS,
    AttributeTypes,
    attribute_features,
    canonical_split,
    cast_attributes,
    only_split,
    option_folder,
    reading,
    refuse_split,
)
from .picture_paths import PicturePlaces


__all__ = ["Columns", "CsvTable", "match_points", "open_source", "open_table"]

IMAGE_COLUMNS = ("image", "file_name", "filename", "path")
BOX_COLUMNS = ("box_x", "box_y", "box_width", "box_height")
_BARE_BOX_COLUMNS = ("x", "y", "width", "height")

_NAMED = re.compile(r"(?P<name>.+)[_.](?P<axis>[xyXY])")
_NUMBERED = re.compile(r"(?P<axis>[xyXY])_?(?P<name>\d+)")
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")


def open_source(
    path: Path,
    scheme: str | os.PathLike | LandmarkScheme | None = None,
    split: str | None = None,
    images: str | os.PathLike | None = None,
    image_column: str | None = None,
) -> FaceSource:
    """Open a CSV file of faces, one a line.

    Args:
        path: The file, separated by commas, semicolons or tabs.
        scheme: The mark-up, as `load_scheme` takes it; made from the names of the columns by default.
        split: What to call the split if there is no column `split`; `"train"` by default.
        images: Folder that the pictures' names are relative to; the folder of the file by default.
        image_column: The column with the picture's file, if it is none of `IMAGE_COLUMNS`.

    Raises:
        DataError: If the file has no header, lacks a column, or holds no face.
        SchemeError: If the scheme does not belong to the columns.
    """
    if not path.is_file():
        raise DataError(f"{path} is a folder; name the CSV file in it.")
    table = open_table(path, image_column)
    if table.splits:
        refuse_split(split, path)
    if table.repeated and not table.num_landmarks and not table.columns.box:
        raise DataError(
            f"{path} names pictures in several lines, but has neither points nor boxes: it is no table with one face "
            f"a line, which has columns such as nose_x and nose_y, or {', '.join(BOX_COLUMNS)}."
        )
    mark_up, order = match_points(table, scheme)
    folder = option_folder(images, path.parent, "pictures")
    places = PicturePlaces((folder,), (folder,))
    names = table.splits or (only_split(split),)
    return FaceSource(
        kind="csv",
        splits={name: partial(_split_rows, table, order, places, name) for name in names},
        scheme=mark_up,
        files=(path,),
        extend_top=EXTEND_TOP,
        extend_bottom=EXTEND_BOTTOM,
        attributes=attribute_features(table.types),
        unverified=True,
    )


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Attributes:
        image: The column of the picture's file.
        points: The columns (x, y) of every point.
        names: Names of the points; empty where they have numbers only.
        box: The columns of the box, or nothing.
        text: Which of the columns `name`, `picture`, `subset` and `split` there are.
        attributes: All others.
    """

    image: str
    points: tuple[tuple[str, str], ...]
    names: tuple[str, ...]
    box: tuple[str, ...]
    text: tuple[str, ...]
    attributes: tuple[str, ...]


@dataclass(frozen=True)
class CsvTable:
    """A table that was looked through once.

    Attributes:
        file: The CSV file.
        columns: What its columns are.
        types: The attributes and the names of their types.
        splits: The splits in its column `split`, in order of appearance.
        repeated: Whether a picture stands in several lines.
    """

    file: Path
    columns: Columns
    types: Mapping[str, str]
    splits: tuple[str, ...]
    repeated: bool

    @property
    def point_names(self) -> tuple[str, ...]:
        """Names of the points; none where they have numbers only, or where there are no points."""
        return self.columns.names

    @property
    def num_landmarks(self) -> int:
        """Number of points; 0 without landmarks."""
        return len(self.columns.points)

    @property
    def visibility(self) -> bool:
        """Whether it says which points are visible: a table cannot."""
        return False

    def rows(self, order: Sequence[int] = (), images: PicturePlaces | None = None, prefix: str = "") -> Iterator[Row]:
        """Yield the faces, `split` among the columns where the table has it.

        Args:
            order: The index among the table's points of every point of the scheme.
            images: Where the pictures are; by default their names are relative to the folder of the file.
            prefix: What to put before a picture's name for `name` and `picture`, where no column gives these.

        Raises:
            DataError: If a cell does not hold what its column should. The message names the line.
        """
        columns, types, places = self.columns, self.types.items(), images or PicturePlaces((self.file.parent,))
        pairs = [columns.points[index] for index in order]
        for number, cells in _faces(self.file):
            where = f"{self.file}, line {number}"
            image = cells[columns.image]
            if not image:
                raise DataError(f"{where}: the column {columns.image} is empty.")
            row: Row = {"image": places.path(image), "picture": f"{prefix}{image}"}
            row["name"] = f"{prefix}{image}:{number}" if self.repeated else f"{prefix}{image}"
            row |= {name: cells[name] for name in TEXT_COLUMNS if name in columns.text and cells[name]}
            if "split" in columns.text:
                row["split"] = canonical_split(cells["split"], where)
            if pairs:
                row["landmarks"] = np.array([_point(cells, pair, where) for pair in pairs])
            if columns.box:
                row["box"] = _box(cells, columns.box, where)
            values = {name: cells[name] or None if kind == "string" else _value(cells[name]) for name, kind in types}
            yield row | cast_attributes(values, self.types)


def open_table(
    file: Path, image_column: str | None = None, types: AttributeTypes | None = None, points: bool = True
) -> CsvTable:
    """Look through a table, line by line, and say what is in it.

    Args:
        file: The CSV file.
        image_column: The column with the picture's file, if it is none of `IMAGE_COLUMNS`.
        types: Gets to see the attributes too, where several tables are to have the same types.
        points: Whether columns such as `nose_x` and `nose_y` are points; otherwise they are attributes.

    Raises:
        DataError: If it has no header, lacks a column, or holds no face.
    """
    columns = _columns(file, image_column, points)
    types = types or AttributeTypes()
    splits, pictures, faces = dict[str, None](), set(), 0
    for number, cells in _faces(file):
        types.see({name: _value(cells[name]) for name in columns.attributes})
        if "split" in columns.text:
            splits[canonical_split(cells["split"], f"{file}, line {number}")] = None
        pictures.add(cells[columns.image])
        faces += 1
    if not faces:
        raise DataError(f"{file} holds no face, only a header.")
    found = types.found
    return CsvTable(
        file, columns, {name: found[name] for name in columns.attributes}, tuple(splits), len(pictures) < faces
    )


def match_points(
    table: Any, scheme: str | os.PathLike | LandmarkScheme | None
) -> tuple[LandmarkScheme | None, list[int]]:
    """Find the scheme of a table's points, and their order in it, as `match_scheme` does; None without points.

    Args:
        table: Anything with `file`, `point_names` and `num_landmarks`.
        scheme: What the user says of the scheme.

    Raises:
        DataError: If there are no points that a scheme could belong to.
        SchemeError: If the scheme does not belong to the points.
    """
    if table.num_landmarks:
        return match_scheme(scheme, table.file, table.point_names, table.num_landmarks)
    if scheme is not None:
        raise DataError(f"{table.file} has no points that a scheme could belong to.")
    return None, []


def _split_rows(table: CsvTable, order: Sequence[int], images: PicturePlaces, split: str) -> Iterator[Row]:
    return (row for row in table.rows(order, images) if row.pop("split", split) == split)


def _lines(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number and the cells of every line that is not empty, the header first."""
    with reading(file, UnicodeDecodeError, csv.Error):
        with open(file, encoding="utf-8-sig", newline="") as stream:
            delimiter = _delimiter(stream.readline())
            stream.seek(0)
            reader = csv.reader(stream, delimiter=delimiter)
            header: list[str] = []
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if not any(cells):
                    continue
                header = header or _distinct(cells, file)
                if len(cells) != len(header):
                    raise DataError(
                        f"{file}, line {reader.line_num}: {len(cells)} cells, but the header names {len(header)}."
                    )
                yield reader.line_num, dict(zip(header, cells, strict=True))


def _faces(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    return islice(_lines(file), 1, None)


def _distinct(header: list[str], file: Path) -> list[str]:
    twice = [name for name in header if name and header.count(name) > 1]
    if twice:
        raise DataError(f"{file}: the header names the column {twice[0]} twice.")
    return header


def _delimiter(header: str) -> str:
    try:
        return csv.Sniffer().sniff(header, delimiters=",;\t").delimiter
    except csv.Error:  # a single column has none
        return ","


def _columns(file: Path, image_column: str | None, with_points: bool) -> Columns:
    """Read the header and say what its columns are."""
    _, cells = next(_lines(file), (0, {}))
    header = list(cells)
    tool = name_foreign_header(header)
    if tool:
        raise DataError(f"{file} is no table of faces but {tool}.")
    if image_column is not None and image_column not in header:
        raise DataError(f"{file} has no column {image_column!r}; its first line names {', '.join(header)}.")
    image = image_column or next((name for name in IMAGE_COLUMNS if name in header), None)
    if image is None:
        found = ", ".join(header)[:80]
        raise DataError(
            f"{file} needs a header: its first line must name a column {', '.join(IMAGE_COLUMNS)} or the one given as "
            f"image_column, and it reads {found!r}."
        )
    foreign = [name for name in ("landmarks", "box", "visibility") if name in header]
    if foreign:
        raise DataError(f"{file} has a column {foreign[0]!r}; a table has one column a number, such as nose_x, box_x.")
    box = _box_columns(header, file)
    used = {image, "", *box, *COMMON_COLUMNS}
    names, points = _point_columns([name for name in header if with_points and name not in used], file)
    used |= {name for pair in points for name in pair}
    return Columns(
        image=image,
        points=points,
        names=names,
        box=box,
        text=tuple(name for name in (*TEXT_COLUMNS, "split") if name in header and name != image),
        attributes=tuple(name for name in header if name not in used),
    )


def _box_columns(header: Sequence[str], file: Path) -> tuple[str, ...]:
    missing = [name for name in BOX_COLUMNS if name not in header]
    if not missing:
        return BOX_COLUMNS
    if len(missing) < len(BOX_COLUMNS):
        raise DataError(f"{file} has no column {', '.join(missing)}; a box needs {', '.join(BOX_COLUMNS)}.")
    return _BARE_BOX_COLUMNS if set(_BARE_BOX_COLUMNS) <= set(header) else ()


def _point_columns(header: Sequence[str], file: Path) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the names of the points, if they have any, and their columns."""
    named: dict[str, dict[str, str]] = {}
    numbered: dict[int, dict[str, str]] = {}
    for column in header:
        match = _NUMBERED.fullmatch(column) or _NAMED.fullmatch(column)
        if match:
            name, axis = match["name"], match["axis"].lower()
            pair = numbered.setdefault(int(name), {}) if name.isdecimal() else named.setdefault(name, {})
            if axis in pair:
                raise DataError(f"{file}: the columns {pair[axis]} and {column} are the same coordinate.")
            pair[axis] = column
    for pair in (*named.values(), *numbered.values()):
        if len(pair) == 1:
            axis, column = next(iter(pair.items()))
            raise DataError(f"{file}: the column {column} has no {'y' if axis == 'x' else 'x'} beside it.")
    if named and numbered:
        raise DataError(f"{file} has points with names ({next(iter(named))}) and with numbers; use one of the two.")
    numbers = sorted(numbered)
    if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise DataError(f"{file}: the points are numbered {numbers[0]} to {numbers[-1]}, but some are missing.")
    pairs = [numbered[number] for number in numbers] or list(named.values())
    return tuple(named), tuple((pair["x"], pair["y"]) for pair in pairs)


def _value(text: str) -> Any:
    """Return what a cell of an attribute holds: nothing, a truth value, a number or text."""
    if not text or text.lower() in ("true", "false"):
        return text.lower() == "true" if text else None
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        value = float(text)
    except ValueError:
        return text
    return text if math.isinf(value) or "_" in text or re.match(r"-?0\d", text) else value


def _number(cells: Mapping[str, str], column: str, where: str) -> float:
    text = cells[column]
    try:
        value = float(text or "nan")
    except ValueError:
        value = math.inf
    if math.isinf(value) or "_" in text:
        raise DataError(f"{where}: the column {column} holds {text!r}, which is no number.")
    return value


def _point(cells: Mapping[str, str], pair: tuple[str, str], where: str) -> tuple[float, float]:
    x, y = (_number(cells, column, where) for column in pair)
    if math.isnan(x) != math.isnan(y):
        raise DataError(f"{where}: of {pair[0]} and {pair[1]} only one is given.")
    return x, y


def _box(cells: Mapping[str, str], columns: Sequence[str], where: str) -> list[float] | None:
    box = [_number(cells, column, where) for column in columns]
    if all(map(math.isnan, box)):
        return None
    if any(map(math.isnan, box)):
        raise DataError(f"{where}: of {', '.join(columns)} some are missing; a face has a whole box or none.")
    return box
