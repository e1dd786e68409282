"""300-W (Sagonas et al., ICCV 2013 workshops): 68 points on AFW, HELEN, LFPW, iBUG and the private test set."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ...errors import DataError
from ...model.known_schemes import get_scheme
from ..formats.pts import read_pts
from ..picture_files import PICTURE_SUFFIXES
from ..source import FaceSource, Row
from .raw_files import box_of_corners, read_mat


__all__ = ["BOXES", "open_source"]

BOXES = ("ground_truth", "detector", "points")
"""Which face box to take: one of the two in the MATLAB files, or the tight box of the points."""


@dataclass(frozen=True)
class _Part:
    """A part of the set.

    Attributes:
        split: The split that it belongs to.
        folders: Where it may be, in lower case.
        boxes: The end of the name of its MATLAB file; None where it has none.
    """

    split: str
    folders: tuple[str, ...]
    boxes: str | None = None


# In the order of the rows. The first folder is where the distribution has it, the last where the authors had it.
_PARTS = {
    "afw": _Part("train", ("afw", "images/train/afw"), "afw"),
    "helen_train": _Part("train", ("helen/trainset", "images/train/helen"), "helen_trainset"),
    "lfpw_train": _Part("train", ("lfpw/trainset", "images/train/lfpw"), "lfpw_trainset"),
    "helen_test": _Part("test", ("helen/testset", "images/test/common/helen"), "helen_testset"),
    "lfpw_test": _Part("test", ("lfpw/testset", "images/test/common/lfpw"), "lfpw_testset"),
    "ibug": _Part("test", ("ibug", "images/test/challenging/ibug"), "ibug"),
    "indoor": _Part("private", ("300w/01_indoor", "images/test/300w/01_indoor")),
    "outdoor": _Part(
        "private",
        ("300w/02_outdoor", "300w/01_outdoor", "images/test/300w/02_outdoor", "images/test/300w/01_outdoor"),
    ),
}
_LAYOUT = (
    "the folders afw, helen/trainset and lfpw/trainset (train), helen/testset, lfpw/testset and ibug (test), or "
    "300w/01_Indoor and 300w/02_Outdoor (private) of pictures with a .pts file each"
)
_BOX_FOLDER = "boundingboxes"


def open_source(path: Path, box_source: str = "ground_truth", origin: int = 1) -> FaceSource:
    """Open 300-W, in the folders that it is distributed in or in the folders of the paper's authors.

    The splits, as far as their folders are there (in any letter case), each part in the order of its file names:

    - `train`: `afw`, `helen_train`, `lfpw_train`; 337 + 2,000 + 811 = 3,148 faces in the official set. The authors'
      few-shot sets are the first rows of it.
    - `test`: `helen_test`, `lfpw_test`, `ibug`; 330 + 224 = 554 faces (`common`) and 135 (`challenging`).
    - `private`: `indoor`, `outdoor`; 300 + 300 faces.

    Faces of one AFW photograph, whose file names differ only in the number at their end, share a `picture`. Mirrored
    copies (`*_mirror.jpg`), which some distributions carry, are left out.

    Args:
        path: The folder of `afw/`, `helen/` and so on and of `Bounding Boxes/`, or the folder of `images/`.
        box_source: One of `BOXES`. The private set comes without boxes: its ground truth is the tight box of the
            points, and with `"detector"` it is left out. `"points"` needs no MATLAB files.
        origin: The pixel that the files count from. MATLAB made them and counts from 1, which is subtracted from
            points and boxes.

    Raises:
        DataError: If no split or only a part of one is there, a picture has no points or points no picture, or the
            boxes that were asked for are missing.
    """
    if box_source not in BOXES:
        raise DataError(f"box_source must be one of {', '.join(BOXES)}, not {box_source!r}.")
    if origin not in (0, 1):
        raise DataError(f"origin must be 0 or 1, not {origin!r}.")
    parts: dict[str, list[tuple[str, Path, Path | None]]] = {}
    for name, folder in _find_parts(path, box_source).items():
        mat = _find_boxes(path, name) if box_source != "points" and _PARTS[name].boxes else None
        parts.setdefault(_PARTS[name].split, []).append((name, folder, mat))
    found = [part for group in parts.values() for part in group]
    points = [file for _, folder, _ in found for _, file in _pairs(folder)]
    return FaceSource(
        kind="300w",
        splits={split: partial(_rows, tuple(group), box_source, origin) for split, group in parts.items()},
        scheme=get_scheme("300w"),
        files=(*points, *(mat for *_, mat in found if mat)),
        extend_top=0.20,
        extend_bottom=0.12,
    )


def _find_parts(path: Path, boxes: str) -> dict[str, Path]:
    """Find the folders of all splits that are there, and see that none is there by halves."""
    found = {name: _find_folder(path, part.folders) for name, part in _PARTS.items()}
    parts: dict[str, Path] = {}
    for split in dict.fromkeys(part.split for part in _PARTS.values()):
        names = [name for name, part in _PARTS.items() if part.split == split]
        folders = {name: folder for name in names if (folder := found[name])}
        missing = [str(path / _PARTS[name].folders[0]) for name in names if name not in folders]
        if folders and missing:
            raise DataError(
                f"The {split} split of 300-W is there ({', '.join(folders)}) but for {', '.join(missing)}; expected "
                f"{_LAYOUT}."
            )
        if split != "private" or boxes != "detector":
            parts |= folders
    if not parts and any(found.values()):
        raise DataError("The private set of 300-W comes without a detector's boxes; pass --box-source points.")
    if not parts:
        raise DataError(f"{path} holds no split of 300-W; expected {_LAYOUT}.")
    return parts


def _find_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    """Return the first of the folders below the root that is there, in any letter case."""
    for name in names:
        folder: Path | None = root
        for step in name.split("/"):
            folder = folder and _child(folder, step)
        if folder:
            return folder
    return None


def _child(folder: Path, name: str) -> Path | None:
    """Return the folder inside that has a name, given in lower case, in any letter case."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((entry for entry in entries if entry.name.lower() == name and entry.is_dir()), None)


