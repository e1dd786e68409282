"""Annotations as tools and phones write them: what their boxes mean, which way up, and how large."""

import json

import numpy as np
import pytest
from PIL import Image


datasets = pytest.importorskip("datasets")

from fabrec_hf.data import face_boxes  # noqa: E402
from fabrec_hf.data.conversion import convert_faces  # noqa: E402
from fabrec_hf.data.face_boxes import upright_boxes  # noqa: E402
from fabrec_hf.data.picture_sizes import PictureSize, upright_box, upright_points  # noqa: E402
from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from fabrec_hf.model.face_detection import Detection  # noqa: E402
from support.own_annotations import FACES, HEIGHT, WIDTH, coco, convert, find_faces_by_red, pictures, points_of  # noqa: E402


@pytest.fixture(autouse=True)
def detector(monkeypatch):
    return find_faces_by_red(monkeypatch)


# ------------------------------------------------------------------------------------------------ boxes


def test_boxes_of_turned_faces_become_upright_by_hand():
    box = (10.0, 20.0, 30.0, 40.0)  # about (25, 40)
    upright, lying, unknown = upright_boxes([Detection(box, 1.0, 0.0), Detection(box, 1.0, 90.0), Detection(box, 1.0)])
    assert upright.tolist() == unknown.tolist() == list(box)
    np.testing.assert_allclose(lying, [5, 25, 40, 30])
    # The ellipse of the half axes 15 and 20, turned by 45 degrees, reaches sqrt((225 + 400) / 2) each way.
    (slanted,) = upright_boxes([Detection(box, 1.0, 45.0)])
    reach = 312.5**0.5
    np.testing.assert_allclose(slanted, [25 - reach, 40 - reach, 2 * reach, 2 * reach])
    assert upright_boxes([]).shape == (0, 4)


