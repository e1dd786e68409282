"""What the readers and writers of a user's own annotations share: splits, files in folders, types of attributes."""

import io
import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, UnidentifiedImageError

from ...errors import DataError
from ..picture_files import PICTURE_SUFFIXES, heic_is_readable
from ..picture_sizes import read_size
from ..source import face_features
from ..split_names import SPLITS, canonical_split


__all__ = [
    "COMMON_COLUMNS",
    "TEXT_COLUMNS",
    "AttributeTypes",
    "attribute_features",
    "canonical_split",
    "cast_attributes",
    "files_by_split",
    "encoded_picture",
    "file_stem",
    "find_files",
    "find_pictures",
    "is_number",
    "only_split",
    "option_folder",
    "points_of",
    "read_json",
    "reading",
    "refuse_split",
    "scalar_columns",
    "shortest",
    "split_folders",
    "split_of",
    "whole_number",
]

logger = logging.getLogger(__name__)

DEFAULT_SPLIT = "train"
"""The split of data that does not tell its splits."""

_IN_NAME = re.compile(rf"(?<![a-z])({'|'.join(SPLITS)})(?![a-z])", re.IGNORECASE)

COMMON_COLUMNS = frozenset(face_features(1, visibility=True))
"""Columns of every set of faces; an attribute cannot be called so."""

TEXT_COLUMNS = ("name", "picture", "subset")
"""Those of them that a user's own file may give as text."""


def split_of(name: str) -> str | None:
    """Return the split that a file's name speaks of: `labels_train.xml`, `keypoints_val2017.json`, `dev.json`.

    Raises:
        DataError: If it speaks of two.
    """
    found = sorted({SPLITS[match.lower()] for match in _IN_NAME.findall(name)})
    if len(found) > 1:
        raise DataError(f"The name {name} speaks of the splits {' and '.join(found)}; rename it.")
    return found[0] if found else None


def files_by_split(files: Iterable[Path], split: str | None) -> dict[str, Path]:
    """Say which file is which split, by their names; a single file needs no split in its name.

    Args:
        files: At least one file.
        split: What the user calls the split of a single file.

    Returns:
        The splits in the order train, test, validation.

    Raises:
        DataError: If a file of several names no split, or two name the same.
    """
    files = list(files)
    if len(files) == 1:
        return {only_split(split or split_of(files[0].stem)): files[0]}
    refuse_split(split, files[0].parent)
    found: dict[str, Path] = {}
    for file in files:
        name = split_of(file.stem)
        if name is None:
            raise DataError(f"{file} does not say its split (train, test or validation) in its name; give one file.")
        if name in found:
            raise DataError(f"{found[name]} and {file.name} both are the {name} split by their names; give one file.")
        found[name] = file
    return {name: found[name] for name in dict.fromkeys(SPLITS.values()) if name in found}


def only_split(split: str | None) -> str:
    """Return the name of the split of data that does not tell its splits: the user's, else the default."""
    return canonical_split(split, "split") if split else DEFAULT_SPLIT


def refuse_split(split: str | None, where: str | os.PathLike) -> None:
    """Refuse the user's name for the split of data that tells its splits itself."""
    if split is not None:
        raise DataError(f"{where} tells its splits itself; leave out the split {split!r}.")


def split_folders(root: Path) -> dict[str, Path]:
    """Return the sub-folders of a folder that are named after a split, by split, in the order train, test, validation.

    Raises:
        DataError: If two are the same split.
    """
    found: dict[str, Path] = {}
    for folder in sorted(entry for entry in root.iterdir() if entry.is_dir()):
        name = SPLITS.get(folder.name.lower())
        if name in found:
            raise DataError(f"{found[name]} and {folder.name} both are the {name} split; give them apart.")
        if name:
            found[name] = folder
    return {name: found[name] for name in dict.fromkeys(SPLITS.values()) if name in found}


def find_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """List the files below a folder whose names end so, in any case, sorted by path; nothing hidden."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(place, name) for name in names if name.lower().endswith(suffixes) and not name.startswith(".")]
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())


def find_pictures(folder: Path) -> list[Path]:
    """List the pictures below a folder, sorted by path."""
    return find_files(folder, PICTURE_SUFFIXES)


def option_folder(folder: str | os.PathLike | None, base: Path, what: str) -> Path:
    """Return the folder that an option names: from the working directory, else from the data's; without one, the base.

    Raises:
        DataError: If there is no such folder.
    """
    if folder is None:
        return base
    for choice in (Path(folder), base / folder):
        if choice.is_dir():
            return choice
    raise DataError(f"There is no folder {folder} of {what}, neither here nor in {base}.")


def read_json(file: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        DataError: If it cannot be read, or is not whole.
    """
    try:
        with reading(file):
            return json.loads(file.read_bytes())
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is no whole JSON file: {error}.") from error


@contextmanager
def reading(file: Path, *errors: type[Exception]) -> Iterator[None]:
    """Say of what is raised within the block that a file cannot be read.

    Args:
        file: The file.
        *errors: What is raised where its content is at fault, beside what the system raises.

    Raises:
        DataError: If it cannot; one line with the reason.
    """
    kinds: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except kinds as error:
        raise DataError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def whole_number(text: str | None) -> float | None:
    """Return what an attribute of digits says, such as a width; None where it is missing or something else."""
    return float(text) if text and text.isdecimal() else None


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that a float can hold, which true and false are not."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


