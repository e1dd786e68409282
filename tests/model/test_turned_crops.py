"""Turned crops against pictures that were turned as a whole, and points against plain trigonometry."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from fabrec_hf.model.turned_crops import (
    landmarks_from_turned_crop,
    landmarks_to_turned_crop,
    roll_of_landmarks,
    turn_crops,
    turn_points,
    wrapped,
)


def picture(width=150, height=110, seed=0):
    """Smooth noise, whose pixels all differ."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def test_points_turn_clockwise_on_the_screen():
    # From three o'clock to six o'clock, y pointing down.
    np.testing.assert_allclose(turn_points(np.array([[15.0, 7.0]]), [5.0, 7.0], 90.0), [[5, 17]], atol=1e-12)
    half = turn_points(torch.tensor([[15.0, 8.0]]), [5.0, 7.0], 180.0)
    assert half.dtype == torch.float32
    np.testing.assert_allclose(half, [[-5, 6]], atol=1e-5)
    many = turn_points(np.full((2, 3, 2), 1.0), np.zeros((2, 2)), np.array([0.0, 45.0]))
    np.testing.assert_allclose(many[0], 1)
    np.testing.assert_allclose(many[1], np.tile([0, math.sqrt(2)], (3, 1)), atol=1e-12)
    assert wrapped(np.array([180.0, -180.0, 190.0, 0.0])).tolist() == [-180, -180, -170, 0]


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, lambda points: torch.as_tensor(points).float()])
def test_there_and_back_to_a_thousandth_of_a_pixel(kind):
    random = np.random.default_rng(0)
    points, crops = random.uniform(-500, 9000, (5, 7, 2)), random.uniform(50, 4000, (5, 4))
    crops[:, 3] = crops[:, 2]
    rolls = np.array([0.0, 30.0, -90.0, 179.0, 12345.0])
    there = landmarks_to_turned_crop(kind(points), crops, rolls)
    back = landmarks_from_turned_crop(there, crops, rolls)
    assert type(back) is type(kind(points)) and back.dtype == kind(points).dtype
    # A crop of 4,000 px in 32 bits holds no more than a few thousandths.
    np.testing.assert_allclose(back, points, atol=1e-3 if back.dtype in (np.float64, torch.float64) else 1e-2)


def test_the_place_of_a_turned_point_by_hand():
    # The crop's right edge, half way down, lies below the middle of a crop that is turned by a quarter.
    crop = np.array([10.0, 20.0, 40.0, 40.0])
    np.testing.assert_allclose(landmarks_from_turned_crop([[1.0, 0.5]], crop, 90.0), [[29.5, 59.5]])
    np.testing.assert_allclose(landmarks_to_turned_crop([[29.5, 59.5]], crop, 90.0), [[1.0, 0.5]])
    # The crop of a box lies 5 px above the box's middle, so it goes 5 px to the right of it.
    crops, boxes = np.array([[0.0, -10.0, 20.0, 20.0]] * 2), np.array([[5.0, 0.0, 10.0, 10.0]] * 2)
    np.testing.assert_allclose(turn_crops(crops, boxes, np.array([0.0, 90.0])), [[0, -10, 20, 20], [5, -5, 20, 20]])


@pytest.mark.parametrize(("roll", "turns"), [(90.0, 1), (180.0, 2), (-90.0, 3)])
@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_a_crop_at_a_quarter_turn_is_that_of_the_turned_picture(backend, roll, turns, resample):
    processor, pixels = backend(size=48, resample=resample), np.asarray(picture())
    box = np.array([40.0, 30.0, 36.0, 30.0])
    # The same face in the picture that is turned back: its middle, and a box of the same size about it.
    middle = np.array([40.0 + 18.0, 30.0 + 15.0])
    height, width = pixels.shape[:2]
    for _ in range(turns):
        middle, (width, height) = np.array([middle[1], width - middle[0]]), (height, width)
    upright = processor(np.rot90(pixels, turns).copy(), boxes=[[*(middle - [18, 15]), 36, 30]])
    turned = processor(pixels, boxes=[box], rolls=[roll])
    np.testing.assert_allclose(turned["pixel_values"], upright["pixel_values"], atol=0.02)
    assert np.abs(np.asarray(turned["pixel_values"]) - np.asarray(upright["pixel_values"])).mean() < 0.003
    # What is at a place of the one crop is at the same place of the other.
    corner = processor.landmarks_from_crop([[[0.2, 0.3]]], turned["crop_boxes"], turned["rolls"])[0]
    x, y = processor.landmarks_from_crop([[[0.2, 0.3]]], upright["crop_boxes"])[0, 0]
    height, width = np.rot90(pixels, turns).shape[:2]
    for _ in range(turns):
        (x, y), (width, height) = (height - 1 - y, x), (height, width)
    np.testing.assert_allclose(corner, [[x, y]], atol=1e-9)