def test_a_lying_face_gets_an_upright_box(monkeypatch, tmp_path):
    face = Detection((10.0, 20.0, 30.0, 40.0), 0.9, -90.0)
    monkeypatch.setattr(face_boxes, "default_face_detector", lambda: lambda image: [face])
    Image.new("RGB", (60, 60)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    np.testing.assert_allclose(face_boxes.detected_box(content, np.array([[25.0, 40.0]])), [5, 25, 40, 30])


def test_boxes_that_mean_the_face_are_kept(tmp_path):
    pictures(tmp_path)
    nearly = [(x + 2, y - 1, w * 1.05, h * 0.97) for x, y, w, h in FACES]
    face_set, boxes, _ = convert(coco(tmp_path / "a.json", nearly), tmp_path / "out")
    np.testing.assert_allclose(boxes, nearly, rtol=1e-6)
    assert face_set.splits["train"]["boxes"] == {"given": 6}
    assert face_set.boxes["rule"] == "auto" and face_set.boxes["given"] == "keep" and not face_set.boxes["corners"]
    assert any(note.startswith("The given boxes are kept: on 6 faces they overlap") for note in face_set.notes)


def test_a_box_of_five_points_counts_as_not_given(tmp_path):
    pictures(tmp_path)
    tight = []
    for face in FACES:
        low, high = points_of(face).min(0), points_of(face).max(0)
        tight.append([*low.round(), *(high - low).round()])  # as tools round
    file = coco(tmp_path / "a.json", tight)
    face_set, boxes, _ = convert(file, tmp_path / "out")
    np.testing.assert_array_equal(boxes, FACES)
    assert face_set.splits["train"]["boxes"] == {"detector": 6} and face_set.boxes["tight_is_none"]
    assert any("6 of 6 faces are just those of their points" in note for note in face_set.notes)
    _, kept, _ = convert(file, tmp_path / "given", boxes="given")
    np.testing.assert_array_equal(kept, tight)


def test_whole_heads_are_converted_by_the_measured_relation(tmp_path):
    pictures(tmp_path)
    # A quarter of the width is added on each side, half the height above and a fifth below.
    heads = [(x - w / 4, y - h / 2, 1.5 * w, 1.7 * h) for x, y, w, h in FACES]
    face_set, boxes, _ = convert(coco(tmp_path / "a.json", heads), tmp_path / "out")
    np.testing.assert_allclose(boxes, FACES, atol=0.05)
    assert face_set.splits["train"]["boxes"] == {"converted": 6} and face_set.boxes["given"] == "convert"
    np.testing.assert_allclose(face_set.boxes["relation"]["ratio"], [1 / 1.5, 1 / 1.7], atol=1e-4)
    # The head's center lies at 0.35 of the face's height, the face's at 0.5: 0.15 / 1.7 of the head's height below.
    np.testing.assert_allclose(face_set.boxes["relation"]["shift"], [0, 0.15 / 1.7], atol=1e-4)


def test_boxes_without_a_rule_give_way_to_the_detectors(tmp_path):
    pictures(tmp_path)
    factors = [0.5, 2.2, 1.9, 0.6, 2.6, 1.7]
    loose = [
        (x - (f - 1) * w * (i % 2), y, f * w, f * h)
        for i, ((x, y, w, h), f) in enumerate(zip(FACES, factors, strict=True))
    ]
    face_set, boxes, _ = convert(coco(tmp_path / "a.json", loose), tmp_path / "out")
    np.testing.assert_array_equal(boxes, FACES)
    assert face_set.boxes["given"] == "replace" and any("The latter are taken" in note for note in face_set.notes)


def test_corners_are_recognized(tmp_path):
    pictures(tmp_path)
    corners = [(x, y, x + w, y + h) for x, y, w, h in FACES]
    face_set, boxes, _ = convert(coco(tmp_path / "a.json", corners), tmp_path / "out")
    np.testing.assert_array_equal(boxes, FACES)
    assert face_set.boxes["corners"] and face_set.boxes["given"] == "keep"
    heads = [(x - w / 4, y - h / 3, x + 1.25 * w, y + 1.1 * h) for x, y, w, h in FACES]  # and whole heads besides
    _, boxes, _ = convert(coco(tmp_path / "a.json", heads), tmp_path / "heads")
    np.testing.assert_allclose(boxes, FACES, atol=0.1)


def test_a_margin_around_a_whole_face_scheme_is_taken_off(tmp_path, detector):
    pictures(tmp_path)
    points = [box[:2] + np.random.default_rng(3).random((68, 2)) * box[2:] for box in np.array(FACES, dtype=float)]
    tight = np.array([[*p.min(0), *(p.max(0) - p.min(0))] for p in points])
    padded = np.concatenate([tight[:, :2] - 0.125 * tight[:, 2:], 1.25 * tight[:, 2:]], axis=1)
    names = {"id": 1, "name": "face", "keypoints": []}  # as mmpose writes it
    face_set, boxes, found = convert(
        coco(tmp_path / "a.json", padded, points, category=names), tmp_path / "out", scheme="300w"
    )
    np.testing.assert_allclose(boxes, tight, atol=1e-3)
    np.testing.assert_allclose(found, points, atol=1e-4)
    assert face_set.boxes["missing"] == "points" and face_set.boxes["given"] == "replace"
    assert not detector  # the points themselves tell the box


def test_flat_and_reversed_boxes(tmp_path):
    pictures(tmp_path)
    boxes = list(FACES)
    boxes[0] = (50, 60, 0, 20)
    boxes[1] = (150, 190, -90, -110)  # dragged from the lower right
    face_set, found, _ = convert(coco(tmp_path / "a.json", boxes), tmp_path / "out")
    np.testing.assert_array_equal(found, FACES)
    assert face_set.splits["train"]["boxes"] == {"detector": 1, "given": 5}
    assert face_set.splits["train"]["flat_boxes"] == 1 and "1 boxes without area" in face_set.summary()


def test_an_interrupted_conversion_keeps_its_choice(tmp_path, monkeypatch):
    pictures(tmp_path)
    file = coco(tmp_path / "a.json", FACES)
    monkeypatch.setattr("fabrec_hf.data.conversion._finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        convert_faces(open_source("coco", file), tmp_path / "out")
    job = json.loads((tmp_path / ".out.partial" / "job.json").read_text())
    (rules,) = [entry for entry in job if isinstance(entry, dict)]
    assert rules["boxes"]["given"] == "keep" and rules["orientation"] == "upright"


# ------------------------------------------------------------------------------------------------ orientation and size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_points_turn_as_the_pixels_do(orientation):
    from PIL import ImageOps

    pixels = np.zeros((4, 6, 3), dtype=np.uint8)
    pixels[1, 4] = 255  # x = 4, y = 1 in the file
    image = Image.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image))[..., 0]
    (y,), (x,) = np.nonzero(upright)
    size = PictureSize((6, 4), orientation)
    assert upright_points(np.array([[4.0, 1.0]]), size).tolist() == [[x, y]]
    assert size.upright == upright.shape[::-1]
    assert upright_box(np.array([4, 1, 1, 1]), size).tolist() == [x, y, 1, 1]  # the box of that pixel


