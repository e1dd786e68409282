"""Folders of pictures in the `imagefolder` layout of the `datasets` library, with or without metadata.

A `metadata.jsonl` or `metadata.csv` names the pictures in its folder by `file_name`. In the first, `landmarks` is a
list of points `[x, y]` (or the same numbers without the inner brackets) and `box` is `[x, y, width, height]`; null
stands for what is not annotated. The second is a table as in `csv_table`. Without metadata every picture is a face
without labels. Sub-folders named train, test or validation are splits, each with metadata of its own or all named in
the one of the top folder.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...model.geometry import EXTEND_BOTTOM, EXTEND_TOP
from ...model.known_schemes import LandmarkScheme
from ..picture_files import is_picture, skipped_files
from ..source import FaceSource, Row
from .csv_table import CsvTable, match_points, open_table
from .layouts import (
    AttributeTypes,
    attribute_features,
    canonical_split,
    cast_attributes,
    find_files,
    find_pictures,
    only_split,
    reading,
    refuse_split,
    split_folders,
)
from .picture_paths import PicturePlaces


__all__ = ["open_source"]

logger = logging.getLogger(__name__)

METADATA = ("metadata.jsonl", "metadata.csv")


def open_source(
    path: Path, scheme: str | os.PathLike | LandmarkScheme | None = None, split: str | None = None
) -> FaceSource:
    """Open a folder of pictures, searched to any depth.

    Args:
        path: The folder.
        scheme: The mark-up, as `load_scheme` takes it; by default just as many points as the metadata has.
        split: What to call the split where neither folders nor metadata tell; `"train"` by default.

    Raises:
        DataError: If there is no picture, or the metadata is not in the layout.
        SchemeError: If the scheme does not belong to the landmarks.
    """
    if not path.is_dir():
        raise DataError(f"{path} is a file; name the folder of the pictures.")
    folders = {} if _metadata(path) else split_folders(path)
    labeled = [name for name, folder in folders.items() if _metadata(folder)]
    if labeled and len(labeled) < len(folders):
        missing = next(name for name in folders if name not in labeled)
        raise DataError(f"{folders[missing]} has no metadata, but {folders[labeled[0]]} has; give them apart.")
    if folders:
        refuse_split(split, path)
    if labeled or _metadata(path):
        return _labeled(path, folders, scheme, split)
    if scheme is not None:
        raise DataError(f"{path} has no metadata.jsonl or metadata.csv, so there are no points for a scheme.")
    return _unlabeled(path, folders or {only_split(split): path})


def _unlabeled(root: Path, folders: Mapping[str, Path]) -> FaceSource:
    splits = {}
    for name, folder in folders.items():
        pictures = find_pictures(folder)
        if not pictures:
            raise DataError(f"{folder} holds no picture.")
        splits[name] = partial(_plain_rows, root, folder, _digest(pictures))
    others = skipped_files(file for file in find_files(root, ("",)) if not is_picture(file))
    notes = (f"Files that are no pictures are left out: {others}.",) if others else ()
    return FaceSource("imagefolder", splits, extend_top=EXTEND_TOP, extend_bottom=EXTEND_BOTTOM, notes=notes)


def _digest(files: Sequence[Path]) -> str:
    return blake2b("\n".join(map(str, files)).encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()


def _plain_rows(root: Path, folder: Path, digest: str) -> Iterator[Row]:
    """Yield the pictures of a folder; the digest of their names makes other pictures other data to a cache."""
    pictures = find_pictures(folder)
    if _digest(pictures) != digest:
        raise DataError(f"Pictures were added to {folder} or removed since it was opened; open it again.")
    for picture in pictures:
        name = picture.relative_to(root).as_posix()
        yield {"image": picture, "name": name, "picture": name}


def _labeled(root: Path, folders: Mapping[str, Path], scheme: Any, split: str | None) -> FaceSource:
    types = AttributeTypes()
    tables = [_open(folder, types) for folder in folders.values() or [root]]
    matched = [match_points(table, scheme) for table in tables]
    if any(mark_up != matched[0][0] for mark_up, _ in matched):
        raise DataError(f"{tables[0].file} and {tables[-1].file} have different points; give their folders apart.")
    types.warn()
    found = types.found
    splits: dict[str, Callable[[], Iterator[Row]]] = {}
    for index, table in enumerate(tables):
        table = replace(table, types={name: kind for name, kind in found.items() if name in table.types})
        named = list(folders)[index : index + 1]
        inside = () if named else tuple(folder.name for folder in split_folders(root).values())
        rows = partial(_labeled_rows, root, table, matched[index][1], inside)
        told = _look_through(rows, table.file)
        if told:
            refuse_split(split, table.file)
        if told and named:
            raise DataError(f"{table.file} has a column split, but its folder is the {named[0]} split already.")
        splits |= {name: partial(_rows_of_split, rows, name) for name in named or told or [only_split(split)]}
    mark_up = matched[0][0]
    return FaceSource(
        kind="imagefolder",
        splits=splits,
        scheme=mark_up,
        files=tuple(table.file for table in tables),
        extend_top=EXTEND_TOP,
        extend_bottom=EXTEND_BOTTOM,
        visibility=mark_up is not None and any(table.visibility for table in tables),
        attributes=attribute_features(found),
        unverified=True,
    )


def _labeled_rows(
    root: Path, table: "CsvTable | _JsonTable", order: Sequence[int], inside: Sequence[str]
) -> Iterator[Row]:
    """Yield the faces of a table, with `split` where the table or one of the folders `inside` tells it."""
    place = table.file.parent.relative_to(root).as_posix()
    for row in table.rows(order, prefix="" if place == "." else f"{place}/"):
        top = Path(os.path.relpath(row["image"], root)).parts[0]
        if "split" not in row and top in inside:
            row["split"] = canonical_split(top, str(table.file))
        yield row


def _rows_of_split(rows: Callable[[], Iterator[Row]], split: str) -> Iterator[Row]:
    return (row for row in rows() if row.pop("split", split) == split)


def _look_through(rows: Callable[[], Iterator[Row]], file: Path) -> list[str]:
    """Return the splits that rows tell, if they do, and warn of pictures that the metadata leaves out."""
    splits, pictures, untold = dict[str, None](), set(), None
    for row in rows():
        pictures.add(os.path.normpath(row["image"]))
        if "split" in row:
            splits[row["split"]] = None
        else:
            untold = row["name"]
    if splits and untold:
        raise DataError(f"{file} tells the split of some pictures, but not of {untold}.")
    left_out = sum(os.path.normpath(picture) not in pictures for picture in find_pictures(file.parent))
    if left_out:
        logger.warning("%d pictures are left out, since %s does not name them.", left_out, file)
    return list(splits)


def _metadata(folder: Path) -> Path | None:
    """Return the metadata file of a folder."""
    found = [folder / name for name in METADATA if (folder / name).is_file()]
    if len(found) > 1:
        raise DataError(f"{folder} has both {' and '.join(METADATA)}; remove one.")
    return found[0] if found else None


def _open(folder: Path, types: AttributeTypes) -> "CsvTable | _JsonTable":
    file = _metadata(folder)
    assert file is not None
    return _open_json(file, types) if file.suffix == ".jsonl" else open_table(file, types=types)


@dataclass(frozen=True)
class _JsonTable:
    """A metadata.jsonl that was looked through once; its members have the names of `CsvTable`'s."""

    file: Path
    num_landmarks: int
    visibility: bool
    types: Mapping[str, str]
    repeated: bool
    point_names: tuple[str, ...] = ()

    def rows(self, order: Sequence[int] = (), prefix: str = "") -> Iterator[Row]:
        """Yield the faces as `CsvTable.rows` does."""
        places = PicturePlaces((self.file.parent,))
        for number, values in _json_lines(self.file):
            where = f"{self.file}, line {number}"
            image = prefix + values["file_name"]
            row: Row = {"image": places.path(values["file_name"]), "picture": image}
            row["name"] = f"{image}:{number}" if self.repeated else image
            row |= {name: str(values[name]) for name in ("name", "picture", "subset") if values.get(name) is not None}
            if values.get("split") is not None:
                row["split"] = canonical_split(str(values["split"]), where)
            if self.num_landmarks:
                row["landmarks"] = _landmarks(values.get("landmarks"), self.num_landmarks, where)[order]
            if self.visibility and values.get("visibility") is not None:
                row["visibility"] = _visibility(values["visibility"], self.num_landmarks, where)[order].tolist()
            if values.get("box") is not None:
                row["box"] = _numbers(values["box"], "box", where, 4).tolist()
            yield row | cast_attributes(values, self.types)


