"""Find and follow the faces of a video: decode, detect, follow, draw, encode, each in a thread of its own."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ..common.console import show_rate
from ..common.thread_stages import Stages
from ..errors import ImageError
from ..model.lone_threads import computing_threads
from .drawing import draw_landmarks
from .input_files import check_inside
from .landmark_finder import LandmarkFinder
from .smoothing import FaceSmoother
from .tracking import FaceTracker, TrackedFace
from .video_files import VideoFrame, VideoReader
from .video_results import TrackTable, VideoResults, visible_points


__all__ = ["VideoSettings", "VideoSummary", "landmark_video"]


@dataclass(frozen=True)
class VideoSettings:
    """How faces are followed.

    Attributes:
        detect_every: Frames from a look of the detector to the next.
        smoothing: Whether landmarks are smoothed.
        min_score: Landmarks that score lower are left out.
        boxes: The faces of the first frame; without them, faces are searched for.
        draw: Whether the annotated video is written.
        labels: `"names"` or `"index"` of the points, to write beside them.
    """

    detect_every: int = 15
    smoothing: bool = True
    min_score: float | None = None
    boxes: Sequence[Sequence[float]] | None = None
    draw: bool = True
    labels: str | None = None


@dataclass(frozen=True)
class VideoSummary:
    """What was found in a video.

    Attributes:
        frames: Frames read.
        faces: Faces found, over all frames.
        tracks: For each face its id, first and last frame, number of frames, and jitter before and after smoothing.
        jitter: Mean acceleration of the landmarks `before` and `after` smoothing, in percent of the scheme's
            normalizing length per frame squared; None where no face was seen in three frames on end.
        is_whole: Whether the file could be read to its end without damage.
        files: The results by suffix.
        seconds: How long each stage has worked, by name.
    """

    frames: int
    faces: int
    tracks: list[dict[str, Any]]
    jitter: dict[str, float | None]
    is_whole: bool
    files: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Job:
    """A frame on its way through the stages."""

    frame: VideoFrame
    detections: Sequence[Sequence[float]] | None = None
    faces: list[TrackedFace] = field(default_factory=list)
    overlay: np.ndarray | None = None


def landmark_video(
    path: Path,
    finder: LandmarkFinder,
    folder: Path,
    name: str,
    settings: VideoSettings | None = None,
    progress: bool = False,
) -> VideoSummary:
    """Find the landmarks of all faces in a video and write `NAME.json`, `NAME.csv` and `NAME.landmarks.mp4`.

    A few frames are in memory at a time, however long the video is. Where no face is found nothing is written.

    Args:
        path: The video.
        finder: Model and detector.
        folder: Where the results go; made if it is not there.
        name: NAME.
        settings: How faces are followed.
        progress: Show a progress bar.

    Returns:
        What was found.

    Raises:
        ImageError: If the file is no video, or not one of its frames can be read.
        BoxError: If a given box lies outside the first frame.
        FabRecError: If the results cannot be written.
        ImportError: If PyAV is not installed.
    """
    settings = settings or VideoSettings()
    reader = VideoReader(path)
    try:
        frames = iter(reader)
        first = next(frames, None)
        if first is None:
            raise ImageError("not one of its frames can be read.")
        height, width = first.pixels.shape[:2]
        for box in settings.boxes or ():
            check_inside(box, (width, height))
        header = {
            "video": str(path),
            "width": width,
            "height": height,
            "frame_rate": round(reader.rate, 4),
            "model": finder.name,
            "scheme": finder.scheme_name,
            "point_names": None if finder.point_names is None else list(finder.point_names),
        }
        count = finder.model.config.num_landmarks
        names = (finder.scheme.point_names if finder.scheme else None) or [f"point_{index}" for index in range(count)]
        results = VideoResults(folder, name, header, names, reader.rate if settings.draw else None)
        try:
            return _run(_rejoined(first, frames), reader, finder, results, settings, progress)
        finally:
            results.discard()
    finally:
        reader.close()


def _rejoined(first: VideoFrame, others: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    yield first
    yield from others


def _run(
    frames: Iterator[VideoFrame],
    reader: VideoReader,
    finder: LandmarkFinder,
    results: VideoResults,
    settings: VideoSettings,
    progress: bool,
) -> VideoSummary:
    """Send the frames through the stages and collect what comes out."""
    stages = Stages(("decode", frames), _stage_functions(finder, results, settings))
    table, faces = TrackTable(finder.scheme), 0
    total = reader.expected_frames or None
    with (
        computing_threads(max(1, torch.get_num_threads() - 1)),  # a core is for reading, drawing and encoding
        closing(iter(stages)) as jobs,  # so that no thread still writes when an error closes the files
        tqdm(total=total, desc=results.files[".json"].stem, unit="frame", disable=None if progress else True) as bar,
    ):
        for job in jobs:
            results.write_faces(job.frame, job.faces, settings.min_score)
            table.add(job.frame.index, job.faces)
            faces += len(job.faces)
            show_rate(bar, faces)
            bar.update()
    outcome: dict[str, Any] = {
        "frames_read": reader.frames,
        "is_whole": reader.is_whole,
        "jitter": table.jitter(),
        "tracks": table.tracks(),
    }
    if faces:
        results.finish(outcome)
    return VideoSummary(
        frames=reader.frames,
        faces=faces,
        tracks=outcome["tracks"],
        jitter=outcome["jitter"],
        is_whole=reader.is_whole,
        files=results.files if faces else {},
        seconds=stages.seconds,
    )


def _stage_functions(finder: LandmarkFinder, results: VideoResults, settings: VideoSettings) -> dict[str, Any]:
    tracker = FaceTracker(
        find=lambda image, boxes: finder.find([image], [boxes])[0],
        detect=None if settings.boxes else finder.detect,
        detect_every=settings.detect_every,
        smoothing=FaceSmoother if settings.smoothing else None,
        boxes=settings.boxes,
    )

    def detect(frame: VideoFrame) -> _Job:
        wanted = tracker.wants_detections(frame.index)
        return _Job(frame, finder.detect(frame.pixels) if wanted else None)

    def follow(job: _Job) -> _Job:
        return replace(job, faces=tracker(job.frame.pixels, job.frame.index, job.frame.time, job.detections))

    def draw(job: _Job) -> _Job:
        faces = [
            {
                "keypoints": visible_points(face, settings.min_score),
                "scores": face.scores,
                "bbox": face.box,
                "roll": face.roll,
                "label": str(face.id),
            }
            for face in job.faces
        ]
        if not faces:
            return replace(job, overlay=job.frame.pixels)
        overlay = np.asarray(draw_landmarks(job.frame.pixels, faces, finder.scheme, labels=settings.labels))
        return replace(job, overlay=overlay)

    def encode(job: _Job) -> _Job:
        assert job.overlay is not None
        results.write_picture(job.overlay, job.frame.time)
        return replace(job, overlay=None)

    return {"detect": detect, "follow": follow} | ({"draw": draw, "encode": encode} if settings.draw else {})
