"""Pictures with `.pts` files: a reader of such folders, and a writer.

A `.pts` file holds the points of one face in the layout of the 300-W downloads, or bare lines of two numbers:

    version: 1
    n_points: 68
    {
    115.2 168.6
    ...
    }

It belongs to the picture of the same name; several faces in `photo.jpg` have the files `photo_1.pts`, `photo_2.pts`.
Since it has no room for anything else, a table `faces.csv` may lie beside the pictures, with the boxes, names and
attributes of the faces.
"""

import csv
import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from tqdm.auto import tqdm

from ...common.drafts import unfinished_folder
from ...errors import DataError
from ...model.geometry import EXTEND_BOTTOM, EXTEND_TOP
from ...model.known_schemes import LandmarkScheme
from ..face_set import find_face_set
from ..face_table import encoded_images
from ..scheme_files import match_scheme
from ..source import FaceSource, Row
from .csv_table import BOX_COLUMNS, CsvTable, open_table
from .export_folder import check_columns
from .layouts import (
    AttributeTypes,
    attribute_features,
    canonical_split,
    encoded_picture,
    file_stem,
    find_files,
    find_pictures,
    only_split,
    option_folder,
    points_of,
    refuse_split,
    scalar_columns,
    shortest,
    split_folders,
)


__all__ = ["export_pts", "open_source", "pts_text", "read_pts", "write_pts"]

logger = logging.getLogger(__name__)

TABLE = "faces.csv"

_HEADER = re.compile(r"(version|n_points)\s*:\s*([^\s{]+)\s*")


def read_pts(path: str | os.PathLike, origin: int = 0) -> np.ndarray:
    """Read the points of a `.pts` file, with or without its header.

    Args:
        path: The file.
        origin: The coordinate that the file gives the center of the first pixel: 0, or 1 as in files written by
            MATLAB (the 300-W downloads among them), from which 1 is then subtracted.

    Returns:
        (L, 2) float64 points in pixels, centers at integers; NaN where the file says `nan nan`.

    Raises:
        DataError: If the file is missing, empty, holds a line that is not two numbers, or another number of points
            than it announces. The message names the file and the line.
    """
    _check_origin(origin)
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}.") from error
    announced, points, state = None, [], "header"
    for number, line in enumerate(lines, start=1):
        rest = line.strip()
        while rest:
            header = _HEADER.match(rest)
            if header and state == "header":
                if header[1] == "n_points":
                    announced = _count(header[2], path, number)
                rest = rest[header.end() :]
            elif rest[0] == "{" and state == "header":
                rest, state = rest[1:].strip(), "braces"
            elif rest[0] == "}" and state == "braces":
                rest, state = rest[1:].strip(), "end"
            elif state == "end":
                raise DataError(f"{path}, line {number}: {rest!r} follows the closing brace.")
            else:
                state = "bare" if state == "header" else state
                text, brace, after = rest.partition("}")
                points.append(_point(text, path, number))
                rest = brace + after
    if not points:
        raise DataError(f"{path}, line {len(lines)}: the file ends without any point.")
    if state == "braces":
        raise DataError(f"{path}, line {len(lines)}: the file ends before the closing brace; is it whole?")
    if announced not in (None, len(points)):
        raise DataError(f"{path}, line {len(lines)}: {len(points)} points, but n_points says {announced}.")
    return np.array(points, dtype=np.float64) - origin


def _check_origin(origin: int) -> None:
    """Refuse an origin other than 0 and 1."""
    if isinstance(origin, bool) or origin not in (0, 1):
        raise DataError(f"The origin of .pts files is 0 or 1, not {origin!r}.")


def _count(text: str, path: str | os.PathLike, number: int) -> int:
    if not (text.isascii() and text.isdigit()):
        raise DataError(f"{path}, line {number}: n_points must be a whole number, not {text!r}.")
    return int(text)


def _point(text: str, path: str | os.PathLike, number: int) -> tuple[float, float]:
    try:
        x, y = map(float, text.split())
    except ValueError:
        raise DataError(f"{path}, line {number}: expected two numbers, found {text.strip()!r}.") from None
    if math.isinf(x) or math.isinf(y) or math.isnan(x) != math.isnan(y):
        raise DataError(f"{path}, line {number}: a point is two finite numbers or `nan nan`, not {text.strip()!r}.")
    return x, y


def write_pts(path: str | os.PathLike, points: Any, origin: int = 0) -> None:
    """Write the points of a face to a `.pts` file.

    Args:
        path: The file.
        points: As those of `pts_text`.
        origin: The same.

    Raises:
        DataError: If the points have another shape, or one lies at infinity.
    """
    try:
        text = pts_text(points, origin)
    except DataError as error:
        raise DataError(f"{path} cannot be written: {error}") from error
    Path(path).write_text(text, encoding="ascii")


