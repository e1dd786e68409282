"""Readers of CVAT and Label Studio, on files written by hand in the form that each tool documents."""

import numpy as np
import pytest
from PIL import Image


datasets = pytest.importorskip("datasets")

from fabrec_hf.data.formats import foreign  # noqa: E402
from fabrec_hf.data.readers import guess_kind, open_source  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme  # noqa: E402
from support.hand_written import EYES, NAN, picture, points, read, rows, same, write  # noqa: E402


@pytest.fixture(autouse=True)
def photographs(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name, (200, 100))


# --------------------------------------------------------------------------------------------------------- CVAT

CVAT_META = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><job><id>4</id><size>2</size><mode>annotation</mode><labels>
    <label><name>face</name><color>#66ff66</color><type>skeleton</type><attributes></attributes>
      <svg>&lt;line x1="1" y1="2"&gt;&lt;/line&gt;</svg></label>
    <label><name>left_eye</name><type>points</type><attributes></attributes><parent>face</parent></label>
    <label><name>right_eye</name><type>points</type><attributes></attributes><parent>face</parent></label>
    <label><name>nose</name><type>points</type><attributes></attributes><parent>face</parent></label>
  </labels></job></meta>
"""


def cvat(path, images, meta=CVAT_META):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{meta}{images}</annotations>\n")
    return path


SKELETONS = """
  <image id="0" name="a.png" width="200" height="100">
    <skeleton label="face" source="manual" z_order="0" group_id="7">
      <points label="nose" source="manual" outside="0" occluded="1" points="55.50,70.25"></points>
      <points label="left_eye" source="manual" outside="0" occluded="0" points="40.00,50.00"></points>
      <points label="right_eye" source="manual" outside="1" occluded="0" points="3.00,4.00"></points>
    </skeleton>
    <skeleton label="face" source="manual" z_order="0">
      <points label="left_eye" outside="0" occluded="0" points="140,50"/>
      <points label="right_eye" outside="0" occluded="0" points="160,52"/>
      <points label="nose" outside="0" occluded="0" points="150,70"/>
    </skeleton>
    <skeleton label="face" source="manual"><points label="nose" outside="1" occluded="0" points="1,1"/></skeleton>
    <box label="box" source="manual" occluded="0" xtl="30" ytl="35" xbr="80" ybr="95" z_order="0" group_id="7"></box>
    <box label="box" occluded="0" xtl="120" ytl="30" xbr="180" ybr="90"></box>
    <polygon label="hair" occluded="0" points="1,1;2,2;3,3"></polygon>
  </image>
  <image id="1" name="b.png" width="200" height="100"></image>
