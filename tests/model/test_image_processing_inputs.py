"""What the image processors take: modes, layouts, boxes, files, and what bad input gets to hear."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from fabrec_hf.model.geometry import landmarks_to_crop
from fabrec_hf.model.image_inputs import Picture, as_picture
from support.processor_cases import BOXES, HEIGHT, WIDTH, centroid, dot, noise, raw_pixels


def modes():
    """Yields names, PIL images of all modes and the RGB picture each of them shows."""
    gray = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))
    gray[20:40, 30:60] = 200
    color = Image.fromarray(noise(12, 9)).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    gray_rgb = Image.fromarray(gray).convert("RGB")
    alpha = np.full_like(gray, 255)
    alpha[:, :50] = 0
    over_black = np.array(color) * (alpha[..., None] > 0)
    clear = Image.fromarray(np.dstack([np.array(color), alpha]))
    palette = color.convert("P", palette=Image.Palette.ADAPTIVE, colors=128)
    see_through = palette.copy()
    see_through.info["transparency"] = int(np.array(palette)[0, 0])
    shown = np.array(palette.convert("RGB")) * (np.array(palette) != see_through.info["transparency"])[..., None]
    yield "RGB", color, color
    yield "L", Image.fromarray(gray), gray_rgb
    yield "RGBA opaque", color.convert("RGBA"), color
    yield "RGBA", clear, Image.fromarray(over_black.astype(np.uint8))
    yield "LA", Image.fromarray(np.dstack([gray, alpha])), Image.fromarray(gray * (alpha > 0)).convert("RGB")
    yield "RGBa", clear.convert("RGBa"), Image.fromarray(over_black.astype(np.uint8))
    yield "P", palette, palette.convert("RGB")
    yield "P transparent", see_through, Image.fromarray(shown.astype(np.uint8))
    yield "PA", color.convert("RGBA").convert("PA"), color.convert("RGBA").convert("PA").convert("RGB")
    yield "1", Image.fromarray(gray).convert("1"), Image.fromarray(gray).convert("1").convert("RGB")
    yield "CMYK", color.convert("CMYK"), color.convert("CMYK").convert("RGB")
    yield "YCbCr", color.convert("YCbCr"), color.convert("YCbCr").convert("RGB")
    yield "I;16", Image.fromarray(gray.astype(np.uint16) * 257), gray_rgb
    yield "I;16B", Image.frombytes("I;16B", (WIDTH, HEIGHT), (gray.astype(">u2") * 257).tobytes()), gray_rgb
    yield "I of 16 bits", Image.fromarray(gray.astype(np.int32) * 257), gray_rgb
    yield "I of 8 bits", Image.fromarray(gray).convert("I"), gray_rgb
    yield "F in [0, 1]", Image.fromarray(gray.astype(np.float32) / 255), gray_rgb
    yield "F in [0, 255]", Image.fromarray(gray).convert("F"), gray_rgb


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
    """The middle between two gray levels stays the middle."""
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


def test_gray_arrays_and_batches(backend):
    """(H, W), (H, W, 1) and (1, H, W) are gray; a 4-D array is a batch; layouts can be said."""
    processor = backend(size=32)
    gray = noise()[..., 0]
    same = raw_pixels(processor, [gray, gray[..., None], torch.from_numpy(gray), torch.from_numpy(gray)[None]])
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


def test_a_picture_that_was_read_is_taken_as_it_is(backend):
    processor = backend(size=32)
    for name, image, shown in modes():
        picture = Picture(image)
        assert picture.size == (WIDTH, HEIGHT) and picture.rgb.dtype == np.uint8
        assert np.abs(picture.rgb.astype(int) - np.asarray(shown)).max() <= 1, name
        assert picture.rgb is picture.rgb and as_picture(picture) is picture
        found, expected = (processor(given, boxes=BOXES[:1])["pixel_values"] for given in (picture, image))
        torch.testing.assert_close(found, expected, atol=0, rtol=0)
        several = processor([picture, image], boxes=[BOXES[:1], BOXES[:1]])["pixel_values"]
        torch.testing.assert_close(several, torch.cat([expected, expected]), atol=0, rtol=0)
