"""Writes faces for an annotation tool: its annotations, what its project is set up with, and the pictures."""

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image, ImageOps
from tqdm.auto import tqdm

from ...common.output_folder import write_files
from ...errors import DataError, SchemeError
from ...model.known_schemes import LandmarkScheme
from ..annotation_templates import annotation_template
from ..face_table import encoded_images
from ..picture_sizes import read_size
from ..readers import PROPOSALS, TOOLS
from ..sets.wflw import ATTRIBUTES, LIST_NAME, LISTS, PICTURES
from .annotated import FaceToWrite, PictureToWrite, labels_of
from .cvat import cvat_document
from .dlib_writer import SUFFIXES, dlib_document
from .export_folder import check_columns, new_split
from .labelme import labelme_document
from .labelstudio import labelstudio_document
from .layouts import canonical_split, encoded_picture, file_stem, points_of
from .pts import pts_text
from .via import via_project, via_table
from .wflw_writer import check_wflw_points, wflw_list


__all__ = ["export_tool", "export_wflw", "setup_files", "tool_files"]

_WITHOUT_EXIF = ("dlib", "wflw")  # what is read by programs that take a picture as it lies in its file


def tool_files(
    tool: str,
    pictures: Sequence[PictureToWrite],
    scheme: LandmarkScheme,
    folder: str = "",
    model: str | None = None,
) -> dict[str, bytes]:
    """Return a tool's annotations of pictures, as files by name.

    Args:
        tool: One of `PROPOSALS`.
        pictures: What to write.
        scheme: The mark-up of the points; without names they are labeled by their numbers.
        folder: Where the pictures are: for imglab, labelme and VIA from the folder of the files, for Label Studio from
            the root of its local files.
        model: What has made the faces, for proposals; None: a person.

    Raises:
        DataError, SchemeError: If the form cannot hold what there is.
        ValueError: If there is no such form.
    """
    if tool not in PROPOSALS:
        raise ValueError(f"tool must be one of {', '.join(PROPOSALS)}, not {tool!r}.")
    if tool == "dlib":
        return {"faces.xml": dlib_document(pictures, scheme, folder)}
    if tool == "wflw":
        return {f"{LIST_NAME}.txt": wflw_list(pictures, scheme)}
    if tool == "pts":
        return _pts_files(pictures)
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


def _pts_files(pictures: Sequence[PictureToWrite]) -> dict[str, bytes]:
    """Return a file a face, of the name of its picture, and numbered from 1 where that has several."""
    files: dict[str, bytes] = {}
    for picture in pictures:
        stem = Path(picture.name).stem
        for number, face in enumerate(picture.faces, start=1):
            name = f"{stem}_{number}.pts" if len(picture.faces) > 1 else f"{stem}.pts"
            if name in files:
                raise DataError(f"Two pictures have a face whose file would be {name}; rename {picture.name}.")
            files[name] = pts_text(np.asarray(face.points, dtype=np.float32)).encode()
    return files


def setup_files(tool: str, scheme: LandmarkScheme, boxes: bool = True) -> dict[str, bytes]:
    """Return what a project of a tool is set up with, as files by name; other forms need nothing beside themselves.

    Args:
        tool: One of `PROPOSALS`.
        scheme: The mark-up of the points; without names they are labeled by their numbers.
        boxes: Whether faces have boxes.
    """
    named = replace(scheme, point_names=labels_of(scheme))
    return annotation_template(tool, named, (), boxes) if tool in ("cvat", "labelme", "labelstudio") else {}


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
    full precision. Hidden points are marked for CVAT and labelme. Other columns find no place here. imglab is
    different: it holds whole pixels alone, and gets pictures that are turned by EXIF, or in a form that it does not
    open, as upright PNG.

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
    check_columns(dataset, "annotations")
    with new_split(folder, split) as drafts:
        pictures = _write_pictures(dataset, scheme, drafts[split], progress, plain=tool in _WITHOUT_EXIF)
        # labelme's pictures lie beside its files, Label Studio's below the folder of all splits
        place = split if tool == "labelstudio" else ""
        for name, content in tool_files(tool, pictures, scheme, place).items():
            (drafts[split] / name).write_bytes(content)
    has_boxes = any(face.box is not None for picture in pictures for face in picture.faces)
    write_files(folder, setup_files(tool, scheme, has_boxes))
    return len(dataset)


