"""Find the faces of many pictures: read, detect, find landmarks, draw, each in a thread of its own."""

import io
import json
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..common.thread_stages import Stages
from ..errors import FabRecError
from ..model.image_inputs import Picture
from .drawing import draw_overview
from .face_records import picture_record, picture_table
from .input_files import check_inside, load_picture
from .landmark_finder import Face, LandmarkFinder


__all__ = ["PictureResult", "landmark_pictures"]

# Pictures that a GPU gets at a time. A CPU gets one: more are no faster there.
PICTURES_PER_PASS = 16


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


@dataclass(frozen=True)
class _Job:
    """A picture on its way through the stages; after an error the later stages pass it on."""

    path: Path
    image: Picture | None = None
    boxes: Sequence[Any] = ()
    faces: Sequence[Face] = ()
    result: PictureResult | None = None
    note: str = ""


def landmark_pictures(
    paths: Sequence[Path],
    finder: LandmarkFinder,
    boxes: Sequence[Any] | None = None,
    min_score: float | None = None,
    draw: bool = False,
    labels: str | None = None,
) -> Generator[PictureResult, None, None]:
    """Find the landmarks of all faces in pictures; a few pictures are in memory at a time.

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
    size = 1 if finder.on_cpu else PICTURES_PER_PASS
    groups = ([_Job(path) for path in paths[start : start + size]] for start in range(0, len(paths), size))

    def read(job: _Job) -> _Job:
        image, note = load_picture(job.path)
        return replace(job, image=image, note=note)

    def detect(job: _Job) -> _Job:
        assert job.image is not None
        for box in boxes or ():
            check_inside(box, job.image.size)
        return replace(job, boxes=boxes if boxes is not None else finder.detect(job.image))

    def find(jobs: list[_Job]) -> list[_Job]:
        readable = [job for job in jobs if job.result is None]
        found = finder.find([job.image for job in readable], [job.boxes for job in readable], min_score)
        faces = dict(zip([job.path for job in readable], found, strict=True))
        return [replace(job, faces=faces.get(job.path, ())) for job in jobs]

    def finish(job: _Job) -> _Job:
        assert job.image is not None
        record = picture_record(
            job.path, job.image.size, job.faces, finder.name, finder.scheme_name, finder.point_names
        )
        files = _files(job, record, finder, labels) if draw and job.faces else {}
        return replace(job, image=None, faces=(), result=PictureResult(job.path, record, files, note=job.note))

    stages = {"read": _for_each(read), "detect": _for_each(detect), "find": find, "draw": _for_each(finish)}
    with closing(iter(Stages(("list", groups), stages))) as finished:
        for group in finished:
            for job in group:
                yield job.result


def _for_each(function: Any) -> Any:
    return lambda jobs: [_guarded(function, job) for job in jobs]


def _guarded(function: Any, job: _Job) -> _Job:
    """Do a stage's work for a picture; an error becomes its result."""
    if job.result is not None:
        return job
    try:
        return function(job)
    except (FabRecError, OSError) as error:
        return _Job(job.path, result=PictureResult(job.path, error=error))


def _files(job: _Job, record: dict[str, Any], finder: LandmarkFinder, labels: str | None) -> dict[str, bytes]:
    picture = io.BytesIO()
    draw_overview(job.image, job.faces, finder.scheme, labels=labels).save(picture, format="PNG")
    return {
        ".landmarks.png": picture.getvalue(),
        ".json": json.dumps(record, indent=2).encode(),
        ".csv": picture_table(record).encode(),
    }