"""


def test_skeletons_of_cvat(tmp_path):
    path = cvat(tmp_path / "annotations.xml", SKELETONS)
    assert guess_kind(path) == guess_kind(tmp_path) == "cvat"
    source = open_source("cvat", path)
    assert source.scheme == LandmarkScheme("custom", 3, EYES.point_names, ((0, 1),))
    first, second = rows(source)
    same(first, [40, 50], NAN, [55.5, 70.25])  # in the order of the labels' declaration
    assert first["visibility"] == [True, False, False] and second["visibility"] == [True] * 3
    assert first["box"].tolist() == [30, 35, 50, 60] and second["box"].tolist() == [120, 30, 60, 60]
    assert (first["name"], second["name"], first["picture"]) == ("a.png:1", "a.png:2", "a.png")
    assert first["image"]["path"] == str(tmp_path / "a.png")
    assert source.notes == (
        "annotations.xml: 1 faces without an annotated point are left out.",
        "annotations.xml: 1 shapes that are no points of a face are left out.",
    )
    assert next(iter(source.rows("train", extras=True)))["stated_size"] == (200, 100)
    turned = LandmarkScheme("turned", 3, ("nose", "right_eye", "left_eye"))
    same(read("cvat", path, scheme=turned)[1], [150, 70], [160, 52], [140, 50])


def test_single_points_of_cvat_are_faces_by_their_groups_or_boxes(tmp_path):
    grouped = """<image id="0" name="a.png" width="200" height="100">
      <points label="nose" source="manual" occluded="0" points="50,60" z_order="0" group_id="1"></points>
      <points label="left_eye" occluded="0" points="40,50" group_id="1"/>
      <points label="nose" occluded="0" points="150,60" group_id="2"/></image>"""
    path = cvat(tmp_path / "val.xml", grouped)
    first, second = read("cvat", path, scheme=EYES)
    same(first, [40, 50], NAN, [50, 60])
    same(second, NAN, NAN, [150, 60])
    boxed = """<image id="0" name="a.png" width="200" height="100">
      <points label="nose" occluded="0" points="50,60"/><points label="nose" occluded="0" points="150,60"/>
      <points label="left_eye" occluded="0" points="175,97"/>
      <box label="x" occluded="0" xtl="20" ytl="30" xbr="80" ybr="90"/>
      <box label="x" occluded="0" xtl="120" ytl="30" xbr="180" ybr="90"/></image>"""
    cvat(path, boxed)
    first, second = read("cvat", path, scheme=EYES)
    same(first, NAN, NAN, [50, 60])
    same(second, [175, 97], NAN, [150, 60])  # outside every box, but nearest to this one
    assert first["box"].tolist() == [20, 30, 60, 60]
    cvat(path, boxed.replace('<box label="x"', '<ellipse label="x"'))
    with pytest.raises(DataError, match=r"a.png: the point 'nose' stands twice in one face; use skeletons, group"):
        open_source("cvat", path)


def test_outlines_of_cvat_are_numbered_points(tmp_path):
    shapes = """<image id="0" name="a.png" width="200" height="100">
      <points label="face" occluded="0" points="40,50;60,50.5;50,70"/>
      <polyline label="face" occluded="1" points="140,50;160,50;150,70"/>
      <polygon label="hair" occluded="0" points="1,1;2,2;3,3;4,4"/></image>"""
    path = cvat(tmp_path / "a.xml", shapes)
    with pytest.raises(DataError, match=r"outlines of the labels face, hair; say which one is a face \(category\)"):
        open_source("cvat", path)
    with pytest.raises(DataError, match="no outlines of the label 'dog'; it has face, hair"):
        open_source("cvat", path, category="dog")
    first, second = read("cvat", path, scheme=EYES, category="face")
    same(first, [40, 50], [60, 50.5], [50, 70])
    assert first["visibility"] == [True] * 3 and second["visibility"] == [False] * 3
    cvat(path, shapes.replace("140,50;", ""))
    with pytest.raises(DataError, match="an outline of 2 points, but the first one has 3"):
        open_source("cvat", path, category="face")


def test_frames_of_a_video_have_no_suffix_in_cvat(tmp_path):
    shapes = '<image id="0" name="{}" width="200" height="100"><points label="a" occluded="0" points="1,2"/></image>'
    (tmp_path / "images").mkdir()
    Image.new("RGB", (200, 100)).save(tmp_path / "images" / "frame_000007.PNG")
    (row,) = read("cvat", cvat(tmp_path / "a.xml", shapes.format("frame_000007")))
    assert row["image"]["path"] == str(tmp_path / "images" / "frame_000007.PNG")


def test_subsets_of_a_project_of_cvat_are_splits(tmp_path):
    image = (
        '<image id="{}" name="{}" subset="{}" task_id="4" width="200" height="100">'
        '<points label="nose" occluded="0" points="{},60"/></image>'
    )
    path = cvat(tmp_path / "a.xml", image.format(0, "a.png", "Train", 10) + image.format(1, "b.png", "Test", 20))
    path.write_text(
        path.read_text().replace("</annotations>", '<image id="2" name="c" subset="Empty"/></annotations>')
    )
    source = open_source("cvat", path)
    assert list(source.splits) == ["train", "test"]
    assert points(rows(source, "train")[0]) == [[10, 60]] and points(rows(source, "test")[0]) == [[20, 60]]
    with pytest.raises(DataError, match="tells its splits itself"):
        open_source("cvat", path, split="mine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations><image>", "no whole XML"),
        ("<dataset/>", "outermost element is dataset"),
        ('<!DOCTYPE d [<!ENTITY a "aaaa">]><annotations/>', "document type"),
        ("<annotations><track id='0'/></annotations>", 'export the task as "CVAT for images 1.1"'),
        ("<annotations/>", "holds no annotated point"),
        ("<annotations><image id='0' name='a.png'><points label='x' points='1;2'/></image></annotations>", "not x,y"),
        (
            "<annotations><image id='0' name='a.png'><points label='x' points='1,z'/></image></annotations>",
            "no number",
        ),
        ("<annotations><image id='0'/></annotations>", "image without a name"),
    ],
)
def test_damaged_files_of_cvat(tmp_path, text, message):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(DataError, match=message):
        open_source("cvat", tmp_path / "a.xml")


# ------------------------------------------------------------------------------------------------- Label Studio


def region(number, kind, value, label, **more):
    size = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    names = {"from_name": "points", "to_name": "image", "origin": "manual"}
    return {"id": number, "type": kind, **names, **size, "value": value | {kind: [label]}, **more}


def keypoint(number, x, y, label, **more):
    return region(number, "keypointlabels", {"x": x, "y": y, "width": 0.5}, label, **more)


def rectangle(number, x, y, width, height, rotation=0):
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": rotation}
    return region(number, "rectanglelabels", value, "face")


def task(*results, image="/data/upload/1/0123abcd-a.png", **more):
    annotation = {"id": 7, "completed_by": 1, "result": list(results), "was_cancelled": False, "ground_truth": False}
    return {"id": 1, "annotations": [annotation], "predictions": [], "data": {"image": image}, "project": 3} | more


def test_an_export_of_label_studio(tmp_path):
    tasks = [
        task(
            rectangle("A", 10, 20, 30, 40),
            rectangle("B", 60, 20, 30, 40),
            keypoint("a", 20, 50, "nose", parentID="A"),
            keypoint("b", 15.25, 40, "left_eye", parentID="A"),
            keypoint("c", 70, 50, "nose"),
            keypoint("d", 5, 5, "left_eye"),  # nearer to A, but related to B
            {"type": "relation", "from_id": "d", "to_id": "B", "direction": "right"},
            {"id": "t", "type": "choices", "from_name": "q", "to_name": "image", "value": {"choices": ["good"]}},
        ),
        task(keypoint("a", 50, 50, "nose"), image="/data/local-files/?d=faces/b.png"),
        task(image="b.png", annotations=[{"result": [], "was_cancelled": True}]),
        task(image="b.png", annotations=[], predictions=[{"result": [keypoint("x", 1, 1, "nose")]}]),
    ]
    path = write(tmp_path / "project-3-at-2024-05-01.json", tasks)
    assert guess_kind(path) == guess_kind(tmp_path) == "labelstudio"
    source = open_source("labelstudio", path, scheme=EYES)
    one, two, three = rows(source)
    same(one, [30.5, 40], NAN, [40, 50])
    same(two, [10, 5], NAN, [140, 50])
    same(three, NAN, NAN, [100, 50])
    np.testing.assert_allclose(one["box"], [20, 20, 60, 40])
    np.testing.assert_allclose(two["box"], [120, 20, 60, 40])
    assert three["box"] is None and three["image"]["path"] == str(tmp_path / "b.png")
    assert one["image"]["path"] == str(tmp_path / "a.png")  # without the mark of an upload
    assert source.notes == (
        f"{path.name}: 1 annotations that were skipped in the tool are left out.",
        f"{path.name}: 1 pictures with predictions that nobody has confirmed are left out.",
    )
    assert "visibility" not in source.features


@pytest.mark.parametrize("head", [1 << 20, 150])
@pytest.mark.parametrize("kind", ["labelstudio", "via", "labelme", "coco"])
def test_large_files_are_told_by_their_beginning(tmp_path, monkeypatch, kind, head):
    region = {"shape_attributes": {"name": "point", "cx": 1, "cy": 2}, "region_attributes": {"point": "nose"}}
    many = {"id": 7, "data": {"image": "a.png"}, "annotations": [{"result": [{"id": str(i)} for i in range(99)]}]}
    content = {
        "labelstudio": [many, many],
        "via": {
            "_via_settings": {"ui": {}},
            "_via_img_metadata": {"a.png1": {"filename": "a.png", "regions": [region] * 9}},
        },
        "labelme": {"version": "5.5.0", "flags": {}, "imagePath": "a.png", "shapes": [{"label": "nose"}] * 99},
        "coco": {
            "info": {"year": 2017},
            "images": [{"id": i} for i in range(99)],
            "annotations": [],
            "categories": [],
        },
    }[kind]
    path = write(tmp_path / "a.json", content)
    monkeypatch.setattr(foreign, "_LARGEST", path.stat().st_size - 1)
    monkeypatch.setattr(foreign, "_HEAD", head)
    assert guess_kind(path) == guess_kind(tmp_path) == kind


def test_a_large_export_of_label_studio_is_found_in_its_folder(tmp_path, monkeypatch):
    path = write(tmp_path / "a.json", [task(keypoint("a", 50, 50, "nose"))])
    monkeypatch.setattr(foreign, "_LARGEST", path.stat().st_size - 1)
    (row,) = read("labelstudio", tmp_path, scheme=EYES)
    same(row, NAN, NAN, [100, 50])


def test_the_short_export_of_label_studio(tmp_path):
    size = {"original_width": 200, "original_height": 100}
    short = {
        "image": "/data/upload/1/0123abcd-a.png",
        "id": 1,
        "box": [{"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["face"], **size}],
        "points": [
            {"x": 20, "y": 50, "width": 0.5, "keypointlabels": ["nose"], **size},
            {"x": 15, "y": 40, "width": 0.5, "keypointlabels": ["left_eye"], **size},
        ],
        "annotator": 1,
        "annotation_id": 1,
        "lead_time": 3.5,
    }
    path = write(tmp_path / "a.json", [short])
    assert guess_kind(path) == "labelstudio"
    (row,) = read("labelstudio", path, scheme=EYES)
    same(row, [30, 40], NAN, [40, 50])
    np.testing.assert_allclose(row["box"], [20, 20, 60, 40])


def test_labels_apart_from_their_places_and_turned_shapes_of_label_studio(tmp_path):
    apart = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    place = {"x": 50, "y": 50, "width": 1}
    results = [
        {"id": "k", "type": "keypoint", "value": place, **apart},
        {"id": "k", "type": "labels", "value": place | {"labels": ["nose"]}, **apart},
        rectangle("r", 50, 20, 10, 40, rotation=90),  # 20 x 40 px about (100, 20): from 60 to 100 and from 20 to 40
        keypoint("l", 1, 1, "left_eye", image_rotation=90),
    ]
    source = open_source("labelstudio", write(tmp_path / "a.json", [task(*results)]), scheme=EYES)
    (row,) = rows(source)
    same(row, NAN, NAN, [100, 50])
    np.testing.assert_allclose(row["box"], [60, 20, 40, 20], atol=1e-5)
    assert source.notes == ("a.json: 1 shapes on pictures that were turned in the tool are left out.",)


def test_several_annotators_of_label_studio(tmp_path):
    first, second = (
        [keypoint("a", 20, 50, "nose"), keypoint("b", 15, 40, "left_eye")],
        [
            keypoint("a", 20.5, 50, "nose"),
            keypoint("b", 15, 41, "left_eye"),
        ],
    )
    both = [{"result": first, "ground_truth": False}, {"result": second, "ground_truth": False}]
    path = write(tmp_path / "a.json", [task(annotations=both)])
    source = open_source("labelstudio", path, scheme=EYES)
    assert len(rows(source)) == 2 and "1 faces are annotated more than once" in source.notes[0]
    both[1]["ground_truth"] = True
    (row,) = read("labelstudio", write(path, [task(annotations=both)]), scheme=EYES)
    same(row, [30, 41], NAN, [41, 50])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([task(annotations=[], predictions=[{"result": []}])], "but predictions: look through them in the tool"),
        ([task(keypoint("a", 1, 1, "nose"), keypoint("b", 2, 2, "nose"))], "twice in one face; draw a rectangle"),
        ([task({"id": "a", "type": "keypointlabels", "value": {"x": 1, "y": 2}})], "original_width"),
        ([task(keypoint("a", 1, 1, "nose"), image="else.png")], r"found nowhere in .*say where \(images\)"),
        ([task(keypoint("a", 1, 1, "nose"), data={"text": "x"})], "no picture is named"),
        ([task(annotations=[3])], "annotations must be a list of objects"),
        ({"a": 1}, "no export of Label Studio"),
    ],
)
def test_damaged_exports_of_label_studio(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        open_source("labelstudio", write(tmp_path / "a.json", content))
