"""The image processors: where boxes and points land, what the pixels are, and what bad input gets to hear."""

import json
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import SHARED
from PIL import Image, ImageOps
from transformers import AutoImageProcessor

from fabrec_hf.geometry import crop_box_from_box, crop_box_from_image_size, landmarks_from_crop, landmarks_to_crop
from fabrec_hf.image_processing_fabrec import FabRecImageProcessor
from fabrec_hf.image_processing_pil_fabrec import FabRecImageProcessorPil


BACKENDS = [FabRecImageProcessor, FabRecImageProcessorPil]
MEAN = np.array([0.518, 0.418, 0.361], dtype=np.float32)
WIDTH, HEIGHT = 120, 90

# Inside, over each border, over all of them, wholly outside, flat, tall, tiny, large.
BOXES = [
    (30.25, 20.5, 40.0, 40.0),
    (-20.3, 10.0, 60.0, 55.0),
    (20.0, -31.7, 60.0, 55.0),
    (80.0, 10.0, 77.7, 55.0),
    (20.0, 60.0, 60.0, 55.5),
    (-100.0, -80.0, 400.0, 300.0),
    (5000.5, -3000.25, 50.0, 70.0),
    (10.0, 40.0, 100.0, 3.0),
    (60.0, 2.0, 4.0, 80.0),
    (50.1, 40.2, 1.5, 1.25),
    (-9000.0, -9000.0, 20000.0, 20000.0),
]


@pytest.fixture(params=BACKENDS, ids=["torchvision", "pil"])
def backend(request):
    """Each of the two processor classes."""
    return request.param


def noise(width=WIDTH, height=HEIGHT, seed=0):
    """Makes an RGB picture of random pixels, (H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def dot(x, y, width=WIDTH, height=HEIGHT, sigma=2.5):
    """Draws a soft white dot about (x, y), pixel centres at integers, on black: (H, W, 3) float32 in [0, 1]."""
    columns = np.exp(-((np.arange(width) - x) ** 2) / (2 * sigma**2))
    rows = np.exp(-((np.arange(height) - y) ** 2) / (2 * sigma**2))
    return np.repeat((rows[:, None] * columns)[..., None], 3, axis=2).astype(np.float32)


def centroid(pixels):
    """Returns the centre of mass of a (3, S, S) crop in [0, 1] of the crop."""
    mass = np.asarray(pixels, dtype=np.float64).mean(axis=0)
    places = (np.arange(mass.shape[0]) + 0.5) / mass.shape[0]
    return np.array([(mass.sum(axis=0) * places).sum(), (mass.sum(axis=1) * places).sum()]) / mass.sum()


def raw_pixels(processor, images, boxes=None, **kwargs):
    """Returns the crops before normalisation, 0..255."""
    return processor(images, boxes, do_rescale=False, do_normalize=False, **kwargs)["pixel_values"].numpy()


@pytest.mark.parametrize(
    ("box", "margins", "expected"),
    [
        # Height 150 grows by 30 above and 18 below to 198, more than the width: centre (275, 169).
        ((200, 100, 150, 150), {}, (176, 70, 198, 198)),
        # Wider than the grown height of 132: side 300 about the centre (150, 46) of the grown box.
        ((0, 0, 300, 100), {}, (0, -104, 300, 300)),
        ((10, 20, 30, 50), {"extend_top": 0.0, "extend_bottom": 0.0}, (0, 20, 50, 50)),
        ((10, 20, 30, 50), {"extend_top": 0.0, "extend_bottom": 0.1}, (-2.5, 20, 55, 55)),
    ],
)
def test_crop_box(box, margins, expected):
    """The crop is the paper's: margins first, then the square about the centre of the grown box."""
    assert crop_box_from_box(box, **margins) == pytest.approx(expected, abs=1e-9)
    as_tensor = crop_box_from_box(torch.tensor([[box, box]]), **margins)
    assert as_tensor.dtype == torch.float64
    assert as_tensor[0, 1].tolist() == pytest.approx(expected, abs=1e-9)


