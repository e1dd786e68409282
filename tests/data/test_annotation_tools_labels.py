"""Readers of labelme, VIA and Roboflow, on files written by hand in their form, and what labels may be."""

import json

import pytest
from PIL import Image


datasets = pytest.importorskip("datasets")

from fabrec_hf.data.readers import guess_kind, open_source  # noqa: E402
from fabrec_hf.errors import DataError, SchemeError  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme  # noqa: E402
from support.hand_written import EYES, NAN, picture, points, read, rows, same, write  # noqa: E402


@pytest.fixture(autouse=True)
def photographs(tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name, (200, 100))


# ------------------------------------------------------------------------------------------------------ labelme


def labelme(path, *shapes, picture="a.png"):
    content = {"version": "5.5.0", "flags": {}, "shapes": list(shapes), "imagePath": picture, "imageData": None}
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(path, content | {"imageHeight": 100, "imageWidth": 200})


def shape(label, *places, kind="point", group=None, **flags):
    shared = {"group_id": group, "description": "", "shape_type": kind, "flags": flags, "mask": None}
    return {"label": label, "points": [list(place) for place in places], **shared}


def test_files_of_labelme(tmp_path):
    labelme(
        tmp_path / "labels" / "a.json",
        shape("nose", (50.5, 60), group=1, occluded=True),
        shape("left_eye", (40, 50.25), group=1),
        shape("nose", (150, 60), group=2),
        shape("face", (80, 90), (20, 30), kind="rectangle", group=1),  # dragged to the upper left
        shape("hair", (0, 0), (1, 1), (2, 2), kind="polygon"),
        shape("hat", (0, 0), (1, 1), kind="circle"),
        picture="..\\a.png",
    )
    labelme(tmp_path / "labels" / "b.json", shape("left_eye", (1, 2)), picture="../b.png")
    labelme(tmp_path / "labels" / "c.json", picture="../a.png")
    (tmp_path / "labels" / "other.json").write_text("{}")
    for path in (tmp_path, tmp_path / "labels"):
        assert guess_kind(path) == "labelme"
    source = open_source("labelme", tmp_path / "labels", scheme=EYES)
    one, two, three = rows(source)
    same(one, [40, 50.25], NAN, [50.5, 60])
    same(two, NAN, NAN, [150, 60])
    same(three, [1, 2], NAN, NAN)
    assert one["visibility"] == [True, False, False]
    assert one["box"].tolist() == [20, 30, 60, 60] and two["box"] is None
    assert one["image"]["path"] == str(tmp_path / "labels" / "../a.png")
    assert source.notes == ("labels: 2 shapes that are no points of a face are left out.",)
    (row,) = read("labelme", tmp_path / "labels" / "b.json", scheme=EYES, split="mine")
    same(row, [1, 2], NAN, NAN)


def test_two_boxes_of_one_group_are_two_faces_where_its_points_are_there_twice(tmp_path):
    frames = [
        shape("face", corner, (corner[0] + 30, corner[1] + 30), kind="rectangle", group=1)
        for corner in ((10, 10), (100, 10))
    ]
    first = [shape("nose", (20, 30), group=1), shape("left_eye", (15, 20), group=1)]
    labelme(tmp_path / "a.json", *frames, *first, shape("nose", (120, 30), group=1))
    one, two = read("labelme", tmp_path, scheme=EYES)
    same(one, [15, 20], NAN, [20, 30])
    same(two, NAN, NAN, [120, 30])
    assert one["box"].tolist() == [10, 10, 30, 30] and two["box"].tolist() == [100, 10, 30, 30]
    # Each point is there once: one face, in the box that holds it, and a box too many.
    labelme(tmp_path / "a.json", *frames, *first)
    source = open_source("labelme", tmp_path, scheme=EYES)
    (row,) = rows(source)
    assert row["box"].tolist() == [10, 10, 30, 30]
    assert source.notes == ("a.json: 1 boxes without points are left out.",)


