"""A reader of COCO keypoints: JSON files with `images`, `annotations` and `categories`.

An annotation's `keypoints` are x, y, v for every point: v = 0 is not annotated, 1 is hidden, 2 is visible. They are
taken for pixels from 0, as this package counts them, and `bbox` for the face box (x, y, width, height). What else a
face has stands in the annotation's `attributes`; `name`, `picture` and `subset` in them are as in every set of faces.
What tools write otherwise is read where its meaning is plain, and counted.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError
from ...model.geometry import EXTEND_BOTTOM, EXTEND_TOP
from ...model.known_schemes import LandmarkScheme
from ..face_set import find_face_set
from ..scheme_files import match_scheme
from ..source import FaceSource, Row
from .foreign import name_foreign_json
from .layouts import (
    TEXT_COLUMNS,
    AttributeTypes,
    attribute_features,
    cast_attributes,
    files_by_split,
    is_number,
    option_folder,
    read_json,
    refuse_split,
    split_folders,
)
from .picture_paths import TRIED, PicturePlaces
from .repeated_faces import REPEATED, count_repeated


__all__ = ["BOX_OF_POINTS", "open_source"]

BOX_OF_POINTS = "bbox_of_points"
"""What an annotation says true of whose face had no box: its `bbox` is that of its points."""

logger = logging.getLogger(__name__)


def open_source(
    path: Path,
    scheme: str | os.PathLike | LandmarkScheme | None = None,
    split: str | None = None,
    category: str | None = None,
    images: str | os.PathLike | None = None,
) -> FaceSource:
    """Open a COCO keypoints file, or a folder with one a split (`annotations/person_keypoints_train2017.json`).

    A folder may also have a folder a split with `_annotations.coco.json` in each (`train`, `valid`, `test`).

    Crowds, and annotations without any annotated keypoint, are left out and counted in the source's `notes`. A
    category without names of keypoints has as many as its annotations. Pictures are found by their base names too.

    Args:
        path: The JSON file, or the folder of it or of its `annotations`.
        scheme: The mark-up, as `load_scheme` takes it; by default the one in an export's `face_set.json`, else made
            from the category's names and skeleton.
        split: What to call the split of a single file; what its name says, else `"train"`, by default.
        category: Name or id of the category to read, if several have keypoints.
        images: Folder of the pictures; else they are looked for where COCO and its like keep them.

    Raises:
        DataError: If a file is not in the layout, or no picture is where it should be.
        SchemeError: If the scheme does not belong to the keypoints.
    """
    files = _split_folders(path)
    if files:
        refuse_split(split, path)
    files = files or files_by_split(_find_files(path), split)
    types = AttributeTypes()
    opened = {name: _open(file, category, images, types) for name, file in files.items()}
    first = next(iter(opened.values()))
    for other in opened.values():
        if (other.names, other.count) != (first.names, first.count):
            raise DataError(f"{other.file} has other keypoints than {first.file}; give them apart.")
    types.warn()
    known = find_face_set(path)  # what an export of this package says of itself
    scheme = scheme or (known.scheme if known else None)
    mark_up, order = match_scheme(scheme, first.file, first.names, first.count, edges=first.edges)
    return FaceSource(
        kind="coco",
        splits={name: partial(_rows, part, order, types.found) for name, part in opened.items()},
        scheme=mark_up,
        files=tuple(part.file for part in opened.values()),
        extend_top=known.extend_top if known else EXTEND_TOP,
        extend_bottom=known.extend_bottom if known else EXTEND_BOTTOM,
        visibility=True,
        attributes=attribute_features(types.found),
        unverified=known is None,
        notes=tuple(note for part in opened.values() for note in part.notes),
    )


@dataclass(frozen=True)
class _Part:
    """One file that was looked through: which category is read, its points, where the pictures are, what to tell."""

    file: Path
    images: PicturePlaces
    category: Any
    count: int
    names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    notes: tuple[str, ...]


def _split_folders(path: Path) -> dict[str, Path]:
    """Return the files of an export with a folder a split, each with its pictures, as Roboflow writes it."""
    name = "_annotations.coco.json"
    if path.is_file() or any((path / "annotations").glob("*.json")):
        return {}
    return {split: folder / name for split, folder in split_folders(path).items() if (folder / name).is_file()}


def _find_files(path: Path) -> list[Path]:
    """List the JSON files of a folder; where some are called keypoints, only these."""
    if path.is_file():
        return [path]
    files = sorted((path / "annotations").glob("*.json")) or sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"The folder {path} holds no .json file, nor does annotations in it.")
    return [file for file in files if "keypoint" in file.name.lower()] or files


def _open(file: Path, category: str | None, images: str | os.PathLike | None, types: AttributeTypes) -> _Part:
    content, found = _load(file), Counter[str]()
    chosen = _category(content, category, file)
    names = _point_names(chosen, file)
    faces = list(_faces(content, chosen.get("id"), file, found))
    if not faces:
        raise DataError(f"{file} holds no annotated face of that category.")
    count = len(names) or Counter(len(face["keypoints"]) // 3 for face in faces).most_common(1)[0][0]
    edges, unusable = _edges(chosen.get("skeleton"), count)
    for face in faces:
        types.see(face["attributes"])
        found["origin"] += sum(bool(x == y == 0 and v) for x, y, v in _triples(face["keypoints"]))
    found["repeated"] = count_repeated((face["file_name"], face["keypoints"]) for face in faces)
    pictures = list(dict.fromkeys(face["file_name"] for face in faces[: 10 * TRIED]))[:TRIED]
    places = _picture_places(file, images, pictures)
    numbers = all(str(name).isdecimal() for name in names)
    named = () if numbers else tuple(map(str, names))
    return _Part(file, places, chosen.get("id"), count, named, edges, tuple(_notes(file, found, unusable)))


def _notes(file: Path, found: Mapping[str, int], unusable: int) -> Iterator[str]:
    """Say what was left out of a file, or taken for something else than it says."""
    for name, text in {
        "crowd": "crowds (iscrowd) are left out",
        "unlabeled": "annotations without an annotated point are left out",
        "repeated": REPEATED,
        "origin": "points at (0, 0) are taken for not annotated",
    }.items():
        if found.get(name):
            yield f"{file.name}: {found[name]:,} {text}."
    if unusable:
        yield f"{file.name}: {unusable:,} lines of the skeleton join points that there are not; they are left out."


def _load(file: Path) -> dict[str, Any]:
    """Parse a file and check that it has its three lists."""
    content = read_json(file)
    for key in ("images", "annotations", "categories"):
        values = content.get(key) if isinstance(content, dict) else None
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            tool = name_foreign_json(content)
            reason = f"it is {tool}" if tool else f"it has no list {key!r} of objects"
            raise DataError(f"{file} is no COCO keypoints file: {reason}.")
    return content


def _category(content: Mapping[str, Any], wanted: str | None, file: Path) -> Mapping[str, Any]:
    """Return the category to read: of those with names of keypoints, else of those whose annotations have some."""
    categories = [category for category in content["categories"] if category.get("keypoints")]
    if not categories:
        used = {str(face.get("category_id")) for face in content["annotations"] if face.get("keypoints")}
        categories = [category for category in content["categories"] if str(category.get("id")) in used]
    names = ", ".join(str(category.get("name", category.get("id"))) for category in categories)
    if not categories:
        raise DataError(f"{file} has no category with keypoints.")
    if wanted is not None:
        categories = [c for c in categories if str(wanted) in (str(c.get("name")), str(c.get("id")))]
        if not categories:
            raise DataError(f"{file} has no category {wanted!r} with keypoints; it has {names}.")
    if len(categories) > 1:
        raise DataError(f"{file} has keypoints of the categories {names}; say which one (category).")
    return categories[0]


def _point_names(category: Mapping[str, Any], file: Path) -> list[str | int]:
    points = category.get("keypoints") or []
    if not isinstance(points, list) or not all(isinstance(name, (str, int)) for name in points):
        raise DataError(f"{file}: the keypoints of the category {category.get('name')} must be a list of names.")
    return points


def _edges(skeleton: Any, count: int) -> tuple[tuple[tuple[int, int], ...], int]:
    """Return the lines of a skeleton, counted from 0, and how many join points that there are not.

    The format counts points from 1, and some tools count from 0, which shows where one is called 0.
    """
    edges = skeleton if isinstance(skeleton, list) else []
    pairs = [tuple(e) for e in edges if isinstance(e, list) and len(e) == 2 and all(type(end) is int for end in e)]
    first = 0 if any(0 in pair for pair in pairs) else 1
    usable = [pair for pair in pairs if all(first <= end < count + first for end in pair) and pair[0] != pair[1]]
    shifted = tuple((start - first, end - first) for start, end in usable)
    return tuple(dict.fromkeys(shifted)), len(edges) - len(usable)


def _faces(
    content: Mapping[str, Any], category: Any, file: Path, left_out: Counter[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the annotations of a category that have keypoints, with `file_name`, `stated_size` and `attributes`.

    What is left out is counted.
    """
    pictures = {image.get("id"): image for image in content["images"]}
    left_out = Counter() if left_out is None else left_out
    for annotation in content["annotations"]:
        if str(annotation.get("category_id")) != str(category):
            continue
        if annotation.get("iscrowd"):
            left_out["crowd"] += 1
            continue
        keypoints = annotation.get("keypoints") or []
        where = f"{file}, annotation {annotation.get('id')}"
        if not isinstance(keypoints, list) or len(keypoints) % 3:
            raise DataError(f"{where}: keypoints must be a list of x, y, v for every point.")
        if not any(keypoints[2::3]):
            left_out["unlabeled"] += 1
            continue
        picture = pictures.get(annotation.get("image_id"), {})
        if not isinstance(picture.get("file_name"), str):
            raise DataError(f"{where}: there is no image {annotation.get('image_id')!r} with a file_name.")
        attributes = annotation.get("attributes") or {}
        if not isinstance(attributes, dict):
            raise DataError(f"{where}: attributes must be an object.")
        size = (picture.get("width"), picture.get("height"))
        told = {"file_name": picture["file_name"], "stated_size": size, "attributes": attributes, "where": where}
        yield annotation | told