def _find_boxes(path: Path, name: str) -> Path:
    """Return the MATLAB file with the boxes of a part."""
    wanted = f"bounding_boxes_{_PARTS[name].boxes}.mat"
    for folder in sorted(path.iterdir()):
        if re.sub("[ _]", "", folder.name.lower()) == _BOX_FOLDER and (folder / wanted).is_file():
            return folder / wanted
    raise DataError(
        f"There is no file {path / 'Bounding Boxes' / wanted}; pass --box-source points to take those of the points."
    )


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """List a folder's pictures in the order of their names, each with its .pts file."""
    pictures: dict[str, Path] = {}
    points: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        suffix = file.suffix.lower()
        if file.name.startswith(".") or file.stem.lower().endswith("_mirror"):
            continue
        if suffix == ".pts":
            points[file.stem] = file
        elif suffix in PICTURE_SUFFIXES:
            if file.stem in pictures:
                raise DataError(f"{pictures[file.stem]} and {file.name} have one .pts file; remove one of them.")
            pictures[file.stem] = file
    for stem in sorted(set(pictures) ^ set(points)):
        if stem in pictures:
            raise DataError(f"{pictures[stem]} has no points: there is no {stem}.pts beside it.")
        raise DataError(f"{points[stem]} has no picture beside it.")
    if not pictures:
        raise DataError(f"{folder} holds no pictures with .pts files.")
    return [(picture, points[stem]) for stem, picture in pictures.items()]


def _rows(parts: tuple[tuple[str, Path, Path | None], ...], boxes: str, origin: int) -> Iterator[Row]:
    for subset, folder, mat in parts:
        known = _read_boxes(mat, f"bb_{boxes}") if mat else {}
        for picture, file in _pairs(folder):
            points = read_pts(file, origin)
            photograph = re.sub(r"_\d+$", "", picture.stem) if subset == "afw" else picture.stem
            if mat:
                if _key(picture.name) not in known:
                    raise DataError(f"{mat} has no box for {picture}; pass --box-source points to do without.")
                corners = known[_key(picture.name)] - origin
            else:
                corners = np.concatenate([np.nanmin(points, 0), np.nanmax(points, 0)])
            yield {
                "image": picture,
                "landmarks": points,
                "box": box_of_corners(*corners.tolist()),
                "name": f"{subset}/{picture.name}",
                "picture": f"{subset}/{photograph}",
                "subset": subset,
            }


def _read_boxes(file: Path, name: str) -> dict[str, np.ndarray]:
    """Read the boxes (x1, y1, x2, y2) of a MATLAB file by the pictures' keys, be it a struct or a cell array."""
    (entries,) = read_mat(file, "bounding_boxes")
    entries = [entries] if isinstance(entries, dict) else entries
    try:
        return {_key(entry["imgName"]): np.asarray(entry[name], dtype=np.float64).reshape(4) for entry in entries}
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise DataError(f"{file} is not a list of imgName, bb_detector and bb_ground_truth with 4 numbers.") from error


def _key(name: str) -> str:
    """Return what a picture's names in a folder and in a MATLAB file have in common.

    iBUG's `image_092 _01.jpg` is often renamed to be without the space, and pictures are stored in another format.
    """
    return name.rsplit(".", 1)[0].replace(" ", "").lower()
