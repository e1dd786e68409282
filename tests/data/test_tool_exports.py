"""What is written for annotation tools: its form by hand, and that it comes back as it was."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image


datasets = pytest.importorskip("datasets")

from fabrec_hf.data.formats.annotated import FaceToWrite, PictureToWrite  # noqa: E402
from fabrec_hf.data.formats.tool_writer import export_tool, export_wflw, setup_files, tool_files  # noqa: E402
from fabrec_hf.data.readers import TOOLS, guess_kind, open_source  # noqa: E402
from fabrec_hf.data.source import face_features  # noqa: E402
from fabrec_hf.errors import DataError, SchemeError  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme, get_scheme  # noqa: E402


NAN = [np.nan, np.nan]
EYES = LandmarkScheme("eyes", 3, ("left_eye", "right_eye", "nose & tip"), ((0, 1),), edges=((0, 2),))
PLAIN = LandmarkScheme("plain", 3)
FACE = FaceToWrite(np.array([[10, 20.5], NAN, [1 / 3, 40]]), [True, True, False], (1, 2, 30, 50.25), [0.9, 0.1, 0.5])
SECOND = FaceToWrite(np.array([[110, 20], [120, 20], [115, 40]]), [True] * 3)
PICTURE = PictureToWrite("a b.png", (200, 100), 512, [FACE, SECOND])


def test_the_xml_of_cvat():
    (content,) = tool_files("cvat", [PICTURE], EYES).values()
    root = ElementTree.fromstring(content)
    assert (root.tag, root.findtext("version")) == ("annotations", "1.1")
    labels = [
        (label.findtext("name"), label.findtext("type"), label.findtext("parent")) for label in root.iter("label")
    ]
    parts = [(name, "points", "face") for name in EYES.point_names]
    assert labels == [("face", "skeleton", None), *parts, ("box", "rectangle", None)]
    (image,) = root.iter("image")
    assert image.attrib == {"id": "0", "name": "a b.png", "width": "200", "height": "100"}
    first, box, second = image
    assert [shape.tag for shape in image] == ["skeleton", "box", "skeleton"]
    assert (first.get("label"), first.get("source"), first.get("group_id")) == ("face", "manual", "1")
    places = [(p.get("label"), p.get("outside"), p.get("occluded"), p.get("points")) for p in first]
    third = "0.33333334"  # the shortest number that is the same float32
    assert places == [
        ("left_eye", "0", "0", "10.0,20.5"),
        ("right_eye", "1", "0", f"{(10 + float(third)) / 2!r},30.25"),  # between the others: it needs some place
        ("nose & tip", "0", "1", f"{third},40.0"),
    ]
    assert box.get("group_id") == "1" and second.get("group_id") == "2"
    assert [float(box.get(side)) for side in ("xtl", "ytl", "xbr", "ybr")] == [1, 2, 31, 52.25]
    (proposals,) = tool_files("cvat", [PICTURE], EYES, model="mine").values()
    assert {shape.get("source") for shape in ElementTree.fromstring(proposals).iter("skeleton")} == {"auto"}


def test_the_tasks_of_label_studio():
    (content,) = tool_files("labelstudio", [PICTURE], EYES, "faces").values()
    (task,) = json.loads(content)
    assert task["data"] == {"image": "/data/local-files/?d=faces/a%20b.png"}
    (annotation,) = task["annotations"]
    box, eye, nose, other, *others = annotation["result"]
    size = {"to_name": "image", "original_width": 200, "original_height": 100, "image_rotation": 0}
    value = {"x": 0.5, "y": 2, "width": 15, "height": 50.25, "rotation": 0, "rectanglelabels": ["face"]}
    assert box == {"id": "face1", "type": "rectanglelabels", "from_name": "box", **size, "value": value}
    value = {"x": 5, "y": 20.5, "width": 0.5, "keypointlabels": ["left_eye"]}
    shared = {"type": "keypointlabels", "from_name": "points", **size, "parentID": "face1"}
    assert eye == {"id": "face1-0", **shared, "score": 0.9, "value": value}
    assert nose["id"] == "face1-2" and nose["value"]["keypointlabels"] == ["nose & tip"]
    # The second face has no box: the tight one of its points tells it from the first.
    assert [other["value"][key] for key in ("x", "y", "width", "height")] == [55, 20, 5, 20]
    assert [region["parentID"] for region in others] == ["face2"] * 3
    (content,) = tool_files("labelstudio", [PICTURE], EYES, model="mine").values()
    (task,) = json.loads(content)
    (prediction,) = task["predictions"]
    assert (prediction["model_version"], prediction["score"], len(prediction["result"])) == ("mine", 0.5, 7)
    assert "annotations" not in task


def test_the_files_of_labelme_and_via():
    ((name, content),) = tool_files("labelme", [PICTURE], EYES, "../photos").items()
    found = json.loads(content)
    assert name == "a b.json" and found["imagePath"] == "../photos/a b.png" and found["imageData"] is None
    assert (found["imageHeight"], found["imageWidth"], len(found["shapes"])) == (100, 200, 6)
    box, eye, nose, *others = found["shapes"]
    assert (box["shape_type"], box["points"], box["group_id"]) == ("rectangle", [[1, 2], [31, 52.25]], 1)
    assert (eye["label"], eye["points"], eye["shape_type"]) == ("left_eye", [[10, 20.5]], "point")
    assert nose["flags"] == {"occluded": True} and {shape["group_id"] for shape in others} == {2}
    files = tool_files("via", [PICTURE], EYES, "../photos")
    project = json.loads(files["via_project.json"])
    assert project["_via_settings"]["core"]["default_filepath"] == "../photos/"
    assert project["_via_image_id_list"] == ["a b.png512"] == list(project["_via_img_metadata"])
    assert list(project["_via_attributes"]["region"]["point"]["options"]) == list(EYES.point_names)
    regions = project["_via_img_metadata"]["a b.png512"]["regions"]
    assert regions[1] == {
        "shape_attributes": {"name": "point", "cx": 10, "cy": 20.5},
        "region_attributes": {"point": "left_eye", "face": "1"},
    }
    header, first, *_ = files["via_regions.csv"].decode().splitlines()
    assert header.startswith("filename,file_size,") and first.startswith('a b.png,512,{},6,0,"{""name"": ""rect""')


def test_the_xml_of_imglab():
    (content,) = tool_files("dlib", [PICTURE], EYES, "../photos").values()
    root = ElementTree.fromstring(content)
    (image,) = root.find("images")
    assert (root.tag, image.attrib) == ("dataset", {"file": "../photos/a b.png", "width": "200", "height": "100"})
    first, second = image
    # From 1 to 31 and from 2 to 52.25; the second face has the tight box of its points.
    assert first.attrib == {"top": "2", "left": "1", "width": "30", "height": "50"}
    assert second.attrib == {"top": "20", "left": "110", "width": "10", "height": "20"}
    parts = [(part.get("name"), part.get("x"), part.get("y")) for part in first]
    assert parts == [
        ("left_eye", "10", "20"),
        ("nose & tip", "0", "40"),
    ]  # whole pixels alone; 20.5 goes to the even one
    lost = PictureToWrite("b.png", (20, 10), 1, [FaceToWrite(np.full((3, 2), np.nan), [True] * 3)])
    assert not list(ElementTree.fromstring(tool_files("dlib", [lost], EYES)["faces.xml"]).iter("box"))
    (content,) = tool_files("dlib", [PICTURE], PLAIN).values()
    assert [part.get("name") for part in ElementTree.fromstring(content).iter("part")] == [
        "00",
        "02",
        "00",
        "01",
        "02",
    ]


def test_pts_files_of_one_and_of_several_faces():
    other = PictureToWrite("c.png", (20, 10), 1, [SECOND])
    files = tool_files("pts", [PICTURE, other], EYES)
    assert list(files) == ["a b_1.pts", "a b_2.pts", "c.pts"]
    assert files["a b_1.pts"].decode() == "version: 1\nn_points: 3\n{\n10.0 20.5\nnan nan\n0.33333334 40.0\n}\n"
    with pytest.raises(DataError, match=r"Two pictures have a face whose file would be a b_1.pts; rename a b_1.jpg"):
        tool_files("pts", [PICTURE, PictureToWrite("a b_1.jpg", (20, 10), 1, [SECOND])], EYES)


def test_what_a_project_is_set_up_with():
    assert setup_files("dlib", EYES) == setup_files("wflw", EYES) == {}
    assert setup_files("via", EYES) == {}
    assert setup_files("labelme", EYES)["labels.txt"].decode().splitlines() == ["face", *EYES.point_names]
    face, box = json.loads(setup_files("cvat", PLAIN)["cvat_labels.json"])
    assert [part["name"] for part in face["sublabels"]] == ["0", "1", "2"]
    assert box == {"name": "box", "type": "rectangle", "attributes": []}
    assert len(json.loads(setup_files("cvat", PLAIN, boxes=False)["cvat_labels.json"])) == 1
    view = ElementTree.fromstring(setup_files("labelstudio", PLAIN)["labelstudio_interface.xml"])
    assert [label.get("value") for label in view.find("KeyPointLabels")] == ["0", "1", "2"]


def faces(folder, scheme, count=5):
    """Faces of random points, the first two in one picture; one has no box, and some points are missing or hidden."""
    random = np.random.default_rng(0)
    found = {name: [] for name in ("image", "landmarks", "box", "visibility", "name")}
    for index in range(count):
        picture = folder / f"{max(index, 1)}.png"
        Image.new("RGB", (640, 481), (max(index, 1), 0, 0)).save(picture)
        points = random.uniform(0, 480, (scheme.num_landmarks, 2)).astype(np.float32)
        points[index % scheme.num_landmarks] = np.nan
        found["image"].append(str(picture))
        found["landmarks"].append(points.tolist())
        found["box"].append(None if index == 4 else random.uniform(1, 300, 4).astype(np.float32).tolist())
        found["visibility"].append((random.uniform(size=len(points)) > 0.3).tolist())
        found["name"].append(f"Anna {index}/ä")
    features = face_features(scheme.num_landmarks, visibility=True)
    return datasets.Dataset.from_dict(found, features=datasets.Features({name: features[name] for name in found}))


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("scheme", [EYES, PLAIN, get_scheme("wflw")], ids=lambda scheme: scheme.name)
def test_faces_come_back(tmp_path, tool, scheme):
    dataset = faces(tmp_path, scheme)
    assert export_tool(dataset, scheme, tmp_path / "out", "mine", tool) == 5
    folder = tmp_path / "out" / "mine"
    assert len(list(folder.glob("*.png"))) == 4  # two faces share a picture
    assert guess_kind(tmp_path / "out") == guess_kind(folder) == tool
    source = open_source(tool, folder, scheme=scheme, split="mine")
    for row, expected in zip(source.rows("mine"), dataset, strict=True):
        # dlib holds whole pixels; both edges of a box are rounded
        np.testing.assert_allclose(row["landmarks"], expected["landmarks"], atol=0.501 if tool == "dlib" else 1e-3)
        box = expected["box"]
        if tool == "dlib" and box is None:  # its parts belong to a box
            low, high = np.nanmin(expected["landmarks"], axis=0), np.nanmax(expected["landmarks"], axis=0)
            box = [*low, *(high - low)]
        assert (row["box"] is None) == (box is None)
        if box is not None:
            np.testing.assert_allclose(row["box"], box, atol=1.001 if tool == "dlib" else 1e-3)
        if tool in ("cvat", "labelme"):
            known = ~np.isnan(row["landmarks"]).any(axis=1)
            assert row["visibility"] == (known & expected["visibility"]).tolist()
        assert Image.open(row["image"]["path"]).getpixel((0, 0)) == expected["image"].getpixel((0, 0))
    with pytest.raises(DataError, match="exists already"):
        export_tool(dataset, scheme, tmp_path / "out", "mine", tool)
    if tool == "via":
        table = open_source("via", folder / "via_regions.csv", scheme=scheme)
        for row, expected in zip(table.rows("train"), source.rows("mine"), strict=True):
            np.testing.assert_array_equal(row["landmarks"], expected["landmarks"])


@pytest.mark.parametrize(("form", "orientation"), [("PNG", None), ("JPEG", 6), ("WEBP", None)])
def test_pictures_for_programs_that_know_no_exif(tmp_path, form, orientation):
    stored = Image.new("RGB", (40, 20), (250, 0, 0))
    stored.paste((0, 0, 250), (20, 0, 40, 20))  # the right half; turned by EXIF it is the lower half
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    stored.save(tmp_path / "a", form, exif=exif)
    row = {"image": [str(tmp_path / "a")], "landmarks": [[[1, 2], [3, 4], [5, 6]]]}
    features = face_features(3)
    dataset = datasets.Dataset.from_dict(row, datasets.Features({name: features[name] for name in row}))
    export_tool(dataset, EYES, tmp_path / "out", "train", "dlib")
    (picture,) = (tmp_path / "out" / "train").glob("0*")
    if form == "PNG":
        assert picture.read_bytes() == (tmp_path / "a").read_bytes()
    written = Image.open(picture)
    assert (written.format, written.getexif().get(0x0112)) == ("PNG", None)
    assert written.size == ((20, 40) if orientation else (40, 20))
    blue = written.convert("RGB").getpixel((10, 30) if orientation else (30, 10))
    assert np.abs(np.array(blue) - (0, 0, 250)).max() < 30


def wflw_faces(folder):
    """Three faces of 98 points, two in one picture, with one of WFLW's attributes."""
    features = face_features(98, attributes={"blur": datasets.Value("int8")})
    found = {name: [] for name in ("image", "landmarks", "box", "name", "blur")}
    for index in range(3):
        picture = folder / f"{max(index, 1)}.png"
        Image.new("RGB", (64, 48), (max(index, 1), 0, 0)).save(picture)
        points = np.stack([np.arange(98) / 3 + index, np.arange(98) / 7], axis=1).astype(np.float32)
        values = (
            str(picture),
            points.tolist(),
            None if index == 2 else [1, 2, 30 + index, 40],
            f"{index} a",
            index % 2,
        )
        for name, value in zip(found, values, strict=True):
            found[name].append(value)
    return datasets.Dataset.from_dict(found, features=datasets.Features({name: features[name] for name in found}))


