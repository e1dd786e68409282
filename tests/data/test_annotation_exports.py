"""The ways from `datasets` to COCO and `.pts` files and back."""

import io
import json
import logging

import numpy as np
import pytest
from PIL import Image

from support.faces import SHARED
from support.read_splits import load_split


datasets = pytest.importorskip("datasets")

from fabrec_hf.data import load_faces  # noqa: E402
from fabrec_hf.data.formats.coco_writer import export_coco  # noqa: E402
from fabrec_hf.data.formats.pts import export_pts  # noqa: E402
from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.errors import DataError, SchemeError  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme, get_scheme  # noqa: E402


def encoded(form, turned=False, **options):
    stream = io.BytesIO()
    exif = Image.Exif()
    if turned:
        exif[0x0112] = 6
    pixels = np.random.default_rng(len(form)).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, form, exif=exif, **options)
    return stream.getvalue()


COLUMNS = ("name", "picture", "subset", "age", "score", "group", "good")


@pytest.fixture
def faces():
    """Four faces with everything that a column can hold, whose numbers need all digits of float32."""
    random = np.random.default_rng(1)
    points = (random.random((4, 3, 2)) * 300).astype(np.float32)
    points[1, 2] = np.nan
    boxes = (random.random((4, 4)) * 100 + 1).astype(np.float32)
    forms = ["WEBP", "JPEG", "PNG", "JPEG"]
    content = {
        "image": [{"bytes": encoded(form, turned=i == 3), "path": "wrong.bmp"} for i, form in enumerate(forms)],
        "landmarks": points.tolist(),
        "box": [boxes[0].tolist(), None, boxes[2].tolist(), boxes[3].tolist()],
        "visibility": [[True, False, True], [True, True, False], [True] * 3, [False] * 3],
        "name": ["photo one.jpg", "../b/two", "ünï", None],
        "picture": ["p/1", "p/1", "p/2", "p/3"],
        "subset": ["x", None, 'with "quotes", commas', "y"],
        "split": ["train", "train", "train", "train"],
        "age": [3, None, -5, 2**40],
        "score": [0.1, None, 1e-30, 2.5],
        "group": ["a", "b", None, "12"],
        "good": [True, None, False, True],
        "vector": [[1.0], [], [2.0, 3.0], [4.0]],
    }
    number = datasets.Value("float32")
    features = {
        "image": datasets.Image(),
        "landmarks": datasets.List(datasets.List(number, length=2), length=3),
        "box": datasets.List(number, length=4),
        "visibility": datasets.List(datasets.Value("bool"), length=3),
        **{name: datasets.Value("string") for name in ("name", "picture", "subset", "split", "group")},
        "age": datasets.Value("int64"),
        "score": datasets.Value("float64"),
        "good": datasets.Value("bool"),
        "vector": datasets.List(datasets.Value("float64")),
    }
    features = datasets.Features({name: features[name] for name in content})
    return datasets.Dataset.from_dict(content, features=features)


def same(before, after):
    """Check that points, boxes and pictures are the same to the last bit."""
    assert len(before) == len(after)
    raw = [faces.cast_column("image", datasets.Image(decode=False)) for faces in (before, after)]
    for first, second in zip(*raw, strict=True):
        np.testing.assert_array_equal(np.float32(first["landmarks"]), np.float32(second["landmarks"]))
        assert first["box"] == second["box"]
        with open(second["image"]["path"], "rb") as stream:
            assert stream.read() == first["image"]["bytes"]


def same_columns(faces, after):
    """The pictures, points and columns are the same; the face without a name is called by its file."""
    same(faces, after)
    for column in COLUMNS:
        expected = list(faces[column])
        if column == "name":
            expected[3] = "train/000003.jpg"
        assert list(after[column]) == expected, column
        assert after.features[column] == faces.features[column]


def test_faces_become_coco_and_come_back(faces, root):
    scheme = LandmarkScheme("mine", 3, ("left_eye", "right_eye", "nose"), ((0, 1),), edges=((0, 2),))
    assert export_coco(faces, scheme, root / "new", "train") == 4
    assert sorted(path.relative_to(root / "new").as_posix() for path in root.glob("new/*/**/*")) == [
        "annotations/train.json",
        "images/train",
        "images/train/000000_photo_one.webp",
        "images/train/000001_b_two.jpg",
        "images/train/000002_n.png",
        "images/train/000003.jpg",
    ]
    source = open_source("coco", root / "new")
    assert source.scheme == LandmarkScheme("custom", 3, scheme.point_names, ((0, 1),), edges=((0, 2),))
    after = load_split(source, "train")
    same_columns(faces, after)
    assert after["visibility"] == faces["visibility"]
    content = json.loads((root / "new/annotations/train.json").read_text(encoding="utf-8"))
    assert content["categories"][0]["skeleton"] == [[1, 3]]
    assert [(image["width"], image["height"]) for image in content["images"]] == [(40, 30)] * 3 + [(30, 40)]
    first, second = content["annotations"][:2]
    assert first["num_keypoints"] == 3 and second["num_keypoints"] == 2 and second["keypoints"][6:] == [0, 0, 0]
    assert first["area"] == pytest.approx(first["bbox"][2] * first["bbox"][3]) and "bbox_of_points" not in first
    assert first["keypoints"][2::3] == [2, 1, 2]
    # Another split joins the first; the same one is refused.
    export_coco(faces.select([2]), scheme, root / "new", "test")
    same(faces.select([2]), load_split(open_source("coco", root / "new"), "test"))
    same(faces, load_split(open_source("coco", root / "new"), "train"))
    with pytest.raises(DataError, match="train exists already; name a new folder"):
        export_coco(faces, scheme, root / "new", "train")