def test_whole_picture_is_squared_without_margins():
    """A picture without a box is a face already cropped."""
    assert crop_box_from_image_size(120, 90).tolist() == [0, -15, 120, 120]
    assert crop_box_from_image_size(90, 120).tolist() == [-15, 0, 120, 120]


def test_points_by_hand():
    """Edges of the crop are 0 and 1, pixel centres lie half a pixel inside; NaN stays."""
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
    """A sample half beyond the edge of a white picture is half as bright; its neighbours are white and black."""
    white = np.full((40, 40, 3), 255, np.uint8)
    processor = backend(size=8, extend_top=0.0, extend_bottom=0.0)
    row = raw_pixels(processor, white, [(22.0, 2.0, 32.0, 32.0)])[0, 0, 4]  # samples 4 px wide, the edge is 18 px in
    np.testing.assert_allclose(row, [255, 255, 255, 255, 127.5, 0, 0, 0], atol=1e-3)
    column = raw_pixels(processor, white, [(2.0, -7.0, 8.0, 8.0)])[0, 0, :, 4]  # 1 px wide, the edge is 7 px in
    np.testing.assert_allclose(column, [0] * 7 + [255], atol=1e-3)


def test_large_picture_is_that_of_pillow(backend):
    """Averaging blocks first stays within a grey level of the filter alone."""
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


def test_normalisation_and_black_beyond_the_picture(backend):
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


def modes():
    """Yields names, PIL images of all modes and the RGB picture each of them shows."""
    grey = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    grey[20:40, 30:60] = 200
    colour = Image.fromarray(noise(12, 9)).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    grey_rgb = Image.fromarray(grey).convert("RGB")
    alpha = np.full_like(grey, 255)
    alpha[:, :50] = 0
    over_black = np.array(colour) * (alpha[..., None] > 0)
    clear = Image.fromarray(np.dstack([np.array(colour), alpha]))
    palette = colour.convert("P", palette=Image.Palette.ADAPTIVE, colors=128)
    see_through = palette.copy()
    see_through.info["transparency"] = int(np.array(palette)[0, 0])
    shown = np.array(palette.convert("RGB")) * (np.array(palette) != see_through.info["transparency"])[..., None]
    yield "RGB", colour, colour
    yield "L", Image.fromarray(grey), grey_rgb
    yield "RGBA opaque", colour.convert("RGBA"), colour
    yield "RGBA", clear, Image.fromarray(over_black.astype(np.uint8))
    yield "LA", Image.fromarray(np.dstack([grey, alpha])), Image.fromarray(grey * (alpha > 0)).convert("RGB")
    yield "RGBa", clear.convert("RGBa"), Image.fromarray(over_black.astype(np.uint8))
    yield "P", palette, palette.convert("RGB")
    yield "P transparent", see_through, Image.fromarray(shown.astype(np.uint8))
    yield "PA", colour.convert("RGBA").convert("PA"), colour.convert("RGBA").convert("PA").convert("RGB")
    yield "1", Image.fromarray(grey).convert("1"), Image.fromarray(grey).convert("1").convert("RGB")
    yield "CMYK", colour.convert("CMYK"), colour.convert("CMYK").convert("RGB")
    yield "YCbCr", colour.convert("YCbCr"), colour.convert("YCbCr").convert("RGB")
    yield "I;16", Image.fromarray(grey.astype(np.uint16) * 257), grey_rgb
    yield "I;16B", Image.frombytes("I;16B", (WIDTH, HEIGHT), (grey.astype(">u2") * 257).tobytes()), grey_rgb
    yield "I of 16 bits", Image.fromarray(grey.astype(np.int32) * 257), grey_rgb
    yield "I of 8 bits", Image.fromarray(grey).convert("I"), grey_rgb
    yield "F in [0, 1]", Image.fromarray(grey.astype(np.float32) / 255), grey_rgb
    yield "F in [0, 255]", Image.fromarray(grey).convert("F"), grey_rgb


