"""CVAT's own XML, "CVAT for images 1.1": what is drawn in each picture.

    <image id="0" name="a.jpg" width="640" height="480">
      <skeleton label="face" group_id="1">
        <points label="nose" outside="0" occluded="0" points="12.5,40.25"/>
      </skeleton>
      <box label="box" xtl="1" ytl="2" xbr="30" ybr="40" group_id="1"/>
    </image>

A face is a skeleton, or points with a label each, which a group or a box holds together, or one shape of many points.
A point that is outside is not annotated, one that is occluded is hidden.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ...errors import DataError
from ...model.known_schemes import LandmarkScheme
from ..annotation_templates import BOX_LABEL, FACE_LABEL
from ..picture_files import is_picture
from ..source import FaceSource
from .annotated import FaceToWrite, PictureToWrite, labels_of, plain_points
from .layouts import shortest, whole_number
from .shapes import Box, MarkedPicture, Outline, Point, Skeleton
from .tool_source import ToolFile, open_tool


__all__ = ["ADVICE", "cvat_document", "open_source", "read_file"]

ADVICE = "use skeletons, group the points of each face, or draw a box around it"


def open_source(
    path: Path,
    scheme: str | os.PathLike | LandmarkScheme | None = None,
    split: str | None = None,
    category: str | None = None,
    images: str | os.PathLike | None = None,
) -> FaceSource:
    """Open an XML that CVAT exported as "CVAT for images 1.1", or a folder of one a split.

    Args:
        path: The XML file, or its folder.
        scheme: The mark-up; made from the labels of the points by default.
        split: What to call the split, unless the pictures state a subset.
        category: The label of the skeletons or outlines that are faces, where there are several.
        images: Folder of the pictures; else they lie beside the file, in `images/`, or below.

    Raises:
        DataError: If the file is damaged or of a video, or holds no face.
        SchemeError: If a label is none of the scheme's points.
    """
    return open_tool("cvat", path, (".xml",), scheme, split, images, category)


class _Builder(ElementTree.TreeBuilder):
    """Refuses a document type, since its entities may be harmful."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise DataError(f"a document type ({name}) is refused; remove it")


def read_file(file: Path) -> ToolFile:
    """Read what is drawn in the pictures of a file.

    Raises:
        DataError: If it is no whole XML of CVAT, or one of a video.
    """
    try:
        root = ElementTree.parse(file, ElementTree.XMLParser(target=_Builder())).getroot()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    except ElementTree.ParseError as error:
        raise DataError(f"{file} is no whole XML file: {error}.") from error
    except DataError as error:
        raise DataError(f"{file}: {error}.") from error
    if root.tag != "annotations":
        raise DataError(f"{file} is no XML of CVAT: its outermost element is {root.tag}.")
    if root.find("track") is not None:
        raise DataError(f'{file} holds tracks of a video; export the task as "CVAT for images 1.1".')
    pictures = [_picture(image, f"{file}, image {image.get('name')}") for image in root.iter("image")]
    return ToolFile(pictures, _declared(root), visibility=True)


def _declared(root: ElementTree.Element) -> dict[str, list[str]]:
    """Return the labels of a skeleton's points, in order, by the label of the skeleton."""
    found: dict[str, list[str]] = {}
    for label in root.iterfind("meta//labels/label"):
        parent = label.findtext("parent")
        if parent:
            found.setdefault(parent.strip(), []).append((label.findtext("name") or "").strip())
    return found