def test_outlines_and_splits_of_labelme(tmp_path):
    outline = shape("face", (1, 2), (3, 4), (5, 6), kind="linestrip")
    labelme(tmp_path / "train" / "a.json", outline, picture="../a.png")
    labelme(tmp_path / "val" / "b.json", outline | {"shape_type": "polygon"}, picture="../b.png")
    source = open_source("labelme", tmp_path)
    assert list(source.splits) == ["train", "validation"] and source.scheme.num_landmarks == 3
    assert points(rows(source, "validation")[0]) == [[1, 2], [3, 4], [5, 6]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no whole JSON"),
        ('{"shapes": []}', "no imagePath"),
        ('{"shapes": [{"label": "a", "points": [[1]]}], "imagePath": "a.png"}', "pairs of numbers"),
        ('{"shapes": [], "imagePath": "a.png"}', "no annotated point"),
    ],
)
def test_damaged_files_of_labelme(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=message):
        open_source("labelme", tmp_path / "a.json")


# ---------------------------------------------------------------------------------------------------------- VIA


def via_region(name, attributes, **places):
    return {"shape_attributes": {"name": name, **places}, "region_attributes": attributes}


def via(*regions, name="a.png"):
    return {f"{name}512": {"filename": name, "size": 512, "regions": list(regions), "file_attributes": {}}}


REGIONS = [
    via_region("point", {"part": "nose", "face_id": "1"}, cx=50, cy=60),
    via_region("point", {"part": "left_eye", "face_id": "1"}, cx=40, cy=50.5),
    via_region("point", {"part": "nose", "face_id": "2"}, cx=150, cy=60),
    via_region("rect", {"face_id": "1"}, x=20, y=30, width=60, height=60),
    via_region("circle", {}, cx=1, cy=2, r=3),
]


def test_projects_and_exports_of_via(tmp_path):
    export = via(*REGIONS) | via(via_region("point", {"part": "left_eye"}, cx=1, cy=2), name="b.png") | via(name="c")
    attributes = {"region": {"part": {"type": "text"}}, "file": {}}
    settings = {"_via_settings": {"ui": {}, "core": {}, "project": {"name": "faces"}}, "_via_attributes": attributes}
    old = {key: value | {"regions": dict(enumerate(value["regions"]))} for key, value in export.items()}
    for content in (export, settings | {"_via_img_metadata": export}, old):
        path = write(tmp_path / "via.json", content)
        assert guess_kind(path) == guess_kind(tmp_path) == "via"
        source = open_source("via", path, scheme=EYES)
        one, two, three = rows(source)
        same(one, [40, 50.5], NAN, [50, 60])
        same(two, NAN, NAN, [150, 60])
        same(three, [1, 2], NAN, NAN)
        assert one["box"].tolist() == [20, 30, 60, 60] and one["name"] == "a.png:1" and three["name"] == "b.png"
        assert source.notes == ("via.json: 1 shapes that are no points of a face are left out.",)


@pytest.mark.parametrize("mark", ["", "#"])
def test_the_table_of_via(tmp_path, mark):
    columns = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    lines = [mark + columns]
    for number, region in enumerate(REGIONS):
        cells = [json.dumps(region[key]).replace('"', '""') for key in ("shape_attributes", "region_attributes")]
        lines.append(f'a.png,512,"{{}}",{len(REGIONS)},{number},"{cells[0]}","{cells[1]}"')
    lines.append('b.png,512,"{}",0,0,"{}","{}"')
    path = tmp_path / "via.csv"
    path.write_text("\n".join(lines) + "\n")
    assert guess_kind(path) == guess_kind(tmp_path) == "via"
    one, two = read("via", path, scheme=EYES)
    same(one, [40, 50.5], NAN, [50, 60])
    same(two, NAN, NAN, [150, 60])
    path.write_text(path.read_text() + 'b.png,512,"{}",1,0,"{","{}"\n')
    with pytest.raises(DataError, match="line 8: the attributes are no JSON"):
        open_source("via", path)


