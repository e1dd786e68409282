"""The kinds of face data that can be read, and the one function that opens them."""

import glob
import importlib
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError


if TYPE_CHECKING:
    from .source import FaceSource


__all__ = ["KINDS", "PROPOSALS", "TOOLS", "guess_kind", "holds_rows", "is_repository", "known_options", "open_source"]

# Kind -> the module below this package whose `open_source(path, ...)` returns a `FaceSource`, and what it reads.
KINDS: dict[str, tuple[str, str]] = {
    "300w": ("sets.w300", "300-W: folders afw, helen, lfpw, ibug, 300w of pictures with .pts files"),
    "aflw": ("sets.aflw", "AFLW with AFLWinfo_release.mat"),
    "wflw": ("sets.wflw", "WFLW: WFLW_images and WFLW_annotations; or a list like WFLW's"),
    "vggface2": ("sets.vggface2", "VGGFace2 with bb_landmark/loose_bb_*.csv; no landmarks"),
    "affectnet": ("sets.affectnet", "AffectNet with training.csv and validation.csv; no landmarks"),
    "pts": ("formats.pts", "a folder of pictures, each with a .pts file of its name"),
    "dlib": ("formats.dlib_xml", "an XML file of dlib's imglab"),
    "coco": ("formats.coco", "a COCO keypoints JSON file"),
    "csv": ("formats.csv_table", "a CSV file, one face a line"),
    "cvat": ("formats.cvat", 'an XML of CVAT, "CVAT for images 1.1"'),
    "labelme": ("formats.labelme", "a folder of labelme's JSON files, one a picture"),
    "labelstudio": ("formats.labelstudio", "a JSON export of Label Studio, full or JSON-MIN"),
    "via": ("formats.via", "a project or an export of VIA 2, JSON or CSV"),
    "imagefolder": ("formats.imagefolder", "a folder of pictures with metadata.jsonl or metadata.csv, or without"),
    "parquet": ("formats.parquet_source", "Parquet files that this package wrote"),
}

TOOLS = ("cvat", "dlib", "labelme", "labelstudio", "via")
"""The kinds that `fabrec convert` and `fabrec detect` also write for an annotation tool; that of `dlib` is imglab."""

PROPOSALS = (*TOOLS, "pts", "wflw")
"""The kinds that `fabrec detect` writes."""


def open_source(kind: str, path: str | os.PathLike, **options: Any) -> "FaceSource":
    """Open face data of a known kind.

    Args:
        kind: One of `KINDS`.
        path: Its folder or file.
        **options: What the kind takes, for example `scheme` for a user's own points, or `origin` for `.pts` files.

    Raises:
        DataError: If the kind is unknown, an option does not apply to it, or the folder is not in its layout.
    """
    if kind not in KINDS:
        raise DataError(f"No kind of data is called {kind!r}; there are {', '.join(KINDS)}.")
    given = {name: value for name, value in options.items() if value is not None}
    known = known_options(kind)
    unknown = sorted(set(given) - set(known))
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise DataError(f"{kind} data takes no option {', '.join(unknown)}; {takes}.")
    if not os.path.exists(path):
        raise DataError(f"There is no file or folder {path}; expected {KINDS[kind][1]}.")
    return _reader(kind)(Path(path), **given)


def known_options(kind: str) -> list[str]:
    """Return the names of what `open_source` takes for one of `KINDS`."""
    return list(inspect.signature(_reader(kind)).parameters)[1:]


def _reader(kind: str) -> Callable[..., "FaceSource"]:
    return importlib.import_module(f".{KINDS[kind][0]}", __package__).open_source


def guess_kind(path: str | os.PathLike) -> str:
    """Tell from its files what kind of data with a user's own annotations something is.

    Args:
        path: A file, a folder, a glob of Parquet files, or the name `owner/name` of a data set on the Hub, whose files
            are Parquet.

    Raises:
        DataError: If there is nothing, or its kind does not show.
    """
    if is_repository(path):
        return "parquet"
    from .formats.foreign import kind_of_file

    name = os.fspath(path)
    by_suffix = {".json": "coco", ".xml": "dlib", ".csv": "csv", ".parquet": "parquet"}
    suffix = os.path.splitext(name)[1].lower()
    if not os.path.isdir(name):
        if suffix in by_suffix and (os.path.isfile(name) or glob.has_magic(name)):
            return kind_of_file(Path(name)) or by_suffix[suffix]
        if os.path.basename(name).startswith("list_98pt_rect_attr") and suffix == ".txt" and os.path.isfile(name):
            return "wflw"
        if os.path.isfile(name):
            raise DataError(f"What {name} holds cannot be told from its name; expected {', '.join(by_suffix)}.")
        raise DataError(f"There is no file or folder {name}.")
    folder = Path(name)
    if (folder / "WFLW_annotations").is_dir() or any(folder.glob("list_98pt_rect_attr*.txt")):
        return "wflw"
    for pattern, kind in (("*.parquet", "parquet"), ("metadata.*", "imagefolder"), ("*.pts", "pts")):
        if next(folder.rglob(pattern), None) is not None:
            return kind
    for place in (folder / "annotations", folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())):
        files = sorted(file for file in place.glob("*") if file.suffix.lower() in (".json", ".xml", ".csv"))
        # Of tables only VIA's are recognized: any other one is named itself.
        kind = next((kind for kind in map(kind_of_file, files) if kind not in (None, "csv")), None)
        if kind:
            return kind
    raise DataError(
        f"The folder {name} holds no annotations that are known: .pts files, metadata.jsonl, metadata.csv, Parquet, "
        "or files of COCO, dlib, CVAT, Label Studio, labelme or VIA; a CSV file is named itself."
    )


def is_repository(path: str | os.PathLike) -> bool:
    """Tell whether something can only be the name `owner/name` of a data set on the Hub."""
    name = os.fspath(path)
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name)) and not (
        os.path.exists(name) or os.path.isdir(os.path.dirname(name)) or name.endswith(".parquet")
    )


def holds_rows(name: str) -> bool:
    """Whether a name stands for rows: a Parquet file, a folder of such files and no pictures, or `owner/name`."""
    from .picture_files import is_picture

    path = Path(name)
    if path.is_dir():
        return not any(is_picture(entry) for entry in path.iterdir()) and any(path.rglob("*.parquet"))
    return path.suffix == ".parquet" or is_repository(name)
