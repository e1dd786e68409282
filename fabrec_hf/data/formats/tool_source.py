"""What the readers of annotation tools share: from the shapes in a tool's files to a source of faces.

A tool's module gives `read_file`, which returns what is drawn in a file, and `ADVICE`, what to do where the points of
faces cannot be told apart. The rest is here: which files are which split, which shapes are faces, which label is which
point, and where the pictures are. Coordinates are taken as they are, as in every other format.
"""

import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...model.geometry import EXTEND_BOTTOM, EXTEND_TOP
from ...model.known_schemes import LandmarkScheme
from ..face_set import find_face_set
from ..source import FaceSource, Row
from .foreign import kind_and_content
from .layouts import (
    canonical_split,
    files_by_split,
    find_files,
    only_split,
    option_folder,
    refuse_split,
    split_folders,
)
from .picture_paths import TRIED, PicturePlaces
from .point_labels import place_labels
from .repeated_faces import REPEATED, count_repeated
from .shapes import MarkedPicture, ShapeFace, object_labels, shape_faces


__all__ = ["ToolFile", "open_tool"]

_NOTES = {
    "canceled": "annotations that were skipped in the tool are left out",
    "predictions": "pictures with predictions that nobody has confirmed are left out",
    "rotated": "shapes on pictures that were turned in the tool are left out",
    "faces": "faces without an annotated point are left out",
    "boxes": "boxes without points are left out",
    "shapes": "shapes that are no points of a face are left out",
    "repeated": REPEATED,
}


