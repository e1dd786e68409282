"""Label Studio's JSON, in the full form and in the short one ("JSON-MIN"), and its predictions.

    [{"data": {"image": "/data/upload/1/a.jpg"}, "annotations": [{"result": [
      {"id": "f", "type": "rectanglelabels", "original_width": 640, "original_height": 480,
       "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rectanglelabels": ["face"]}},
      {"id": "p", "type": "keypointlabels", "original_width": 640, "original_height": 480, "parentID": "f",
       "value": {"x": 12.5, "y": 40, "width": 0.5, "keypointlabels": ["nose"]}}]}]}]

Places are percent of the picture. Points are of the face that they are a part of (`parentID`, or a relation), else of
the rectangle around them, else of the only face.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from ...errors import DataError
from ...model.known_schemes import LandmarkScheme
from ..annotation_templates import FACE_LABEL
from ..picture_files import is_picture
from ..source import FaceSource
from .annotated import FaceToWrite, PictureToWrite, labels_of, plain_points
from .foreign import kind_of_json
from .layouts import is_number, read_json, shortest
from .picture_paths import plain_name
from .shapes import Box, MarkedPicture, Point
from .tool_source import ToolFile, open_tool


__all__ = ["ADVICE", "labelstudio_document", "open_source", "read_file"]

ADVICE = "draw a rectangle around each face, or drag its points into the region of their face"

_LOCAL_FILE = "/data/local-files/?d="
_POINTS, _BOXES = ("keypointlabels", "keypoint"), ("rectanglelabels", "rectangle")
_LABELS = ("keypointlabels", "labels")
_POINT_SIZE = 0.5  # percent of the picture's width


def open_source(
    path: Path,
    scheme: str | os.PathLike | LandmarkScheme | None = None,
    split: str | None = None,
    images: str | os.PathLike | None = None,
) -> FaceSource:
    """Open an export of Label Studio as JSON or JSON-MIN, or a folder of one a split.

    Annotations that were skipped, and predictions that nobody has confirmed, are left out and counted.

    Args:
        path: The JSON file, or its folder.
        scheme: The mark-up; made from the labels of the points by default.
        split: What to call the split; what the file's name says, else `"train"`, by default.
        images: Folder of the pictures; else they are looked for beside the file.

    Raises:
        DataError: If the file is damaged, or holds no annotated face.
        SchemeError: If a label is none of the scheme's points.
    """
    return open_tool("labelstudio", path, (".json",), scheme, split, images)


def read_file(file: Path, content: Any = None) -> ToolFile:
    """Read what is annotated in the tasks of a file.

    Args:
        file: The file.
        content: What is in it, if that was read already.

    Raises:
        DataError: If it is no whole JSON file of Label Studio.
    """
    content = read_json(file) if content is None else content
    if kind_of_json(content) != "labelstudio":
        raise DataError(f"{file} is no export of Label Studio: it is no list of tasks.")
    found = ToolFile()
    for number, task in enumerate(content if isinstance(content, list) else [content], start=1):
        where = f"{file}, task {task.get('id', number) if isinstance(task, dict) else number}"
        if not isinstance(task, dict):
            raise DataError(f"{where}: a task must be an object.")
        data = task["data"] if isinstance(task.get("data"), dict) else task
        name = _picture_name(data, where)
        for results in _annotations(task, found.left_out, where):
            found.pictures.append(_picture(name, results, where, found.left_out))
    return found


def _picture_name(data: Mapping[str, Any], where: str) -> str:
    """Return the picture of a task: what is called an image, else the first text that names a picture."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    for key in ("image", "img"):
        if key in texts:
            return _plain(texts[key])
    named = next((name for name in map(_plain, texts.values()) if is_picture(plain_name(name))), None)
    if named is None:
        raise DataError(f"{where}: no picture is named in its data.")
    return named


def _plain(name: str) -> str:
    """Return the name of a file of a local storage without the address that Label Studio serves it at."""
    return unquote(name.partition("?d=")[2]) if "/local-files/?d=" in name else name


