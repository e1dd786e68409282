"""A writer of XML files of dlib's imglab, which `dlib` reads back.

dlib holds places as whole pixels, and stops at a file with others. Therefore points and boxes are rounded.
"""

from collections.abc import Sequence
from xml.etree import ElementTree

import numpy as np

from ...model.known_schemes import LandmarkScheme
from .annotated import FaceToWrite, PictureToWrite


__all__ = ["SUFFIXES", "dlib_document"]

SUFFIXES = (".jpg", ".png", ".bmp", ".gif")
"""Pictures that every build of dlib opens."""


def dlib_document(pictures: Sequence[PictureToWrite], scheme: LandmarkScheme, folder: str = "") -> bytes:
    """Return the file of a training set: for each face a box with its points as parts.

    A face without a box has the tight box of its points, since parts belong to a box. One that has neither is left
    out, and so are points that are not annotated.

    Args:
        pictures: What to write.
        scheme: The mark-up; without names the parts are called by their numbers.
        folder: The pictures, from the folder of the file.
    """
    root = ElementTree.Element("dataset")
    ElementTree.SubElement(root, "name").text = f"faces with the points of {scheme.name}"
    images = ElementTree.SubElement(root, "images")
    parts = _part_names(scheme)
    for picture in pictures:
        place = f"{folder}/{picture.name}" if folder else picture.name
        size = {"width": str(picture.size[0]), "height": str(picture.size[1])}
        image = ElementTree.SubElement(images, "image", {"file": place, **size})
        for face in picture.faces:
            _write_face(image, face, parts)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _part_names(scheme: LandmarkScheme) -> Sequence[str]:
    """Return the names of points; numbers have as many digits each, for dlib sorts parts by their names as text."""
    digits = max(2, len(str(scheme.num_landmarks - 1)))
    return scheme.point_names or [f"{index:0{digits}}" for index in range(scheme.num_landmarks)]


def _write_face(image: ElementTree.Element, face: FaceToWrite, parts: Sequence[str]) -> None:
    points = np.asarray(face.points, dtype=np.float64)
    known = np.isfinite(points.sum(axis=1))
    if face.box is not None:
        left, top, width, height = face.box
        low, high = np.array([left, top]), np.array([left + width, top + height])
    elif known.any():
        low, high = points[known].min(axis=0), points[known].max(axis=0)
    else:
        return
    corner = np.rint(low).astype(int)
    size = np.maximum(np.rint(high).astype(int) - corner, 1)
    place = {"top": corner[1], "left": corner[0], "width": size[0], "height": size[1]}
    box = ElementTree.SubElement(image, "box", {name: str(value) for name, value in place.items()})
    for name, (x, y), there in zip(parts, points.tolist(), known.tolist(), strict=True):
        if there:
            ElementTree.SubElement(box, "part", {"name": name, "x": str(round(x)), "y": str(round(y))})
