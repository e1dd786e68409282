"""Turned, cut, small and many faces for the face detector: where the photographs' faces must come out by geometry."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabrec_hf.model.close_look import tight_box, tight_box_in_picture
from fabrec_hf.model.face_detection import Detection, YuNetFaceDetector, _turned_back
from fabrec_hf.model.turned_crops import turn_points, wrapped


EXAMPLES = Path(__file__).parents[2] / "examples"
BACKGROUND = (90, 110, 90)


@pytest.fixture(scope="module")
def detector() -> YuNetFaceDetector:
    return YuNetFaceDetector()


@pytest.fixture(scope="module")
def upright(detector):
    """The astronaut's face: a square cut about it, and its box in it."""
    picture = Image.open(EXAMPLES / "astronaut.jpg").convert("RGB").crop((110, 20, 350, 260))
    (face,) = detector(picture)
    return picture, face


def middle(box):
    return np.array(box[:2]) + np.array(box[2:]) / 2


@pytest.mark.parametrize("degrees", [35, 60, 90, 135, 180, -45, -90, -150])
def test_a_turned_face_is_found_at_its_turn(detector, upright, degrees):
    picture, face = upright
    assert face.roll == 0
    turned = picture.rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=BACKGROUND)  # Pillow turns the other way
    (found,) = detector(turned)
    expected = turn_points(middle(face.box)[None], np.array(picture.size) / 2, degrees)[0]
    side = max(face.box[2:])
    assert np.linalg.norm(middle(found.box) - expected) < 0.12 * side
    # The face itself is turned by about eight degrees.
    assert abs(wrapped(found.roll - degrees)) < 20
    assert max(found.box[2:]) == pytest.approx(side, rel=0.15)
    assert found.score > 0.8


def test_a_face_of_a_given_box_is_looked_at(detector, upright):
    picture, face = upright
    seen = detector.look_at(picture, face.box)
    assert abs(seen.roll) < 12 and seen.score > 0.9
    assert np.linalg.norm(middle(seen.box) - middle(face.box)) < 0.1 * max(face.box[2:])
    # A turn clockwise of the square of 240 px takes (x, y) to (240 - y, x).
    x, y, width, height = face.box
    box = [240 - y - height, x, height, width]
    lying = detector.look_at(picture.transpose(Image.Transpose.ROTATE_270), box)
    assert abs(lying.roll - 90) < 20
    assert detector.look_at(Image.new("RGB", (240, 240), BACKGROUND), face.box) is None
    assert detector.look_at(picture, [0, 0, 1e9, 1e9]) is None
    assert detector.look_at(picture, [900, 900, 50, 50]) is None


def test_quarter_turns_by_hand():
    # A picture of 100 x 60. Its upper right corner becomes the upper left one by a turn counterclockwise.
    for quarters, box, expected in [
        (1, (0, 0, 10, 20), (100 - 15, 5 - 10, 10, 20)),
        (2, (0, 0, 10, 20), (95 - 5, 50 - 10, 10, 20)),
        (3, (0, 0, 10, 20), (10 - 5, 55 - 10, 10, 20)),
    ]:
        found = _turned_back(Detection(box, 0.9, 5.0), quarters, (60, 100))
        assert found.box == pytest.approx(expected)
        assert found.score == 0.9 and found.roll == wrapped(5.0 + 90 * quarters)


def row(box, points):
    return np.array([*box, *np.ravel(points), 0.9])


def test_a_face_at_the_border_goes_on_as_its_points_say():
    # The five points of a face whose tight box is (-20, 30, 100, 100).
    points = np.array([[0.282, 0.18], [0.718, 0.18], [0.5, 0.44], [0.305, 0.637], [0.695, 0.637]]) * 100 + [-20, 30]
    seen = (0.0, 0.0, 80.0, 120.0)
    box = tight_box_in_picture(row(seen, points), (400, 300))
    _, y, width, height = tight_box(seen)
    x = width + tight_box(seen)[0]
    # The left border is reached, the right edge stays; so does the upper one, which the points put further down.
    assert box == pytest.approx((-20, y, x + 20, height))
    free = (40.0, 20.0, 80.0, 120.0)
    assert tight_box_in_picture(row(free, points), (400, 300)) == tight_box(free)


def test_the_box_of_a_turned_face_turns_about_its_middle():
    # Down in the face is left in the picture: the box's middle goes there by 0.124 of the height, and down by 0.002.
    assert tight_box((0, 0, 100, 100), 90.0) == pytest.approx((50 - 12.4 - 51.5, 50 + 0.2 - 37.75, 103, 75.5))


def test_small_faces_of_a_collage_are_found(detector, upright):
    picture, face = upright
    scale = 24 / max(face.box[2:])
    small = picture.resize((round(240 * scale),) * 2, Image.Resampling.LANCZOS)
    collage = Image.new("RGB", (1000, 800), BACKGROUND)
    places = [(x, y) for y in range(10, 700, 97) for x in range(13, 900, 101)]
    for place in places:
        collage.paste(small, place)
    boxes = [found.box for found in detector(collage)]
    expected = middle(face.box) * scale
    near = [min(np.linalg.norm(middle(box) - expected - place) for box in boxes) < 8 for place in places]
    assert np.mean(near) >= 0.9
    assert len(boxes) <= len(places)


def test_no_limit_cuts_a_crowd_off(detector, upright):
    picture, _ = upright
    tile, crowd = picture.resize((80, 80), Image.Resampling.LANCZOS), Image.new("RGB", (1440, 1200))
    for index in range(270):
        crowd.paste(tile, (index % 18 * 80, index // 18 * 80))
    assert len(detector(crowd)) == 270