def _annotations(task: Mapping[str, Any], left_out: Counter[str], where: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the results of each annotation that counts: the ground truth if one is marked so, else all submitted."""
    if not isinstance(task.get("data"), dict):
        yield list(_short_results(task))
        return
    annotations = task.get("annotations", task.get("completions")) or []
    if not isinstance(annotations, list) or not all(isinstance(a, dict) for a in annotations):
        raise DataError(f"{where}: annotations must be a list of objects; export the project as JSON.")
    submitted = [annotation for annotation in annotations if not annotation.get("was_cancelled")]
    left_out["canceled"] += len(annotations) - len(submitted)
    left_out["predictions"] += bool(task.get("predictions")) and not annotations
    for annotation in [a for a in submitted if a.get("ground_truth")] or submitted:
        results = annotation.get("result") or []
        if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
            raise DataError(f"{where}: result must be a list of objects.")
        yield results


def _short_results(task: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the regions of a task of JSON-MIN in the full form; they have no ids there."""
    for regions in task.values():
        for value in regions if isinstance(regions, list) else ():
            if isinstance(value, dict):
                kind = next((kind for kind in (_POINTS[0], _BOXES[0]) if kind in value), None)
                size = {key: value.get(key) for key in ("original_width", "original_height", "image_rotation")}
                yield {"type": kind, "value": value, **size}


def _picture(name: str, results: Sequence[Mapping[str, Any]], where: str, left_out: Counter[str]) -> MarkedPicture:
    regions = _regions(results)
    parents = _parents(results)
    sizes = [(region.get("original_width"), region.get("original_height")) for region in regions.values()]
    size = next(((w, h) for w, h in sizes if is_number(w) and is_number(h)), (None, None))
    picture = MarkedPicture(name, where, size)
    for key, region in regions.items():
        kind = region.get("type")
        if kind not in _POINTS + _BOXES:
            left_out["shapes"] += kind not in ("relation", "choices", "textarea", "rating", "labels", None)
            continue
        if region.get("image_rotation"):
            left_out["rotated"] += 1
            continue
        group = key if key in parents.values() else parents.get(key)
        if kind in _POINTS:
            labels = next((value for value in map(region["value"].get, _LABELS) if value), None)
            x, y = _pixels(region, ("x", "y"), where)
            picture.points.append(Point(str(labels[0]) if isinstance(labels, list) else None, x, y, group))
        else:
            picture.boxes.append(Box(_rectangle(region, where), group))
    return picture


def _regions(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the regions by id: a place and its label may be two results of one id."""
    regions: dict[str, dict[str, Any]] = {}
    for number, result in enumerate(results):
        if not isinstance(result.get("value"), dict):
            continue
        key = _key(result.get("id")) or str(number)
        before = regions.get(key, {})
        kinds = [kind for kind in (before.get("type"), result.get("type")) if kind]
        kind = next((kind for kind in kinds if kind in _POINTS + _BOXES), kinds[0] if kinds else None)
        regions[key] = {**before, **result, "type": kind, "value": {**before.get("value", {}), **result["value"]}}
    return regions


def _key(value: Any) -> str | None:
    return str(value) if value else None


def _parents(results: Sequence[Mapping[str, Any]]) -> dict[str | None, str | None]:
    """Return the region that each region is part of, by their ids: its parent, else the rectangle it is related to."""
    boxes = {_key(result.get("id")) for result in results if result.get("type") in _BOXES}
    parents = {_key(result.get("id")): _key(result["parentID"]) for result in results if result.get("parentID")}
    for result in results:
        if result.get("type") == "relation":
            ends = [_key(result.get("from_id")), _key(result.get("to_id"))]
            inside = [end for end in ends if end in boxes]
            if len(inside) == 1:
                parents.setdefault(next(end for end in ends if end not in boxes), inside[0])
    return parents


def _pixels(region: Mapping[str, Any], keys: Sequence[str], where: str) -> list[float]:
    """Return numbers of a region in pixels; those across the picture alternate with those down it."""
    sides = [region.get("original_width"), region.get("original_height")]
    values = [region["value"].get(key) for key in keys]
    if not all(map(is_number, [*sides, *values])):
        raise DataError(f"{where}: a region needs {', '.join(keys)}, original_width and original_height as numbers.")
    return [value * sides[place % 2] / 100 for place, value in enumerate(values)]


def _rectangle(region: Mapping[str, Any], where: str) -> tuple[float, float, float, float]:
    """Return a rectangle; of one that is turned, about its first corner, what encloses it."""
    x, y, width, height = _pixels(region, ("x", "y", "width", "height"), where)
    rotation = region["value"].get("rotation")
    angle = math.radians(rotation) if is_number(rotation) else 0.0
    across, down = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    corners = np.array([x, y]) + np.array([0 * across, width * across, height * down, width * across + height * down])
    low, high = corners.min(axis=0), corners.max(axis=0)
    return float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1])


def labelstudio_document(
    pictures: Sequence[PictureToWrite], scheme: LandmarkScheme, folder: str = "", model: str | None = None
) -> bytes:
    """Return tasks to import, for the labeling interface that `annotation_template` writes.

    Args:
        pictures: What to write.
        scheme: The mark-up; without names the labels are the numbers of the points.
        folder: Where the pictures are below the root of Label Studio's local files.
        model: What has made the faces: they become predictions with scores. None: they are annotations.
    """
    tasks = []
    for picture in pictures:
        place = quote(f"{folder}/{picture.name}" if folder else picture.name)
        results = [
            region
            for number, face in enumerate(picture.faces, start=1)
            for region in _face_results(picture, number, face, labels_of(scheme))
        ]
        task: dict[str, Any] = {"data": {"image": f"{_LOCAL_FILE}{place}"}}
        if model is None:
            task["annotations"] = [{"result": results}]
        else:
            scores = [score for face in picture.faces for score in face.scores or ()]
            score = round(float(np.mean(scores)), 4) if scores else 0.0
            task["predictions"] = [{"model_version": model, "score": score, "result": results}]
        tasks.append(task)
    return (json.dumps(tasks, indent=1, ensure_ascii=False) + "\n").encode()


def _face_results(
    picture: PictureToWrite, number: int, face: FaceToWrite, labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield the regions of a face: its box, which is the parent of its points.

    A face without a box has the tight box of its points where others are in the picture, for something must tell them
    apart; readers know a tight box for what it is.
    """
    width, height = picture.size
    common = {"to_name": "image", "original_width": width, "original_height": height, "image_rotation": 0}
    points, box = plain_points(face), face.box
    known = np.array([point for point in points if point])
    if box is None and len(picture.faces) > 1 and len(known):
        box = [*known.min(axis=0), *np.ptp(known, axis=0)]
    if box is not None:
        x, y, across, down = (shortest(value) for value in box)
        value: dict[str, Any] = {"x": 100 * x / width, "y": 100 * y / height, "width": 100 * across / width}
        value |= {"height": 100 * down / height, "rotation": 0, "rectanglelabels": [FACE_LABEL]}
        yield {"id": f"face{number}", "type": "rectanglelabels", "from_name": "box", **common, "value": value}
    for index, (label, point) in enumerate(zip(labels, points, strict=True)):
        if point is not None:
            value = {"x": 100 * point[0] / width, "y": 100 * point[1] / height, "width": _POINT_SIZE}
            value |= {"keypointlabels": [label]}
            region = {"id": f"face{number}-{index}", "type": "keypointlabels", "from_name": "points", **common}
            parent = {"parentID": f"face{number}"} if box is not None else {}
            score = {"score": round(float(face.scores[index]), 4)} if face.scores is not None else {}
            yield {**region, **parent, **score, "value": value}
