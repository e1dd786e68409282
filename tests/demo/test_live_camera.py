"""Places, turns and frames of visitors' cameras, with a stand-in for what follows faces."""

import base64
import io

import numpy as np
import pytest
from PIL import Image


pytest.importorskip("gradio")

from fabrec_hf.demo import live_camera  # noqa: E402
from fabrec_hf.demo.live_camera import TURN_SECONDS, VISITORS, LiveCamera, legend  # noqa: E402
from fabrec_hf.demo.uploads import Limits  # noqa: E402
from fabrec_hf.inference.drawing import COLOR_STOPS  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme  # noqa: E402


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Stream:
    """Sees one face in bright frames and none in others."""

    def __init__(self, finder, most_faces):
        self.seen_before, self.shapes, self.most_faces = False, [], most_faces

    def follow(self, frame, now):
        self.shapes.append(frame.shape)
        if frame.mean() < 100:
            return []
        self.seen_before = True
        return [
            {"keypoints": np.array([[1.26, 2.0], [3.0, 4.0]]), "scores": [0.256, 1], "bbox": [1, 2, 3, 4.0], "roll": 0}
        ]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def camera(monkeypatch, clock):
    monkeypatch.setattr(live_camera, "CameraStream", Stream)
    return LiveCamera(lambda: None, Limits(), clock)


def picture(size=(64, 48), gray=200):
    file = io.BytesIO()
    Image.new("RGB", size, (gray,) * 3).save(file, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def frame(visit="visitor-1", first=True, **more):
    return {"visit": visit, "first": first, "picture": picture(**more)}


def test_a_frame_is_answered_by_plain_numbers_and_words(camera):
    assert camera.look(frame(gray=0)) == {
        "faces": [],
        "word": "No face is seen yet: turn toward the camera, or switch on a light.",
    }
    assert camera.look(frame(first=False)) == {
        "faces": [{"points": [1.3, 2.0, 3.0, 4.0], "scores": [0.26, 1.0], "box": [1.0, 2.0, 3.0, 4.0], "roll": 0.0}],
        "word": "1 face.",
    }
    assert camera.look(frame(first=False, gray=0))["word"].startswith("The face is lost")


def test_large_frames_are_shrunk_and_few_faces_looked_for(camera):
    camera.look(frame(size=(1280, 960)))
    (visit,) = camera._visits.values()
    assert visit.stream.shapes == [(480, 640, 3)] and visit.stream.most_faces == Limits().faces


@pytest.mark.parametrize(
    "message, word",
    [
        (None, "no frame of a camera"),
        ({"visit": "short", "picture": picture()}, "no frame of a camera"),
        ({"visit": "visitor-1", "picture": 3}, "no frame of a camera"),
        ({"visit": "visitor-1", "picture": "http://example.org/a.jpg"}, "A frame is a JPEG"),
        ({"visit": "visitor-1", "picture": picture() + "A" * 3 * 2**20}, "at most 2 MB"),
        ({"visit": "visitor-1", "picture": live_camera.PREFIX + "äöü"}, "arrived damaged"),
        ({"visit": "visitor-1", "picture": live_camera.PREFIX + "AAAA", "first": True}, "not a picture"),
    ],
)
def test_what_is_no_frame_is_refused_in_a_sentence(camera, message, word):
    answer = camera.look(message)
    assert list(answer) == ["stop"] and word in answer["stop"]


def test_places_go_on_to_those_who_wait(camera, clock):
    visitors = [f"visitor-{number}" for number in range(VISITORS)]
    for clock.now, visit in enumerate(visitors):
        assert "faces" in camera.look(frame(visit))
    clock.now = 5.0
    for visit in visitors:
        camera.look(frame(visit, first=False))
    assert camera.look(frame("late-visitor"))["stop"] == (
        f"{VISITORS} visitors use their cameras already: try again in {TURN_SECONDS - 5:.0f} s."
    )
    while clock.now < TURN_SECONDS:  # nobody falls silent
        clock.now += 5.0
        assert all("faces" in camera.look(frame(visit, first=False)) for visit in visitors)
    assert "faces" in camera.look(frame("late-visitor"))
    assert "start it again" in camera.look(frame(visitors[0], first=False))["stop"]
    assert all("faces" in camera.look(frame(visit, first=False)) for visit in visitors[1:])


def test_whoever_sends_nothing_leaves_the_place(camera, clock):
    for number in range(VISITORS):
        camera.look(frame(f"visitor-{number}"))
    clock.now = live_camera.SILENT_SECONDS
    assert "faces" in camera.look(frame("late-visitor")) and len(camera._visits) == 1


def test_the_legend_has_the_colors_and_edges_of_the_package():
    class Finder:
        scheme = LandmarkScheme("three", 3, ("a", "b", "c"), edges=((0, 1), (1, 2)))

    drawn = legend(Finder())
    assert drawn["edges"] == [[0, 1], [1, 2]] and len(drawn["colors"]) == 101
    first, middle, last = ("#" + "".join(f"{value:02x}" for value in stop) for stop in COLOR_STOPS)
    assert [drawn["colors"][place] for place in (0, 50, 100)] == [first, middle, last]