@pytest.mark.parametrize("case", list(modes()), ids=lambda case: case[0])
def test_modes(backend, case):
    """Every mode shows what its RGB picture shows, with the same geometry."""
    _, image, reference = case
    processor = backend(size=64)
    boxes = [BOXES[0], BOXES[1]]
    inputs, expected = (processor(picture, boxes, do_normalize=False) for picture in (image, reference))
    torch.testing.assert_close(inputs["pixel_values"], expected["pixel_values"], atol=0.6 / 255, rtol=0)
    assert expected["pixel_values"].std() > 0.1
    assert inputs["crop_boxes"].tolist() == expected["crop_boxes"].tolist()


def test_16_bits_keep_their_fraction(backend):
    """The middle between two grey levels stays the middle."""
    image = Image.fromarray(np.full((8, 8), 100 * 257 + 128, dtype=np.uint16))
    assert raw_pixels(backend(size=4), image).mean() == pytest.approx(100 + 128 / 257, abs=1e-3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(backend, orientation, tmp_path):
    """Points and boxes refer to the upright picture, from a file and from a PIL image alike."""
    upright = Image.fromarray((dot(33.4, 61.2) * 255).round().astype(np.uint8))
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpose that the orientation's own turn undoes
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    stored.save(path, exif=exif)
    assert ImageOps.exif_transpose(Image.open(path)).tobytes() == upright.tobytes()

    processor = backend(size=64)
    box = [20.0, 40.0, 30.0, 35.0]
    for image in (path, Image.open(path)):
        inputs = processor(image, box, do_normalize=False)
        expected = landmarks_to_crop([(33.4, 61.2)], inputs["crop_boxes"][0])[0]
        assert np.abs(centroid(inputs["pixel_values"][0]) - expected).max() * 64 < 0.05
    assert processor(path)["face_boxes"].tolist() == [[0, 0, WIDTH, HEIGHT]]


def test_arrays_and_tensors(backend, tmp_path):
    """All ways to hold the same pixels give the same crop."""
    pixels = noise()
    read_only = pixels.copy()
    read_only.flags.writeable = False
    path = tmp_path / "face.png"
    Image.fromarray(pixels).save(path)
    chw = torch.from_numpy(pixels).permute(2, 0, 1)
    same = [pixels, read_only, pixels[..., ::-1][..., ::-1], pixels.transpose(2, 0, 1), pixels / 255.0]
    same += [(pixels / 255.0).astype(np.float32), pixels.astype(np.uint16) * 257, pixels.astype(">u2") * 257]
    same += [pixels.astype(np.int64), chw, chw.contiguous(), chw.permute(1, 2, 0), chw / 255, chw.to(torch.int32)]
    same += [path, str(path), Image.open(path)]
    inputs = backend(size=32)(same, [[BOXES[0]]] * len(same))
    torch.testing.assert_close(
        inputs["pixel_values"], inputs["pixel_values"][:1].expand(len(same), -1, -1, -1), atol=1e-5, rtol=0
    )
    assert inputs["image_indices"].tolist() == list(range(len(same)))


def test_grey_arrays_and_batches(backend):
    """(H, W), (H, W, 1) and (1, H, W) are grey; a 4-D array is a batch; layouts can be said."""
    processor = backend(size=32)
    grey = noise()[..., 0]
    same = raw_pixels(processor, [grey, grey[..., None], torch.from_numpy(grey), torch.from_numpy(grey)[None]])
    assert np.abs(same - same[:1, :1]).max() < 1e-5
    batch = np.stack([noise(seed=1), noise(seed=2)])
    assert np.array_equal(raw_pixels(processor, batch), raw_pixels(processor, list(batch)))
    ambiguous = noise(3, 4)[:3].transpose(0, 2, 1)  # 3 x 3 pixels read either way
    ambiguous = np.ascontiguousarray(ambiguous)
    first = raw_pixels(processor, ambiguous, input_data_format="channels_first")
    last = raw_pixels(processor, ambiguous)
    assert np.array_equal(first, raw_pixels(processor, torch.from_numpy(ambiguous)))
    assert np.array_equal(
        last, raw_pixels(processor, ambiguous.transpose(2, 0, 1), input_data_format="channels_first")
    )
    assert not np.array_equal(first, last)


def test_layouts_of_boxes(backend):
    """One box, a list, a list a picture, arrays and tensors: the rows follow the pictures."""
    processor, picture = backend(size=8), noise()
    one, two = [1.0, 2.0, 30.0, 40.0], [5.0, 6.0, 20.0, 10.0]
    whole = [0.0, 0.0, float(WIDTH), float(HEIGHT)]
    cases = [
        (picture, None, [whole], [0]),
        (picture, one, [one], [0]),
        (picture, tuple(one), [one], [0]),
        (picture, [one, two], [one, two], [0, 0]),
        (picture, [[one, two]], [one, two], [0, 0]),
        (picture, np.array([one, two]), [one, two], [0, 0]),
        (picture, torch.tensor([one, two]), [one, two], [0, 0]),
        (picture, [torch.tensor(one), np.array(two)], [one, two], [0, 0]),
        (picture, [], [], []),
        (picture, [[]], [], []),
        (picture, [None], [whole], [0]),
        ([picture], [one], [one], [0]),
        ([picture, picture], [one, two], [one, two], [0, 1]),
        ([picture, picture], None, [whole, whole], [0, 1]),
        ([picture] * 4, [[one, two], [], None, np.array([two])], [one, two, whole, two], [0, 0, 2, 3]),
        ([picture] * 2, [None, [one]], [whole, one], [0, 1]),
        ([picture] * 2, [[], []], [], []),
        ([picture] * 2, torch.tensor([[one, two], [two, one]]), [one, two, two, one], [0, 0, 1, 1]),
        ([], None, [], []),
    ]
    for images, boxes, face_boxes, image_indices in cases:
        inputs = processor(images, boxes)
        assert inputs["face_boxes"].tolist() == face_boxes, boxes
        assert inputs["image_indices"].tolist() == image_indices, boxes
        assert inputs["pixel_values"].shape == (len(face_boxes), 3, 8, 8), boxes
        assert inputs["crop_boxes"].shape == (len(face_boxes), 4), boxes
        assert inputs["pixel_values"].dtype == torch.float32 and inputs["image_indices"].dtype == torch.int64


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (
            [[1, 2, 3, 4], [1, 2, float("nan"), 4]],
            "Box 1 of image 0 is (1, 2, nan, 4): x, y, width and height must be",
        ),
        ([1, float("inf"), 3, 4], "Box 0 of image 0 is (1, inf, 3, 4)"),
        ([1, 2, 0, 4], "Box 0 of image 0 is (1, 2, 0, 4): width and height must be positive."),
        (torch.tensor([[1, 2, 3, -4.0]]), "Box 0 of image 0 is (1, 2, 3, -4): width and height must be positive."),
        ([[1, 2, 3]], "four numbers"),
        ([1, 2, 3, 4, 0.9], "four numbers"),
        ([[1, 2, 3, "wide"]], "four numbers"),
        ([[1, 2, 3, None]], "four numbers"),
        ([1, 2, 1e300, 4], "no picture reaches that far"),
        (7, "a number for 1 image(s)"),
        ([[[1, 2, 3, 4]], [[1, 2, 3, 4]]], "2 entries for 1 image(s)"),
    ],
)
def test_bad_boxes(backend, boxes, message):
    """A bad box is named with its picture, in one line."""
    with pytest.raises(ValueError) as caught:
        backend(size=8)(noise(), boxes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_boxes_of_several_images(backend):
    """The second picture's first box, and a missing entry."""
    processor, pictures = backend(size=8), [noise(), noise()]
    with pytest.raises(ValueError, match="Box 0 of image 1 is"):
        processor(pictures, [[[1, 2, 3, 4]], [[1, 2, -3, 4]]])
    with pytest.raises(ValueError, match="3 entries for 2 image"):
        processor(pictures, [None, None, None])
    with pytest.raises(ValueError, match="must be a list of"):
        processor(pictures, [1, 2])


def test_bad_files(backend, tmp_path):
    """Missing, truncated, not an image, a folder: one line that names the file."""
    processor = backend(size=8)
    whole = tmp_path / "whole.jpg"
    Image.fromarray(noise(400, 300)).save(whole)
    truncated = tmp_path / "truncated.jpg"
    truncated.write_bytes(whole.read_bytes()[:4000])
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    empty = tmp_path / "empty.png"
    empty.touch()
    for path, error, message in [
        (tmp_path / "missing.jpg", FileNotFoundError, "no such file"),
        (truncated, ValueError, "truncated"),
        (text, ValueError, "not an image file"),
        (empty, ValueError, "not an image file"),
        (tmp_path, ValueError, "folder"),
    ]:
        for given in (path, str(path)):
            with pytest.raises(error, match=message) as caught:
                processor([whole, given])
            assert "image 1 (" in str(caught.value) and path.name in str(caught.value)
            assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="image 0 cannot be read: .*truncated"):
        processor(Image.open(truncated))


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((0, 5, 3), np.uint8), ValueError, "empty: 5 x 0"),
        (np.zeros((5, 5, 2), np.uint8), ValueError, "1, 3 or 4 channels"),
        (np.zeros(5, np.uint8), ValueError, "1, 3 or 4 channels"),
        (np.full((5, 5, 3), 200.0), ValueError, "floats from 200 to 200"),
        (np.full((5, 5, 3), np.nan), ValueError, "floats from nan"),
        (np.full((5, 5), 300), ValueError, "integers from 300 to 300"),
        (np.array([["a"]]), ValueError, "no image"),
        (Image.new("RGB", (0, 0)), ValueError, "image 0"),
        (Image.fromarray(np.full((5, 5), -1, np.int32)), ValueError, "0..65535, got -1 to -1"),
        (3, TypeError, "images must be"),
        ([3], TypeError, "image 0 must be"),
        (None, TypeError, "images must be"),
    ],
)
def test_bad_images(backend, image, error, message):
    """What is no image is said so, in one line."""
    with pytest.raises(error, match=message) as caught:
        backend(size=8)(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_resize": False}, "do_resize=False does not apply"),
        ({"do_center_crop": True, "crop_size": 8}, "do_center_crop=True does not apply"),
        ({"size": {"height": 8, "width": 9}}, "size must be"),
        ({"size": {"shortest_edge": 8}}, "size must be"),
        ({"resample": Image.Resampling.LANCZOS}, "resample must be"),
        ({"extend_top": -2.0}, "leave nothing"),
    ],
)
def test_settings_that_do_not_apply(backend, settings, message):
    """Settings are honoured or refused, never ignored."""
    with pytest.raises(ValueError, match=message):
        backend(size=8)(noise(), BOXES[0], **settings)


