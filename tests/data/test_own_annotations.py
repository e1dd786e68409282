"""Annotations as tools and phones write them: what their boxes mean, which way up, and how large."""

import json

import numpy as np
import pytest
from PIL import Image


datasets = pytest.importorskip("datasets")

from fabrec_hf.data import face_boxes, load_faces, survey  # noqa: E402
from fabrec_hf.data.conversion import ConversionSettings, convert_faces  # noqa: E402
from fabrec_hf.data.face_set import find_face_set  # noqa: E402
from fabrec_hf.data.formats.picture_paths import PicturePlaces, plain_name  # noqa: E402
from fabrec_hf.data.formats.repeated_faces import count_repeated  # noqa: E402
from fabrec_hf.data.picture_sizes import PictureSize, turn_box, turn_points  # noqa: E402
from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from fabrec_hf.model.face_detection import Detection  # noqa: E402


WIDTH, HEIGHT = 200, 260
# Faces somewhere in the picture, as boxes, and their eyes and nose as fractions of these.
FACES = [
    (40, 60, 80, 100),
    (60, 80, 90, 110),
    (30, 50, 70, 80),
    (90, 100, 60, 80),
    (50, 40, 100, 120),
    (70, 90, 80, 90),
]
SHAPE = np.array([[0.3, 0.3], [0.7, 0.3], [0.5, 0.6]])
FACE = {"id": 1, "name": "face", "keypoints": ["left_eye", "right_eye", "nose"]}


def points_of(box):
    return np.array(box[:2]) + SHAPE * box[2:]


@pytest.fixture(autouse=True)
def detector(monkeypatch):
    """Finds the face whose number is the red of the picture's corner; upright, as the true one does."""
    looked = []

    def detect(image):
        looked.append(image)
        turned = image.getexif().get(0x0112, 1) == 6
        red = image.convert("RGB").getpixel((0, image.height - 1) if turned else (0, 0))[0]
        return [Detection(tuple(map(float, FACES[round(red / 40)])), 0.9)]

    for module in (face_boxes, survey):
        monkeypatch.setattr(module, "default_face_detector", lambda: detect)
    return looked


