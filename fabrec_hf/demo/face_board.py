"""What the board for annotating shows of a session, and what a person does there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .annotation import AnnotatedFace, Project
from .annotation_view import SIDE, crop_of, cut_face
from .sessions import Session
from .uploads import Uploads


__all__ = ["SCRIPT", "STATES", "apply_action", "board_value", "from_board", "to_board"]

SCRIPT = Path(__file__).with_name("face_board.js")
STATES = ("complete", "begun", "open", "skipped")
THUMBNAIL = 112
QUALITY = 90
_NO_ACTION = "The page sent something that is no action: reload it."


def to_board(points: np.ndarray, box: tuple[float, float, float, float]) -> list[list[float] | None]:
    """Turn points (L, 2) in pixels of the photograph into fractions of the board; None for NaN."""
    fractions = crop_of(box).from_photograph(points) / SIDE
    return [[float(x), float(y)] if np.isfinite([x, y]).all() else None for x, y in fractions]


def from_board(x: float, y: float, box: tuple[float, float, float, float]) -> tuple[float, float]:
    """Turn fractions of the board into a point in pixels of the photograph, centers at integers."""
    return crop_of(box).to_photograph(x * SIDE - 0.5, y * SIDE - 0.5)


def state_of(face: AnnotatedFace) -> str:
    """Return one of `STATES`."""
    if face.skipped:
        return "skipped"
    return "complete" if face.complete else "begun" if face.touched else "open"


def board_value(
    session: Session, uploads: Uploads, proposal: np.ndarray | None, number: int | None = None
) -> dict[str, Any]:
    """Return what the script of the board draws.

    Args:
        session: Whose faces were chosen and whose points have names.
        uploads: Where the pictures of the faces are put for the web server.
        proposal: (L, 2) in pixels of the photograph, NaN where there is none.
        number: Of the action that this answers.
    """
    project = session.project
    face = project.face
    empty = np.full((len(project.names), 2), np.nan)
    return {
        "place": project.place,
        "current": project.current,
        "names": list(project.names),
        "points": to_board(face.landmarks(), face.box),
        "hidden": list(face.hidden),
        "proposal": to_board(empty if proposal is None else proposal, face.box),
        "picture": _picture(session, uploads, project.row, SIDE),
        "faces": [
            {"state": state_of(project.faces[row]), "picture": _picture(session, uploads, row, THUMBNAIL)}
            for row in project.order
        ],
        "number": session.answered if number is None else number,
    }


def _picture(session: Session, uploads: Uploads, row: int, side: int) -> str:
    """Return the address of the picture of a face, which is cut once."""
    file = session.cuts.get((row, side))
    if file is None or not file.is_file():
        face = session.project.faces[row]
        file = uploads.new_file(f"face-{row}-{side}.jpg")
        cut_face(session.photograph(face), face.box, side).save(file, "JPEG", quality=QUALITY)
        session.cuts[row, side] = file
    return f"gradio_api/file={file}"


def apply_action(session: Session, action: Any, accept: Callable[[Session], None]) -> None:
    """Do what a person did on the board.

    Args:
        session: Whose; its lock is held.
        action: With `verb`, `place` (of the face in the order), `point`, `number`, and `x`, `y` and `advance` where a
            point is put; `x` and `y` are fractions of the board.
        accept: Takes what is proposed.

    Raises:
        DataError: If it is no such action.
    """
    project = session.project
    try:
        verb, place, number = str(action["verb"]), int(action["place"]), int(action["number"])
        point = int(action.get("point") or 0)
        x, y = float(action.get("x", 0)), float(action.get("y", 0))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(_NO_ACTION) from error
    if not 0 <= place < len(project.order) or not (-1 <= x <= 2 and -1 <= y <= 2):
        raise DataError("The faces have changed meanwhile: reload the page.")
    if verb == "go" or place != project.place:
        project.go_to(place)
    if verb in ("put", "hide", "select"):
        project.select(point)
    if verb == "put":
        project.put(*from_board(x, y, project.face.box), advance=bool(action.get("advance")))
    elif verb != "select":
        _other(project, session, verb, accept)
    session.answered = number


def _other(project: Project, session: Session, verb: str, accept: Callable[[Session], None]) -> None:
    known: dict[str, Callable[[], Any]] = {
        "go": lambda: None,
        "hide": project.hide,
        "undo": project.undo,
        "accept": lambda: accept(session),
        "next": lambda: project.go_to(project.place + 1),
        "previous": lambda: project.go_to(project.place - 1),
    }
    if verb not in known:
        raise DataError(_NO_ACTION)
    known[verb]()
