"""A session of the page Teach that holds the photographs of a folder before anybody opens the page."""

import base64
import csv
import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from ..inference.input_files import collect_inputs, copy_names, is_video
from ..inference.landmark_finder import LandmarkFinder
from .annotation import AnnotatedFace
from .sessions import Session, SessionStore
from .teaching import find_session_faces
from .uploads import Uploads, display_name


__all__ = ["FolderToAnnotate", "folder_to_annotate", "prepare_session"]

logger = logging.getLogger(__name__)

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class FolderToAnnotate:
    """The photographs of a folder.

    Attributes:
        folder: The folder.
        pictures: Its photographs.
        boxes: The faces (x, y, width, height) to annotate of a photograph, by the name of its file, where `fabrec
            select` has chosen them; the faces of others are searched for.
    """

    folder: Path
    pictures: Sequence[Path]
    boxes: Mapping[str, Sequence[Box]]


def folder_to_annotate(folder: Path, most: int, remark: Callable[[str], None] | None = None) -> FolderToAnnotate:
    """List the photographs of a folder, or of what `fabrec select --output` has written there.

    Args:
        folder: The folder.
        most: How many photographs a session holds.
        remark: Gets a sentence about what in the folder is no picture.

    Raises:
        FabRecError: If there is no such folder, or it holds no photograph, or too many.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: name one with the photographs to annotate.")
    selected = folder / "selected.csv"
    is_selection = selected.is_file() and (folder / "pictures").is_dir()
    place = folder / "pictures" if is_selection else folder
    pictures = [path for path in collect_inputs([str(place)], remark) if not is_video(path)]
    if not pictures:
        raise DataError(f"{place} holds videos alone: take frames out of them first.")
    if len(pictures) > most:
        raise DataError(
            f"{place} holds {len(pictures)} photographs, and the page takes {most}: choose by fabrec select {place} "
            "--output DIR, and annotate DIR."
        )
    return FolderToAnnotate(folder, pictures, _chosen_boxes(selected) if is_selection else {})


def _chosen_boxes(selected: Path) -> dict[str, list[Box]]:
    """Read the table of `fabrec select`: boxes by the names that the copied pictures have."""
    try:
        with selected.open(newline="", encoding="utf-8") as stream:
            rows = [
                (row["file"], tuple(float(row[n]) for n in ("x", "y", "width", "height")))
                for row in csv.DictReader(stream)
            ]
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{selected} is not the table that fabrec select writes: {error}") from error
    names = copy_names([Path(name) for name in dict.fromkeys(name for name, _ in rows)])
    boxes: dict[str, list[Box]] = {}
    for file, box in rows:
        boxes.setdefault(names[Path(file)], []).append(box)  # type: ignore[arg-type]
    return boxes


def prepare_session(
    wanted: FolderToAnnotate, sessions: SessionStore, uploads: Uploads, finder: LandmarkFinder
) -> Session:
    """Open the session of a folder, and add the photographs that it does not hold yet.

    The same folder has the same session from one run to the next, so that annotations are kept.

    Args:
        wanted: The photographs.
        sessions: Where it is kept.
        uploads: Where files may be opened.
        finder: For its face detector.

    Raises:
        DataError: If the photographs are too many, or too large together.
    """
    digest = hashlib.sha256(str(wanted.folder.resolve()).encode()).digest()
    session = sessions.keep(base64.urlsafe_b64encode(digest).decode().rstrip("="))
    with session.lock:
        present = {face.name for face in session.project.faces}
        names = copy_names(wanted.pictures)
        new = [path for path in wanted.pictures if display_name(names[path]) not in present]
        copies = [Path(shutil.copyfile(path, uploads.new_file(names[path]))) for path in new]
        try:
            kept, problems = session.add_photographs([str(copy) for copy in copies], uploads)
        finally:
            for copy in copies:
                shutil.rmtree(copy.parent, ignore_errors=True)
        for problem in problems:
            logger.warning("%s", problem)
        boxes = {display_name(name): found for name, found in wanted.boxes.items()}
        known = [AnnotatedFace(file, name, box) for file, name in kept for box in boxes.get(name, ())]
        others = [(file, name) for file, name in kept if name not in boxes]
        session.project.add_faces([*known, *find_session_faces(session, others, finder)])
    return session
