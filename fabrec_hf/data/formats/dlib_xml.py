"""XML files of dlib's imglab: pictures, their boxes, and the parts of every box.

    <image file="photo.jpg"><box top="20" left="10" width="80" height="90"><part name="0" x="12" y="40"/></box></image>

Coordinates are taken as they are: parts are whole pixels from 0, a box is (left, top, width, height).
"""

import codecs
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from ...errors import DataError
from ...model.geometry import EXTEND_BOTTOM, EXTEND_TOP
from ...model.known_schemes import LandmarkScheme
from ..face_set import find_face_set
from ..scheme_files import match_scheme
from ..source import FaceSource, Row
from .foreign import name_foreign_root
from .layouts import (
    attribute_features,
    canonical_split,
    files_by_split,
    option_folder,
    refuse_split,
    split_folders,
    split_of,
    whole_number,
)
from .picture_paths import PicturePlaces


__all__ = ["open_source"]

logger = logging.getLogger(__name__)

# What imglab knows of a box beside its place, and the types. `label` is an element in the file.
ATTRIBUTES = {
    "label": "string",
    "gender": "string",
    "age": "float64",
    "pose": "float64",
    "detection_score": "float64",
    "difficult": "bool",
    "truncated": "bool",
    "occluded": "bool",
}

_CHUNK = 1 << 16

# What imglab's header says whatever the names are encoded in, which on most machines is UTF-8.
_LATIN = re.compile(rb"""<\?xml[^>]*encoding\s*=\s*["'](iso-8859-1|latin-?1|windows-1252)["']""", re.IGNORECASE)


def open_source(
    path: Path,
    scheme: str | os.PathLike | LandmarkScheme | None = None,
    split: str | None = None,
    images: str | os.PathLike | None = None,
) -> FaceSource:
    """Open an imglab file, or a folder of them of which each names its split, itself or by a folder around it.

    Boxes that imglab was told to ignore are left out, and counted in the source's `notes`. Part names that are numbers
    give the order of the points, other names become the names of the points, in order of appearance. A part that a box
    lacks is not annotated.

    Args:
        path: The XML file, or a folder of XML files.
        scheme: The mark-up, as `load_scheme` takes it; by default the one in an export's `face_set.json`, else made
            from the names of the parts.
        split: What to call the split of a single file; what its name says, else `"train"`, by default.
        images: Folder that the pictures' names are relative to; the folder of the file by default.

    Raises:
        DataError: If a file is not in the layout, or does not say its split.
        SchemeError: If the scheme does not belong to the parts.
    """
    known = find_face_set(path)  # what an export of this package says of itself
    files = _files_of_folders(path, exported=known is not None)
    if files:
        refuse_split(split, path)
    files = files or files_by_split(_files(path), split)
    parts, attributes, repeated, notes = _survey(files.values())
    mark_up, order = None, list[int]()
    if parts:
        names = () if all(map(str.isdecimal, parts)) else parts
        mark_up, order = match_scheme(scheme or (known.scheme if known else None), path, names, len(parts))
    elif scheme is not None:
        raise DataError(f"{path} has boxes without parts: there are no points that a scheme could belong to.")
    points = [parts[index] for index in order]
    folders = {name: option_folder(images, file.parent, "pictures") for name, file in files.items()}
    return FaceSource(
        kind="dlib",
        splits={
            name: partial(_rows, file, PicturePlaces((folders[name],), (folders[name],)), points, attributes, repeated)
            for name, file in files.items()
        },
        scheme=mark_up,
        files=tuple(files.values()),
        extend_top=known.extend_top if known else EXTEND_TOP,
        extend_bottom=known.extend_bottom if known else EXTEND_BOTTOM,
        attributes=attribute_features({name: ATTRIBUTES[name] for name in attributes}),
        unverified=known is None,
        notes=tuple(notes),
    )


