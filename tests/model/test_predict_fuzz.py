"""The whole predict path under generated inputs: the right size or one line of refusal, and it never hangs."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fabrec_hf import FabRecImageProcessor, FabRecImageProcessorPil, FaceLandmarkPipeline
from fabrec_hf.errors import ImageError
from fabrec_hf.inference.input_files import open_picture
from support.fuzzing import fuzz
from support.tiny_models import random_statistics, tiny_model


LARGEST = 20_000
REFUSALS = (ValueError, TypeError, FileNotFoundError)

# Every mode that Pillow can make an image of.
MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa", "La"]
MODES += ["I;16", "I;16L", "I;16B"]


@pytest.fixture(scope="module")
def detect():
    model = random_statistics(tiny_model(image_size=32, heatmap_size=16, encoder_depth=1))
    return FaceLandmarkPipeline(model=model, image_processor=FabRecImageProcessor(size=32), device="cpu")


sides = st.one_of(st.integers(1, 64), st.integers(1, 700), st.sampled_from([1, 2, 3, 255, 256, 257, 4999]))
numbers = st.one_of(
    st.floats(-200, 400),
    st.floats(allow_nan=True, allow_infinity=True),
    st.sampled_from([0.0, -0.0, 5e-324, 1e-300, 1e-30, 1e9, 2.0**31, 2.0**32, 1e300, np.nan, np.inf, -np.inf]),
)
boxes = st.one_of(
    st.tuples(st.floats(-50, 300), st.floats(-50, 300), st.floats(0.5, 400), st.floats(0.5, 400)),
    st.tuples(numbers, numbers, numbers, numbers),
)


def usable(box):
    """The rule of boxes: four finite numbers, an area, and nothing further away than any picture reaches."""
    return all(np.isfinite(box)) and box[2] > 0 and box[3] > 0 and max(map(abs, box)) <= 2**31


def check(faces, given_boxes, landmarks=5):
    """What comes back has the right sizes, belongs to its box and holds numbers."""
    assert len(faces) == len(given_boxes)
    for face, box in zip(faces, given_boxes, strict=True):
        points, scores = np.array(face["keypoints"]), np.array(face["scores"])
        assert points.shape == (landmarks, 2) and scores.shape == (landmarks,)
        assert np.isfinite(points).all() and ((scores >= 0) & (scores <= 1)).all()
        assert face["bbox"] == [float(value) for value in box]
        # Decoded points stay within a few stencils of their crop, whose side is at most 1.32 of the box's longer one.
        center = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
        reach = 3 * 1.32 * max(box[2], box[3]) + 1
        assert (np.abs(points - center) <= reach + 1e-6 * np.abs(center)).all()


def predict(detect, image, given_boxes):
    """Predict, and require that exactly unusable boxes are refused, in one line that says which."""
    if all(usable(box) for box in given_boxes):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            check(detect(image, boxes=given_boxes), given_boxes)
    else:
        with pytest.raises(ValueError, match="Box") as caught:
            detect(image, boxes=given_boxes)
        assert "\n" not in str(caught.value)


@fuzz(0.4)
@given(width=sides, height=sides, given_boxes=st.lists(boxes, max_size=4), seed=st.integers(0, 2**32 - 1))
def test_arrays_of_any_size_and_boxes_anywhere(detect, width, height, given_boxes, seed):
    pixel = np.random.default_rng(seed).integers(0, 256, 3, np.uint8)
    predict(detect, np.broadcast_to(pixel, (height, width, 3)), given_boxes)


@fuzz(0.02)
@given(
    width=st.sampled_from([1, 7, 333, LARGEST]),
    height=st.sampled_from([1, 5, 250, LARGEST]),
    box=st.one_of(boxes, st.just((0.0, 0.0, 4999.0, 4999.0))),
)
def test_pictures_up_to_20000_by_20000(detect, width, height, box):
    if width == height == LARGEST:
        height = 1000  # the full square and a box of its size have a test of their own: they take seconds
    predict(detect, np.broadcast_to(np.uint8(90), (height, width, 1)), [box])


def test_a_picture_of_20000_by_20000(detect):
    image = np.broadcast_to(np.uint8(90), (LARGEST, LARGEST, 1))
    predict(detect, image, [(0.0, 0.0, 20000.0, 15000.0), (19_990.0, 19_990.0, 30.0, 30.0)])


@fuzz(0.15)
@given(mode=st.sampled_from(MODES), width=st.integers(1, 80), height=st.integers(1, 80), box=boxes, data=st.data())
def test_every_mode_of_pillow(detect, mode, width, height, box, data):
    image = Image.new("L", (width, height), data.draw(st.integers(0, 255)))
    try:
        image = image.convert(mode)
    except ValueError:
        image = Image.new(mode, (width, height))
    predict(detect, image, [box])


dtypes = st.sampled_from(["u1", "u2", "u4", "i1", "i2", "i8", "f2", "f4", "f8", "?", "c8", "O", "U3", ">u2", ">f4"])


@fuzz(0.2)
@given(shape=st.lists(st.integers(0, 9), max_size=5), dtype=dtypes, fill=st.integers(-3, 300), data=st.data())
def test_arrays_of_any_shape_and_type(detect, shape, dtype, fill, data):
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        array = np.full(shape, fill).astype(dtype)
    if array.dtype.kind == "f" and array.size:
        array.flat[0] = data.draw(st.sampled_from([0.5, np.nan, np.inf, -1.0]))
    box = [(0.0, 0.0, 5.0, 5.0)]
    kind = data.draw(st.sampled_from(["array", "tensor"]))
    if kind == "tensor":
        try:
            array = torch.from_numpy(array.copy())
        except (TypeError, ValueError):
            return
    given_boxes = [box] * len(array) if array.ndim == 4 else box
    try:
        results = detect(array, boxes=given_boxes)
    except REFUSALS as error:
        assert "\n" not in str(error) and len(str(error)) < 400
    else:
        for faces in results if array.ndim == 4 else [results]:
            check(faces, box)


def encoded(format="PNG", size=(40, 30)):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


FILES = {format: encoded(format) for format in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM")}


@fuzz(0.2)
@given(
    format=st.sampled_from(sorted(FILES)),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6),
    extra=st.binary(max_size=8),
)
def test_files_that_are_cut_changed_or_lie(detect, tmp_path_factory, format, cut, changes, extra):
    content = bytearray(FILES[format][: max(1, round(cut * len(FILES[format])))])
    for place, value in changes:
        content[min(int(place * 60), len(content) - 1)] = value  # mostly the header
    path = tmp_path_factory.getbasetemp() / "fuzz.img"
    path.write_bytes(bytes(content) + extra)
    box = [(0.0, 0.0, 20.0, 20.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            faces = detect(str(path), boxes=box)
        except REFUSALS as error:
            assert "\n" not in str(error) and "image 0" in str(error)
        else:
            check(faces, box)
        try:
            open_picture(path)
        except ImageError as error:
            assert "\n" not in str(error)


def png_header(width, height):
    """A PNG that claims a size and holds a single byte of pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (20_000, 20_000)])