@pytest.mark.parametrize("side", [24, 200])
def test_what_lies_beyond_the_picture_is_black_and_no_scale_aliases(backend, side):
    white = Image.new("RGB", (400, 300), (255, 255, 255))
    box = [400 - side / 2, 300 - side / 2, side, side]
    values = np.asarray(backend(size=32, do_normalize=False)(white, boxes=[box], rolls=[45.0])["pixel_values"])[0, 0]
    # The left of a face that is turned by 45 degrees is the upper left of the picture, which ends at its middle.
    assert values[:, 18:].max() < 0.01 and values[17, :14].min() > 0.99 and 0.2 < values.mean() < 0.3
    stripes = Image.fromarray(np.tile(np.array([[0, 255]], np.uint8), (400, 200)))
    fine = backend(size=32, do_normalize=False)(stripes, boxes=[[100, 100, 200, 200]], rolls=[30.0])
    np.testing.assert_allclose(fine["pixel_values"], 0.5, atol=0.02)


def test_upright_crops_keep_every_bit(backend):
    boxes = [[[40.3, 30.7, 60, 70], [100.5, 20.25, 50, 50]]]
    plain = backend(size=40)(picture(), boxes=boxes)
    level = backend(size=40)(picture(), boxes=boxes, rolls=[[0, 0]])
    mixed = backend(size=40)(picture(), boxes=boxes, rolls=[0, 40])
    assert "rolls" not in plain
    for name in ("pixel_values", "crop_boxes"):
        assert np.array_equal(plain[name], level[name])
        assert np.array_equal(plain[name][0], mixed[name][0]) and not np.array_equal(plain[name][1], mixed[name][1])
    assert mixed["rolls"].tolist() == [0, 40]


def test_results_say_how_a_face_is_turned(backend):
    processor = backend(size=40)
    inputs = processor([picture(), picture()], boxes=[[[40, 30, 20, 20], [9, 9, 30, 30]], []], rolls=[[90, 0], []])
    pixels = inputs.pop("pixel_values")

    class Outputs:
        landmarks = torch.full((len(pixels), 1, 2), 0.5)
        scores = torch.ones(len(pixels), 1)

    (turned, level), none = processor.post_process_keypoint_detection(Outputs, **inputs, num_images=2)
    assert none == [] and float(turned["roll"]) == 90 and "roll" not in level
    # Crops of 40 by 40 at the box's middle (50, 40); the extra 8 % above it turn to the right.
    assert turned["bbox"].tolist() == [40, 30, 20, 20]
    np.testing.assert_allclose(turned["keypoints"], [[50 - 0.5 + 0.04 * 20, 40 - 0.5]], atol=1e-5)


@pytest.mark.parametrize("rolls", [[1, 2], [[1], [2]], [math.nan], ["steep"], 3.0])
def test_rolls_that_do_not_fit_the_boxes(backend, rolls):
    with pytest.raises(ValueError, match="one finite number of degrees for each box"):
        backend(size=40)(picture(), boxes=[[40, 30, 20, 20]], rolls=rolls)


def test_boxes_of_other_margins_turn_with_the_face(backend):
    # Without margins the box is the crop itself: of a 100 x 100 box the square of 132 px, 4 px above its middle.
    (box,) = backend(size=40, extend_top=0.0, extend_bottom=0.0).boxes_from_detections([[0, 0, 100, 100]], [90.0])
    np.testing.assert_allclose(box, [50 + 4 - 66, 50 - 66, 132, 132])


def test_rolls_by_landmarks():
    face = np.array([[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]])
    pairs = [(0, 1), (4, 3)]  # the order within a pair does not matter
    for degrees in (-80.0, -20.0, 0.0, 35.0, 90.0):
        turned = turn_points(face, [3.0, 4.0], degrees)
        assert roll_of_landmarks(turned[None], pairs)[0] == pytest.approx(degrees, abs=1e-9)
    turned[0] = np.nan  # one pair is left
    assert roll_of_landmarks(np.stack([turned, face]), pairs) == pytest.approx([90, 0])
    assert roll_of_landmarks(face[None], ()).tolist() == [0]
