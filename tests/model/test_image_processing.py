"""The image processors: where boxes and points land, and what the pixels are."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fabrec_hf.model.geometry import (
    crop_box_from_box,
    crop_box_from_image_size,
    landmarks_from_crop,
    landmarks_to_crop,
)
from support.processor_cases import BACKENDS, BOXES, HEIGHT, MEAN, WIDTH, centroid, dot, noise, raw_pixels


@pytest.mark.parametrize(
    ("box", "margins", "expected"),
    [
        # Height 150 grows by 30 above and 18 below to 198, more than the width: center (275, 169).
        ((200, 100, 150, 150), {}, (176, 70, 198, 198)),
        # Wider than the grown height of 132: side 300 about the center (150, 46) of the grown box.
        ((0, 0, 300, 100), {}, (0, -104, 300, 300)),
        ((10, 20, 30, 50), {"extend_top": 0.0, "extend_bottom": 0.0}, (0, 20, 50, 50)),
        ((10, 20, 30, 50), {"extend_top": 0.0, "extend_bottom": 0.1}, (-2.5, 20, 55, 55)),
    ],
)
def test_crop_box(box, margins, expected):
    """The crop is the paper's: margins first, then the square about the center of the grown box."""
    assert crop_box_from_box(box, **margins) == pytest.approx(expected, abs=1e-9)
    as_tensor = crop_box_from_box(torch.tensor([[box, box]]), **margins)
    assert as_tensor.dtype == torch.float64
    assert as_tensor[0, 1].tolist() == pytest.approx(expected, abs=1e-9)


def test_whole_picture_is_squared_without_margins():
    """A picture without a box is a face already cropped."""
    assert crop_box_from_image_size(120, 90).tolist() == [0, -15, 120, 120]
    assert crop_box_from_image_size(90, 120).tolist() == [-15, 0, 120, 120]


def test_points_by_hand():
    """Edges of the crop are 0 and 1, pixel centers lie half a pixel inside; NaN stays."""
    crop = [10.0, 20.0, 100.0, 100.0]
    points = [[9.5, 19.5], [109.5, 119.5], [10.0, 20.0], [np.nan, 69.5]]
    inside = landmarks_to_crop(points, crop)
    np.testing.assert_allclose(inside, [[0, 0], [1, 1], [0.005, 0.005], [np.nan, 0.5]], atol=1e-12)
    np.testing.assert_allclose(landmarks_from_crop(inside, crop), points, atol=1e-12)


@pytest.mark.parametrize("make", [np.asarray, torch.tensor, lambda x: torch.tensor(x, dtype=torch.float32)])
def test_round_trip_of_points(backend, make):
    """Points come back to 1e-3 px through the crops of boxes inside, over the border and outside of the picture."""
    crop_boxes = backend(size=16)(noise(), list(BOXES))["crop_boxes"]
    points = np.random.default_rng(1).uniform(-20, 140, (len(BOXES), 68, 2)) + np.asarray(BOXES)[:, None, :2]
    points[0, 3] = np.nan
    given = make(points)
    labels = backend.landmarks_to_crop(given, crop_boxes)
    assert type(labels) is type(given) and labels.dtype == given.dtype
    side = crop_boxes[2, 2].item()
    expected = (points[2, 5, 0] + 0.5 - crop_boxes[2, 0].item()) / side
    assert float(labels[2, 5, 0]) == pytest.approx(expected, abs=1e-6)
    back = np.asarray(backend.landmarks_from_crop(labels, crop_boxes))
    assert np.nanmax(np.abs(back - points)) < 1e-3
    assert np.isnan(back[0, 3]).all() and np.isnan(back).sum() == 2


