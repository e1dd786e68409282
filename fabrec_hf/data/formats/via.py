"""VGG Image Annotator 2: its projects and annotations as JSON, and its CSV with one region a line.

    {"a.jpg1234": {"filename": "a.jpg", "size": 1234, "file_attributes": {}, "regions": [
      {"shape_attributes": {"name": "point", "cx": 12, "cy": 40}, "region_attributes": {"point": "nose", "face": "1"}},
      {"shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 29, "height": 38},
       "region_attributes": {"face": "1"}}]}}

What a region's attributes are called is the annotator's choice: one holds the label, another one the face. Points
without any attribute count in their order. A polygon or polyline is a whole face.
"""

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import DataError
from ...model.known_schemes import LandmarkScheme
from ..source import FaceSource
from .annotated import PictureToWrite, labels_of, plain_points
from .foreign import kind_of_json
from .layouts import is_number, read_json, reading, shortest
from .shapes import Box, MarkedPicture, Outline, Point
from .tool_source import ToolFile, open_tool


__all__ = ["ADVICE", "open_source", "read_file", "via_project", "via_table"]

ADVICE = "give the regions of each face an attribute called face, or draw a rectangle around it"

_FACE = ("face", "face_id", "group", "group_id", "person", "person_id", "id", "object", "instance")
_POINT = ("point", "landmark", "keypoint", "label", "name", "part", "type", "class")
_SETTINGS = {
    "ui": {
        "annotation_editor_height": 25,
        "annotation_editor_fontsize": 0.8,
        "leftsidebar_width": 18,
        "image_grid": {
            "img_height": 80,
            "rshape_fill": "none",
            "rshape_fill_opacity": 0.3,
            "rshape_stroke": "yellow",
            "rshape_stroke_width": 2,
            "show_region_shape": True,
            "show_image_policy": "all",
        },
        "image": {
            "region_label": "point",
            "region_color": "face",
            "region_label_font": "10px Sans",
            "on_image_annotation_editor_placement": "NEAR_REGION",
        },
    }
}
"""How a project looks: VIA's own settings, but that regions show their point and have the color of their face."""

_COLUMNS = ("filename", "file_size", "file_attributes", "region_count", "region_id")
_COLUMNS += ("region_shape_attributes", "region_attributes")


def open_source(
    path: Path,
    scheme: str | os.PathLike | LandmarkScheme | None = None,
    split: str | None = None,
    category: str | None = None,
    images: str | os.PathLike | None = None,
) -> FaceSource:
    """Open a project or an export of VIA 2, as JSON or CSV, or a folder of one a split.

    Args:
        path: The file, or its folder.
        scheme: The mark-up; made from the labels of the points by default.
        split: What to call the split; what the file's name says, else `"train"`, by default.
        category: The label of the outlines that are faces, where there are several.
        images: Folder of the pictures; else they are looked for beside the file.

    Raises:
        DataError: If the file is damaged, or holds no annotated face.
        SchemeError: If a label is none of the scheme's points.
    """
    return open_tool("via", path, (".json", ".csv"), scheme, split, images, category)


def read_file(file: Path, content: Any = None) -> ToolFile:
    """Read what is drawn in the pictures of a file.

    Args:
        file: The file, JSON or CSV.
        content: What is in one of JSON, if that was read already.

    Raises:
        DataError: If it is no whole file of VIA 2.
    """
    if file.suffix.lower() == ".csv":
        entries = _table_entries(file)
    else:
        entries = _json_entries(file, read_json(file) if content is None else content)
    found = ToolFile()
    shapes: dict[str, list[tuple[Any, Mapping[str, Any]]]] = {}
    for name, shape, attributes in entries:
        shapes.setdefault(name, []).append((shape, attributes if isinstance(attributes, dict) else {}))
    label_key, face_key = _attribute_names(pair for regions in shapes.values() for pair in regions)
    for name, regions in shapes.items():
        picture = MarkedPicture(name, f"{file}, {name}")
        for shape, attributes in regions:
            label, face = (_value(attributes.get(key)) if key else None for key in (label_key, face_key))
            found.left_out["shapes"] += not _add(picture, shape, label, face)
        found.pictures.append(picture)
    return found