def export_wflw(
    dataset: datasets.Dataset,
    scheme: LandmarkScheme,
    folder: str | os.PathLike,
    split: str,
    progress: bool = False,
) -> int:
    """Write faces of 98 points as WFLW is distributed, a list and a folder of pictures, which `wflw` reads back.

    Points have their full precision, and rectangles are whole pixels. The columns of WFLW's attributes are kept, 0
    where there are none, and others are not. Pictures that are turned by EXIF are written upright.

    Args:
        dataset: Faces with `image` and `landmarks`.
        scheme: Their mark-up.
        folder: Where to write. What there is of other splits stays.
        split: What to call them.
        progress: Show a progress bar.

    Returns:
        The number of faces written.

    Raises:
        DataError: If a point is not annotated, a picture cannot be read, or the folder holds this split already.
        SchemeError: If the faces have other than 98 points.
    """
    check_wflw_points(scheme.num_landmarks)
    split, folder = canonical_split(split, "export_wflw"), Path(folder)
    check_columns(dataset, "annotations")
    pictures, target = f"{PICTURES}/{split}", f"{LISTS}/{LIST_NAME}_{split}.txt"
    with new_split(folder, pictures, target) as drafts:
        written = _write_pictures(dataset, scheme, drafts[pictures], progress, plain=True)
        content = wflw_list([replace(picture, name=f"{split}/{picture.name}") for picture in written], scheme)
        drafts[target].write_bytes(content)
    return len(dataset)


def _write_pictures(
    dataset: datasets.Dataset, scheme: LandmarkScheme, folder: Path, progress: bool, plain: bool
) -> list[PictureToWrite]:
    """Write each picture once into a new folder, and return all with their faces.

    With `plain` every program opens the pictures upright.
    """
    folder.mkdir()
    pictures: dict[bytes, PictureToWrite] = {}
    rows = encoded_images(dataset)
    for index, row in enumerate(tqdm(rows, desc="writing", unit="face", disable=not progress)):
        content, suffix, size = encoded_picture(row["image"], index)
        digest = hashlib.blake2b(content).digest()
        if digest not in pictures:
            if plain:
                content, suffix = _plain_picture(content, suffix)
            name = file_stem(index, row.get("name")) + suffix
            (folder / name).write_bytes(content)
            pictures[digest] = PictureToWrite(name, size, len(content), [])
        face = _face(row, index, scheme)
        pictures[digest] = replace(pictures[digest], faces=[*pictures[digest].faces, face])
    return list(pictures.values())


def _plain_picture(content: bytes, suffix: str) -> tuple[bytes, str]:
    """Return an encoded picture and its suffix: as they are where nothing needs to be known of it, else as PNG."""
    with Image.open(io.BytesIO(content)) as image:
        if suffix in SUFFIXES and not read_size(image).turned:
            return content, suffix
        stream = io.BytesIO()
        ImageOps.exif_transpose(image).convert("RGB").save(stream, format="PNG")
    return stream.getvalue(), ".png"


def _face(row: Mapping[str, Any], index: int, scheme: LandmarkScheme) -> FaceToWrite:
    points = points_of(row["landmarks"])
    if points.shape != (scheme.num_landmarks, 2):
        raise SchemeError(f"Row {index} has {len(points)} points, but {scheme.name} has {scheme.num_landmarks}.")
    attributes = {name: row[name] for name in ATTRIBUTES if row.get(name) is not None}
    return FaceToWrite(points, row.get("visibility") or [True] * len(points), row.get("box"), attributes=attributes)
