"""labelme's JSON, one file a picture: shapes with labels, held together by a group.

    {"version": "5.5.0", "flags": {}, "imagePath": "a.jpg", "imageData": null, "imageHeight": 480, "imageWidth": 640,
     "shapes": [{"label": "nose", "shape_type": "point", "points": [[12.5, 40.25]], "group_id": 1, "flags": {}},
                {"label": "face", "shape_type": "rectangle", "points": [[1, 2], [30, 40]], "group_id": 1}]}

A face is the points of one group, else those in a rectangle, else all of the picture; or one shape of many points.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...model.known_schemes import LandmarkScheme
from ..annotation_templates import FACE_LABEL
from ..source import FaceSource
from .annotated import PictureToWrite, labels_of, plain_points
from .layouts import is_number, read_json, shortest
from .shapes import Box, MarkedPicture, Outline, Point
from .tool_source import ToolFile, open_tool


__all__ = ["ADVICE", "labelme_document", "open_source", "read_file"]

ADVICE = "give the points of each face a group id of their own, or draw a rectangle around it"

_VERSION = "5.5.0"  # of the tool whose files these are like
_HIDDEN = "occluded"  # the flag of a hidden point
_OUTLINES = ("polygon", "linestrip", "line")


def open_source(
    path: Path,
    scheme: str | os.PathLike | LandmarkScheme | None = None,
    split: str | None = None,
    category: str | None = None,
    images: str | os.PathLike | None = None,
) -> FaceSource:
    """Open a folder of labelme's files, in folders named after the splits if there are several, or one file.

    Args:
        path: The folder, or a file.
        scheme: The mark-up; made from the labels of the points by default.
        split: What to call the split; `"train"` by default.
        category: The label of the outlines that are faces, where there are several.
        images: Folder of the pictures; else they are where the files say, from their own folder.

    Raises:
        DataError: If a file is damaged, or there is no annotated face.
        SchemeError: If a label is none of the scheme's points.
    """
    return open_tool("labelme", path, (".json",), scheme, split, images, category, many=True)


def read_file(file: Path, content: Any = None) -> ToolFile:
    """Read what is drawn in a picture.

    Args:
        file: The file.
        content: What is in it, if that was read already.

    Raises:
        DataError: If it is no whole JSON file of labelme.
    """
    content = read_json(file) if content is None else content
    name = content.get("imagePath") if isinstance(content, dict) else None
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(name, str) or not isinstance(shapes, list) or not all(isinstance(s, dict) for s in shapes):
        raise DataError(f"{file} is no file of labelme: it has no imagePath and list of shapes.")
    found = ToolFile()
    width, height = (value if is_number(value) else None for value in map(content.get, ("imageWidth", "imageHeight")))
    picture = MarkedPicture(name.replace("\\", "/"), str(file), (width, height))
    for shape in shapes:
        found.left_out["shapes"] += not _add(picture, shape)
    found.pictures.append(picture)
    return found


def _add(picture: MarkedPicture, shape: Mapping[str, Any]) -> bool:
    """Add a shape to a picture; return whether it is one that faces are made of."""
    kind, label, flags = shape.get("shape_type"), str(shape.get("label", "")), shape.get("flags")
    group = None if shape.get("group_id") is None else str(shape["group_id"])
    places = _places(shape.get("points"), picture.where)
    visible = not (isinstance(flags, dict) and flags.get(_HIDDEN))
    if kind == "point" and len(places) == 1:
        picture.points.append(Point(label, *places[0], group, visible))
    elif kind == "rectangle" and len(places) in (2, 4):
        (left, right), (top, bottom) = (sorted((min(values), max(values))) for values in zip(*places, strict=True))
        picture.boxes.append(Box((left, top, right - left, bottom - top), group))
    elif kind in (*_OUTLINES, None) and len(places) > 1:  # the oldest files do not say that they are polygons
        picture.outlines.append(Outline(label, tuple(places), group, visible))
    else:
        return False
    return True


def _places(points: Any, where: str) -> list[tuple[float, float]]:
    places: list[Any] = points if isinstance(points, list) else [None]
    if not all(isinstance(p, list) and len(p) == 2 and all(map(is_number, p)) for p in places):
        raise DataError(f"{where}: the points of a shape must be pairs of numbers.")
    return [(float(x), float(y)) for x, y in places]


def labelme_document(picture: PictureToWrite, scheme: LandmarkScheme, image_path: str) -> bytes:
    """Return the file of a picture; the group of a face is its number, and a face's box is a rectangle in it.

    Args:
        picture: What to write.
        scheme: The mark-up; without names the labels are the numbers of the points.
        image_path: The picture, from the folder of the file.
    """
    shapes: list[dict[str, Any]] = []
    for number, face in enumerate(picture.faces, start=1):
        if face.box is not None:
            x, y, width, height = (shortest(value) for value in face.box)
            shapes.append(_shape(FACE_LABEL, "rectangle", [(x, y), (x + width, y + height)], number))
        for label, point, visible in zip(labels_of(scheme), plain_points(face), face.visible, strict=True):
            if point is not None:
                shapes.append(_shape(label, "point", [point], number) | {"flags": {} if visible else {_HIDDEN: True}})
    width, height = picture.size
    content: dict[str, Any] = {
        "version": _VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_path,
        "imageData": None,
    }
    content |= {"imageHeight": height, "imageWidth": width}
    return (json.dumps(content, indent=2) + "\n").encode()  # ASCII, for labelme reads as its machine writes


def _shape(label: str, kind: str, points: Sequence[tuple[float, float]], group: int) -> dict[str, Any]:
    places = [list(point) for point in points]
    return {"label": label, "points": places, "group_id": group, "description": "", "shape_type": kind, "flags": {}}