@pytest.mark.parametrize(
    "attributes",
    [
        [{"name": "left_eye"}, {"name": "nose"}],
        [{"what is it": "left_eye"}, {"what is it": "nose"}],
        [{"type": {"left_eye": True, "nose": False}}, {"type": {"nose": True}}],  # boxes to tick
        [{"id": "left_eye"}, {"id": "nose"}],  # the only attribute is the label, whatever it is called
    ],
)
def test_attributes_of_via_under_any_name(tmp_path, attributes):
    regions = [via_region("point", values, cx=10 * i, cy=5) for i, values in enumerate(attributes)]
    (row,) = read("via", write(tmp_path / "a.json", via(*regions)), scheme=EYES)
    same(row, [0, 5], NAN, [10, 5])


def test_points_of_via_without_labels_count_in_order_and_polygons_are_faces(tmp_path):
    plain = [via_region("point", {}, cx=10 * i, cy=5) for i in range(3)]
    (row,) = read("via", write(tmp_path / "a.json", via(*plain)), scheme=EYES)
    same(row, [0, 5], [10, 5], [20, 5])
    line = via_region("polyline", {"name": "face"}, all_points_x=[1, 2, 3], all_points_y=[4, 5, 6])
    (row,) = read("via", write(tmp_path / "a.json", via(line)))
    same(row, [1, 4], [2, 5], [3, 6])
    mixed = [via_region("point", {"name": "nose"}, cx=1, cy=5), via_region("point", {}, cx=2, cy=5)]
    with pytest.raises(DataError, match="some points have a label and others none"):
        open_source("via", write(tmp_path / "a.json", via(*mixed)))


# -------------------------------------------------------------------------------------------- labels and kinds


@pytest.mark.parametrize(
    ("labels", "expected", "note"),
    [
        (("0", "2"), [[0, 9], NAN, [1, 9]], None),
        (("1", "3"), [[0, 9], NAN, [1, 9]], "numbered from 1 to 3"),
        (("nose", "left_eye"), [[1, 9], NAN, [0, 9]], None),
    ],
)
def test_labels_are_names_or_numbers(tmp_path, labels, expected, note):
    labelme(tmp_path / "a.json", *(shape(label, (i, 9)) for i, label in enumerate(labels)))
    source = open_source("labelme", tmp_path, scheme=EYES)
    same(rows(source)[0], *expected)
    assert (note is None) == (source.notes == ()) and all(note in text for text in source.notes)


def test_labels_without_a_scheme(tmp_path):
    labelme(tmp_path / "a.json", shape("10", (1, 1)), shape("9", (2, 2)))
    source = open_source("labelme", tmp_path)
    assert source.scheme == LandmarkScheme("custom", 2) and points(rows(source)[0]) == [[2, 2], [1, 1]]
    labelme(tmp_path / "a.json", shape("right ear", (1, 1)), shape("left ear", (2, 2)))
    source = open_source("labelme", tmp_path)
    assert source.scheme.point_names == ("right ear", "left ear") and source.scheme.flip_pairs == ((0, 1),)
    plain = LandmarkScheme("plain", 2)
    assert points(read("labelme", tmp_path, scheme=plain)[0]) == [[1, 1], [2, 2]]


def test_labels_that_a_scheme_does_not_know(tmp_path):
    labelme(tmp_path / "a.json", shape("nose", (1, 1)), shape("nos", (2, 2)))
    with pytest.raises(SchemeError, match="a point 'nos', which the scheme eyes does not know; it has left_eye,"):
        open_source("labelme", tmp_path, scheme=EYES)
    labelme(tmp_path / "a.json", shape("0", (1, 1)), shape("3", (2, 2)))
    with pytest.raises(SchemeError, match="a point of the number 3, but eyes has 3 points"):
        open_source("labelme", tmp_path, scheme=EYES)
    with pytest.raises(SchemeError, match="2 points a face, but the scheme plain 5"):
        labelme(tmp_path / "a.json", shape("x", (1, 1)), shape("y", (2, 2)))
        open_source("labelme", tmp_path, scheme=LandmarkScheme("plain", 5))