def test_unknown_argument(backend):
    """A typing error is not swallowed."""
    with pytest.raises(TypeError, match="extend_left"):
        backend(size=8)(noise(), extend_left=0.3)


def test_post_processing_by_hand(backend):
    """Points go back by their own crop, results stand by picture and face, in order."""
    landmarks = torch.tensor([[[0.0, 0.0], [0.5, 1.0]], [[0.25, 0.5], [1.0, 1.0]], [[0.1, 0.2], [0.3, 0.4]]])
    outputs = SimpleNamespace(landmarks=landmarks, scores=torch.tensor([[0.9, 0.2], [0.5, 0.6], [0.7, 0.8]]))
    geometry = {
        "crop_boxes": torch.tensor([[10, 20, 100, 100], [-5, -5, 40, 40], [0, 0, 10, 10]], dtype=torch.float64),
        "face_boxes": torch.tensor([[20, 40, 50, 60], [0, 0, 20, 20], [1, 1, 5, 5]], dtype=torch.float64),
        "image_indices": torch.tensor([0, 2, 0]),
    }
    results = backend().post_process_keypoint_detection(outputs, num_images=4, threshold=0.5, **geometry)
    assert [len(faces) for faces in results] == [2, 0, 1, 0]
    first, third = results[0]
    torch.testing.assert_close(first["keypoints"], torch.tensor([[9.5, 19.5], [torch.nan] * 2]), equal_nan=True)
    torch.testing.assert_close(third["keypoints"], torch.tensor([[0.5, 1.5], [2.5, 3.5]]))
    torch.testing.assert_close(results[2][0]["keypoints"], torch.tensor([[4.5, 14.5], [34.5, 34.5]]))
    torch.testing.assert_close(first["scores"], torch.tensor([0.9, 0.2]))
    assert [face["bbox"].tolist() for face in results[0]] == [[20, 40, 50, 60], [1, 1, 5, 5]]

    without = backend().post_process_keypoint_detection(outputs, geometry["crop_boxes"])
    assert [len(faces) for faces in without] == [1, 1, 1]
    assert without[0][0]["keypoints"][1].tolist() == pytest.approx([59.5, 119.5])
    one_image = backend().post_process_keypoint_detection(outputs, geometry["crop_boxes"], num_images=1)
    assert [len(faces) for faces in one_image] == [3]


