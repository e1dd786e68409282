"""What the benchmarks show to a detector is what they say: places by hand."""

from types import SimpleNamespace

import benchmark_hard_faces as hard
import benchmark_pictures as speed
import numpy as np
import pytest
from PIL import Image

from fabrec_hf import get_scheme
from fabrec_hf.inference.landmark_finder import LandmarkFinder
from support.landmark_checkpoints import save_landmark_model


POINTS = np.array([[20.0, 10.0], [60.0, 10.0], [40.0, 30.0], [30.0, 50.0], [50.0, 50.0]])


def face(width=100, height=70):
    """A picture whose pixel at (x, y) has the color (x, y, 0)."""
    y, x = np.mgrid[:height, :width]
    return hard.Shown(Image.fromarray(np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)), POINTS)


def colors(shown):
    """The colors at the places of the points."""
    pixels = np.asarray(shown.image).astype(int)
    return [tuple(pixels[round(y), round(x), :2]) for x, y in shown.points]


def test_points_turn_with_their_picture():
    turned = hard._turned(face(), 90)
    assert turned.image.size == (70, 100)
    # A quarter turn clockwise takes (x, y) to (height - 1 - y, x).
    np.testing.assert_allclose(turned.points, [[69 - y, x] for x, y in POINTS], atol=1e-9)
    assert colors(turned) == [tuple(point) for point in POINTS.astype(int)]


@pytest.mark.parametrize(
    ("side", "size", "moved"),
    [
        ("left", (68, 70), (32, 0)),
        ("right", (48, 70), (0, 0)),
        ("upper", (100, 48), (0, 22)),
        ("lower", (100, 38), (0, 0)),
    ],
)
def test_a_share_of_the_box_lies_beyond_the_border(side, size, moved):
    # The box goes from 20.5 to 60.5 and from 10.5 to 50.5; 30 % of its 40 pixels are 12.
    cut = hard._cut(face(), side, 0.3)
    assert cut.image.size == size
    np.testing.assert_allclose(cut.points, POINTS - moved)


def test_the_lower_half_of_the_box_is_gray():
    pixels = np.asarray(hard._covered(face()).image)
    assert (pixels[31:50, 21:60] == 128).all()
    for beside in (pixels[:30], pixels[51:], pixels[:, :20], pixels[:, 62:]):
        assert not (beside == 128).all(-1).any()


def test_errors_are_of_the_box_that_holds_the_face_and_flags_are_counted():
    class Finder:
        model = SimpleNamespace(config=SimpleNamespace(landmark_scheme=get_scheme("mtfl").to_dict()))

        def detect(self, image):
            """Find something elsewhere first, and the face."""
            return [(80, 55, 10, 10), (20, 10, 40, 40)]

        def find(self, images, boxes):
            """Err by 5 pixels in the box of the points, by 10 in a detected one, and see no face elsewhere."""
            (x, *_) = boxes[0][0]
            step = {20.5: 1, 20: 2}.get(x, 9)
            return [[{"keypoints": POINTS + [3 * step, 4 * step]} | ({"is_face": False} if step == 9 else {})]]

    judge = hard._Judge(Finder(), 5)
    # The eyes are 40 pixels apart: 5 pixels are 12.5 %.
    assert judge([face()]) == {"found": 1, "error": 25.0, "error in the given box": 12.5}
    assert judge.faceless([face(), hard.Shown(face().image, POINTS + 5)]) == 1


def test_small_faces_have_their_height_and_are_found_where_they_are(monkeypatch):
    collages = []

    class Finder:
        def detect(self, collage):
            """Find the blocks of the marked color."""
            collages.append(collage.size)
            marked = (np.asarray(collage) == (255, 0, 0)).all(-1)
            places = zip(*np.nonzero(marked), strict=True)
            return [(x, y, 24, 24) for y, x in places if not marked[y - 1, x] and not marked[y, x - 1]]

    image = Image.new("RGB", (200, 200))
    image.paste((255, 0, 0), (60, 60, 120, 120))
    corners = np.array([[59.5, 59.5], [119.5, 119.5]])  # centers at integers: the edges of the block
    result = hard._small_faces(Finder(), [hard.Shown(image, corners)], 24)
    assert collages == [(900, 900), (1400, 1400), (2000, 2000)]
    assert result == {"height": 24, "found": result["of"], "of": (9**2) // 5 + (14**2) // 5 + (20**2) // 5}


def test_stages_and_pipeline_are_timed(tmp_path):
    model = str(save_landmark_model(tmp_path / "model"))
    arguments = speed.BenchmarkArguments(str(tmp_path), model, rounds=1, pictures=4)
    path = tmp_path / "face.jpg"
    speed._square(speed.Path(arguments.picture), 400).save(path)
    assert Image.open(path).size == (400, 400)
    stages = speed._time_stages(arguments, path, 1)
    assert set(stages) == {"read", "search", "crop", "network", "landmarks, crop and network included"}
    assert stages["landmarks, crop and network included"] > stages["network"] > 0
    assert all(value > 0 for value in speed._time_pipeline(arguments, path, 2).values())
    with pytest.raises(SystemExit, match="0 faces"):
        Image.new("RGB", (400, 400)).save(path)
        speed._time_stages(arguments, path, 1)
    assert LandmarkFinder(arguments.model).detect(Image.open(path)) == []