def pictures(folder, form="png", orientation=None, scale=1):
    """Write a picture a face; with an orientation of 6 it lies in the file."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(FACES)):
        image = Image.new("RGB", (round(WIDTH * scale), round(HEIGHT * scale)), (40 * number, 9, 9))
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
            image = image.transpose(Image.Transpose.ROTATE_90)
        image.save(folder / f"{number}.{form}", exif=exif)


def coco(file, boxes=None, points=None, size=(WIDTH, HEIGHT), form="png", category=FACE, more=()):
    """Write COCO keypoints of all faces."""
    file.parent.mkdir(parents=True, exist_ok=True)
    points = [points_of(box) for box in FACES] if points is None else points
    images = [
        {"id": number, "file_name": f"{number}.{form}", "width": size[0], "height": size[1]}
        for number in range(len(FACES))
    ]
    faces = []
    for number, found in enumerate(points):
        keypoints = [value for x, y in found for value in (float(x), float(y), 2)]
        face = {"id": number, "image_id": number, "category_id": 1, "keypoints": keypoints}
        faces.append(face | ({"bbox": list(map(float, boxes[number]))} if boxes is not None else {}))
    content = {"images": images, "annotations": [*faces, *more], "categories": [category]}
    file.write_text(json.dumps(content))
    return file


def convert(file, output, kind="coco", boxes=None, **options):
    """Convert, and return what is said of the set, its boxes and its points."""
    face_set = convert_faces(open_source(kind, file, **options), output, ConversionSettings(boxes=boxes))
    assert find_face_set(output) == face_set
    faces = load_faces(output, columns=("box", "landmarks"))
    return face_set, np.array(faces["box"][:]), np.array(faces["landmarks"][:])


# ------------------------------------------------------------------------------------------------ boxes


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
    assert turn_points(np.array([[4.0, 1.0]]), size).tolist() == [[x, y]]
    assert size.upright == upright.shape[::-1]
    assert turn_box(np.array([4, 1, 1, 1]), size).tolist() == [x, y, 1, 1]  # the box of that pixel


def stored(points):
    """The same points in the file of a picture of orientation 6: upright (x, y) is stored at (y, W-1-x)."""
    return [np.stack([p[:, 1], WIDTH - 1 - p[:, 0]], axis=1) for p in points]


def stored_boxes(boxes):
    return [(y, WIDTH - x - w, h, w) for x, y, w, h in boxes]


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (None, None)])
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


# ------------------------------------------------------------------------------------------------ files


def test_what_is_left_out_is_counted(tmp_path):
    pictures(tmp_path)
    face = {"image_id": 0, "category_id": "1", "keypoints": [1, 2, 2] * 3}
    again = {"id": 20, "image_id": 1, "category_id": 1, "keypoints": (points_of(FACES[1]) + 1).tolist()}
    again["keypoints"] = [v for x, y in again["keypoints"] for v in (x, y, 2)]
    more = [
        face | {"id": 10, "iscrowd": 1},
        face | {"id": 11, "keypoints": []},
        face | {"id": 12, "keypoints": [0, 0, 0] * 3},
        face | {"id": 13, "keypoints": [0, 0, 2, 5, 6, 2, 0, 0, None]},
        again,
    ]
    source = open_source("coco", coco(tmp_path / "a.json", more=more))
    assert source.notes == (
        "a.json: 1 crowds (iscrowd) are left out.",
        "a.json: 2 annotations without an annotated point are left out.",
        "a.json: 1 faces are annotated more than once, as by a second annotator; all are kept.",
        "a.json: 1 points at (0, 0) are taken for not annotated.",
    )
    odd = list(source.rows("train"))[6]
    np.testing.assert_array_equal(odd["landmarks"], [[np.nan] * 2, [5, 6], [np.nan] * 2])


def test_faces_beside_each_other_are_not_the_same():
    face = [10, 10, 2, 30, 10, 2, 20, 25, 2]
    beside = [30, 10, 2, 50, 10, 2, 40, 25, 2]
    near = [11, 11, 2, 31, 9, 2, 20, 26, 0]
    assert count_repeated([("a", face), ("a", beside), ("b", near)]) == 0
    assert count_repeated([("a", face), ("a", beside), ("a", near), ("a", [0, 0, 0] * 3)]) == 1


@pytest.mark.parametrize(
    ("skeleton", "edges", "said"),
    [
        ([[1, 2], [2, 3]], ((0, 1), (1, 2)), None),
        ([[0, 2], [1, 2]], ((0, 2), (1, 2)), None),  # counted from 0
        ([[16, 14], [1, 3], [1, 2, 3], [2, 2]], ((0, 2),), "3 lines of the skeleton"),
        ([[0, 3], [0, 1]], ((0, 1),), "1 lines of the skeleton"),
    ],
)
def test_skeletons_of_other_tools(tmp_path, skeleton, edges, said):
    pictures(tmp_path)
    source = open_source("coco", coco(tmp_path / "a.json", category=FACE | {"skeleton": skeleton}))
    assert source.scheme.edges == edges
    assert (source.notes == ()) if said is None else (said in source.notes[0])


@pytest.mark.parametrize(
    ("written", "folder"),
    [
        ("faces\\{}", "images/faces"),
        ("/data/upload/1/{}", "media/upload/1"),
        ("C:\\Users\\me\\{}", "pictures"),
        ("https://example.org/bucket/{}?x=1", "pictures"),
        ("/data/upload/1/0123abcd-{}", "pictures"),  # the mark of an upload, and the file before it
        ("my%20face%20{}", "pictures"),
    ],
)
def test_pictures_under_the_names_of_other_machines(tmp_path, written, folder):
    name = f"my face {0}.png" if "%20" in written else "0.png"
    (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / folder / name)
    file = coco(tmp_path / "a.json")
    content = json.loads(file.read_text())
    content["annotations"] = content["annotations"][:1]
    content["images"][0]["file_name"] = written.format("0.png")
    file.write_text(json.dumps(content))
    for options in ({}, {"images": tmp_path / folder}):
        (row,) = open_source("coco", file, **options).rows("train")
        assert row["image"]["path"] == str(tmp_path / folder / name)


def test_a_base_name_must_be_unique(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / folder / "0.png")
    places = PicturePlaces((tmp_path,), (tmp_path,))
    assert places.find("b/0.png") == tmp_path / "b/0.png" and places.find("none.png") is None
    with pytest.raises(DataError, match="there are a/0.png and b/0.png"):
        places.find("/else/0.png")
    assert plain_name("s3://bucket/a%20b/c.png") == "bucket/a b/c.png" and plain_name("a\\b.png") == "a/b.png"


def test_pictures_of_cvat_lie_in_the_folder_of_the_subset(tmp_path):
    pictures(tmp_path / "images" / "default")
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "images" / "0.png")  # another picture of the same name
    file = coco(tmp_path / "annotations" / "person_keypoints_default.json")
    row = next(open_source("coco", tmp_path).rows("train"))
    assert row["image"]["path"] == str(tmp_path / "images" / "default" / "0.png")
    assert open_source("coco", file).scheme.num_landmarks == 3


@pytest.mark.parametrize(
    ("kind", "name", "text", "said"),
    [
        ("coco", "a.json", '{"shapes": [], "imagePath": "a.png"}', "a file of labelme"),
        ("coco", "a.json", '[{"id": 1, "data": {}, "annotations": []}]', "an export of Label Studio"),
        ("coco", "a.json", '{"_via_img_metadata": {}}', "a project of VIA"),
        ("coco", "a.json", '{"a.png1": {"filename": "a.png", "regions": []}}', "a project of VIA"),
        ("coco", "a.json", '[{"image_id": 1, "keypoints": [], "score": 1}]', "a list of COCO results"),
        ("dlib", "a.xml", "<annotations><image name='a'/></annotations>", "an XML of CVAT"),
        ("dlib", "a.xml", "<annotation/>", "a Pascal VOC file"),
    ],
)
def test_files_of_other_tools_are_named(tmp_path, kind, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=said):
        open_source(kind, tmp_path / name)


def test_imglab_claims_an_encoding_that_it_does_not_use(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "José Müller.png")
    text = (
        "<?xml version='1.0' encoding='ISO-8859-1'?>\n<dataset><images><image file='José Müller.png'>"
        "<box top='1' left='2' width='30' height='31'><part name='0' x='5' y='6'/></box>"
        "<box top='1' left='2' width='30' height='31' ignore='1'/></image></images></dataset>"
    )
    for encoding in ("utf-8", "latin-1"):
        (tmp_path / "a.xml").write_bytes(text.encode(encoding))
        source = open_source("dlib", tmp_path / "a.xml")
        (row,) = source.rows("train")
        assert row["image"]["path"] == str(tmp_path / "José Müller.png")
        assert source.notes == ("a.xml: 1 boxes that are to be ignored are left out.",)
