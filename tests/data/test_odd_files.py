"""Annotation files as tools write them: what is left out, skeletons, and pictures under other names."""

import json

import numpy as np
import pytest
from PIL import Image


datasets = pytest.importorskip("datasets")

from fabrec_hf.data.formats.picture_paths import PicturePlaces, plain_name  # noqa: E402
from fabrec_hf.data.formats.repeated_faces import count_repeated  # noqa: E402
from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from support.own_annotations import FACE, FACES, HEIGHT, WIDTH, coco, find_faces_by_red, pictures, points_of  # noqa: E402


pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture(autouse=True)
def detector(monkeypatch):
    return find_faces_by_red(monkeypatch)


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