def test_post_processing_of_what_the_processor_returned(backend):
    """Labels that go in as landmarks come out as the points they were made of, half precision and empty ones too."""
    processor = backend(size=16)
    images, boxes = [noise()] * 3, [[BOXES[0], BOXES[6]], [], [BOXES[7]]]
    inputs = processor(images, boxes)
    points = torch.tensor(np.random.default_rng(3).uniform(0, 100, (3, 5, 2)))
    outputs = SimpleNamespace(
        landmarks=processor.landmarks_to_crop(points, inputs["crop_boxes"]), scores=torch.ones(3, 5)
    )
    geometry = {name: inputs[name] for name in ("crop_boxes", "face_boxes", "image_indices")}
    results = processor.post_process_keypoint_detection(outputs, **geometry, num_images=3)
    assert [len(faces) for faces in results] == [2, 0, 1]
    flat = torch.stack([face["keypoints"] for faces in results for face in faces])
    torch.testing.assert_close(flat, points, atol=1e-3, rtol=0)
    assert results[2][0]["bbox"].tolist() == list(BOXES[7])

    nothing = SimpleNamespace(landmarks=torch.empty(0, 5, 2), scores=torch.empty(0, 5))
    empty = processor(images, [[], [], []])
    geometry = {name: empty[name] for name in geometry}
    assert processor.post_process_keypoint_detection(nothing, **geometry, num_images=3) == [[], [], []]
    half = SimpleNamespace(landmarks=torch.full((1, 1, 2), 0.5, dtype=torch.bfloat16), scores=torch.ones(1, 1))
    back = processor.post_process_keypoint_detection(half, [[1000.0, 2001.0, 100.0, 100.0]])[0][0]["keypoints"]
    assert back.tolist() == [[1049.5, 2050.5]]