class AttributeTypes:
    """Finds the types of the attributes of faces by looking at all of them; memory holds the types alone.

    Booleans, whole numbers, numbers and text are kept as such. An attribute that holds several of these becomes the
    wider one, in the end text. Lists and mappings are no attributes.
    """

    _ORDER = ("bool", "int64", "float64", "string")

    def __init__(self):
        self._types: dict[str, str | None] = {}
        self._nested: set[str] = set()

    def see(self, values: Mapping[str, Any]) -> None:
        """Look at the attributes of one face; None says nothing of the type."""
        for name, value in values.items():
            if name in COMMON_COLUMNS:
                continue
            if isinstance(value, (list, dict)):
                self._nested.add(name)
            elif value is None:
                self._types.setdefault(name, None)
            else:
                self._types[name] = self._wider(self._types.get(name), self._type_of(value))

    def _type_of(self, value: Any) -> str:
        if isinstance(value, bool):
            return "bool"
        if isinstance(value, int):
            return "int64" if -(2**63) <= value < 2**63 else "string"
        return "float64" if isinstance(value, float) else "string"

    def _wider(self, first: str | None, second: str) -> str:
        if first is None or first == second:
            return second
        if "bool" in (first, second):  # true and 3 have no common type but text
            return "string"
        return max(first, second, key=self._ORDER.index)

    @property
    def dropped(self) -> list[str]:
        """Names of lists and mappings."""
        return sorted(self._nested)

    def warn(self) -> None:
        """Log a warning that names the lists and mappings, if there are any."""
        if self.dropped:
            logger.warning("Lists and mappings are no attributes, left out: %s.", ", ".join(self.dropped))

    @property
    def found(self) -> dict[str, str]:
        """Attributes and the names of their types, in order of appearance; without any value it is text."""
        return {name: kind or "string" for name, kind in self._types.items() if name not in self._nested}


def attribute_features(types: Mapping[str, str]) -> dict[str, datasets.Value]:
    """Return the columns of attributes, given the names of their types."""
    return {name: datasets.Value(kind) for name, kind in types.items()}


def cast_attributes(values: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    """Return the attributes of one face in their types; what is missing or not a finite number becomes None."""
    return {name: _cast(values.get(name), kind) for name, kind in types.items()}


def _cast(value: Any, kind: str) -> Any:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if kind == "string":
        return value if isinstance(value, str) else str(value)
    return float(value) if kind == "float64" else value


_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif"}
_SUFFIXES |= {"AVIF": ".avif", "HEIF": ".heic", "GIF": ".gif", "JPEG2000": ".jp2", "PPM": ".ppm", "TGA": ".tga"}


def encoded_picture(image: Mapping[str, Any] | None, row: int) -> tuple[bytes, str, tuple[int, int]]:
    """Return a picture as it is stored, the suffix of its real format, and the (width, height) it has upright.

    Args:
        image: What `datasets` stores: `bytes`, else a `path`.
        row: Its row, for errors.

    Raises:
        DataError: If the picture is missing, unreadable, or of a format that no reader looks for.
    """
    image = image or {}
    heic_is_readable()
    try:
        content = image.get("bytes") or Path(image.get("path") or "").read_bytes()
        with Image.open(io.BytesIO(content)) as opened:
            form, size = opened.format or "", read_size(opened).upright
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"The picture in row {row} cannot be read; is it an image, and whole?") from error
    if form not in _SUFFIXES:
        raise DataError(f"The picture in row {row} is {form}; convert it to one of {', '.join(_SUFFIXES)}.")
    return content, _SUFFIXES[form], size


def file_stem(row: int, name: str | None) -> str:
    """Name the files of a row after its number and its name, which only letters, digits, dots and _ are left of."""
    stem = name or ""
    if stem.lower().endswith(PICTURE_SUFFIXES):
        stem = stem[: stem.rindex(".")]
    stem = re.sub(r"[^\w.-]+", "_", stem, flags=re.ASCII)[-80:].strip("._")
    return f"{row:06d}_{stem}" if stem else f"{row:06d}"


def scalar_columns(features: datasets.Features) -> list[str]:
    """List the columns of a data set that hold one number, truth value or text a row, apart from `split`."""
    kinds = ("bool", "int", "uint", "float", "string", "large_string")
    return [
        name
        for name, feature in features.items()
        if name != "split" and isinstance(feature, datasets.Value) and feature.dtype.rstrip("0123456789") in kinds
    ]


def points_of(landmarks: Any) -> np.ndarray:
    """Return landmarks as `datasets` gives them, a point or a coordinate being null, as float32; NaN for null."""
    points = [(None, None) if point is None else point for point in ([] if landmarks is None else landmarks)]
    return np.array(points, dtype=np.float32)


def shortest(value: float) -> float:
    """Return the number of the fewest decimals that is the same float32."""
    exact = np.float32(value)
    short = float(str(exact))
    return short if np.float32(short) == exact else float(exact)