def _files_of_folders(path: Path, exported: bool) -> dict[str, Path]:
    """Return the only file of each folder that is a split; `exported`: folders of any name are."""
    if path.is_file() or any(path.glob("*.xml")):
        return {}
    folders = split_folders(path)
    if exported:
        inner = sorted(entry for entry in path.iterdir() if entry.is_dir())
        folders = {canonical_split(folder.name, str(path)): folder for folder in inner}
    found = {name: sorted(folder.glob("*.xml")) for name, folder in folders.items()}
    return {name: files[0] for name, files in found.items() if len(files) == 1}


def _files(path: Path) -> list[Path]:
    """List the files of a folder; one without a split in its name is left out where others have one."""
    if path.is_file():
        return [path]
    files = sorted(path.glob("*.xml"))
    if not files:
        raise DataError(f"The folder {path} holds no .xml file.")
    telling = [file for file in files if split_of(file.stem)]
    left_out = [file.name for file in files if telling and file not in telling]
    if left_out:
        # dlib's own 300-W download has a third file, with the faces of both splits.
        logger.warning("Files that name no split are left out: %s.", ", ".join(left_out))
    return telling or files


def _survey(files: Iterable[Path]) -> tuple[list[str], list[str], bool, list[str]]:
    """Look through files: parts in order, attributes, whether a picture has several faces, and what was left out."""
    parts, attributes, repeated, notes = dict[str, None](), set[str](), False, []
    for file in files:
        pictures, faces, ignored = set(), 0, 0
        for box in _boxes(file):
            if box.ignored:
                ignored += 1
                continue
            parts |= dict.fromkeys(box.parts)
            attributes |= set(box.attributes)
            pictures.add(box.image)
            faces += 1
        if not faces:
            raise DataError(f"{file} holds no box; is it a file of imglab?")
        repeated |= len(pictures) < faces
        if ignored:
            notes.append(f"{file.name}: {ignored:,} boxes that are to be ignored are left out.")
    order = sorted(parts, key=int) if all(map(str.isdecimal, parts)) else list(parts)
    return order, [name for name in ATTRIBUTES if name in attributes], repeated, notes


def _rows(
    file: Path, images: PicturePlaces, points: Sequence[str], attributes: Sequence[str], repeated: bool
) -> Iterator[Row]:
    for box in _boxes(file):
        if box.ignored:
            continue
        row: Row = {"image": images.path(box.image), "picture": box.image, "box": box.rectangle}
        row["stated_size"] = box.picture_size
        row["name"] = f"{box.image}:{box.line}" if repeated else box.image
        if points:
            row["landmarks"] = np.array([box.parts.get(part, (math.nan, math.nan)) for part in points])
        absent = {name: False if ATTRIBUTES[name] == "bool" else None for name in attributes}
        yield row | absent | box.attributes


@dataclass
class _Box:
    """One box of a file."""

    image: str
    line: int
    ignored: bool
    rectangle: tuple[float, ...]
    picture_size: tuple[float | None, float | None]
    attributes: dict[str, Any]
    parts: dict[str, tuple[float, float]] = field(default_factory=dict)


def _boxes(file: Path) -> Iterator[_Box]:
    """Yield the boxes of a file, the ignored ones too, reading it piece by piece."""
    try:
        parser = _ImglabParser(file, _encoding(file))
        with open(file, "rb") as stream:
            while chunk := stream.read(_CHUNK):
                yield from parser.feed(chunk)
            yield from parser.feed(b"", last=True)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    except LookupError as error:
        raise DataError(f"{file} names an encoding that is not known: {error}.") from error
    except expat.ExpatError as error:
        reason = expat.errors.messages[error.code]
        raise DataError(f"{file}, line {error.lineno}: no whole XML ({reason}).") from error


