"""Find the faces of many pictures: read, detect, find landmarks, draw, a few pictures in each of several threads."""

import io
import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import FabRecError
from ..model.image_inputs import Picture
from ..model.lone_threads import FACES_PER_THREAD, in_order, lone_threads
from .drawing import draw_overview
from .face_records import picture_record, picture_table
from .input_files import check_inside, load_picture
from .landmark_finder import Face, LandmarkFinder


__all__ = ["PictureResult", "landmark_pictures"]

# Pictures that a GPU gets at a time, and the threads that read pictures and find faces for it.
PICTURES_PER_PASS, READERS = 16, 4


@dataclass(frozen=True)
class PictureResult:
    """What was found in a picture.

    Attributes:
        path: The picture.
        record: What was found, as plain data; None if there was an error.
        files: Content of the files to write by suffix: the overlay, the JSON and the CSV, where they were asked
            for and there is a face.
        error: Why the picture could not be used.
        note: A sentence about a file that holds several pictures, "" for any other.
    """

    path: Path
    record: dict[str, Any] | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    error: Exception | None = None
    note: str = ""


def landmark_pictures(
    paths: Sequence[Path],
    finder: LandmarkFinder,
    boxes: Sequence[Any] | None = None,
    min_score: float | None = None,
    draw: bool = False,
    labels: str | None = None,
) -> Generator[PictureResult, None, None]:
    """Find the landmarks of all faces in pictures.

    On a CPU four pictures for each of PyTorch's threads, and four more, are in memory at a time; on a GPU 80.

    Args:
        paths: The pictures.
        finder: Model and detector.
        boxes: The faces of each picture; without them, faces are searched for.
        min_score: Landmarks that score lower are left out.
        draw: Whether to make the files.
        labels: `"names"` or `"index"` of the points, to write beside them in the overlay.

    Yields:
        The result of each picture in order; one that cannot be read does not stop the others.
    """
    work = _Work(finder, boxes, min_score, draw, labels)
    most, threads = (FACES_PER_THREAD, torch.get_num_threads()) if finder.on_cpu else (PICTURES_PER_PASS, READERS)
    size = max(1, min(most, -(-len(paths) // threads)))
    groups = [paths[start : start + size] for start in range(0, len(paths), size)]
    if len(groups) == 1:  # PyTorch's own threads share the work
        yield from work(groups[0])
        return
    with lone_threads(threads) as pool:
        for _, future in in_order(pool, work, groups, threads + 1):
            yield from future.result()


@dataclass(frozen=True)
class _Opened:
    """A picture whose faces are known."""

    path: Path
    image: Picture
    boxes: Sequence[Any]
    note: str


@dataclass(frozen=True)
class _Work:
    """What is done with pictures, with the arguments of `landmark_pictures`."""

    finder: LandmarkFinder
    boxes: Sequence[Any] | None
    min_score: float | None
    draw: bool
    labels: str | None

    def __call__(self, paths: Sequence[Path]) -> list[PictureResult]:
        """Return the results of a few pictures, whose faces go through the network together."""
        opened = [_result_or_error(path, self._open, path) for path in paths]
        readable = [entry for entry in opened if isinstance(entry, _Opened)]
        found = iter(
            self.finder.find([entry.image for entry in readable], [entry.boxes for entry in readable], self.min_score)
        )
        return [
            _result_or_error(entry.path, self._finish, entry, next(found)) if isinstance(entry, _Opened) else entry
            for entry in opened
        ]

    def _open(self, path: Path) -> _Opened:
        image, note = load_picture(path)
        for box in self.boxes or ():
            check_inside(box, image.size)
        return _Opened(path, image, self.boxes if self.boxes is not None else self.finder.detect(image), note)

    def _finish(self, opened: _Opened, faces: Sequence[Face]) -> PictureResult:
        finder, size = self.finder, opened.image.size
        record = picture_record(opened.path, size, faces, finder.name, finder.scheme_name, finder.point_names)
        files: dict[str, bytes] = {}
        if self.draw and faces:
            overlay = io.BytesIO()
            draw_overview(opened.image, faces, finder.scheme, labels=self.labels).save(overlay, format="PNG")
            files = {
                ".landmarks.png": overlay.getvalue(),
                ".json": json.dumps(record, indent=2).encode(),
                ".csv": picture_table(record).encode(),
            }
        return PictureResult(opened.path, record, files, note=opened.note)


def _result_or_error(path: Path, function: Callable, *arguments: Any) -> Any:
    """Return what a function returns, or what is wrong with the picture as its result."""
    try:
        return function(*arguments)
    except (FabRecError, OSError) as error:
        return PictureResult(path, error=error)