def stored(points):
    """The same points in the file of a picture of orientation 6: upright (x, y) is stored at (y, W-1-x)."""
    return [np.stack([p[:, 1], WIDTH - 1 - p[:, 0]], axis=1) for p in points]


def stored_boxes(boxes):
    return [(y, WIDTH - x - w, h, w) for x, y, w, h in boxes]


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (None, None), (10**400, 10**400)])
def test_points_of_the_stored_picture_are_turned(tmp_path, size):
    pictures(tmp_path, "jpg", orientation=6)
    upright = [points_of(box) for box in FACES]
    file = coco(tmp_path / "a.json", stored_boxes(FACES), stored(upright), size=size, form="jpg")
    face_set, boxes, points = convert(file, tmp_path / "out")
    np.testing.assert_allclose(points, upright, atol=1e-4)
    np.testing.assert_allclose(boxes, FACES, atol=1e-4)
    assert any("they were" in note or "were turned" in note for note in face_set.notes)


def test_points_that_fit_only_the_stored_picture_decide_for_all(tmp_path):
    pictures(tmp_path, "jpg", orientation=6)
    upright = [points_of(box) for box in FACES]
    upright[0] = upright[0] + [0, 90]  # y = 240 becomes an x beyond the upright width of 200
    file = coco(tmp_path / "a.json", None, stored(upright), size=(None, None), form="jpg")
    face_set, _, points = convert(file, tmp_path / "out")
    np.testing.assert_allclose(points, upright, atol=1e-4)
    assert any(
        note.startswith("The points of 1 faces fit only the picture as it is stored") for note in face_set.notes
    )


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (HEIGHT, WIDTH), (None, None)])
def test_points_of_the_upright_picture_stay(tmp_path, size):
    pictures(tmp_path, "jpg", orientation=6)
    upright = [points_of(box) for box in FACES]
    face_set, boxes, points = convert(coco(tmp_path / "a.json", FACES, size=size, form="jpg"), tmp_path / "out")
    np.testing.assert_allclose(points, upright, atol=1e-4)
    np.testing.assert_array_equal(boxes, FACES)
    assert "6 pictures are turned by their EXIF orientation" in face_set.summary()


def test_pictures_that_were_shrunk_are_refused(tmp_path):
    pictures(tmp_path, scale=0.5)
    file = coco(tmp_path / "a.json", FACES)
    with pytest.raises(
        DataError, match=r"a.json: 0.png is said to have 200 x 260 pixels, and has 100 .* factor of 0.5 \(6 of 6"
    ):
        convert(file, tmp_path / "out")
    pictures(tmp_path / "large")
    convert(file, tmp_path / "out", images=tmp_path / "large")
    Image.new("RGB", (50, 260)).save(tmp_path / "0.png")
    with pytest.raises(DataError, match="which is another shape"):
        convert(file, tmp_path / "again")


def test_points_outside_are_said_where_no_size_is_stated(tmp_path):
    pictures(tmp_path, scale=0.5)
    lines = ["image,left_eye_x,left_eye_y,right_eye_x,right_eye_y"]
    lines += [f"{i}.png,{','.join(f'{v:.1f}' for v in points_of(box)[:2].ravel())}" for i, box in enumerate(FACES)]
    (tmp_path / "faces.csv").write_text("\n".join(lines))
    face_set, _, _ = convert(tmp_path / "faces.csv", tmp_path / "out", kind="csv")
    outside = sum(((points_of(box)[:2] >= [99.5, 129.5]).any(axis=1)).sum() for box in FACES)
    assert outside > 2 and f"{outside} points lie outside their pictures" in face_set.summary()
