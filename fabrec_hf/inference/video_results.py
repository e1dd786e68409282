"""The files that a video's landmarks are written to, frame by frame: JSON, CSV and the annotated video."""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..common.drafts import Drafts
from ..common.json_array import ArrayWriter, write_members
from ..common.output_folder import writing_to
from ..errors import DataError, FabRecError
from ..metrics import RunningAcceleration, normalizing_distance
from ..model.known_schemes import LandmarkScheme, Normalizer
from .face_records import face_record
from .tracking import TrackedFace
from .video_files import VideoFrame, VideoWriter


__all__ = ["TrackTable", "VideoResults", "visible_points"]


class TrackTable:
    """Counts what becomes of each face, and measures its tremor before and after smoothing, as the frames go by.

    Args:
        scheme: Whose normalizer tremor is measured by; the longer side of the face's box where there is none.
    """

    def __init__(self, scheme: LandmarkScheme | None):
        self._normalizer = scheme.normalizer if scheme else Normalizer("box")
        self._tracks: dict[int, dict[str, Any]] = {}
        self._jitter: dict[int, tuple[RunningAcceleration, RunningAcceleration]] = {}

    def add(self, index: int, faces: Sequence[TrackedFace]) -> None:
        """Add the faces of a frame."""
        for face in faces:
            track = self._tracks.setdefault(
                face.id, {"id": face.id, "first_frame": index, "last_frame": index, "frames": 0}
            )
            track["last_frame"] = index
            track["frames"] += 1
            before, after = self._jitter.setdefault(face.id, (RunningAcceleration(), RunningAcceleration()))
            length = self._length(face)
            before.add(index, face.raw_keypoints, length)
            after.add(index, face.keypoints, length)

    def tracks(self) -> list[dict[str, Any]]:
        """Return for each face its id, first and last frame, number of frames, and jitter before and after."""
        return [
            track | {"jitter_before": _number(before.mean), "jitter_after": _number(after.mean)}
            for track, (before, after) in zip(self._tracks.values(), self._jitter.values(), strict=True)
        ]

    def jitter(self) -> dict[str, float | None]:
        """Return the mean jitter before and after smoothing over all faces, each weighed by its frames."""
        means = {}
        for position, name in enumerate(("before", "after")):
            parts = [pair[position] for pair in self._jitter.values() if pair[position].triples]
            count = sum(part.triples for part in parts)
            means[name] = _number(sum(part.mean * part.triples for part in parts) / count) if count else None
        return means

    def _length(self, face: TrackedFace) -> float:
        try:
            return float(normalizing_distance(face.raw_keypoints[None], self._normalizer, face.box[None])[0])
        except DataError:  # points that coincide
            return math.nan


class VideoResults:
    """Writes `NAME.json`, `NAME.csv` and perhaps `NAME.landmarks.mp4` under other names, and renames them at the end.

    A frame is a line in the JSON file; a face in a frame is a line in the CSV file.

    Args:
        folder: Where to; it is made if it is not there.
        name: NAME.
        header: What the JSON file begins with, `width` and `height` of the frames among it.
        point_names: What the columns of the CSV file are called, one a point.
        rate: Frames a second of the annotated video, None for no such video.

    Raises:
        FabRecError: If the folder cannot be written to.
    """

    def __init__(
        self, folder: Path, name: str, header: Mapping[str, Any], point_names: Sequence[str], rate: float | None
    ):
        self._folder = folder
        suffixes = [".json", ".csv"] + ([".landmarks.mp4"] if rate else [])
        self.files = {suffix: folder / f"{name}{suffix}" for suffix in suffixes}
        self._drafts = Drafts(folder, *(file.name for file in self.files.values()))
        self._size = (header["width"], header["height"])
        self._open: list[Any] = []
        try:
            with writing_to(folder):
                folder.mkdir(parents=True, exist_ok=True)
                self._begin(header, point_names, rate)
        except BaseException:
            self.discard()
            raise

    def _begin(self, header: Mapping[str, Any], point_names: Sequence[str], rate: float | None) -> None:
        """Open the drafts, and write what stands at their beginnings."""
        self._json = self._keep(self._draft(".json").open("w", encoding="utf-8"))
        self._json.write("{")
        write_members(self._json, header, first=True)
        self._json.write(',\n  "frames": ')
        self._frames = ArrayWriter(self._json, indent=4)
        self._csv = self._keep(self._draft(".csv").open("w", encoding="utf-8", newline=""))
        self._table = csv.writer(self._csv, lineterminator="\n")
        points = [f"{point}_{value}" for point in point_names for value in ("x", "y", "score")]
        self._table.writerow(["frame", "time", "face", "box_x", "box_y", "box_width", "box_height", *points])
        self._video = self._keep(VideoWriter(self._draft(".landmarks.mp4"), rate)) if rate else None

    def _draft(self, suffix: str) -> Path:
        return self._drafts[self.files[suffix].name]

    def _keep(self, file: Any) -> Any:
        self._open.append(file)
        return file

    def write_picture(self, pixels: np.ndarray, time: float) -> None:
        """Add an annotated frame to the video; may be called from another thread than `write_faces`."""
        if self._video is not None:
            self._video.write(pixels, time)

    def write_faces(self, frame: VideoFrame, faces: Sequence[TrackedFace], min_score: float | None) -> None:
        """Add the faces of a frame; landmarks that score below `min_score` are left out.

        Raises:
            FabRecError: If the disk is full.
        """
        records = [
            {"id": face.id} | face_record(face.box, visible_points(face, min_score), face.scores, face.roll)
            for face in faces
        ]
        values: dict[str, Any] = {"frame": frame.index, "time": round(frame.time, 4)}
        height, width = frame.pixels.shape[:2]
        if (width, height) != self._size:  # its points are in its own pixels
            values |= {"width": width, "height": height}
        values["faces"] = records
        with writing_to(self._folder):
            self._frames.add([json.dumps(values)])
            for record in records:
                points = zip(record["keypoints"], record["scores"], strict=True)
                cells = [cell for point, score in points for cell in (*(point or ("", "")), score)]
                self._table.writerow([frame.index, values["time"], record["id"], *record["bbox"], *cells])

    def finish(self, footer: Mapping[str, Any]) -> None:
        """Complete the files and give them their names.

        Args:
            footer: What the JSON file ends with.

        Raises:
            FabRecError: If the disk is full.
        """
        try:
            with writing_to(self._folder):
                self._frames.close()
                write_members(self._json, footer, first=False)
                self._json.write("\n}\n")
                self._close()
                self._drafts.finish()
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what has not been finished."""
        try:
            self._close()
        except (OSError, FabRecError):  # a full disk, perhaps; what could not be written is removed now
            pass
        self._drafts.discard()

    def _close(self) -> None:
        while self._open:
            self._open.pop().close()


def visible_points(face: TrackedFace, min_score: float | None) -> np.ndarray:
    """Return the landmarks, with NaN for landmarks that score lower."""
    if min_score is None:
        return face.keypoints
    return np.where((face.scores < min_score)[:, None], np.nan, face.keypoints)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)
