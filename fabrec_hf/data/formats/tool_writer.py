"""Writes faces for an annotation tool: its annotations, what its project is set up with, and the pictures."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
from tqdm.auto import tqdm

from ...errors import DataError, SchemeError
from ...model.known_schemes import LandmarkScheme
from ..annotation_templates import annotation_template
from ..face_table import encoded_images
from ..readers import TOOLS
from .annotated import AnnotatedFace, AnnotatedPicture, labels_of
from .cvat import cvat_document
from .labelme import labelme_document
from .labelstudio import labelstudio_document
from .layouts import canonical_split, encoded_picture, file_stem, points_of
from .via import via_project, via_table


__all__ = ["export_tool", "setup_files", "tool_files"]


def tool_files(
    tool: str,
    pictures: Sequence[AnnotatedPicture],
    scheme: LandmarkScheme,
    folder: str = "",
    model: str | None = None,
) -> dict[str, bytes]:
    """Return a tool's annotations of pictures, as files by name.

    Args:
        tool: One of `TOOLS`.
        pictures: What to write.
        scheme: The mark-up of the points; without names they are labeled by their numbers.
        folder: Where the pictures are: for labelme and VIA from the folder of the files, for Label Studio from the
            root of its local files.
        model: What has made the faces, for proposals; None: a person.
    """
    if tool == "cvat":
        return {"annotations.xml": cvat_document(pictures, scheme, "auto" if model else "manual")}
    if tool == "labelstudio":
        return {"tasks.json": labelstudio_document(pictures, scheme, folder, model)}
    if tool == "via":
        project, table = via_project(pictures, scheme, folder), via_table(pictures, scheme)
        return {"via_project.json": project, "via_regions.csv": table}
    return {
        f"{Path(picture.name).stem}.json": labelme_document(
            picture, scheme, f"{folder}/{picture.name}" if folder else picture.name
        )
        for picture in pictures
    }


def setup_files(tool: str, scheme: LandmarkScheme, boxes: bool = True) -> dict[str, bytes]:
    """Return what a project of a tool is set up with, as files by name; a project of VIA holds it itself.

    Args:
        tool: One of `TOOLS`.
        scheme: The mark-up of the points; without names they are labeled by their numbers.
        boxes: Whether faces have boxes.
    """
    named = replace(scheme, point_names=labels_of(scheme))
    return {} if tool == "via" else annotation_template(tool, named, (), boxes)


def export_tool(
    dataset: datasets.Dataset,
    scheme: LandmarkScheme,
    folder: str | os.PathLike,
    split: str,
    tool: str,
    progress: bool = False,
) -> int:
    """Write faces as a folder `SPLIT/` of pictures and a tool's annotations, which the tool's kind reads back.

    Faces of one picture stand in one picture. Pictures are written as they are stored, points and boxes with their
    full precision. Hidden points are marked for CVAT and labelme. Other columns find no place here.

    Args:
        dataset: Faces with `image` and `landmarks`.
        scheme: Their mark-up.
        folder: Where to write. What there is of other splits stays.
        split: What to call them.
        tool: One of `TOOLS`.
        progress: Show a progress bar.

    Returns:
        The number of faces written.

    Raises:
        DataError: If there are no landmarks, a picture cannot be read, or the folder holds this split already.
        SchemeError: If a face has another number of points than the scheme.
        ValueError: If there is no such tool.
    """
    if tool not in TOOLS:
        raise ValueError(f"tool must be one of {', '.join(TOOLS)}, not {tool!r}.")
    split, folder = canonical_split(split, "export_tool"), Path(folder)
    missing = [name for name in ("image", "landmarks") if name not in dataset.column_names]
    if missing:
        raise DataError(f"The faces have no column {', '.join(missing)} to write annotations from.")
    target = folder / split
    if target.exists():
        raise DataError(f"{target} exists already; name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        unfinished.chmod(folder.stat().st_mode)
        pictures = _write_pictures(dataset, scheme, unfinished, progress)
        # labelme's pictures lie beside its files, Label Studio's below the folder of all splits
        place = split if tool == "labelstudio" else ""
        for name, content in tool_files(tool, pictures, scheme, place).items():
            (unfinished / name).write_bytes(content)
        unfinished.replace(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    has_boxes = any(face.box is not None for picture in pictures for face in picture.faces)
    for name, content in setup_files(tool, scheme, has_boxes).items():
        (folder / name).write_bytes(content)
    return len(dataset)


def _write_pictures(
    dataset: datasets.Dataset, scheme: LandmarkScheme, folder: Path, progress: bool
) -> list[AnnotatedPicture]:
    """Write each picture once, and return all of them with their faces."""
    pictures: dict[bytes, AnnotatedPicture] = {}
    rows = encoded_images(dataset)
    for index, row in enumerate(tqdm(rows, desc="writing", unit="face", disable=not progress)):
        content, suffix, size = encoded_picture(row["image"], index)
        digest = hashlib.blake2b(content).digest()
        if digest not in pictures:
            name = file_stem(index, row.get("name")) + suffix
            (folder / name).write_bytes(content)
            pictures[digest] = AnnotatedPicture(name, size, len(content), [])
        face = _face(row, index, scheme)
        pictures[digest] = replace(pictures[digest], faces=[*pictures[digest].faces, face])
    return list(pictures.values())


def _face(row: Mapping[str, Any], index: int, scheme: LandmarkScheme) -> AnnotatedFace:
    points = points_of(row["landmarks"])
    if points.shape != (scheme.num_landmarks, 2):
        raise SchemeError(f"Row {index} has {len(points)} points, but {scheme.name} has {scheme.num_landmarks}.")
    return AnnotatedFace(points, row.get("visibility") or [True] * len(points), row.get("box"))
