"""The faces of visitors' cameras: a frame of a page comes in, the landmarks of its faces go out."""

import base64
import binascii
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, FabRecError, ImageError
from ..inference.camera import CameraStream, describe_faces
from ..inference.drawing import confidence_colors
from ..inference.landmark_finder import LandmarkFinder
from .uploads import Limits, decode_picture


__all__ = ["SCRIPT", "TURN_SECONDS", "VISITORS", "LiveCamera", "legend"]

SCRIPT = Path(__file__).with_name("live_camera.js")
# Seconds after which a visitor leaves the place to somebody who waits for one, and those without a frame after which
# the place is free.
TURN_SECONDS = 120.0
SILENT_SECONDS = 10.0
VISITORS = 4
FRAME_BYTES = 2 * 2**20
SIDE = 640
PREFIX = "data:image/jpeg;base64,"
COLORS = 101


@dataclass
class _Visit:
    stream: CameraStream
    begun: float
    last: float
    lock: threading.Lock = field(default_factory=threading.Lock)


class LiveCamera:
    """Follows the faces of several visitors' cameras. Safe to use from threads.

    Nothing of a frame is kept. Visitors go on as long as they like while there are places; when all are taken, whoever
    has been there for `TURN_SECONDS` leaves for the next one.

    Args:
        finder: Returns the landmark model.
        limits: What one visitor may ask for.
        clock: Time in seconds.
    """

    def __init__(
        self, finder: Callable[[], LandmarkFinder], limits: Limits, clock: Callable[[], float] = time.monotonic
    ):
        self._finder, self._limits, self._clock = finder, limits, clock
        self._visits: dict[str, _Visit] = {}
        self._lock = threading.Lock()

    def look(self, message: Any) -> dict[str, Any]:
        """Find the faces of a frame.

        Args:
            message: `visit`, a secret word of the page; `picture`, a JPEG as a data URL; `first`, whether the camera
                was just started.

        Returns:
            `faces`, each with `points` (x and y in turn, in pixels of the frame), `scores`, `box` (x, y, width,
            height) and `roll` in degrees, and `word`, what is said of them. Instead, `stop`, a sentence, where the
            camera is to be stopped.
        """
        try:
            frame, visit = self._read(message)
            with visit.lock:
                faces = visit.stream.follow(frame, self._clock())
        except FabRecError as error:
            return {"stop": " ".join(str(error).split())}
        return {
            "faces": [_plain(face) for face in faces],
            "word": describe_faces(len(faces), visit.stream.seen_before),
        }

    def _read(self, message: Any) -> tuple[np.ndarray, _Visit]:
        word, picture = (message.get(name) if isinstance(message, Mapping) else None for name in ("visit", "picture"))
        if not isinstance(word, str) or not 8 <= len(word) <= 64 or not isinstance(picture, str):
            raise DataError("The page sent something that is no frame of a camera: reload it.")
        if not picture.startswith(PREFIX) or len(picture) > FRAME_BYTES:
            raise ImageError(f"A frame is a JPEG of at most {FRAME_BYTES // 2**20} MB: reload the page.")
        try:
            content = base64.b64decode(picture[len(PREFIX) :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise ImageError("A frame arrived damaged: start the camera again.") from error
        visit = self._visit(word, bool(message.get("first")))
        return np.asarray(decode_picture(content, "frame.jpg", self._limits, SIDE).image), visit

    def _visit(self, word: str, first: bool) -> _Visit:
        """Return a visitor's place, a new one for the first frame.

        Raises:
            DataError: If there is none, or it went to somebody else.
        """
        with self._lock:
            now = self._clock()
            self._visits = {key: seen for key, seen in self._visits.items() if now - seen.last < SILENT_SECONDS}
            if word not in self._visits:
                if not first:
                    raise DataError("The camera was stopped, since others waited or no frame came: start it again.")
                self._make_place(now)
                stream = CameraStream(self._finder(), self._limits.faces)
                self._visits[word] = _Visit(stream, now, now)
            visit = self._visits[word]
            visit.last = now
            return visit

    def _make_place(self, now: float) -> None:
        if len(self._visits) < VISITORS:
            return
        oldest = min(self._visits, key=lambda key: self._visits[key].begun)
        left = TURN_SECONDS - (now - self._visits[oldest].begun)
        if left > 0:
            raise DataError(f"{VISITORS} visitors use their cameras already: try again in {left:.0f} s.")
        del self._visits[oldest]


def legend(finder: LandmarkFinder) -> dict[str, Any]:
    """Return what the page needs to draw faces of a model by itself.

    Returns:
        `edges`, pairs of points; `colors`, CSS colors of the scores 0, 0.01, ... 1; `side`, the longer side of a
        frame in pixels.
    """
    colors = confidence_colors(np.linspace(0, 1, COLORS))
    return {
        "edges": [list(edge) for edge in finder.scheme.edges] if finder.scheme else [],
        "colors": ["#{:02x}{:02x}{:02x}".format(*color) for color in colors.tolist()],
        "side": SIDE,
    }


def _plain(face: Mapping[str, Any]) -> dict[str, Any]:
    """Return a face as the page gets it: a tenth of a pixel and a hundredth of a score are all that can be seen."""
    return {
        "points": np.round(np.asarray(face["keypoints"], dtype=float).reshape(-1), 1).tolist(),
        "scores": np.round(np.asarray(face["scores"], dtype=float), 2).tolist(),
        "box": np.round(np.asarray(face["bbox"], dtype=float), 1).tolist(),
        "roll": round(float(face["roll"]), 1),
    }