def pts_text(points: Any, origin: int = 0) -> str:
    """Return what a `.pts` file holds.

    Args:
        points: (L, 2) pixels, centers at integers; NaN for a point that is not annotated. `read_pts` with the same
            origin gives every float32 back as it is, from 0 also every float64.
        origin: What to call the center of the first pixel, 0 or 1.

    Raises:
        DataError: If the points have another shape, or one lies at infinity.
    """
    _check_origin(origin)
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 2 or not len(points) or np.isinf(points).any():
        raise DataError(f"a .pts file takes points of shape (L, 2), finite or NaN, not {points.shape}.")
    single = points.dtype == np.float32 and not origin
    lines = ["version: 1", f"n_points: {len(points)}", "{"]
    for x, y in points:
        missing = np.isnan(x) or np.isnan(y)
        numbers = (shortest(x), shortest(y)) if single else (float(x) + origin, float(y) + origin)
        lines.append("nan nan" if missing else f"{numbers[0]!r} {numbers[1]!r}")
    return "\n".join([*lines, "}", ""])


def open_source(
    path: Path,
    scheme: str | os.PathLike | LandmarkScheme | None = None,
    split: str | None = None,
    origin: int = 0,
    annotations: str | os.PathLike | None = None,
) -> FaceSource:
    """Open a folder of pictures with `.pts` files, searched to any depth.

    Sub-folders named train, test or validation are splits, and so are sub-folders with a `faces.csv`.

    Args:
        path: The folder of the pictures.
        scheme: The mark-up, as `load_scheme` takes it; by default the one in an export's `face_set.json`, else
            just as many points as the first file has.
        split: What to call the split where folders do not tell; `"train"` by default.
        origin: The coordinate that the files give the center of the first pixel: 0, or 1 as in the 300-W downloads.
        annotations: Folder of the `.pts` files, with the same sub-folders as `path`, if they do not lie beside the
            pictures.

    Raises:
        DataError: If there is no `.pts` file, or one without a picture.
        SchemeError: If the scheme has another number of points than the first file.
    """
    _check_origin(origin)
    if not path.is_dir():
        raise DataError(f"{path} is a file; name the folder of the pictures and their .pts files.")
    places = option_folder(annotations, path, ".pts files")
    folders = _split_folders(path)
    if folders:
        refuse_split(split, path)
    types = AttributeTypes()
    tables: dict[str, tuple[Path, list[CsvTable]]] = {}
    files: list[Path] = []
    for name, folder in (folders or {only_split(split): path}).items():
        faces, left_out = _find_faces(folder, places / folder.relative_to(path))
        if not faces:
            raise DataError(f"{places / folder.relative_to(path)} holds no .pts file.")
        if left_out:
            logger.warning("%d pictures in %s are left out, since they have no .pts file.", left_out, folder)
        tables[name] = folder, [open_table(file, types=types, points=False) for file in _find_tables(folder)]
        files += [pts for pts, _ in faces]
    known = find_face_set(path)  # what an export of this package says of itself
    scheme = scheme or (known.scheme if known else None)
    mark_up, _ = match_scheme(scheme, files[0], num_landmarks=len(read_pts(files[0])))
    splits = {}
    for name, (folder, found) in tables.items():
        typed = [replace(table, types={key: types.found[key] for key in table.types}) for table in found]
        splits[name] = partial(_rows, path, folder, places / folder.relative_to(path), origin, typed)
        files += [table.file for table in typed]
    return FaceSource(
        kind="pts",
        splits=splits,
        scheme=mark_up,
        files=tuple(files),
        extend_top=known.extend_top if known else EXTEND_TOP,
        extend_bottom=known.extend_bottom if known else EXTEND_BOTTOM,
        attributes=attribute_features(types.found),
        unverified=known is None,
    )


def _find_tables(folder: Path) -> list[Path]:
    return [file for file in find_files(folder, (TABLE,)) if file.name == TABLE]


