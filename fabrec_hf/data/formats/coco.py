"""COCO keypoints: a reader of JSON files with `images`, `annotations` and `categories`, and a writer.

An annotation's `keypoints` are x, y, v for every point: v = 0 is not annotated, 1 is hidden, 2 is visible. They are
taken for pixels from 0, as this package counts them, and `bbox` for the face box (x, y, width, height). What else a
face has stands in the annotation's `attributes`; `name`, `picture` and `subset` in them are as in every set of faces.
"""

import json
import logging
import math
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import datasets
import numpy as np
from tqdm.auto import tqdm

from ...errors import DataError, SchemeError
from ...model.geometry import EXTEND_BOTTOM, EXTEND_TOP
from ...model.known_schemes import LandmarkScheme
from ..face_set import find_face_set
from ..scheme_files import match_scheme
from ..source import FaceSource, Row
from .layouts import (
    AttributeTypes,
    attribute_features,
    canonical_split,
    cast_attributes,
    encoded_picture,
    file_stem,
    files_by_split,
    option_folder,
    points_of,
    scalar_columns,
    shortest,
)


__all__ = ["export_coco", "open_source"]

logger = logging.getLogger(__name__)

_TEXT_COLUMNS = ("name", "picture", "subset")
_TRIED = 100  # pictures looked for before a folder is taken for the wrong one


def open_source(
    path: Path,
    scheme: str | os.PathLike | LandmarkScheme | None = None,
    split: str | None = None,
    category: str | None = None,
    images: str | os.PathLike | None = None,
) -> FaceSource:
    """Open a COCO keypoints file, or a folder with one file a split (`annotations/person_keypoints_train2017.json`).

    Crowds, and annotations without any annotated keypoint, are left out.

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
    files = files_by_split(_find_files(path), split)
    types = AttributeTypes()
    opened = {name: _open(file, category, images, types) for name, file in files.items()}
    first = next(iter(opened.values()))
    for other in opened.values():
        if (other.names, other.count) != (first.names, first.count):
            raise DataError(f"{other.file} has other keypoints than {first.file}; give them apart.")
    if types.dropped:
        logger.warning("Lists and mappings are no attributes, left out: %s.", ", ".join(types.dropped))
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
    )


@dataclass(frozen=True)
class _Part:
    """One file that was looked through: which category is read, its points, and where the pictures are."""

    file: Path
    images: Path
    category: int | None
    count: int
    names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]


def _find_files(path: Path) -> list[Path]:
    """List the JSON files of a folder; where some are called keypoints, only these."""
    if path.is_file():
        return [path]
    files = sorted((path / "annotations").glob("*.json")) or sorted(path.glob("*.json"))
    if not files:
        raise DataError(f"The folder {path} holds no .json file, nor does annotations in it.")
    return [file for file in files if "keypoint" in file.name.lower()] or files


def _open(file: Path, category: str | None, images: str | os.PathLike | None, types: AttributeTypes) -> _Part:
    content = _load(file)
    identity, names, edges, count = _category(content, category, file)
    faces = list(_faces(content, identity, file))
    if not faces:
        raise DataError(f"{file} holds no annotated face of that category.")
    for face in faces:
        types.see(face["attributes"])
    pictures = list(dict.fromkeys(face["file_name"] for face in faces[: 10 * _TRIED]))[:_TRIED]
    return _Part(file, _picture_folder(file, images, pictures), identity, count, names, edges)


def _load(file: Path) -> dict[str, Any]:
    """Parse a file and check that it has its three lists."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is no whole JSON file: {error}.") from error
    for key in ("images", "annotations", "categories"):
        values = content.get(key) if isinstance(content, dict) else None
        if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
            raise DataError(f"{file} is no COCO keypoints file: it has no list {key!r} of objects.")
    return content