@dataclass
class ToolFile:
    """What a file of a tool holds.

    Attributes:
        pictures: What was drawn in each picture; one that several people annotated stands here several times.
        labels: The labels of points that the file declares, in order, by the label of the object that they are part
            of, "" for single points.
        left_out: How much the reader did not take, by the keys of the notes.
        visibility: Whether the tool says of every point whether it is visible.
    """

    pictures: list[MarkedPicture] = field(default_factory=list)
    labels: dict[str, list[str]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    visibility: bool = False


@dataclass(frozen=True)
class _Choice:
    """How faces are told from shapes, decided once for all files of a set; `category` is None for single points."""

    carrier: str
    category: str | None
    scheme: LandmarkScheme
    index: Mapping[str, int]
    visibility: bool


_Opened = tuple[Path, PicturePlaces, ToolFile]


def open_tool(
    kind: str,
    path: Path,
    suffixes: tuple[str, ...],
    scheme: str | os.PathLike | LandmarkScheme | None,
    split: str | None,
    images: str | os.PathLike | None,
    category: str | None = None,
    many: bool = False,
) -> FaceSource:
    """Open the files of a tool.

    Args:
        kind: The kind of data, which is the name of the tool's module.
        path: A file, or a folder with one, or with one a split by its name or in a folder of its name.
        suffixes: What the files end in.
        scheme: The mark-up, as `load_scheme` takes it; by default the one in an export's `face_set.json`, else made
            from the labels.
        split: What to call the split of data that does not tell it.
        images: Folder of the pictures; else they are looked for beside the file.
        category: The label of the faces, where there are several objects.
        many: Whether a folder holds a file for each picture.

    Raises:
        DataError: If there is no such file, it is damaged or not of the tool, it holds no annotated face, the points
            of faces cannot be told apart, or no picture is found.
        SchemeError: If a label is none of the scheme's points.
    """
    known = find_face_set(path)  # what an export of this package says of itself
    read: dict[Path, ToolFile] = {}
    files = _find_files(kind, path, suffixes, split, many, known is not None, read)
    opened = {
        name: [(file, _places(file, path, images), read.get(file) or _read(kind, file)) for file in found]
        for name, found in files.items()
    }
    every = [part for parts in opened.values() for part in parts]
    carrier, category = _choose(path, every, category)
    surveys = {name: _survey(kind, path, parts, carrier, category) for name, parts in opened.items()}
    faces = [face for survey in surveys.values() for face in survey[0]]
    seen = list(dict.fromkeys(label for face in faces for label in face.points))
    declared = [label for _, _, content in every for label in content.labels.get(category or "", ())]
    mark_up, index, remarks = place_labels(seen, declared, scheme or (known.scheme if known else None), path)
    _check_pictures(path, every)
    visibility = any(content.visibility for _, _, content in every) or not all(
        point.visible for face in faces for point in face.points.values()
    )
    return FaceSource(
        kind=kind,
        splits=_splits(opened, _Choice(carrier, category, mark_up, index, visibility), path, split),
        scheme=mark_up,
        files=tuple(file for file, _, _ in every),
        extend_top=known.extend_top if known else EXTEND_TOP,
        extend_bottom=known.extend_bottom if known else EXTEND_BOTTOM,
        visibility=visibility,
        unverified=known is None,
        notes=(*(note for survey in surveys.values() for note in survey[1]), *remarks),
    )


def _splits(
    opened: Mapping[str, Sequence[_Opened]], choice: _Choice, path: Path, split: str | None
) -> dict[str, Callable[[], Iterator[Row]]]:
    """Return the splits: those that the pictures state, if they do, else those of the files."""
    first = next(iter(opened.values()))
    stated = _stated_splits(first) if len(opened) == 1 else ()
    if not stated:
        return {name: partial(_rows, parts, choice, None) for name, parts in opened.items()}
    refuse_split(split, path)
    return {name: partial(_rows, first, choice, name) for name in stated}


def _find_files(
    kind: str,
    path: Path,
    suffixes: tuple[str, ...],
    split: str | None,
    many: bool,
    exported: bool,
    read: dict[Path, ToolFile],
) -> dict[str, list[Path]]:
    """Return the files of every split; `exported`: folders of any name are splits.

    What was read on the way to tell the kinds of files goes to `read`.
    """
    if path.is_file() and many:
        return {only_split(split): [path]}
    if path.is_file():
        return {name: [file] for name, file in files_by_split([path], split).items()}
    found = []
    for file in find_files(path, suffixes):
        told, content = kind_and_content(file)
        if told == kind:
            found.append(file)
            if content is not None:
                with suppress(DataError):  # which is raised again if the file turns out to be wanted
                    read[file] = _read(kind, file, content)
    if not found:
        raise DataError(f"The folder {path} holds no {' or '.join(suffixes)} file of the kind {kind}.")
    folders = split_folders(path)
    if exported:
        inner = sorted({file.relative_to(path).parts[0] for file in found if file.parent != path})
        folders = {canonical_split(name, str(path)): path / name for name in inner}
    parts = {name: [file for file in found if folder in file.parents] for name, folder in folders.items()}
    parts = {name: files for name, files in parts.items() if files}
    if parts:
        refuse_split(split, path)
        return {name: files if many else [_only(files)] for name, files in parts.items()}
    if many:
        return {only_split(split): found}
    return {name: [file] for name, file in files_by_split(_one_form(found), split).items()}


def _one_form(files: Sequence[Path]) -> list[Path]:
    """Return the JSON files where there are some: a tool may have exported the same as CSV beside them."""
    return [file for file in files if file.suffix.lower() == ".json"] or list(files)


def _only(files: Sequence[Path]) -> Path:
    found = _one_form(files)
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1].name} are of the same split; give one file.")
    return found[0]


def _places(file: Path, path: Path, images: str | os.PathLike | None) -> PicturePlaces:
    if images is not None:
        given = option_folder(images, path if path.is_dir() else path.parent, "pictures")
        return PicturePlaces((given,), (given,))
    folders = (file.parent, file.parent / "images", file.parent.parent, file.parent.parent / "images")
    return PicturePlaces(folders, (file.parent,))


def _read(kind: str, file: Path, content: Any = None) -> ToolFile:
    module = importlib.import_module(f".{kind}", __package__)
    return module.read_file(file) if content is None else module.read_file(file, content)


def _choose(path: Path, files: Sequence[_Opened], category: str | None) -> tuple[str, str | None]:
    """Decide which shapes are faces, and which of several objects."""
    carrier, labels = object_labels(picture for _, _, content in files for picture in content.pictures)
    if not carrier:
        unconfirmed = any(content.left_out["predictions"] for _, _, content in files)
        more = " but predictions: look through them in the tool, submit them, and export again" if unconfirmed else ""
        raise DataError(f"{path} holds no annotated point{more}.")
    if carrier == "points":
        if category is not None:
            raise DataError(f"{path} has single points, which are of no category; leave out {category!r} (category).")
        return carrier, None
    if category is not None and category not in labels:
        raise DataError(f"{path} has no {carrier} of the label {category!r}; it has {', '.join(labels)}.")
    if category is None and len(labels) > 1:
        raise DataError(f"{path} has {carrier} of the labels {', '.join(labels)}; say which one is a face (category).")
    return carrier, category or labels[0]