def test_faces_without_names_boxes_or_points_become_coco(faces, root, caplog):
    bare = faces.select_columns(["image", "landmarks"])
    nothing = bare.map(lambda row: {"landmarks": [[None, None]] * 3}, features=bare.features).select([0])
    with caplog.at_level(logging.WARNING):
        export_coco(datasets.concatenate_datasets([bare, nothing]), LandmarkScheme("bare", 3), root, "validation")
    assert "1 faces of validation have no annotated point" in caplog.text
    assert "NaN" not in (root / "annotations/validation.json").read_text()
    source = open_source("coco", root)
    assert source.scheme == LandmarkScheme("custom", 3) and not source.attributes
    found = load_split(source, "validation")
    np.testing.assert_array_equal(np.float32(found["landmarks"]), np.float32(bare["landmarks"]))
    assert found["box"] == [None] * 4 and found["visibility"][1] == [True, True, False]


def test_faces_become_pts_and_come_back(faces, root):
    assert export_pts(faces, root / "new") == 4
    assert sorted(path.name for path in (root / "new" / "train").iterdir()) == [
        "000000_photo_one.pts", "000000_photo_one.webp", "000001_b_two.jpg", "000001_b_two.pts",
        "000002_n.png", "000002_n.pts", "000003.jpg", "000003.pts", "faces.csv",
    ]  # fmt: skip
    source = open_source("pts", root / "new")
    after = load_split(source, "train")
    same_columns(faces, after)
    with pytest.raises(DataError, match="train is not empty; name a new folder"):
        export_pts(faces, root / "new")


def test_pts_of_several_splits(faces, root):
    mixed = faces.remove_columns("split").add_column("split", ["train", "private", "train", "validation"])
    export_pts(mixed, root)
    source = open_source("pts", root)
    assert set(source.splits) == {"train", "validation", "private"}
    same(mixed.select([0, 2]), load_split(source, "train"))
    same(mixed.select([1]), load_split(source, "private"))
    # Without a column split everything lies in the folder itself, and a folder within the split's folder reads too.
    export_pts(faces.remove_columns(["split", "name"]), root / "plain")
    same(faces, load_split(open_source("pts", root / "plain"), "train"))
    export_pts(faces, root / "nested" / "train")
    same(faces, load_split(open_source("pts", root / "nested"), "train"))
    export_pts(faces.select_columns(["image", "landmarks"]), root / "bare")
    assert (root / "bare" / "faces.csv").read_text().splitlines()[:2] == ["image", "000000.webp"]
    assert load_split(open_source("pts", root / "bare"), "train")["box"] == [None] * 4


def test_nothing_is_left_of_a_failed_export(faces, root):
    scheme = LandmarkScheme("mine", 3)
    broken = faces.select_columns(["image", "landmarks"]).cast_column("image", datasets.Image(decode=False))
    images = [dict(image) for image in broken["image"]]
    icon = io.BytesIO()
    Image.new("P", (32, 32)).save(icon, "ICO")
    for content, message in [
        (images[2]["bytes"][:20], "picture in row 2 cannot be read"),
        (icon.getvalue(), "picture in row 2 is ICO; convert it to one of JPEG"),
        (None, "picture in row 2 cannot be read"),
    ]:
        images[2] = {"bytes": content, "path": None}
        damaged = broken.remove_columns("image").add_column("image", images).cast_column("image", datasets.Image())
        for write in (lambda d: export_coco(d, scheme, root, "train"), lambda d: export_pts(d, root)):
            with pytest.raises(DataError, match=message):
                write(damaged)
            assert not list(root.iterdir())
    with pytest.raises(SchemeError, match="Row 0 has 3 points, but 300w has 68"):
        export_coco(faces, get_scheme("300w"), root, "train")
    with pytest.raises(DataError, match="a split is called by"):
        export_coco(faces, scheme, root, "a/b")
    for write in (lambda d: export_coco(d, scheme, root, "train"), lambda d: export_pts(d, root)):
        with pytest.raises(DataError, match="have no column landmarks to write"):
            write(faces.remove_columns("landmarks"))
    assert not list(root.iterdir())


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared face data")
def test_real_faces_come_back(root):
    faces = load_faces(SHARED / "data/300w", "test", ("image", "landmarks", "box")).select(range(20))
    export_coco(faces, get_scheme("300w"), root / "coco", "test")
    export_pts(faces, root / "pts" / "test")
    for kind in ("coco", "pts"):
        source = open_source(kind, root / kind, scheme="300w")
        assert source.scheme == get_scheme("300w")
        after = load_split(source, "test")
        same(faces, after)
        for column in ("name", "picture", "subset"):
            assert after[column] == faces[column]
    assert open_source("coco", root / "coco").scheme.flip_pairs == get_scheme("300w").flip_pairs