def _category(
    content: Mapping[str, Any], chosen: str | None, file: Path
) -> tuple[Any, tuple[str, ...], tuple[tuple[int, int], ...], int]:
    """Return the id of the category to read, the names of its points, its edges and the number of its points."""
    categories = [category for category in content["categories"] if category.get("keypoints")]
    names = ", ".join(str(category.get("name", category.get("id"))) for category in categories)
    if not categories:
        raise DataError(f"{file} has no category with keypoints.")
    if chosen is not None:
        categories = [c for c in categories if str(chosen) in (str(c.get("name")), str(c.get("id")))]
        if not categories:
            raise DataError(f"{file} has no category {chosen!r} with keypoints; it has {names}.")
    if len(categories) > 1:
        raise DataError(f"{file} has keypoints of the categories {names}; say which one (category).")
    category = categories[0]
    points = category["keypoints"]
    if not isinstance(points, list) or not all(isinstance(name, (str, int)) for name in points):
        raise DataError(f"{file}: the keypoints of the category {names} must be a list of names.")
    edges = []
    for edge in category.get("skeleton") or []:
        whole = isinstance(edge, list) and len(edge) == 2 and all(type(end) is int for end in edge)
        if not whole or not all(1 <= end <= len(points) for end in edge):
            raise DataError(f"{file}: skeleton joins points from 1 to {len(points)}, not {edge!r}.")
        edges.append((edge[0] - 1, edge[1] - 1))
    numbers = all(str(name).isdecimal() for name in points)
    return category.get("id"), () if numbers else tuple(map(str, points)), tuple(edges), len(points)


def _faces(content: Mapping[str, Any], category: Any, file: Path) -> Iterator[dict[str, Any]]:
    """Yield the annotations of a category that have keypoints, with `file_name` and `attributes`."""
    names = {image.get("id"): image.get("file_name") for image in content["images"]}
    for annotation in content["annotations"]:
        keypoints = annotation.get("keypoints")
        if annotation.get("iscrowd") or annotation.get("category_id") != category or not keypoints:
            continue
        where = f"{file}, annotation {annotation.get('id')}"
        if not isinstance(keypoints, list) or len(keypoints) % 3:
            raise DataError(f"{where}: keypoints must be a list of x, y, v for every point.")
        if not any(keypoints[2::3]):
            continue
        name = names.get(annotation.get("image_id"))
        if not isinstance(name, str):
            raise DataError(f"{where}: there is no image {annotation.get('image_id')!r} with a file_name.")
        attributes = annotation.get("attributes") or {}
        if not isinstance(attributes, dict):
            raise DataError(f"{where}: attributes must be an object.")
        yield annotation | {"file_name": name, "attributes": attributes, "where": where}


def _picture_folder(file: Path, images: str | os.PathLike | None, pictures: Sequence[str]) -> Path:
    """Find the folder of the pictures: beside the file or above it, in images/, in train2017/ or in both."""
    token = re.search(r"(?<![a-z])(train|test|validation|valid|val|dev)\d*", file.stem, re.IGNORECASE)
    bases = [file.parent, file.parent.parent] if images is None else [option_folder(images, file.parent, "pictures")]
    below = ["", "images", *([token[0], f"images/{token[0]}"] if token else [])]
    places = [base / name for base in bases for name in below]
    for place in places:
        if any((place / picture).is_file() for picture in pictures):
            return place
    looked = ", ".join(str(place) for place in places if place.is_dir())
    raise DataError(f"{file} names pictures such as {pictures[0]}, found nowhere in {looked}; say where (images).")


def _rows(part: _Part, order: Sequence[int], types: Mapping[str, str]) -> Iterator[Row]:
    faces = list(_faces(_load(part.file), part.category, part.file))
    count = Counter(face["file_name"] for face in faces)
    for face in faces:
        name, where, attributes = face["file_name"], face["where"], face["attributes"]
        keypoints = _numbers(face["keypoints"], 3 * part.count, "keypoints", where).reshape(-1, 3)[order]
        if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
            raise DataError(f"{where}: the third number of a keypoint is 0, 1 or 2.")
        row: Row = {
            "image": part.images / name,
            "landmarks": np.where(keypoints[:, 2:] > 0, keypoints[:, :2], np.nan),
            "visibility": (keypoints[:, 2] == 2).tolist(),
            "name": name if count[name] == 1 else f"{name}:{face.get('id')}",
            "picture": name,
        }
        if any(face.get("bbox") or ()):  # zeros stand for no box
            row["box"] = _numbers(face["bbox"], 4, "bbox", where)
        row |= {key: str(attributes[key]) for key in _TEXT_COLUMNS if attributes.get(key) is not None}
        yield row | cast_attributes(attributes, types)


def _numbers(values: Any, count: int, what: str, where: str) -> np.ndarray:
    if not isinstance(values, list) or len(values) != count:
        raise DataError(f"{where}: {what} must be a list of {count} numbers.")
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise DataError(f"{where}: {what} holds what is no finite number.")
    return np.array(values, dtype=np.float64)