def _encoding(file: Path) -> str | None:
    """Return "utf-8" for a file that is that while its header claims an encoding in which everything is valid."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with open(file, "rb") as stream:
        if not _LATIN.match(stream.read(200).lstrip()):
            return None
        stream.seek(0)
        try:
            while chunk := stream.read(_CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return None
    return "utf-8"


class _ImglabParser:
    """Collects boxes while expat reads; expat itself, for it tells lines and lets a document type be refused."""

    def __init__(self, file: Path, encoding: str | None = None):
        self.file = file
        self.expat = expat.ParserCreate(encoding)
        self.expat.buffer_text = True
        self.expat.StartElementHandler = self._start
        self.expat.EndElementHandler = self._end
        self.expat.CharacterDataHandler = self._text
        self.expat.StartDoctypeDeclHandler = self._refuse_document_type
        self.root: str | None = None
        self.image: str | None = None
        self.image_size: tuple[float | None, float | None] = (None, None)
        self.box: _Box | None = None
        self.label: str | None = None
        self.done: list[_Box] = []

    def feed(self, data: bytes, last: bool = False) -> list[_Box]:
        """Read on, and return the boxes that ended."""
        self.expat.Parse(data, last)
        done, self.done = self.done, []
        return done

    def _fail(self, message: str) -> DataError:
        return DataError(f"{self.file}, line {self.expat.CurrentLineNumber}: {message}")

    def _refuse_document_type(self, *_: Any) -> None:
        raise self._fail("a document type (DOCTYPE) is refused, since its entities may be harmful; remove it.")

    def _start(self, element: str, attributes: Mapping[str, str]) -> None:
        if self.root is None:
            self.root = element
            tool = name_foreign_root(element)
            if tool:
                raise DataError(f"{self.file} is no file of imglab but {tool}.")
        if element == "image":
            self.image = attributes.get("file")
            self.image_size = (whole_number(attributes.get("width")), whole_number(attributes.get("height")))
            if not self.image:
                raise self._fail("an image without the attribute file.")
        elif element == "box":
            self.box = self._open_box(attributes)
        elif element == "part" and self.box:
            self._add_part(self.box, attributes)
        elif element == "label" and self.box:
            self.label = ""

    def _end(self, element: str) -> None:
        if element == "box" and self.box:
            self.done.append(self.box)
            self.box = None
        elif element == "label" and self.box and self.label is not None:
            self.box.attributes["label"] = self.label.strip()
            self.label = None

    def _text(self, text: str) -> None:
        if self.label is not None:
            self.label += text

    def _open_box(self, attributes: Mapping[str, str]) -> _Box:
        if self.image is None:
            raise self._fail("a box outside of any image.")
        known: dict[str, Any] = {}
        for name, kind in ATTRIBUTES.items():
            if name in attributes and name != "label":
                text = attributes[name]
                number = kind == "float64"
                known[name] = self._number(attributes, name) if number else _truth(text) if kind == "bool" else text
        return _Box(
            image=self.image,
            line=self.expat.CurrentLineNumber,
            ignored=_truth(attributes.get("ignore", "0")),
            rectangle=tuple(self._number(attributes, name) for name in ("left", "top", "width", "height")),
            picture_size=self.image_size,
            attributes=known,
        )

    def _add_part(self, box: _Box, attributes: Mapping[str, str]) -> None:
        name = attributes.get("name")
        if not name:
            raise self._fail("a part without the attribute name.")
        name = str(int(name)) if name.isdecimal() else name  # "07" and "7" are one point
        if name in box.parts:
            raise self._fail(f"the part {name!r} stands twice in one box.")
        box.parts[name] = self._number(attributes, "x"), self._number(attributes, "y")

    def _number(self, attributes: Mapping[str, str], name: str) -> float:
        try:
            value = float(attributes[name])
        except KeyError:
            raise self._fail(f"the attribute {name} is missing.") from None
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self._fail(f"{name} is {attributes[name]!r}, which is no number.")
        return value


def _truth(text: str) -> bool:
    return text.strip().lower() in ("1", "true")