def _json_entries(file: Path, content: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the picture, the shape and the attributes of every region of a project or an export."""
    if kind_of_json(content) != "via":
        raise DataError(f"{file} is no file of VIA 2: it has neither _via_img_metadata nor pictures with regions.")
    pictures = content.get("_via_img_metadata", content)
    for picture in pictures.values() if isinstance(pictures, dict) else ():
        regions = picture.get("regions") if isinstance(picture, dict) else None
        regions = list(regions.values()) if isinstance(regions, dict) else regions  # VIA 1 has numbers to them
        if not isinstance(regions, list) or not isinstance(picture.get("filename"), str):
            raise DataError(f"{file}: a picture needs filename and regions.")
        for region in regions:
            region = region if isinstance(region, dict) else {}
            yield picture["filename"], region.get("shape_attributes"), region.get("region_attributes")


def _table_entries(file: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield the same of every line of a CSV; a picture without regions has a line with empty attributes."""
    with reading(file, UnicodeDecodeError, csv.Error):
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            reader.fieldnames = [name.lstrip("#") for name in reader.fieldnames or ()]  # so it is called by VIA 1
            for row in reader:
                try:
                    shape = json.loads(row["region_shape_attributes"] or "{}")
                    attributes = json.loads(row["region_attributes"] or "{}")
                except (KeyError, TypeError, ValueError) as error:
                    raise DataError(f"{file}, line {reader.line_num}: the attributes are no JSON.") from error
                if shape:
                    yield row["filename"], shape, attributes


def _attribute_names(
    regions: Iterable[tuple[Any, Mapping[str, Any]]],
) -> tuple[str | None, str | None]:
    """Say which attribute of regions is the label and which one the face, by their names or by there being one."""
    names: dict[str, None] = {}
    for shape, attributes in regions:
        if isinstance(shape, dict) and shape.get("name") != "rect":
            names |= {key: None for key, value in attributes.items() if _value(value) is not None}
    lowered = {name.strip().lower(): name for name in names}
    label = next((lowered[name] for name in _POINT if name in lowered), None)
    face = next((lowered[name] for name in _FACE if name in lowered), None)
    others = [name for name in names if name not in (label, face)]
    if label is None:
        label = others[0] if len(others) == 1 else None
    if label is None and len(names) == 1:
        label, face = face, None
    return label, face


def _value(value: Any) -> str | None:
    """Return what an attribute says: its text, or the one box that is ticked; None for nothing."""
    if isinstance(value, Mapping):
        ticked = [key for key, on in value.items() if on]
        return ticked[0] if len(ticked) == 1 else None
    text = "" if value is None else str(value).strip()
    return text or None


def _add(picture: MarkedPicture, shape: Any, label: str | None, face: str | None) -> bool:
    """Add a region to a picture; return whether it is one that faces are made of."""
    if not isinstance(shape, dict):
        raise DataError(f"{picture.where}: a region needs shape_attributes.")
    kind = shape.get("name")
    if kind == "point":
        x, y = _numbers([shape.get("cx"), shape.get("cy")], picture.where)
        picture.points.append(Point(label, x, y, face))
    elif kind == "rect":
        x, y, width, height = _numbers([shape.get(key) for key in ("x", "y", "width", "height")], picture.where)
        picture.boxes.append(Box((x, y, width, height), face))
    elif kind in ("polygon", "polyline"):
        across, down = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(across, list) or not isinstance(down, list) or len(across) != len(down):
            raise DataError(f"{picture.where}: a {kind} needs all_points_x and all_points_y of one length.")
        places = zip(_numbers(across, picture.where), _numbers(down, picture.where), strict=True)
        picture.outlines.append(Outline(label or "", tuple(places), face))
    else:
        return False
    return True


def _numbers(values: Sequence[Any], where: str) -> list[float]:
    if not all(map(is_number, values)):
        raise DataError(f"{where}: a region has a place that is no number.")
    return [float(value) for value in values]


def _regions(picture: PictureToWrite, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
    for number, face in enumerate(picture.faces, start=1):
        if face.box is not None:
            x, y, width, height = (shortest(value) for value in face.box)
            rectangle = {"name": "rect", "x": x, "y": y, "width": width, "height": height}
            yield {"shape_attributes": rectangle, "region_attributes": {"face": str(number)}}
        for label, point in zip(labels, plain_points(face), strict=True):
            if point is not None:
                place = {"name": "point", "cx": point[0], "cy": point[1]}
                yield {"shape_attributes": place, "region_attributes": {"point": label, "face": str(number)}}


def via_project(pictures: Sequence[PictureToWrite], scheme: LandmarkScheme, folder: str = "") -> bytes:
    """Return a project whose regions choose their point from a list.

    Args:
        pictures: What to write.
        scheme: The mark-up; without names the labels are the numbers of the points.
        folder: The pictures, from the folder of the project.
    """
    labels = labels_of(scheme)
    images = {
        f"{picture.name}{picture.bytes}": {
            "filename": picture.name,
            "size": picture.bytes,
            "regions": list(_regions(picture, labels)),
            "file_attributes": {},
        }
        for picture in pictures
    }
    point = {"type": "dropdown", "description": "", "options": dict.fromkeys(labels, ""), "default_options": {}}
    face = {"type": "text", "description": "which face of the picture", "default_value": ""}
    core = {"buffer_size": 18, "filepath": {}, "default_filepath": f"{folder}/" if folder else ""}
    content = {
        "_via_settings": {**_SETTINGS, "core": core, "project": {"name": "faces"}},
        "_via_img_metadata": images,
        "_via_attributes": {"region": {"point": point, "face": face}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(images),
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def via_table(pictures: Sequence[PictureToWrite], scheme: LandmarkScheme) -> bytes:
    """Return the regions as VIA exports them to CSV, a line each.

    Args:
        pictures: What to write.
        scheme: The mark-up; without names the labels are the numbers of the points.
    """
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for picture in pictures:
        regions = list(_regions(picture, labels_of(scheme)))
        for number, region in enumerate(regions):
            cells = [json.dumps(region[key], ensure_ascii=False) for key in ("shape_attributes", "region_attributes")]
            writer.writerow([picture.name, picture.bytes, "{}", len(regions), number, *cells])
    return stream.getvalue().encode()
