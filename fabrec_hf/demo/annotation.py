"""Annotating faces with points of one's own: what is marked, what comes next, and a file that keeps it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..common.output_folder import write_files
from ..data.scheme_files import infer_scheme
from ..errors import DataError, SchemeError
from ..model.known_schemes import LandmarkScheme


__all__ = ["AnnotatedFace", "Project", "parse_names"]

FILE_NAME = "project.json"
HISTORY = 200


@dataclass(frozen=True)
class AnnotatedFace:
    """A face of the photographs.

    Attributes:
        file: Name of the photograph in the folder of the session.
        name: What its owner calls the photograph.
        box: (x, y, width, height) of the face in pixels of the upright photograph.
        points: For every point of the scheme (x, y) in pixels, centers at integers, or None.
        hidden: For every point whether it was said to be invisible.
        skipped: Whether the face is not to be annotated.
    """

    file: str
    name: str
    box: tuple[float, float, float, float]
    points: tuple[tuple[float, float] | None, ...] = ()
    hidden: tuple[bool, ...] = ()
    skipped: bool = False

    @property
    def touched(self) -> bool:
        """Whether any point was placed or called invisible."""
        return any(point is not None for point in self.points) or any(self.hidden)

    @property
    def complete(self) -> bool:
        """Whether nothing is left to say of any point, at least one was placed, and the face is not skipped."""
        said = [point is not None or hidden for point, hidden in zip(self.points, self.hidden, strict=True)]
        return not self.skipped and all(said) and any(point is not None for point in self.points)

    def landmarks(self) -> np.ndarray:
        """Return (L, 2), NaN for a point that was not placed."""
        return np.array([(np.nan, np.nan) if point is None else point for point in self.points], dtype=np.float64)


class Project:
    """The photographs of a session, and what was said about them. Every change is written to the file at once.

    Args:
        folder: Where `project.json` lies.

    Attributes:
        names: The points of the scheme.
        faces: All faces of the photographs.
        order: Rows of the faces to annotate, in this order.
        place: Where in the order the person is.
        current: The point to place next.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: tuple[str, ...] = ()
        self.faces: list[AnnotatedFace] = []
        self.order: list[int] = []
        self.place = self.current = 0
        self._history: list[tuple[int, AnnotatedFace, int, int]] = []

    @classmethod
    def load(cls, folder: Path) -> "Project":
        """Read what an earlier visit left, or begin anew."""
        project = cls(folder)
        file = folder / FILE_NAME
        if not file.is_file():
            return project
        values = json.loads(file.read_text(encoding="utf-8"))
        project.names = tuple(values["names"])
        project.faces = [_face_from_dict(entry) for entry in values["faces"]]
        project.order, project.place, project.current = values["order"], values["place"], values["current"]
        return project

    def save(self) -> None:
        """Write the file; a kill leaves the old one or the new one."""
        faces = [vars(face) for face in self.faces]
        values: dict[str, Any] = {"names": self.names, "faces": faces, "order": self.order}
        values |= {"place": self.place, "current": self.current}
        write_files(self.folder, {FILE_NAME: json.dumps(values).encode()})

    @property
    def scheme(self) -> LandmarkScheme:
        """The scheme that the names make; names that differ in left and right mirror each other."""
        return infer_scheme("custom", self.names)

    @property
    def row(self) -> int:
        """The row of the face that is being annotated.

        Raises:
            DataError: If no faces were chosen yet.
        """
        if not self.order:
            raise DataError("Choose the faces to annotate first.")
        return self.order[self.place]

    @property
    def face(self) -> AnnotatedFace:
        """The face that is being annotated."""
        return self.faces[self.row]

    @property
    def annotated(self) -> list[int]:
        """The rows that a detector can learn from: complete ones, and begun ones that are not skipped."""
        return [row for row, face in enumerate(self.faces) if not face.skipped and _has_point(face)]

    def set_names(self, names: Sequence[str]) -> None:
        """Name the points; as long as nothing is annotated they may be named again.

        Raises:
            SchemeError: If points are annotated under other names.
        """
        names = tuple(names)
        if names == self.names:
            return
        if any(face.touched for face in self.faces):
            raise SchemeError("Points are annotated under the old names already: start over to name others.")
        self.names = names
        self.faces = [self._blank(face) for face in self.faces]
        self.current = 0
        self.save()

    def add_faces(self, faces: Sequence[AnnotatedFace]) -> None:
        """Take in the faces of new photographs."""
        self.faces += [self._blank(face) for face in faces]
        self.save()

    def choose(self, rows: Sequence[int]) -> None:
        """Annotate these rows, each once, after the rows that are begun."""
        begun = [row for row in self.order if self.faces[row].touched]
        self.order = list(dict.fromkeys([*begun, *rows]))
        self.go_to_next_open()

    def go_to(self, place: int) -> None:
        """Go to a face of the order."""
        if self.order:
            self.place = place % len(self.order)
            self.current = self._next_point(0)
            self.save()

    def go_to_next_open(self) -> None:
        """Go to the next face that is neither complete nor skipped, if there is one."""
        places = [(self.place + step) % len(self.order) for step in range(len(self.order))]
        open_places = [
            p for p in places if not (self.faces[self.order[p]].complete or self.faces[self.order[p]].skipped)
        ]
        self.go_to(open_places[0] if open_places else self.place)

    def select(self, point: int) -> None:
        """Make a point the one to place next."""
        if not 0 <= point < len(self.names):
            raise DataError(f"There are points 1 to {len(self.names)}.")
        self.current = point
        self.save()

    def put(self, x: float, y: float, advance: bool = True) -> None:
        """Place the current point, and go on to the next that nothing was said of.

        Args:
            x: Pixels of the photograph.
            y: The same.
            advance: False stays at the point, to move it further.
        """
        self._check_names()
        index = self.current
        self._mark(index, (float(x), float(y)))
        if advance:
            self.current = self._next_point(index + 1)
        self.save()

    def hide(self) -> None:
        """Say that the current point is invisible: it is not learned from this face."""
        self._check_names()
        index = self.current
        self._mark(index, None)
        self.current = self._next_point(index + 1)
        self.save()

    def accept(self, proposal: np.ndarray) -> None:
        """Take proposed positions (L, 2) for all points that nothing was said of."""
        self._check_names()
        face = self.face
        points = [
            (float(x), float(y)) if point is None and not hidden and np.isfinite([x, y]).all() else point
            for point, hidden, (x, y) in zip(face.points, face.hidden, proposal, strict=True)
        ]
        self._change(replace(face, points=tuple(points), skipped=False))
        self.current = self._next_point(self.current)
        self.save()

    def skip(self) -> None:
        """Leave the face out, and go to the next one."""
        self._change(replace(self.face, skipped=True))
        self.go_to_next_open()

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._history)

    def undo(self) -> bool:
        """Take the last change back, wherever it was made; False if there is none."""
        if not self._history:
            return False
        row, face, self.place, self.current = self._history.pop()
        self.faces[row] = face
        self.save()
        return True

    def _check_names(self) -> None:
        if not self.names:
            raise DataError("Name the points first.")

    def _mark(self, index: int, place: tuple[float, float] | None) -> None:
        """Say where a point of the current face is, in pixels of the photograph; None: it is invisible."""
        points, hidden = list(self.face.points), list(self.face.hidden)
        points[index], hidden[index] = place, place is None
        self._change(replace(self.face, points=tuple(points), hidden=tuple(hidden), skipped=False))

    def _change(self, face: AnnotatedFace) -> None:
        self._history = [*self._history[-HISTORY:], (self.row, self.face, self.place, self.current)]
        self.faces[self.row] = face

    def _next_point(self, start: int) -> int:
        """Return the first point from `start` on that nothing was said of; the last looked at if there is none."""
        count = len(self.names)
        face = self.face if self.order else None
        for step in range(count):
            index = (start + step) % count
            if face and face.points[index] is None and not face.hidden[index]:
                return index
        return max(0, min(start, count) - 1)

    def _blank(self, face: AnnotatedFace) -> AnnotatedFace:
        return replace(face, points=(None,) * len(self.names), hidden=(False,) * len(self.names))


def parse_names(text: str, most: int) -> list[str]:
    """Read the names of points, one a line or with commas between them.

    Raises:
        SchemeError: If there is none, two are alike, or there are too many.
    """
    names = [name.strip() for line in text.splitlines() for name in line.split(",") if name.strip()]
    if not names:
        raise SchemeError("Name at least one point, such as left_eye.")
    if len(names) > most or max(map(len, names)) > 60:
        raise SchemeError(f"At most {most} points, with names of up to 60 letters.")
    return list(infer_scheme("custom", names).point_names)


def _has_point(face: AnnotatedFace) -> bool:
    return any(point is not None for point in face.points)


def _face_from_dict(values: dict[str, Any]) -> AnnotatedFace:
    x, y, width, height = values["box"]
    points = tuple(None if point is None else (point[0], point[1]) for point in values["points"])
    return AnnotatedFace(
        values["file"], values["name"], (x, y, width, height), points, tuple(values["hidden"]), values["skipped"]
    )