def test_pictures_elsewhere(tmp_path):
    (tmp_path / "files").mkdir()
    labelme(tmp_path / "files" / "a.json", shape("nose", (1, 1)), picture="C:\\faces\\a.png")
    (row,) = read("labelme", tmp_path / "files", images=tmp_path)
    assert row["image"]["path"] == str(tmp_path / "a.png")
    with pytest.raises(DataError, match="There is no folder"):
        open_source("labelme", tmp_path / "files", images=tmp_path / "none")


def test_kinds_of_folders(tmp_path):
    with pytest.raises(DataError, match="no annotations that are known"):
        guess_kind(tmp_path)
    with pytest.raises(DataError, match="holds no .xml file of the kind cvat"):
        open_source("cvat", tmp_path)
    (tmp_path / "a.xml").write_text("<?xml version='1.0'?>\n<!-- <annotations> --><dataset/>")
    assert guess_kind(tmp_path) == "dlib"


def roboflow(folder, x):
    name = "a_png.rf.21d9ecc535939df6226dbf15204e64a1.png"
    folder.mkdir()
    Image.new("RGB", (200, 100)).save(folder / name)
    image = {"id": 0, "license": 1, "file_name": name, "height": 100, "width": 200, "extra": {"name": "a.png"}}
    face = {"id": 0, "image_id": 0, "category_id": 1, "bbox": [10, 20, 30, 40], "area": 1200, "segmentation": []}
    categories = [
        {"id": 0, "name": "faces-Qg7R", "supercategory": "none"},
        {"id": 1, "name": "face", "supercategory": "faces-Qg7R", "keypoints": ["left", "right"], "skeleton": [[1, 2]]},
    ]
    face |= {"iscrowd": 0, "keypoints": [x, 30, 2, 0, 0, 0]}
    content = {"info": {}, "licenses": [], "categories": categories, "images": [image], "annotations": [face]}
    write(folder / "_annotations.coco.json", content)


def test_coco_keypoints_of_roboflow(tmp_path):
    for x, name in enumerate(("train", "valid", "test"), start=15):
        roboflow(tmp_path / name, x)
    assert guess_kind(tmp_path) == guess_kind(tmp_path / "valid") == "coco"
    source = open_source("coco", tmp_path)
    assert list(source.splits) == ["train", "test", "validation"] and source.scheme.edges == ((0, 1),)
    same(rows(source, "validation")[0], [16, 30], NAN)
    assert rows(source, "test")[0]["image"]["path"].startswith(str(tmp_path / "test"))
    with pytest.raises(DataError, match="tells its splits itself"):
        open_source("coco", tmp_path, split="mine")
    (row,) = rows(open_source("coco", tmp_path / "valid" / "_annotations.coco.json"))
    same(row, [16, 30], NAN)


@pytest.mark.parametrize("kind", ["labelme", "via"])
def test_a_json_file_of_a_folder_is_parsed_once(tmp_path, monkeypatch, kind):
    """A labelme file may hold its picture, some megabytes of it; a damaged file of another split is complained of."""
    for place, x in (("train", 40), ("val", 60)):
        if kind == "labelme":
            labelme(tmp_path / place / "a.json", shape("nose", (x, 50)), picture="../a.png")
        else:
            (tmp_path / place).mkdir()
            write(tmp_path / place / "a.json", via(via_region("point", {"part": "nose"}, cx=x, cy=50)))
    parsed, loads = [], json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(len(text)) or loads(text))
    source = open_source(kind, tmp_path)
    sizes = [(tmp_path / place / "a.json").stat().st_size for place in ("train", "val")]
    assert sorted(parsed) == sorted(sizes)
    assert [points(rows(source, split)[0]) for split in ("train", "validation")] == [[[40, 50]], [[60, 50]]]
    content = json.loads((tmp_path / "val" / "a.json").read_text())
    if kind == "labelme":
        content["shapes"][0]["points"] = [[1]]
    else:
        content["a.png512"]["regions"] = 7
    write(tmp_path / "val" / "a.json", content)
    with pytest.raises(DataError, match="val.a.json"):
        open_source(kind, tmp_path)
