"""The faces of a camera: found, followed and drawn frame by frame, and shown in a window."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import FabRecError, ImageError
from .drawing import draw_landmarks
from .face_records import count_faces
from .landmark_finder import LandmarkFinder
from .smoothing import FaceSmoother
from .tracking import FaceTracker


__all__ = ["CameraFrame", "CameraStream", "describe_faces", "describe_frame", "open_camera", "open_window", "watch"]

# The rate is that of the last frames.
RATE_FRAMES = 30
CLOSING_KEYS = ("Escape", "q")


@dataclass(frozen=True)
class CameraFrame:
    """What is shown of a frame.

    Attributes:
        picture: (H, W, 3) uint8, the frame with its faces drawn.
        rate: Frames a second over the last ones.
        faces: How many faces there are in it.
        seen_before: Whether there was a face in any frame so far.
    """

    picture: np.ndarray
    rate: float
    faces: int
    seen_before: bool


class CameraStream:
    """The faces of a camera, followed and smoothed from frame to frame.

    Args:
        finder: The landmark model.
        most_faces: How many faces to look for, the largest first; all of them if None.
        detect_every: Frames from a look of the detector to the next.
        smoothing: Whether landmarks are smoothed.
        labels: `"names"` or `"index"` of the points, to write beside them.

    Attributes:
        seen_before: Whether there was a face in any frame so far.
    """

    def __init__(
        self,
        finder: LandmarkFinder,
        most_faces: int | None = None,
        detect_every: int = 15,
        smoothing: bool = True,
        labels: str | None = None,
    ):
        self._finder, self._most_faces, self._labels = finder, most_faces, labels
        self._tracker = FaceTracker(self._find, self._detect, detect_every, FaceSmoother if smoothing else None)
        self._index, self.seen_before = 0, False
        self._times: deque[float] = deque(maxlen=RATE_FRAMES)

    def _find(self, image: np.ndarray, boxes: list[np.ndarray]) -> Any:
        return self._finder.find([image], [boxes])[0]

    def _detect(self, image: np.ndarray) -> list[Any]:
        return self._finder.detect(image)[: self._most_faces]

    def follow(self, frame: np.ndarray, now: float) -> list[dict[str, Any]]:
        """Find the faces of the next frame, without drawing them.

        Args:
            frame: (H, W, 3) uint8 RGB.
            now: Time in seconds on any clock that does not go back.

        Returns:
            The faces, as `draw_landmarks` takes them.
        """
        if self._times:
            now = max(now, self._times[-1] + 1e-3)  # two frames may arrive at once
        self._times.append(now)
        tracked = self._tracker(frame, self._index, now)
        self._index += 1
        self.seen_before = self.seen_before or bool(tracked)
        return [
            {"keypoints": face.keypoints, "scores": face.scores, "bbox": face.box, "roll": face.roll}
            for face in tracked
        ]

    def __call__(self, frame: np.ndarray, now: float, threshold: float = 0.0) -> CameraFrame:
        """Draw the faces of the next frame.

        Args:
            frame: (H, W, 3) uint8 RGB.
            now: Time in seconds on any clock that does not go back.
            threshold: Landmarks that score lower are not drawn.
        """
        faces = self.follow(frame, now)
        drawn = draw_landmarks(frame, faces, self._finder.scheme, min_score=threshold or None, labels=self._labels)
        passed = self._times[-1] - self._times[0]
        rate = (len(self._times) - 1) / passed if passed > 0 else 0.0
        return CameraFrame(np.asarray(drawn), rate, len(faces), self.seen_before)


def describe_faces(faces: int, seen_before: bool) -> str:
    """Say how many faces the camera sees, or what to do where there is none."""
    if faces:
        return f"{count_faces(faces)}."
    if seen_before:
        return "The face is lost: turn toward the camera, or come nearer."
    return "No face is seen yet: turn toward the camera, or switch on a light."


def describe_frame(frame: CameraFrame) -> str:
    """Say how fast the camera is followed, and whether there is a face."""
    separator = "," if frame.faces else "."
    return f"{frame.rate:.1f} frames a second{separator} {describe_faces(frame.faces, frame.seen_before)}"


class Window(Protocol):
    """Where frames are shown."""

    def show(self, picture: np.ndarray, title: str) -> bool:
        """Show (H, W, 3) uint8 RGB; False if its person has closed the window."""


def watch(frames: Iterator[np.ndarray], stream: CameraStream, window: Window, threshold: float = 0.0) -> int:
    """Show the faces of a camera until the window is closed or no frame comes any more.

    Args:
        frames: (H, W, 3) uint8 RGB.
        stream: Follows the faces.
        window: Shows them.
        threshold: Landmarks that score lower are not drawn.

    Returns:
        How many frames were shown.
    """
    shown = 0
    for pixels in frames:
        frame = stream(pixels, time.monotonic(), threshold)
        shown += 1
        if not window.show(frame.picture, describe_frame(frame)):
            break
    return shown


@contextmanager
def open_camera(number: int) -> Iterator[Iterator[np.ndarray]]:
    """Open a camera of this machine, and let go of it at the end.

    Args:
        number: 0 for the first one.

    Yields:
        Its frames, (H, W, 3) uint8 RGB; each is the newest one when it is asked for.

    Raises:
        ImageError: If there is no such camera, or another program uses it.
    """
    import cv2

    quiet = cv2.utils.logging.LOG_LEVEL_SILENT  # what OpenCV has to say is said in one line of ours
    before = cv2.utils.logging.setLogLevel(quiet)
    camera = cv2.VideoCapture(number)
    cv2.utils.logging.setLogLevel(before)
    try:
        if not camera.isOpened():
            raise ImageError(
                f"camera {number} cannot be opened: plug one in, close the program that uses it, or name another "
                "number. For a picture or video give its file."
            )
        camera.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # else the picture lags behind by what waits
        yield _frames(camera)
    finally:
        camera.release()


def _frames(camera: Any) -> Iterator[np.ndarray]:
    while True:
        is_read, pixels = camera.read()
        if not is_read:
            return
        yield np.ascontiguousarray(pixels[..., ::-1])


@contextmanager
def open_window() -> Iterator[Window]:
    """Open a window, and close it at the end. Tk comes with Python; OpenCV's own windows are not in every build.

    Raises:
        ImportError: If this Python has no Tk.
        FabRecError: If there is no screen.
    """
    try:
        import tkinter
    except ImportError as error:
        raise ImportError(
            "Showing the camera needs Python's Tk: install it (Debian, Ubuntu: apt install python3-tk), or use "
            "`fabrec demo`, whose page Live camera needs no window."
        ) from error
    try:
        root = tkinter.Tk()
    except tkinter.TclError as error:
        raise FabRecError(
            "There is no screen to show the camera on: use `fabrec demo`, whose page Live camera opens in a browser."
        ) from error
    try:
        yield _TkWindow(root, tkinter.Label(root))
    finally:
        root.destroy()


class _TkWindow:
    def __init__(self, root: Any, label: Any):
        self._root, self._label, self._open = root, label, True
        self._photo: Any = None
        label.pack()
        root.protocol("WM_DELETE_WINDOW", self._close)
        for key in CLOSING_KEYS:
            root.bind(f"<{key}>", self._close)

    def _close(self, event: Any = None) -> None:
        self._open = False

    def show(self, picture: np.ndarray, title: str) -> bool:
        from PIL import Image, ImageTk

        self._photo = ImageTk.PhotoImage(Image.fromarray(picture), master=self._root)  # Tk keeps no reference itself
        self._label.configure(image=self._photo)
        self._root.title(title)
        self._root.update()
        return self._open