@pytest.mark.parametrize(
    ("points", "crops"),
    [(np.zeros((3, 68, 2)), np.ones((2, 4))), (np.zeros((68, 2)), np.ones((2, 4))), (np.zeros(2), np.ones(4))],
)
def test_points_and_crops_must_belong_together(points, crops):
    """Broadcasting would silently map faces with the crop of another."""
    with pytest.raises(ValueError, match="landmarks"):
        landmarks_to_crop(points, crops)


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("size", [16, 128])
def test_dots_land_where_the_geometry_says(backend, size, resample):
    """Sub-pixel dots are found in the crop, and taken back to the picture, where the coordinates say."""
    processor = backend(size=size, resample=resample)
    cases = [((51.3, 43.8), (30.25, 20.5, 40, 40)), ((24.6, 40.1), (-20.3, 10.0, 60.0, 55.0))]
    cases += [((93.2, 48.9), (80.0, 10.0, 77.7, 55.0)), ((61.4, 44.7), (-60.0, -30.0, 200.0, 150.0))]
    for point, box in cases:
        inputs = processor(dot(*point), [box], do_normalize=False)
        expected = landmarks_to_crop([point], inputs["crop_boxes"][0])[0]
        found = centroid(inputs["pixel_values"][0])
        assert np.abs(found - expected).max() * size < 0.05
        outputs = SimpleNamespace(landmarks=torch.tensor(found)[None, None], scores=torch.ones(1, 1))
        back = processor.post_process_keypoint_detection(outputs, inputs["crop_boxes"], num_images=1)[0][0]
        scale = inputs["crop_boxes"][0, 2].item() / size
        assert np.abs(back["keypoints"][0].numpy() - point).max() < 0.05 * max(scale, 1)