def export_coco(
    dataset: datasets.Dataset,
    scheme: LandmarkScheme,
    folder: str | os.PathLike,
    split: str,
    progress: bool = False,
) -> int:
    """Write faces as `annotations/SPLIT.json` and `images/SPLIT/`, which `open_source` reads back as they are.

    Pictures are written as they are stored, numbers so that they give the same float32. Columns of one value a row go
    to the annotation's `attributes`; other lists find no place in this format. A face without any annotated point is
    written, but by the rules of the format its readers take it for not annotated.

    Args:
        dataset: Faces with `image` and `landmarks`.
        scheme: Their mark-up, for the names of the points and the skeleton.
        folder: Where to write. What there is of other splits stays.
        split: What to call them.
        progress: Show a progress bar.

    Returns:
        The number of faces written.

    Raises:
        DataError: If there are no landmarks, a picture cannot be read, or the folder holds this split already.
        SchemeError: If a face has another number of points than the scheme.
    """
    split, folder = canonical_split(split, "export_coco"), Path(folder)
    missing = [name for name in ("image", "landmarks") if name not in dataset.column_names]
    if missing:
        raise DataError(f"The faces have no column {', '.join(missing)} to write COCO keypoints from.")
    pictures, target = folder / "images" / split, folder / "annotations" / f"{split}.json"
    for place in (pictures, target):
        if place.exists():
            raise DataError(f"{place} exists already; name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        (unfinished / "images").mkdir()
        with open(unfinished / "annotations.json", "w", encoding="utf-8") as stream:
            _write(stream, dataset, scheme, unfinished / "images", split, progress)
        pictures.parent.mkdir(exist_ok=True)
        target.parent.mkdir(exist_ok=True)
        (unfinished / "images").replace(pictures)
        (unfinished / "annotations.json").replace(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return len(dataset)


def _write(
    stream: TextIO, dataset: datasets.Dataset, scheme: LandmarkScheme, folder: Path, split: str, progress: bool
) -> None:
    """Write pictures into the folder and annotations to the stream, one at a time."""
    names = scheme.point_names or tuple(map(str, range(scheme.num_landmarks)))
    category = {
        "id": 1,
        "name": "face",
        "supercategory": "person",
        "keypoints": list(names),
        "skeleton": [[first + 1, second + 1] for first, second in scheme.edges],
    }
    columns, images, unlabelled = scalar_columns(dataset.features), [], 0
    rows = dataset.cast_column("image", datasets.Image(decode=False))
    stream.write(f'{{"categories": {_json([category])},\n"annotations": [')
    for index, row in enumerate(tqdm(rows, desc="writing", unit="face", disable=not progress)):
        content, suffix, (width, height) = encoded_picture(row["image"], index)
        file_name = file_stem(index, row.get("name")) + suffix
        (folder / file_name).write_bytes(content)
        images.append({"id": index + 1, "file_name": f"{split}/{file_name}", "width": width, "height": height})
        annotation = _annotation(row, index + 1, scheme, columns)
        unlabelled += not annotation["num_keypoints"]
        stream.write(f"{',' if index else ''}\n{_json(annotation)}")
    stream.write(f'],\n"images": {_json(images)}}}\n')
    if unlabelled:
        logger.warning(
            "%d faces of %s have no annotated point: readers of COCO files leave them out.", unlabelled, split
        )


def _annotation(row: Mapping[str, Any], number: int, scheme: LandmarkScheme, columns: Sequence[str]) -> dict[str, Any]:
    points = points_of(row["landmarks"])
    if points.shape != (scheme.num_landmarks, 2):
        raise SchemeError(f"Row {number - 1} has {len(points)} points, but {scheme.name} has {scheme.num_landmarks}.")
    visible = row.get("visibility") or [True] * len(points)
    keypoints: list[float] = []
    for (x, y), seen in zip(points, visible, strict=True):
        known = bool(np.isfinite(x) and np.isfinite(y))
        keypoints += [shortest(x), shortest(y), 2 if seen else 1] if known else [0, 0, 0]
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
        "keypoints": keypoints,
    }
    if row.get("box") is not None:
        box = [shortest(value) for value in row["box"]]
        annotation |= {"bbox": box, "area": box[2] * box[3]}
    annotation["attributes"] = {name: _plain(row[name]) for name in columns if row[name] is not None}
    return annotation


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: null for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
