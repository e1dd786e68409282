"""Keypoints in COCO's layout: what is read, and what is refused."""

import json

import numpy as np
import pytest


datasets = pytest.importorskip("datasets")

from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.errors import DataError, SchemeError  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme  # noqa: E402
from support.hand_written import NAN, picture, rows  # noqa: E402


FACE = {"id": 3, "name": "face", "keypoints": ["left_eye", "right_eye", "nose"], "skeleton": [[1, 3], [3, 2]]}


def annotation(number, image, keypoints, **more):
    return {"id": number, "image_id": image, "category_id": 3, "keypoints": keypoints} | more


def coco(path, *annotations, categories=(FACE,), names=("one.png", "b/two.png")):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"id": number, "file_name": name} for number, name in enumerate(names, start=1)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": list(categories)}))
    return path


def test_a_coco_file(root):
    picture(root / "one.png")
    path = coco(
        root / "faces.json",
        annotation(11, 2, [1, 2, 2, 3.5, 4, 1, 9, 9, 0], bbox=[1, 2, 3, 4.5], attributes={"age": 3, "name": "Ann"}),
        annotation(12, 1, [0, 0, 0, 0, 0, 0, 5, 6, 2], bbox=[0, 0, 0, 0], iscrowd=0),
        annotation(13, 1, [0, 0, 0, 0, 0, 0, 5, 7, 2], attributes={"picture": "p", "subset": 4, "tags": [1]}),
        annotation(14, 1, [1, 1, 2, 1, 1, 2, 1, 1, 2], iscrowd=1),
        annotation(15, 1, [0, 0, 0] * 3),
        annotation(16, 1, []),
        {"id": 17, "image_id": 1, "category_id": 3, "bbox": [1, 1, 1, 1]},
        annotation(18, 1, [1, 1, 2], category_id=4),
    )
    source = open_source("coco", path)
    assert source.scheme == LandmarkScheme(
        "custom", 3, ("left_eye", "right_eye", "nose"), ((0, 1),), edges=((0, 2), (2, 1))
    )
    found = rows(source)
    assert [row["name"] for row in found] == ["Ann", "one.png:12", "one.png:13"]
    assert [row["picture"] for row in found] == ["b/two.png", "one.png", "p"]
    assert [row["subset"] for row in found] == [None, None, "4"] and [row["age"] for row in found] == [3, None, None]
    assert list(source.attributes) == ["age"]
    np.testing.assert_array_equal(found[0]["landmarks"], [[1, 2], [3.5, 4], NAN])
    assert found[0]["visibility"] == [True, False, False]
    assert found[0]["box"].tolist() == [1, 2, 3, 4.5] and found[1]["box"] is None and found[2]["box"] is None
    assert found[0]["image"]["path"] == str(root / "b" / "two.png")
    mine = LandmarkScheme("mine", 3, ("nose", "left_eye", "right_eye"))
    row = rows(open_source("coco", path, scheme=mine, split="test"), "test")[0]
    np.testing.assert_array_equal(row["landmarks"], [NAN, [1, 2], [3.5, 4]])
    assert row["visibility"] == [False, True, False]


def test_categories(root):
    picture(root / "one.png")
    cat = {"id": 4, "name": "cat", "keypoints": ["0", "1"]}
    dog = {"id": 5, "name": "dog"}
    faces = [annotation(1, 1, [1, 2, 2] * 3), annotation(2, 1, [3, 4, 2, 5, 6, 2], category_id=4)]
    path = coco(root / "faces.json", *faces, categories=(FACE, cat, dog))
    with pytest.raises(DataError, match=r"categories face, cat; say which one \(category\)"):
        open_source("coco", path)
    with pytest.raises(DataError, match="no category 'dog' with keypoints; it has face, cat"):
        open_source("coco", path, category="dog")
    for category in ("cat", "4"):
        source = open_source("coco", path, category=category)
        assert source.scheme == LandmarkScheme("custom", 2)  # names that are numbers say nothing
        assert rows(source)[0]["landmarks"].tolist() == [[3, 4], [5, 6]]
    coco(path, faces[0], categories=(FACE, dog))
    assert len(rows(open_source("coco", path))) == 1


@pytest.mark.parametrize(
    ("file", "images"),
    [
        ("train.json", ""),
        ("train.json", "images"),
        ("annotations/train.json", "images"),
        ("annotations/train.json", "train"),
        ("annotations/person_keypoints_train2017.json", "train2017"),
        ("annotations/person_keypoints_train2017.json", "images/train2017"),
        ("annotations/person_keypoints_train2017.json", "annotations"),
        ("annotations/person_keypoints_train2017.json", ""),
    ],
)
def test_pictures_are_found_in_common_places(root, file, images):
    picture(root / images / "b" / "two.png")  # the first picture is missing, which does not matter here
    faces = [annotation(1, 1, [1, 2, 2] * 3), annotation(2, 2, [1, 2, 2] * 3)]
    coco(root / file, *faces)
    for path in (root, root / file):
        source = open_source("coco", path)
        assert list(source.splits) == ["train"]
        assert rows(source)[1]["image"]["path"] == str(root / images / "b" / "two.png")


