"""What is written beside points, and faces that are too small to be seen, drawn once more."""

import numpy as np
import pytest
from PIL import Image

import fabrec_hf
from fabrec_hf.inference.drawing import draw_landmarks, draw_overview, face_tile, tile_points
from fabrec_hf.model.known_schemes import LandmarkScheme


GRAY = (90, 90, 90)
TWO = LandmarkScheme("two", 2, ("left_eye", "nose"))


def small_face():
    """A face of 40 px in a picture of 800 x 600."""
    return {"keypoints": [[305.0, 210.0], [325.0, 225.0]], "scores": [1.0, 1.0], "bbox": [300, 200, 40, 40]}


def test_the_function_is_public():
    assert fabrec_hf.draw_landmarks is draw_landmarks


def test_names_and_numbers_stand_beside_their_point_and_not_on_it():
    face = {"keypoints": [[60.0, 100.0], [140.0, 100.0]], "scores": [1.0, 1.0]}
    plain = np.asarray(draw_landmarks(Image.new("RGB", (200, 200), GRAY), [face], TWO)).astype(int)
    widths = []
    for labels in ("index", "names"):
        written = np.asarray(draw_landmarks(Image.new("RGB", (200, 200), GRAY), [face], TWO, labels=labels)).astype(
            int
        )
        changed = np.argwhere((plain != written).any(-1))[:, ::-1]
        left, right = changed[changed[:, 0] < 100], changed[changed[:, 0] >= 100]
        assert left[:, 0].max() < 60 and right[:, 0].min() > 140  # away from the middle of the face
        assert np.abs(changed[:, 1] - 100).max() < 12
        widths.append(np.ptp(left[:, 0]))
    assert widths[1] > 2 * widths[0]  # "left_eye" is longer than "0"
    with pytest.raises(ValueError, match="names, index or None"):
        draw_landmarks(Image.new("RGB", (20, 20)), [], labels="all")


def test_points_of_a_large_picture_can_be_seen():
    """A face of 300 px in 2000 px: a radius of 2000 / 400 = 5 px, where the face alone would give 300 / 75 = 4 px."""
    face = {"keypoints": [[1050.0, 1000.0]], "scores": [1.0], "bbox": [900, 850, 300, 300]}
    drawn = np.asarray(draw_landmarks(Image.new("RGB", (2000, 1400), GRAY), [face], draw_boxes=True)).astype(int)
    aqua = (np.abs(drawn - (62, 245, 212)).max(-1) < 60).sum()
    assert np.pi * 4.5**2 < aqua < np.pi * 5.5**2


def test_points_go_with_the_face_even_where_its_box_is_not_drawn():
    """One point in a face of 300 px of a picture of 400 px: 300 / 75 = 4 px, which the point alone does not tell."""
    face = {"keypoints": [[200.0, 200.0]], "scores": [1.0], "bbox": [50, 50, 300, 300]}
    drawn = np.asarray(draw_landmarks(Image.new("RGB", (400, 400), GRAY), [face], draw_boxes=False)).astype(int)
    aqua = (np.abs(drawn - (62, 245, 212)).max(-1) < 60).sum()
    assert np.pi * 3.5**2 < aqua < np.pi * 4.5**2
    assert (np.argwhere((drawn != GRAY).any(-1)) - 200 <= 6).all()  # and no box


def test_points_of_a_tiny_face_do_not_hide_it():
    """A face of 100 px in 2000 px: 100 / 40 = 2.5 px, not the 5 px that go with the picture."""
    face = {"keypoints": [[1050.0, 1000.0]], "scores": [1.0], "bbox": [1000, 950, 100, 100]}
    drawn = np.asarray(draw_landmarks(Image.new("RGB", (2000, 1400), GRAY), [face])).astype(int)
    aqua = (np.abs(drawn - (62, 245, 212)).max(-1) < 60).sum()
    assert np.pi * 2**2 < aqua < np.pi * 3**2


@pytest.mark.parametrize("share, small", [(0.13, True), (0.19, True), (0.21, False)])
def test_a_face_of_less_than_a_fifth_of_the_picture_is_enlarged(share, small):
    face = small_face() | {"bbox": [300, 200, 800 * share, 800 * share]}
    assert (draw_overview(Image.new("RGB", (800, 600), GRAY), [face], TWO).height > 600) == small


def test_a_small_face_is_drawn_again_below_and_a_large_one_is_not():
    picture = Image.new("RGB", (800, 600), GRAY)
    drawn = draw_overview(picture, [small_face()], TWO)
    assert drawn.size == (800, 600 + 400)
    # 40 px with 35 % on either side are 68 px, enlarged to 400: the first point by hand. The left tile is without it.
    x, y = (305.5 - (320 - 34)) * 400 / 68, (210.5 - (220 - 34)) * 400 / 68
    assert np.abs(np.array(drawn.getpixel((400 + int(x), 600 + int(y)))) - (62, 245, 212)).max() < 10
    assert drawn.getpixel((int(x), 600 + int(y))) == GRAY
    np.testing.assert_allclose(tile_points([[305.0, 210.0]], [300, 200, 40, 40], 400), [[x - 0.5, y - 0.5]])
    other = small_face() | {"bbox": [600, 400, 40, 40], "keypoints": [[605.0, 410.0], [625.0, 425.0]]}
    two = draw_overview(picture, [small_face(), other, other], TWO)
    assert two.size == (800, 600 + 800 // 3)
    x, y = (305.5 - (320 - 34)) * 266 / 68, (210.5 - (220 - 34)) * 266 / 68
    for tile in range(3):
        assert np.abs(np.array(two.getpixel((tile * 266 + int(x), 600 + int(y)))) - (62, 245, 212)).max() < 10
    large = small_face() | {"bbox": [100, 100, 400, 400]}
    np.testing.assert_array_equal(draw_overview(picture, [large], TWO), draw_landmarks(picture, [large], TWO))
    assert draw_overview(picture, []).size == (800, 600)


def test_a_tile_shows_the_face_and_its_surroundings():
    picture = Image.new("RGB", (100, 100), GRAY)
    picture.paste((200, 0, 0), (40, 40, 60, 60))
    tile = np.asarray(face_tile(picture, {"keypoints": np.empty((0, 2)), "bbox": [40, 40, 20, 20]}, 170)).astype(int)
    red = np.argwhere(tile[..., 0] > 145)  # 20 of 34 px: 100 of 170 in the middle
    assert tile.shape == (170, 170, 3)
    np.testing.assert_allclose([red.min(0), red.max(0)], [[35, 35], [134, 134]], atol=3)