def _picture_places(file: Path, images: str | os.PathLike | None, pictures: Sequence[str]) -> PicturePlaces:
    """Find the folder of the pictures: beside the file or above, in images/, in train2017/, in both, or anywhere."""
    token = re.search(r"(?<![a-z])(train|test|validation|valid|val|dev)\d*", file.stem, re.IGNORECASE)
    subset = file.stem.rpartition("_")[2]  # CVAT: person_keypoints_default.json and images/default/
    given = None if images is None else option_folder(images, file.parent, "pictures")
    bases = [file.parent, file.parent.parent] if given is None else [given]
    parts = dict.fromkeys([*([token[0]] if token else []), subset])
    # The folder of the split first: the one above it may hold other pictures of the same names.
    below = [*(f"{folder}{part}" for part in parts for folder in ("images/", "")), "images", ""]
    folders = [base / name for base in bases for name in below]
    first = [folder for folder in folders if PicturePlaces((folder,)).holds_one_of(pictures)][:1]
    folders = [*first, *(folder for folder in folders if folder not in first)]
    # The folder above is looked through only where it is the export's: a file on a desktop stands beside all there is.
    above = [file.parent.parent] if file.parent.name.lower() in ("annotations", "labels", "result") else []
    places = PicturePlaces(tuple(folders), (given,) if given else (file.parent, *above))
    if not places.holds_one_of(pictures):
        looked = ", ".join(str(folder) for folder in folders if folder.is_dir())
        raise DataError(f"{file} names pictures such as {pictures[0]}, found nowhere in {looked}; say where (images).")
    return places