def test_post_processing_refuses_what_does_not_belong_together(backend):
    """Numbers of faces that disagree, and indices of images that are not there."""
    outputs = SimpleNamespace(landmarks=torch.zeros(2, 5, 2), scores=torch.zeros(2, 5))
    with pytest.raises(ValueError, match="crop_boxes 3"):
        backend().post_process_keypoint_detection(outputs, torch.ones(3, 4))
    with pytest.raises(ValueError, match="image_indices must lie"):
        backend().post_process_keypoint_detection(outputs, torch.ones(2, 4), image_indices=[0, 5], num_images=2)


def test_casting_keeps_the_geometry(backend):
    """`.to(float16)` casts pixels only: 2049.3 is not a half-precision number."""
    inputs = backend(size=8)(noise(), [2049.3, 1.1, 30.0, 30.0]).to("cpu", torch.float16)
    assert inputs["pixel_values"].dtype == torch.float16
    assert inputs["crop_boxes"].dtype == torch.float64
    assert inputs["face_boxes"].tolist() == [[2049.3, 1.1, 30.0, 30.0]]


def test_numpy_results(backend):
    """`return_tensors="np"` gives arrays of the same values."""
    tensors, arrays = (backend(size=8)(noise(), BOXES[0], return_tensors=kind) for kind in ("pt", "np"))
    for name in tensors:
        assert isinstance(arrays[name], np.ndarray)
        assert np.array_equal(arrays[name], tensors[name].numpy())