def test_dot_in_a_picture_that_is_shrunk_a_lot(backend):
    """Averaging blocks before the filter moves nothing, wherever the blocks begin."""
    processor = backend(size=32)
    point = (1203.7, 811.2)
    image = dot(*point, width=2000, height=1500, sigma=90)
    for box in [(13.3, 20.9, 1400.0, 1100.0), (350.6, 101.0, 1600, 1000)]:
        inputs = processor(image, [box], do_normalize=False)
        expected = landmarks_to_crop([point], inputs["crop_boxes"][0])[0]
        assert np.abs(centroid(inputs["pixel_values"][0]) - expected).max() * 32 < 0.05


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_whole_picture_is_that_of_pillow(backend, resample):
    """Without a box a square picture is resized as Pillow does it, rim and all, whether it shrinks or grows."""
    blurred = Image.fromarray(noise(30, 30) // 2 + 60).resize((90, 90), Image.Resampling.BICUBIC)
    for size in (24, 90, 200):
        expected = np.asarray(blurred.resize((size, size), resample), dtype=np.float32).transpose(2, 0, 1)
        found = raw_pixels(backend(size=size, resample=resample), blurred)[0]
        assert np.abs(found - expected).max() < 1.5


@pytest.mark.parametrize("box", BOXES[:5] + BOXES[7:10], ids=str)
def test_pixels_are_those_of_pillow_on_a_black_canvas(backend, box):
    """A second way to the crop: paste the picture on a large black canvas and let Pillow resize a float box of it."""
    margin, size = 300, 64
    left, top, side, _ = crop_box_from_box(box) + [margin, margin, 0, 0]

    def crop_of_canvas(picture):
        canvas = Image.new("RGB", (WIDTH + 2 * margin, HEIGHT + 2 * margin))
        canvas.paste(Image.fromarray(picture), (margin, margin))
        crop = canvas.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        return np.asarray(crop, dtype=np.float32).transpose(2, 0, 1)

    expected, mask = crop_of_canvas(noise()), crop_of_canvas(np.full((HEIGHT, WIDTH, 3), 255, np.uint8)) / 255
    found = raw_pixels(backend(size=size), noise(), [box])[0]
    # Pillow's canvas fades into black over the width of the filter, where our picture ends at its edge.
    clear = (mask == 0) | (mask == 1)
    assert clear.mean() > 0.6 and (mask == 1).any()
    assert np.abs(found - expected)[clear].max() < 1.5  # Pillow rounds twice
    white = raw_pixels(backend(size=size), np.full((HEIGHT, WIDTH, 3), 255, np.uint8), [box])[0]
    assert white.mean() / 255 == pytest.approx(mask.mean(), abs=2e-3)


def test_edge_of_the_picture_is_sharp(backend):
    """A sample half beyond the edge of a white picture is half as bright; its neighbors are white and black."""
    white = np.full((40, 40, 3), 255, np.uint8)
    processor = backend(size=8, extend_top=0.0, extend_bottom=0.0)
    row = raw_pixels(processor, white, [(22.0, 2.0, 32.0, 32.0)])[0, 0, 4]  # samples 4 px wide, the edge is 18 px in
    np.testing.assert_allclose(row, [255, 255, 255, 255, 127.5, 0, 0, 0], atol=1e-3)
    column = raw_pixels(processor, white, [(2.0, -7.0, 8.0, 8.0)])[0, 0, :, 4]  # 1 px wide, the edge is 7 px in
    np.testing.assert_allclose(column, [0] * 7 + [255], atol=1e-3)


def test_large_picture_is_that_of_pillow(backend):
    """Averaging blocks first stays within a gray level of the filter alone."""
    smooth = Image.fromarray(noise(40, 30)).resize((2400, 1800), Image.Resampling.BICUBIC)
    expected = np.asarray(smooth.resize((64, 64), Image.Resampling.BILINEAR, box=(100.5, 200.25, 1500.5, 1600.25)))
    box = (100.5, 200.25, 1400, 1400)
    found = raw_pixels(backend(size=64, extend_top=0.0, extend_bottom=0.0), smooth, [box])[0]
    assert np.abs(found - expected.transpose(2, 0, 1)).mean() < 1


def test_backends_agree():
    """The twins give the same pixels and geometry."""
    pictures, boxes = [noise(), noise(700, 500, seed=1)], [list(BOXES), [(5, 5, 600, 450), (100.5, 60.2, 30, 40)]]
    for resample in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        ours, twin = (cls(size=48, resample=resample)(pictures, boxes) for cls in BACKENDS)
        assert list(ours) == list(twin)
        for name in ours:
            assert ours[name].dtype == twin[name].dtype
            torch.testing.assert_close(ours[name], twin[name], atol=1e-5, rtol=0)


def test_normalization_and_black_beyond_the_picture(backend):
    """White is 1 - mean, everything beyond the picture is 0 - mean."""
    white = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    inputs = backend(size=16)([white, white, white], [[(40, 30, 20, 20)], [(900, 30, 20, 20)], [(100, 20, 40, 30)]])
    inside, outside, border = inputs["pixel_values"].numpy()
    assert np.abs(inside - (1 - MEAN)[:, None, None]).max() < 1e-5
    assert np.abs(outside + MEAN[:, None, None]).max() < 1e-6
    assert np.abs(border[..., 0] - (1 - MEAN)[:, None]).max() < 1e-5
    assert np.abs(border[..., -1] + MEAN[:, None]).max() < 1e-6


@pytest.mark.parametrize("box", [(-9e3, -9e3, 2e4, 2e4), (-1e9, -1e9, 2e9, 2e9), (1e9, 3, 5, 5), (60, 40, 1e-7, 1e-7)])
def test_no_box_needs_much_memory(backend, box):
    """Memory follows the picture, not the box; the sum of light follows the areas."""
    processor = backend(size=32)
    white = np.full((HEIGHT, WIDTH, 3), 255, dtype=np.uint8)
    tracemalloc.start()
    try:
        pixels = raw_pixels(processor, white, [box])[0]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
    side = 1.32 * box[3]
    expected = 255.0 if side < 1 else (WIDTH * HEIGHT * 255 / side**2 if box[0] < 0 else 0.0)
    assert pixels.mean() == pytest.approx(expected, rel=1e-3, abs=1e-9)