def test_decompression_bombs_are_refused(detect, tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(*size))
    with pytest.raises(ValueError, match=r"image 0 .*(cannot be read|more than 300 megapixels)") as caught:
        detect(str(path), boxes=[(0, 0, 20, 20)])
    assert "\n" not in str(caught.value)
    with pytest.raises(ImageError, match="cannot be read|more than 300 megapixels"):
        open_picture(path)


@fuzz(0.03)
@given(width=st.integers(1, 90), height=st.integers(1, 90), box=boxes.filter(usable), seed=st.integers(0, 2**32 - 1))
def test_both_processors_agree_everywhere(width, height, box, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    results = [kind(size=16)(image, boxes=[box]) for kind in (FabRecImageProcessor, FabRecImageProcessorPil)]
    for name in results[0]:
        torch.testing.assert_close(results[0][name], results[1][name], atol=2e-3, rtol=1e-6)
    assert results[0]["pixel_values"].shape == (1, 3, 16, 16)


def test_24_threads_on_one_model_get_what_one_gets(detect):
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*random.integers(5, 80, 2), 3), np.uint8) for _ in range(96)]
    given_boxes = [[tuple(random.uniform([-5, -5, 5, 5], [30, 30, 60, 60]))] for _ in images]
    alone = [detect(image, boxes=box) for image, box in zip(images, given_boxes, strict=True)]
    with ThreadPoolExecutor(24) as pool:
        together = list(pool.map(lambda pair: detect(pair[0], boxes=pair[1]), zip(images, given_boxes, strict=True)))
    for first, second in zip(alone, together, strict=True):
        np.testing.assert_allclose(second[0]["keypoints"], first[0]["keypoints"], atol=1e-3)
        np.testing.assert_allclose(second[0]["scores"], first[0]["scores"], atol=1e-5)