def test_device_argument():
    """The torchvision backend works where it is told to; the geometry stays on the CPU."""
    inputs = FabRecImageProcessor(size=8)(noise(), BOXES[0], device="cpu")
    assert inputs["pixel_values"].device.type == "cpu"
    if torch.cuda.is_available():
        on_gpu = FabRecImageProcessor(size=8)(noise(), [BOXES[0], BOXES[10]], device="cuda")
        on_cpu = FabRecImageProcessor(size=8)(noise(), [BOXES[0], BOXES[10]])
        assert on_gpu["pixel_values"].is_cuda and not on_gpu["crop_boxes"].is_cuda
        torch.testing.assert_close(on_gpu["pixel_values"].cpu(), on_cpu["pixel_values"], atol=1e-3, rtol=0)


def test_save_and_load(backend, tmp_path):
    """Attributes survive, also those that are zero, and the file names the processor without its backend."""
    processor = backend(size=64, extend_top=0.0, extend_bottom=0.3, resample=Image.Resampling.BICUBIC)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == "FabRecImageProcessor"
    assert saved["image_mean"] == [0.518, 0.418, 0.361]
    for cls in BACKENDS:
        loaded = cls.from_pretrained(tmp_path)
        assert (loaded.extend_top, loaded.extend_bottom, loaded.size["height"]) == (0.0, 0.3, 64)
        expected = processor(noise(), list(BOXES[:3]))["pixel_values"]
        torch.testing.assert_close(loaded(noise(), list(BOXES[:3]))["pixel_values"], expected, atol=1e-5, rtol=0)
    assert FabRecImageProcessor.from_pretrained(tmp_path, size=32).size["width"] == 32


def test_auto_image_processor(tmp_path):
    """The Auto class finds both backends once they are registered."""
    from fabrec_hf.configuration_fabrec import FabRecConfig

    classes = {"torchvision": FabRecImageProcessor, "pil": FabRecImageProcessorPil}
    AutoImageProcessor.register(FabRecConfig, image_processor_classes=classes, exist_ok=True)
    FabRecImageProcessor(size=64).save_pretrained(tmp_path)
    for backend_name, cls in [(None, FabRecImageProcessor), *classes.items()]:
        loaded = AutoImageProcessor.from_pretrained(tmp_path, backend=backend_name)
        assert type(loaded) is cls and loaded.size["height"] == 64


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_real_faces_are_centred_in_their_crops(backend):
    """The margins put the points of real faces where the paper's crops have them: inside, chin low, brows high."""
    from datasets import load_dataset

    path = str(SHARED / "data" / "300w" / "test-00000-of-00001.parquet")
    rows = load_dataset("parquet", data_files=path, split="train[:16]")
    inputs = backend(size=32)([row["image"] for row in rows], [[row["box"]] for row in rows])
    points = np.array([row["landmarks"] for row in rows])
    inside = backend.landmarks_to_crop(points, inputs["crop_boxes"])
    assert -0.01 < inside.min() and inside.max() < 1.01
    # A face that is taller than wide fills the height: 0.2 / 1.32 above, 0.12 / 1.32 below.
    box = np.array([row["box"] for row in rows])
    tall = box[:, 3] * 1.32 >= box[:, 2]
    np.testing.assert_allclose(inside[tall][..., 1].min(axis=1), 0.2 / 1.32, atol=0.02)
    np.testing.assert_allclose(inside[tall][..., 1].max(axis=1), 1.2 / 1.32, atol=0.02)


def test_detections_become_boxes_of_the_checkpoints_own_convention():
    """A tight box of 100 x 100: 300-W's crop is 132 wide; 0.05 + 0.25 margins reach it from a box 101.54 high."""
    detected = [[50.0, 40.0, 100.0, 100.0], [0.0, 0.0, 300.0, 100.0]]
    assert FabRecImageProcessor().boxes_from_detections(detected) == [tuple(box) for box in detected]
    other = FabRecImageProcessor(extend_top=0.05, extend_bottom=0.25)
    boxes = other.boxes_from_detections(detected)
    height = 132 / 1.3
    assert boxes[0] == pytest.approx((34.0, 20.0 + 0.05 * height, 132.0, height))
    crops = crop_box_from_box(np.array(boxes), 0.05, 0.25)
    np.testing.assert_allclose(crops, crop_box_from_box(np.array(detected)), atol=1e-9)
    assert other.boxes_from_detections([]) == []