def _split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of the splits, and warn of what lies outside them."""
    folders = split_folders(root)
    others = sorted(entry for entry in root.iterdir() if entry.is_dir() and entry not in folders.values())
    for folder in others:
        if _find_tables(folder):
            folders[canonical_split(folder.name, str(folder))] = folder
    left_out = [entry.name for entry in others if entry not in folders.values() and find_files(entry, (".pts",))]
    if folders and left_out:
        logger.warning("Beside the splits, %s is left out: %s.", root, ", ".join(left_out))
    return folders


def _find_faces(folder: Path, annotations: Path) -> tuple[list[tuple[Path, Path]], int]:
    """Return every `.pts` file with its picture, sorted by path, and the number of pictures without one."""
    pictures: dict[str, list[Path]] = {}
    for picture in find_pictures(folder):
        pictures.setdefault(_stem(picture, folder), []).append(picture)
    faces, used = [], set()
    for pts in find_files(annotations, (".pts",)):
        stem = _stem(pts, annotations)
        if stem not in pictures:
            stem = re.sub(r"_\d+$", "", stem)
        if stem not in pictures:
            raise DataError(f"{pts} has no picture of its name in {folder}; are they in another folder (annotations)?")
        if len(pictures[stem]) > 1:
            raise DataError(f"{pts} may belong to {' or '.join(picture.name for picture in pictures[stem])}.")
        faces.append((pts, pictures[stem][0]))
        used.add(stem)
    return faces, sum(len(found) for stem, found in pictures.items() if stem not in used)


def _stem(file: Path, folder: Path) -> str:
    return file.relative_to(folder).with_suffix("").as_posix()


def _rows(root: Path, folder: Path, annotations: Path, origin: int, tables: Sequence[CsvTable]) -> Iterator[Row]:
    """Yield the faces that the tables list, in their order, then all others, sorted by path."""
    faces, _ = _find_faces(folder, annotations)
    own = {os.path.normpath(picture): pts for pts, picture in faces if pts.stem == picture.stem}
    listed = set()
    for table in tables:
        place = table.file.parent.relative_to(root).as_posix()
        for row in table.rows(prefix="" if place == "." else f"{place}/"):
            row.pop("split", None)
            pts = own.get(os.path.normpath(row["image"]))
            if pts is not None:  # a user may have deleted pictures that the table still lists
                listed.add(pts)
                yield row | {"landmarks": read_pts(pts, origin)}
    for pts, picture in faces:
        if pts not in listed:
            yield {
                "image": picture,
                "landmarks": read_pts(pts, origin),
                "name": (folder.relative_to(root) / _stem(pts, annotations)).as_posix(),
                "picture": picture.relative_to(root).as_posix(),
            }


def export_pts(dataset: datasets.Dataset, folder: str | os.PathLike, progress: bool = False) -> int:
    """Write faces as pictures with `.pts` files and a `faces.csv`, which `open_source` reads back as they are.

    A row becomes `<split>/<row>_<name>.<suffix>`, or lies in the folder itself without a column `split`. Pictures are
    written as they are stored, points with their full precision. Boxes, names and all columns of one value a row go
    to `faces.csv` beside the pictures; other lists, and which points are visible, find no place in this format.

    Args:
        dataset: Faces with `image` and `landmarks`.
        folder: Where to write; the folder of a split appears complete or not at all.
        progress: Show a progress bar.

    Returns:
        The number of faces written.

    Raises:
        DataError: If there are no landmarks, a picture cannot be read, or the folder holds such a split already.
    """
    folder = Path(folder)
    check_columns(dataset, ".pts files")
    places = {_place(split) for split in (dataset.unique("split") if "split" in dataset.column_names else [None])}
    for place in places:
        if (folder / place).exists() and any((folder / place).iterdir()):
            raise DataError(f"{folder / place} is not empty; name a new folder.")
    with unfinished_folder(folder) as unfinished:
        _write_faces(dataset, unfinished, progress)
        for place in places:
            (folder / place).mkdir(exist_ok=True)
            for file in sorted(entry for entry in (unfinished / place).iterdir() if entry.is_file()):
                file.replace(folder / place / file.name)
    return len(dataset)


def _place(split: str | None) -> str:
    """Return the folder of a split."""
    return split or "."


def _write_faces(dataset: datasets.Dataset, folder: Path, progress: bool) -> None:
    columns = scalar_columns(dataset.features)
    header = ["image", *(BOX_COLUMNS if "box" in dataset.column_names else ()), *columns]
    rows = encoded_images(dataset)
    with ExitStack() as streams:
        tables: dict[str, Any] = {}
        for index, row in enumerate(tqdm(rows, desc="writing", unit="face", disable=not progress)):
            place = _place(row.get("split"))
            if place not in tables:
                (folder / place).mkdir(exist_ok=True)
                stream = open(folder / place / TABLE, "w", encoding="utf-8", newline="")
                tables[place] = csv.writer(streams.enter_context(stream))
                tables[place].writerow(header)
            content, suffix, _ = encoded_picture(row["image"], index)
            stem = file_stem(index, row.get("name"))
            (folder / place / f"{stem}{suffix}").write_bytes(content)
            write_pts(folder / place / f"{stem}.pts", points_of(row["landmarks"]))
            box = [] if "box" not in row else [""] * 4 if row["box"] is None else map(shortest, row["box"])
            tables[place].writerow([f"{stem}{suffix}", *box, *(row[name] for name in columns)])
