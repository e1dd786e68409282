"""What annotation tools are started with, for pictures that are to be annotated: labels, and a table to fill in."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from ..errors import DataError
from ..model.known_schemes import LandmarkScheme


__all__ = ["BOX_LABEL", "FACE_LABEL", "annotation_template"]

FACE_LABEL, BOX_LABEL = "face", "box"
"""What a face and the box of a skeleton are called in the tools, by templates and by written annotations alike."""


def annotation_template(
    kind: str, scheme: LandmarkScheme, faces: Sequence[Mapping[str, Any]], boxes: bool = False
) -> dict[str, bytes]:
    """Return the files that a tool is started with, by their names.

    Args:
        kind: `"csv"`, `"cvat"`, `"labelme"` or `"labelstudio"`.
        scheme: What the points are; they need names.
        faces: `picture`, the name of the picture's file, and `box` (x, y, width, height) of every face.
        boxes: Whether CVAT's faces have a rectangle beside their skeleton.

    Raises:
        DataError: If the points have no names.
    """
    if not scheme.point_names:
        raise DataError(f"The points of the scheme {scheme.name} have no names to annotate by; name them in a file.")
    if kind == "csv":
        return {"faces.csv": _table(scheme, faces)}
    if kind == "cvat":
        rectangle = {"name": BOX_LABEL, "type": "rectangle", "attributes": []}
        labels = [_skeleton(scheme), *([rectangle] if boxes else [])]
        return {"cvat_labels.json": (json.dumps(labels, indent=2) + "\n").encode()}
    if kind == "labelme":
        return {"labels.txt": "".join(f"{name}\n" for name in (FACE_LABEL, *scheme.point_names)).encode()}
    return {"labelstudio_interface.xml": _interface(scheme)}


def _table(scheme: LandmarkScheme, faces: Sequence[Mapping[str, Any]]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    points = [f"{name}_{axis}" for name in scheme.point_names for axis in "xy"]
    writer.writerow(["image", "box_x", "box_y", "box_width", "box_height", *points])
    for face in faces:
        writer.writerow([face["picture"], *(round(float(value), 2) for value in face["box"]), *[""] * len(points)])
    return stream.getvalue().encode()


def _skeleton(scheme: LandmarkScheme) -> dict[str, Any]:
    """Return CVAT's label of a face: its points as sub-labels, and a drawing that places and joins them."""
    count = scheme.num_landmarks
    angles = [2 * math.pi * index / count for index in range(count)]  # a ring: nobody knows where the points belong
    places = [(50 + 40 * math.sin(angle), 50 - 40 * math.cos(angle)) for angle in angles]
    drawing = [
        ElementTree.Element(
            "line",
            {
                **{"x1": f"{places[a][0]:.2f}", "y1": f"{places[a][1]:.2f}"},
                **{"x2": f"{places[b][0]:.2f}", "y2": f"{places[b][1]:.2f}", "stroke": "black"},
                **{"data-type": "edge", "data-node-from": str(a + 1), "data-node-to": str(b + 1)},
            },
        )
        for a, b in scheme.edges
    ]
    for number, (name, (x, y)) in enumerate(zip(scheme.point_names, places, strict=True), start=1):
        attributes = {"r": "1.5", "cx": f"{x:.2f}", "cy": f"{y:.2f}", "fill": "#b3b3b3", "stroke": "black"}
        attributes |= {"data-type": "element node", "data-element-id": str(number), "data-node-id": str(number)}
        drawing.append(ElementTree.Element("circle", attributes | {"data-label-name": name}))
    svg = "\n".join(ElementTree.tostring(part, encoding="unicode", short_empty_elements=False) for part in drawing)
    points = [{"name": name, "type": "points", "attributes": []} for name in scheme.point_names]
    return {"name": FACE_LABEL, "type": "skeleton", "attributes": [], "sublabels": points, "svg": svg}


def _interface(scheme: LandmarkScheme) -> bytes:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", {"name": "image", "value": "$image", "zoom": "true"})
    boxes = ElementTree.SubElement(view, "RectangleLabels", {"name": "box", "toName": "image"})
    ElementTree.SubElement(boxes, "Label", {"value": FACE_LABEL})
    points = ElementTree.SubElement(view, "KeyPointLabels", {"name": "points", "toName": "image"})
    for index, name in enumerate(scheme.point_names):
        ElementTree.SubElement(points, "Label", {"value": name, "model_index": str(index)})
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="utf-8") + b"\n"