def _survey(
    kind: str, path: Path, files: Sequence[_Opened], carrier: str, category: str | None
) -> tuple[list[ShapeFace], list[str]]:
    """Look through the faces of a split: return them, and sentences on what was left out."""
    advice: str = importlib.import_module(f".{kind}", __package__).ADVICE
    left_out, faces, pictures = Counter[str](), list[ShapeFace](), list[str]()
    for _, _, content in files:
        left_out += content.left_out
        for picture in content.pictures:
            found = shape_faces(picture, carrier, category, advice, left_out)
            faces += found
            pictures += [picture.name] * len(found)
            other = next((face for face in found if len(face.points) != len(faces[0].points)), None)
            if other and carrier == "outlines":
                raise DataError(
                    f"{picture.where}: an outline of {len(other.points)} points, but the first one has "
                    f"{len(faces[0].points)}; which point is which cannot be told."
                )
    if not faces:
        raise DataError(f"{files[0][0]} holds no annotated face.")
    labels = list(dict.fromkeys(label for face in faces for label in face.points))
    triples = ([_triple(face, label) for label in labels] for face in faces)
    flat = ([value for triple in found for value in triple] for found in triples)
    left_out["repeated"] = count_repeated(zip(pictures, flat, strict=True))
    name = files[0][0].name if len(files) == 1 else path.name
    return faces, [f"{name}: {left_out[key]:,} {text}." for key, text in _NOTES.items() if left_out[key]]


def _triple(face: ShapeFace, label: str) -> tuple[float, float, int]:
    point = face.points.get(label)
    return (point.x, point.y, 2) if point else (0, 0, 0)


def _stated_splits(files: Sequence[_Opened]) -> tuple[str, ...]:
    """Return the splits that the files state, if they state one for every picture in which something is drawn."""
    pictures = [picture for _, _, content in files for picture in content.pictures]
    stated = [picture.split for picture in pictures if picture.points or picture.outlines or picture.skeletons]
    names = [canonical_split(name, str(files[0][0])) for name in stated if name is not None]
    return tuple(dict.fromkeys(names)) if len(names) == len(stated) else ()


def _check_pictures(path: Path, files: Sequence[_Opened]) -> None:
    named = [(places, picture.name) for _, places, content in files for picture in content.pictures][:TRIED]
    if not any(places.find(name) for places, name in named):
        places, name = named[0]
        looked = ", ".join(str(folder) for folder in places.folders if folder.is_dir())
        raise DataError(f"{path} names pictures such as {name}, found nowhere in {looked}; say where (images).")


def _rows(files: Sequence[_Opened], choice: _Choice, split: str | None) -> Iterator[Row]:
    """Yield the faces of files in their order; `split`: of those pictures only that state it."""
    for file, places, content in files:
        found = [shape_faces(picture, choice.carrier, choice.category, "", Counter()) for picture in content.pictures]
        total, number = Counter[str](), Counter[str]()
        for picture, faces in zip(content.pictures, found, strict=True):
            total[picture.name] += len(faces)
        for picture, faces in zip(content.pictures, found, strict=True):
            for face in faces:
                number[picture.name] += 1
                if split is None or canonical_split(str(picture.split), str(file)) == split:
                    suffix = f":{number[picture.name]}" if total[picture.name] > 1 else ""
                    yield _row(picture, face, choice, places) | {"name": f"{picture.name}{suffix}"}


def _row(picture: MarkedPicture, face: ShapeFace, choice: _Choice, places: PicturePlaces) -> Row:
    points = np.full((choice.scheme.num_landmarks, 2), np.nan)
    visible = [False] * choice.scheme.num_landmarks
    for label, point in face.points.items():
        points[choice.index[label]] = point.x, point.y
        visible[choice.index[label]] = point.visible
    row: Row = {"image": places.path(picture.name), "picture": picture.name, "landmarks": points}
    row |= {"stated_size": picture.size} | ({"visibility": visible} if choice.visibility else {})
    return row | ({"box": face.box} if face.box else {})