def _triples(keypoints: Sequence[Any]) -> Iterator[tuple[Any, Any, Any]]:
    return zip(keypoints[::3], keypoints[1::3], keypoints[2::3], strict=True)


def _rows(part: _Part, order: Sequence[int], types: Mapping[str, str]) -> Iterator[Row]:
    faces = list(_faces(_load(part.file), part.category, part.file))
    count = Counter(face["file_name"] for face in faces)
    for face in faces:
        name, where, attributes = face["file_name"], face["where"], face["attributes"]
        values = face["keypoints"]
        if len(values) == 3 * part.count:  # a point without a place is no mistake where it is not annotated
            values = [number for x, y, v in _triples(values) for number in ((x, y, v) if v else (0, 0, 0))]
        keypoints = _numbers(values, 3 * part.count, "keypoints", where).reshape(-1, 3)[order]
        if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
            raise DataError(f"{where}: the third number of a keypoint is 0, 1 or 2.")
        known = (keypoints[:, 2:] > 0) & keypoints[:, :2].any(axis=1, keepdims=True)
        row: Row = {
            "image": part.images.path(name),
            "landmarks": np.where(known, keypoints[:, :2], np.nan),
            "visibility": (keypoints[:, 2] == 2).tolist(),
            "name": name if count[name] == 1 else f"{name}:{face.get('id')}",
            "picture": name,
            "stated_size": face["stated_size"],
        }
        if any(face.get("bbox") or ()) and not face.get(BOX_OF_POINTS):  # zeros stand for no box
            row["box"] = _numbers(face["bbox"], 4, "bbox", where)
        row |= {key: str(attributes[key]) for key in TEXT_COLUMNS if attributes.get(key) is not None}
        yield row | cast_attributes(attributes, types)


def _numbers(values: Any, count: int, what: str, where: str) -> np.ndarray:
    if not isinstance(values, list) or len(values) != count:
        raise DataError(f"{where}: {what} must be a list of {count} numbers.")
    if not all(map(is_number, values)):
        raise DataError(f"{where}: {what} holds what is no finite number.")
    return np.array(values, dtype=np.float64)