def _open_json(file: Path, types: AttributeTypes) -> _JsonTable:
    """Look through a metadata.jsonl, line by line, and say what is in it."""
    faces, visibility, count, pictures, names = 0, False, 0, set(), set[str]()
    for _, values in _json_lines(file):
        faces += 1
        pictures.add(values["file_name"])
        visibility |= values.get("visibility") is not None
        attributes = {name: value for name, value in values.items() if name != "file_name"}
        types.see(attributes)
        names |= set(attributes)
        if not count and values.get("landmarks") is not None:
            count = _count(values["landmarks"])
    if not faces:
        raise DataError(f"{file} holds no face.")
    return _JsonTable(file, count, visibility and count > 0, dict.fromkeys(sorted(names), ""), len(pictures) < faces)


def _json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the object of every line that is not empty."""
    with reading(file, UnicodeDecodeError):
        with open(file, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    values = json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(f"{file}, line {number}: no JSON object: {error}.") from error
                if not isinstance(values, dict) or not _is_name(values.get("file_name")):
                    raise DataError(f"{file}, line {number}: expected an object with a file_name.")
                yield number, values


def _is_list_of_points(landmarks: list) -> bool:
    """Tell `[[x, y], null, ...]` from `[x, y, ...]`."""
    return any(isinstance(point, list) for point in landmarks) or all(point is None for point in landmarks)


def _count(landmarks: Any) -> int:
    """Return the number of points in a list, 0 where it cannot be told."""
    if not isinstance(landmarks, list) or all(point is None for point in landmarks):
        return 0
    return len(landmarks) if _is_list_of_points(landmarks) else len(landmarks) // 2


def _landmarks(value: Any, count: int, where: str) -> np.ndarray:
    if value is None:
        return np.full((count, 2), np.nan)
    if isinstance(value, list) and _is_list_of_points(value):
        pairs = [[None, None] if point is None else point for point in value]
        if not all(isinstance(point, list) and len(point) == 2 for point in pairs):
            raise DataError(f"{where}: landmarks must be {count} points [x, y].")
        value = [number for point in pairs for number in point]
    points = _numbers(value, "landmarks", where, 2 * count).reshape(count, 2)
    if (np.isnan(points[:, 0]) != np.isnan(points[:, 1])).any():
        raise DataError(f"{where}: a point of landmarks has only one coordinate.")
    return points


def _numbers(value: Any, what: str, where: str, count: int) -> np.ndarray:
    """Return a list of numbers as an array, NaN for null."""
    kinds = (int, float, type(None))
    if not isinstance(value, list) or any(isinstance(x, bool) or not isinstance(x, kinds) for x in value):
        raise DataError(f"{where}: {what} must be a list of numbers.")
    if len(value) != count:
        raise DataError(f"{where}: {what} has {len(value)} numbers, not {count}.")
    numbers = np.array(value, dtype=np.float64)
    if np.isinf(numbers).any():
        raise DataError(f"{where}: {what} holds an infinite number.")
    return numbers


def _visibility(value: Any, count: int, where: str) -> np.ndarray:
    if not isinstance(value, list) or len(value) != count or not all(x in (0, 1) for x in value):
        raise DataError(f"{where}: visibility must be a list of {count} times true or false.")
    return np.array(value, dtype=bool)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