def test_faces_come_back_from_lists_of_wflw(tmp_path):
    dataset, wflw = wflw_faces(tmp_path), get_scheme("wflw")
    assert export_wflw(dataset, wflw, tmp_path / "out", "test") == 3
    place = tmp_path / "out" / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / "list_98pt_rect_attr_test.txt"
    lines = [line.split() for line in place.read_text().splitlines()]
    assert [len(line) for line in lines] == [207] * 3
    assert lines[0][:4] == ["0.0", "0.0", "0.33333334", "0.14285715"]
    assert lines[1][196:] == ["1", "2", "32", "42", "0", "0", "0", "0", "0", "1", "test/000000_0_a.png"]
    assert lines[2][196:200] == ["2", "0", "34", "14"]  # the tight box: from 2 to 97 / 3 + 2, from 0 to 97 / 7
    assert guess_kind(tmp_path / "out") == "wflw"
    for source in (
        open_source("wflw", place, images=tmp_path / "out" / "WFLW_images"),
        open_source("wflw", place),
    ):
        rows = list(source.rows("test"))
        assert source.unverified and [row["blur"] for row in rows] == [0, 1, 0]
        np.testing.assert_array_equal([row["landmarks"] for row in rows], dataset["landmarks"])
        assert [row["box"].tolist() for row in rows[:2]] == dataset["box"][:2]
        assert [Image.open(row["image"]["path"]).getpixel((0, 0))[0] for row in rows] == [1, 1, 2]
    with pytest.raises(DataError, match="exists already; name a new folder"):
        export_wflw(dataset, wflw, tmp_path / "out", "test")
    with pytest.raises(SchemeError, match="lists of WFLW hold 98 points each, not 3"):
        export_wflw(dataset, EYES, tmp_path / "out", "train")
    lacking = dataset.map(lambda row: {"landmarks": [[None, None], *row["landmarks"][1:]]})
    with pytest.raises(DataError, match="lacks point 0, and the lists of WFLW hold whole faces alone"):
        export_wflw(lacking, wflw, tmp_path / "out", "train")
    assert not list((tmp_path / "out" / "WFLW_images").glob("train"))
    assert not [file for file in (tmp_path / "out").iterdir() if file.name.startswith(".")]


def test_what_cannot_be_written(tmp_path):
    dataset = faces(tmp_path, EYES)
    with pytest.raises(SchemeError, match="Row 0 has 3 points, but mtfl has 5"):
        export_tool(dataset, get_scheme("mtfl"), tmp_path / "out", "mine", "cvat")
    with pytest.raises(DataError, match="no column landmarks"):
        export_tool(dataset.remove_columns("landmarks"), EYES, tmp_path / "out", "mine", "via")
    with pytest.raises(ValueError, match="tool must be one of cvat, dlib"):
        export_tool(dataset, EYES, tmp_path / "out", "mine", "paint")
    assert not list((tmp_path / "out").iterdir())
