"""Which tool wrote a file of annotations, told by what is in it."""

import csv
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


__all__ = [
    "kind_and_content",
    "kind_of_file",
    "kind_of_json",
    "name_foreign_header",
    "name_foreign_json",
    "name_foreign_root",
]

_LARGEST = 64_000_000  # bytes of a JSON file that is parsed to be told; of a larger one its beginning is
_HEAD = 1 << 20  # bytes of that
_TOOLS = {
    "cvat": "an XML of CVAT",
    "labelme": "a file of labelme, one a picture",
    "labelstudio": "an export of Label Studio",
    "via": "a project of VIA",
}
_ROOTS = {"annotations": "cvat", "dataset": "dlib"}


def kind_of_file(file: Path) -> str | None:
    """Return the kind of data that an XML, JSON or CSV file holds, as `KINDS` calls it; None if it does not show."""
    return kind_and_content(file)[0]


def kind_and_content(file: Path) -> tuple[str | None, Any]:
    """Return the kind of a file, as `kind_of_file` does, and what is in it where all of its JSON was read for that."""
    suffix = file.suffix.lower()
    try:
        if suffix == ".xml":
            return _ROOTS.get(_root_of(file)), None
        if suffix == ".csv":
            with open(file, encoding="utf-8-sig", newline="") as stream:
                return "via" if _is_via_table(next(csv.reader(stream), [])) else "csv", None
        if suffix == ".json" and os.path.getsize(file) > _LARGEST:
            return _kind_of_head(file), None
        if suffix == ".json":
            content = json.loads(file.read_bytes())
            return kind_of_json(content), content
    except (OSError, ValueError, RecursionError, csv.Error):
        pass
    return None, None


def _kind_of_head(file: Path) -> str | None:
    """Tell the kind of a large JSON file from the entries that are whole in its beginning."""
    with open(file, "rb") as stream:
        text = stream.read(_HEAD).decode("utf-8-sig", errors="ignore").lstrip()
    decoder = json.JSONDecoder()
    if text.startswith("["):
        try:
            return kind_of_json([decoder.raw_decode(text[1:].lstrip())[0]])
        except ValueError:  # the first task alone is larger
            return "labelstudio" if re.search(r'"(annotations|predictions|annotation_id)"\s*:', text) else None
    entries: dict[str, Any] = {}
    place = re.compile(r'\s*[{,]\s*(?=")')
    colon, end = re.compile(r"\s*:\s*"), 0
    try:
        while found := place.match(text, end):
            key, end = decoder.raw_decode(text, found.end())
            entries[key] = None  # known, whether its value is whole or not
            entries[key], end = decoder.raw_decode(text, colon.match(text, end).end())  # type: ignore[union-attr]
    except (ValueError, AttributeError):
        pass  # where the beginning ends
    return kind_of_json(entries) or "coco"


def _root_of(file: Path) -> str:
    """Return the name of the outermost element of an XML file."""
    with open(file, "rb") as stream:
        head = re.sub(rb"<\?.*?\?>|<!--.*?-->", b"", stream.read(1 << 16), flags=re.DOTALL)
    found = re.search(rb"<([A-Za-z_][\w.-]*)", head)
    return found[1].decode() if found else ""


def kind_of_json(content: Any) -> str | None:
    """Return the kind of data that the content of a JSON file is; None if it does not show."""
    if isinstance(content, list):
        return "labelstudio" if any(_is_task(task) for task in content[:1]) else None
    if not isinstance(content, Mapping):
        return None
    if _is_task(content):  # one task, as Label Studio keeps it in a storage of its own
        return "labelstudio"
    if "shapes" in content and "imagePath" in content:
        return "labelme"
    if "_via_img_metadata" in content or any(_is_via_picture(value) for value in list(content.values())[:1]):
        return "via"
    return "coco" if {"images", "annotations", "categories"} <= set(content) else None


def _is_task(task: Any) -> bool:
    """Whether it is a task of Label Studio, in the full form or in the short one."""
    if not isinstance(task, Mapping):
        return False
    if isinstance(task.get("data"), Mapping):
        return "annotations" in task or "predictions" in task or "completions" in task or "id" in task
    regions = [value[0] for value in task.values() if isinstance(value, list) and value]
    return "annotation_id" in task or any(
        isinstance(region, Mapping) and ("keypointlabels" in region or "rectanglelabels" in region)
        for region in regions
    )


def _is_via_picture(value: Any) -> bool:
    return isinstance(value, Mapping) and "regions" in value and "filename" in value


def _is_via_table(columns: Sequence[str]) -> bool:
    return "region_shape_attributes" in columns


def name_foreign_json(content: Any) -> str | None:
    """Return the tool that wrote a JSON file, which is no COCO file, and its kind; None if it is not known."""
    first = content[0] if isinstance(content, list) and content else None
    if isinstance(first, Mapping) and "keypoints" in first and "image_id" in first:
        return "a list of COCO results, without images and categories: give the file that was predicted from"
    kind = kind_of_json(content)
    if kind in _TOOLS:
        return f"{_TOOLS[kind]}: its kind is {kind}"
    if isinstance(content, Mapping) and {"project", "metadata", "view"} <= set(content):
        return "a project of VIA 3: annotate pictures with VIA 2"
    return None


def name_foreign_root(element: str) -> str | None:
    """Return the tool that wrote an XML file by its outermost element, which is no `dataset`; None if not known."""
    if element == "annotation":
        return "a Pascal VOC file, which has boxes and no points"
    kind = _ROOTS.get(element)
    return f"{_TOOLS[kind]}: its kind is {kind}" if kind in _TOOLS else None


def name_foreign_header(columns: Sequence[str]) -> str | None:
    """Return the tool that wrote a CSV file by its columns; None if it may be one of faces."""
    return "a CSV of VIA, one region a line: its kind is via" if _is_via_table(columns) else None
