"""The faces of a camera, followed and shown, and what is said where there is none."""

import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from fabrec_hf.cli import main
from fabrec_hf.errors import FabRecError
from fabrec_hf.inference import camera
from fabrec_hf.inference.camera import CameraStream, describe_frame, open_camera, open_window, watch
from fabrec_hf.inference.landmark_finder import LandmarkFinder


EXAMPLES = Path(__file__).parents[2] / "examples"

if not EXAMPLES.is_dir():
    pytest.skip("only in a checkout", allow_module_level=True)


@pytest.fixture(scope="module")
def finder():
    return LandmarkFinder("3fabrec-300w")


@pytest.fixture(scope="module")
def frame():
    return np.asarray(Image.open(EXAMPLES / "astronaut.jpg").convert("RGB").resize((320, 320)))


class Screen:
    """Keeps what is shown, and is closed after some frames."""

    def __init__(self, closed_after=100):
        self.pictures, self.titles, self.closed_after = [], [], closed_after

    def show(self, picture, title):
        self.pictures.append(picture)
        self.titles.append(title)
        return len(self.titles) < self.closed_after


def test_a_face_is_followed_and_missed_in_words(finder, frame):
    stream = CameraStream(finder)
    shown = [stream(frame, now) for now in (1.0, 1.1, 1.1, 1.2)]  # two at once
    assert shown[0].picture.shape == frame.shape and (shown[0].picture != frame).any()
    assert shown[0].rate == 0 and shown[-1].rate == pytest.approx(3 / 0.2)
    assert describe_frame(shown[-1]) == "15.0 frames a second, 1 face."
    blank = stream(np.zeros_like(frame), 1.3)
    assert (blank.picture == 0).all() and blank.faces == 0
    assert "The face is lost" in describe_frame(blank)
    assert "No face is seen yet" in describe_frame(CameraStream(finder)(np.zeros_like(frame), 1.0))


def test_a_window_shows_frames_until_it_is_closed(finder, frame):
    screen = Screen(closed_after=2)
    assert watch(iter([frame] * 5), CameraStream(finder), screen) == 2
    assert screen.titles[1].endswith("1 face.") and (screen.pictures[1] != frame).any()
    unplugged = Screen()
    assert watch(iter([frame]), CameraStream(finder), unplugged) == 1 == len(unplugged.titles)
    hidden = Screen()
    watch(iter([frame]), CameraStream(finder), hidden, threshold=1.0)  # no score is 1: box and face alone
    assert np.abs(hidden.pictures[0].astype(int) - screen.pictures[0]).max() > 50


def test_frames_of_a_camera_are_rgb(monkeypatch):
    class Camera:
        left, released = 2, False

        def __init__(self, number):
            assert number == 3

        def isOpened(self):  # noqa: N802
            return True

        def set(self, *_):
            return True

        def read(self):
            Camera.left -= 1
            return Camera.left >= 0, np.full((2, 2, 3), (10, 20, 30), np.uint8)  # blue, green, red

        def release(self):
            Camera.released = True

    import cv2

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    with open_camera(3) as frames:
        read = list(frames)
    assert len(read) == 2 and read[0][0, 0].tolist() == [30, 20, 10] and Camera.released


def test_what_is_missing_is_said_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["detect", "97"]) == 2
    error = capsys.readouterr().err
    assert "camera 97 cannot be opened: plug one in" in error and len(error.splitlines()) == 1
    for options, message in (
        (["0", "--output", "x"], "--output is not for a camera"),
        (["0", "--boxes", "1,2,3,4"], "--boxes is not for a camera"),
        (["0", "--to", "cvat"], "--to is not for a camera"),
        (["0", "photo.jpg"], "a camera goes alone"),
    ):
        assert main(["detect", *options]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1
    Image.new("RGB", (8, 8)).save(tmp_path / "0", "PNG")  # a file of that name is a file
    assert main(["detect", "0", "--boxes", "9,9,5,5"]) == 2
    assert "lies outside this picture" in capsys.readouterr().err


def test_without_tk_or_a_screen_the_window_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(ImportError, match="apt install python3-tk"), open_window():
        pass
    monkeypatch.undo()
    tkinter = pytest.importorskip("tkinter")

    def fail(*_):
        raise tkinter.TclError("no display name")

    monkeypatch.setattr(tkinter, "Tk", fail)
    with pytest.raises(FabRecError, match="no screen"), open_window():
        pass


@pytest.mark.parametrize("way", ["WM_DELETE_WINDOW", *(f"<{key}>" for key in camera.CLOSING_KEYS)])
def test_a_window_is_closed_by_its_button_and_by_keys(way, monkeypatch, frame):
    ways, root = {}, Mock()
    root.protocol = root.bind = ways.__setitem__
    monkeypatch.setattr("PIL.ImageTk.PhotoImage", Mock())
    window = camera._TkWindow(root, Mock())
    assert window.show(frame, "a title")
    ways[way](*([] if way == "WM_DELETE_WINDOW" else ["the event"]))
    assert not window.show(frame, "a title")


def test_the_command_shows_the_camera(monkeypatch, finder, frame, capsys):
    from contextlib import nullcontext

    screen = Screen(closed_after=2)
    monkeypatch.setattr(camera, "open_camera", lambda number: nullcontext(iter([frame] * 3)))
    monkeypatch.setattr(camera, "open_window", lambda: nullcontext(screen))
    assert main(["detect", "0", "--draw-index"]) == 0
    assert "camera 0: 2 frames" in capsys.readouterr().out and len(screen.titles) == 2
    asked = []
    monkeypatch.setattr(
        "fabrec_hf.inference.landmark_finder.LandmarkFinder", lambda model, **more: asked.append(more) or finder
    )
    assert main(["detect", "0", "--small-faces", "--device", "cpu"]) == 0
    assert asked == [{"device": "cpu", "small_faces": True}]
