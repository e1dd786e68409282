"""Annotations of tools that a reader here is not for, told by what is in them, so that an error can name them."""

from collections.abc import Mapping, Sequence
from typing import Any


__all__ = ["name_foreign_header", "name_foreign_json", "name_foreign_root"]


_OTHERWISE = "convert it to COCO keypoints, or to a table with one face a line"


def name_foreign_json(content: Any) -> str | None:
    """Return the tool that wrote a JSON file, which is no COCO file, and what to do; None if it is not known."""
    first = content[0] if isinstance(content, list) and content else None
    if isinstance(first, Mapping):
        if "keypoints" in first and "image_id" in first:
            return "a list of COCO results, without images and categories: give the file that was predicted from"
        if isinstance(first.get("annotations"), list) or "completions" in first or isinstance(first.get("data"), dict):
            return "an export of Label Studio: export the project as COCO instead"
    if isinstance(content, Mapping):
        if "shapes" in content and "imagePath" in content:
            return "a file of labelme, one a picture: " + _OTHERWISE
        if "_via_img_metadata" in content or _is_via(list(content.values())[:1]):
            return "a project of VIA: " + _OTHERWISE
    return None


def _is_via(values: Sequence[Any]) -> bool:
    return any(isinstance(value, Mapping) and "regions" in value and "filename" in value for value in values)


def name_foreign_root(element: str) -> str | None:
    """Return the tool that wrote an XML file by its outermost element, which is no `dataset`; None if not known."""
    return {
        "annotations": "an XML of CVAT: export the task as COCO Keypoints instead",
        "annotation": "a Pascal VOC file, which has boxes and no points",
    }.get(element)


def name_foreign_header(columns: Sequence[str]) -> str | None:
    """Return the tool that wrote a CSV file by its columns; None if it may be one of faces."""
    if "region_shape_attributes" in columns:
        return "a CSV of VIA, one region a line: " + _OTHERWISE
    return None