def _picture(image: ElementTree.Element, where: str) -> MarkedPicture:
    name = image.get("name")
    if not name:
        raise DataError(f"{where}: an image without a name.")
    if not is_picture(name):
        name += ".PNG"  # a frame of a video, which CVAT names without the suffix that it saves it under
    width, height = (whole_number(image.get(side)) for side in ("width", "height"))
    picture = MarkedPicture(name, where, (width, height), image.get("subset") or None)
    for shape in image:
        label, group = shape.get("label", ""), shape.get("group_id") or None
        visible = shape.get("occluded") != "1"
        if shape.tag == "skeleton":
            points = [_point(part, where) for part in shape.iter("points") if part.get("outside") != "1"]
            picture.skeletons.append(Skeleton(label, tuple(points), group))
        elif shape.tag == "box":
            left, top, right, bottom = (_number(shape.get(key), where) for key in ("xtl", "ytl", "xbr", "ybr"))
            picture.boxes.append(Box((left, top, right - left, bottom - top), group))
        elif shape.tag in ("points", "polyline", "polygon") and shape.get("outside") != "1":
            places = _coordinates(shape, where)
            if shape.tag == "points" and len(places) == 1:
                picture.points.append(Point(label, *places[0], group, visible))
            else:
                picture.outlines.append(Outline(label, tuple(places), group, visible))
    return picture


def _point(shape: ElementTree.Element, where: str) -> Point:
    places = _coordinates(shape, where)
    if len(places) != 1 or not shape.get("label"):
        raise DataError(f"{where}: a point of a skeleton needs a label and one pair of numbers.")
    return Point(shape.get("label"), *places[0], visible=shape.get("occluded") != "1")


def _coordinates(shape: ElementTree.Element, where: str) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in shape.get("points", "").split(";") if pair.strip()]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise DataError(f"{where}: points reads {shape.get('points')!r}, not x,y;x,y.")
    return [(_number(x, where), _number(y, where)) for x, y in pairs]


def _number(text: str | None, where: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {text!r} is no number.")
    return value


def cvat_document(pictures: Sequence[PictureToWrite], scheme: LandmarkScheme, source: str = "manual") -> bytes:
    """Return an XML for "Upload annotations", as "CVAT 1.1", with a skeleton a face and its box where it has one.

    Args:
        pictures: What to write.
        scheme: The mark-up; without names the labels are the numbers of the points.
        source: Who has made the shapes: `"manual"`, or `"auto"` for proposals.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    has_boxes = any(face.box is not None for picture in pictures for face in picture.faces)
    _write_labels(root, scheme, has_boxes)
    for number, picture in enumerate(pictures):
        size = {"width": str(picture.size[0]), "height": str(picture.size[1])}
        image = ElementTree.SubElement(root, "image", {"id": str(number), "name": picture.name, **size})
        for group, face in enumerate(picture.faces, start=1):
            common = {"source": source, "occluded": "0", "z_order": "0", "group_id": str(group)}
            _write_face(image, face, labels_of(scheme), common)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _write_face(
    image: ElementTree.Element, face: FaceToWrite, labels: Sequence[str], common: Mapping[str, str]
) -> None:
    points = plain_points(face)
    known = [point for point in points if point]
    middle = tuple(np.mean(known, axis=0).tolist()) if known else (0.0, 0.0)
    skeleton = ElementTree.SubElement(image, "skeleton", {"label": FACE_LABEL, **common})
    for label, point, visible in zip(labels, points, face.visible, strict=True):
        x, y = point or middle  # CVAT wants a place of every point, also of one that is outside
        state = {"outside": str(int(point is None)), "occluded": str(int(point is not None and not visible))}
        described = {"label": label, "source": common["source"], **state, "points": f"{x!r},{y!r}"}
        ElementTree.SubElement(skeleton, "points", described)
    if face.box is not None:
        x, y, width, height = (shortest(value) for value in face.box)
        corners = {"xtl": repr(x), "ytl": repr(y), "xbr": repr(x + width), "ybr": repr(y + height)}
        ElementTree.SubElement(image, "box", {"label": BOX_LABEL, **common, **corners})


def _write_labels(root: ElementTree.Element, scheme: LandmarkScheme, has_boxes: bool) -> None:
    labels = ElementTree.SubElement(ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task"), "labels")
    entries: list[Mapping[str, str]] = [{"name": FACE_LABEL, "type": "skeleton"}]
    entries += [{"name": name, "type": "points", "parent": FACE_LABEL} for name in labels_of(scheme)]
    entries += [{"name": BOX_LABEL, "type": "rectangle"}] if has_boxes else []
    for entry in entries:
        label = ElementTree.SubElement(labels, "label")
        for key, value in entry.items():
            ElementTree.SubElement(label, key).text = value