def test_pictures_that_are_elsewhere(root, tmp_path):
    picture(tmp_path / "else" / "train" / "one.png")
    picture(tmp_path / "else" / "two.png")
    path = coco(root / "annotations" / "train.json", annotation(1, 1, [1, 2, 2] * 3))
    with pytest.raises(DataError, match=r"one.png, found nowhere in .*say where \(images\)"):
        open_source("coco", path)
    for images in (tmp_path / "else", tmp_path / "else" / "train"):
        source = open_source("coco", path, images=images)
        assert rows(source)[0]["image"]["path"] == str(tmp_path / "else" / "train" / "one.png")
    for name in (str(tmp_path / "else" / "two.png"), "../../else/two.png"):
        coco(path, annotation(1, 1, [1, 2, 2] * 3), names=(name,))
        assert rows(open_source("coco", path))[0]["picture"] == name
    with pytest.raises(DataError, match="no folder nowhere of pictures"):
        open_source("coco", path, images="nowhere")


def test_a_coco_folder_has_one_file_a_split(root):
    for split in ("train", "val"):
        picture(root / f"{split}2017" / "one.png")
        coco(root / f"annotations/person_keypoints_{split}2017.json", annotation(1, 1, [1, 2, 2] * 3))
        (root / f"annotations/captions_{split}2017.json").write_text("{}")
    source = open_source("coco", root)
    assert list(source.splits) == ["train", "validation"]
    assert rows(source, "validation")[0]["image"]["path"] == str(root / "val2017" / "one.png")
    with pytest.raises(DataError, match="tells its splits itself"):
        open_source("coco", root, split="train")
    other = FACE | {"keypoints": ["a", "b", "c"]}
    coco(root / "annotations/person_keypoints_val2017.json", annotation(1, 1, [1, 2, 2] * 3), categories=(other,))
    with pytest.raises(DataError, match="has other keypoints than"):
        open_source("coco", root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": None}, "is no COCO keypoints file: it has no list 'annotations'"),
        ({"images": [1]}, "it has no list 'images' of objects"),
        ({"categories": []}, "has no category with keypoints"),
        ({"categories": [{"id": 4, "name": "face"}]}, "has no category with keypoints"),
        ({"categories": [FACE | {"keypoints": "nose"}]}, "must be a list of names"),
        ({"categories": [FACE | {"keypoints": ["a", "a", "b"]}]}, "faces.json has two points|'a' stands twice"),
        ({"annotations": []}, "holds no annotated face of that category"),
        ({"annotations": [annotation(7, 1, [1, 2, 2])]}, "annotation 7: keypoints must be a list of 9 numbers"),
        ({"annotations": [annotation(7, 1, [1, 2])]}, "annotation 7: keypoints must be a list of x, y, v"),
        ({"annotations": [annotation(7, 1, [1, 2, 3] * 3)]}, "annotation 7: the third number of a keypoint is 0, 1"),
        ({"annotations": [annotation(7, 1, [1, None, 2] * 3)]}, "annotation 7: keypoints holds what is no finite"),
        ({"annotations": [annotation(7, 1, [1, np.nan, 2] * 3)]}, "annotation 7: keypoints holds what is no finite"),
        ({"annotations": [annotation(7, 9, [1, 2, 2] * 3)]}, "annotation 7: there is no image 9 with a file_name"),
        ({"annotations": [annotation(7, 1, [1, 2, 2] * 3, bbox=[1, 2])]}, "annotation 7: bbox must be a list of 4"),
        ({"annotations": [annotation(7, 1, [1, 2, 2] * 3, attributes=[1])]}, "attributes must be an object"),
    ],
)
def test_a_mistake_in_a_coco_file_is_one_line(root, change, message):
    picture(root / "one.png")
    path = coco(root / "faces.json", annotation(1, 1, [1, 2, 2] * 3))
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises((DataError, SchemeError), match=message) as error:
        rows(open_source("coco", path))
    assert "\n" not in str(error.value)


def test_other_wrong_coco_data(root):
    with pytest.raises(DataError, match="holds no .json file, nor does annotations in it"):
        open_source("coco", root)
    (root / "faces.json").write_text("{")
    with pytest.raises(DataError, match="faces.json is no whole JSON file"):
        open_source("coco", root)
    (root / "faces.json").write_text("[]")
    with pytest.raises(DataError, match="is no COCO keypoints file"):
        open_source("coco", root)
    picture(root / "one.png")
    coco(root / "faces.json", annotation(1, 1, [1, 2, 2] * 3))
    with pytest.raises(SchemeError, match="has 3 points a face, but the scheme 300w 68"):
        open_source("coco", root, scheme="300w")
