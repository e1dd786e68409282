"""The readers of AFLW, WFLW, VGGFace2 and AffectNet, on tiny sets in the published layouts."""

import re
import shutil

import numpy as np
import pytest
import scipy.io


datasets = pytest.importorskip("datasets")

from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.data.sets import aflw  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from support.raw_sets import draw, fails, names, read  # noqa: E402
from support.read_splits import load_split  # noqa: E402


# AFLW


@pytest.fixture
def aflw_set(tmp_path, monkeypatch):
    """Five faces of four pictures; by `ra`, faces 4, 0 and 2 are the training set and 3 and 1 the test set."""
    monkeypatch.setattr(aflw, "TRAIN_COUNT", 3)
    return write_aflw(tmp_path / "aflw")


def aflw_variables():
    names = np.empty((5, 1), dtype=object)
    names[:, 0] = ["0/a.jpg", "0/b.jpg", "2/a.jpg", "3/c.jpg", "3/c.jpg"]
    data = np.arange(5 * 38, dtype=np.float64).reshape(5, 38) + 1
    mask = np.ones((5, 19))
    mask[[1, 2], [0, 18]] = 0
    boxes = np.array([[10.0, 30, 20, 60]] * 5) + np.arange(5)[:, None]  # x1, x2, y1, y2
    ra = np.array([[5, 1, 3, 4, 2]], dtype=np.uint16)
    return {"nameList": names, "data": data, "mask_new": mask, "bbox": boxes, "ra": ra}


def write_aflw(root, pictures="data/flickr", **changes):
    for gray, name in enumerate(("0/a.jpg", "0/b.jpg", "2/a.jpg", "3/c.jpg")):
        draw(root / pictures / name, 50 * gray)
    scipy.io.savemat(root / "AFLWinfo_release.mat", aflw_variables() | changes)
    return root


def test_aflw(aflw_set):
    source = open_source("aflw", aflw_set)
    assert (source.scheme.name, source.extend_top, source.extend_bottom) == ("aflw", 0, 0)
    rows = read(source, "train")
    columns = ["image", "landmarks", "box", "visibility", "name", "picture", "subset", "split"]
    assert list(rows[0]) == columns
    assert names(rows) == ["0/a.jpg#0", "2/a.jpg#2", "3/c.jpg#4"]
    assert [row["picture"] for row in rows] == ["0/a.jpg", "2/a.jpg", "3/c.jpg"]
    # Face 2 has the numbers 77 to 114: x of its points first, then y.
    assert rows[1]["landmarks"] == [[77 + i, 96 + i] for i in range(19)]
    assert rows[1]["box"] == [12, 22, 20, 40]
    assert rows[1]["visibility"] == [True] * 18 + [False]
    assert load_split(source, "train")[1]["image"].getpixel((0, 0)) == pytest.approx(100, abs=2)
    test = read(source, "test")
    assert names(test) == ["0/b.jpg#1", "3/c.jpg#3"]
    assert test[0]["visibility"] == [False] + [True] * 18
    assert names(read(source, "frontal")) == ["3/c.jpg#3"]


def test_aflw_keeps_the_points_that_are_beyond_the_picture(aflw_set):
    data = aflw_variables()["data"]
    data[0, [0, 19]] = -3, -4  # beyond the corner
    data[0, [1, 20]] = 0, 0
    data[0, [2, 21]] = 0, 5
    data[0, 3] = np.nan
    points = read(open_source("aflw", write_aflw(aflw_set, data=data)), "train")[0]["landmarks"]
    np.testing.assert_array_equal(points[:5], [[-3, -4], [np.nan] * 2, [0, 5], [np.nan] * 2, [5, 24]])


@pytest.mark.parametrize("pictures", ["flickr", "images"])
def test_aflw_other_places_of_the_pictures(aflw_set, pictures):
    shutil.rmtree(aflw_set / "data")
    expected = (
        r"0/a.jpg, the first picture of .*release.mat, is not in .*data/flickr or .*flickr or .*images; expected"
    )
    fails(expected, "aflw", aflw_set)
    assert len(read(open_source("aflw", write_aflw(aflw_set, pictures)), "train")) == 3


def test_aflw_one_face(tmp_path):
    values = {name: value[:1] for name, value in aflw_variables().items()} | {"ra": np.array([[1]])}
    source = open_source("aflw", write_aflw(tmp_path / "aflw", **values))
    assert names(read(source, "train")) == ["0/a.jpg#0"]
    assert len(load_split(source, "test")) == 0


def test_aflw_damaged_files(aflw_set, tmp_path):
    fails("no file or folder", "aflw", tmp_path / "nowhere")
    variables = aflw_variables()
    fails("release.mat does not have, for each of its 5", "aflw", write_aflw(aflw_set, data=variables["data"][:, 2:]))
    fails("release.mat does not have, for each", "aflw", write_aflw(aflw_set, bbox=variables["bbox"][:4]))
    fails("ra is not a permutation", "aflw", write_aflw(aflw_set, ra=np.array([[1, 2, 3, 4, 4]])))
    fails("no list of pictures", "aflw", write_aflw(aflw_set, nameList=np.arange(5)))
    mat = aflw_set / "AFLWinfo_release.mat"
    scipy.io.savemat(mat, {name: value for name, value in variables.items() if name != "ra"})
    fails("release.mat has no variable ra", "aflw", aflw_set)
    mat.unlink()
    fails("no file .*AFLWinfo_release.mat; expected AFLWinfo_release.mat, and the pictures", "aflw", aflw_set)


def test_aflw_changes_are_seen(aflw_set):
    assert load_split(open_source("aflw", aflw_set), "test")[0]["box"] == [11, 21, 20, 40]
    write_aflw(aflw_set, bbox=aflw_variables()["bbox"] + 100)
    assert load_split(open_source("aflw", aflw_set), "test")[0]["box"] == [111, 121, 20, 40]


# WFLW


def wflw_line(start, box, attributes, picture):
    coordinates = [f"{start + i / 4:.6f}" for i in range(196)]
    return " ".join([*coordinates, *map(str, [*box, *attributes]), picture])


WFLW_LINES = {
    "train": [
        wflw_line(10, (5, 6, 25, 36), (0, 0, 0, 0, 0, 0), "0--Parade/b.jpg"),
        wflw_line(20, (1, 2, 4, 8), (1, 0, 0, 0, 0, 1), "0--Parade/b.jpg"),
        wflw_line(-30, (1, 2, 4, 8), (0, 1, 0, 1, 0, 0), "0--Parade/a.jpg"),
    ],
    "test": [
        wflw_line(1, (1, 2, 4, 8), (1, 0, 0, 0, 0, 0), "1--Handshaking/c.jpg"),
        wflw_line(2, (1, 2, 4, 8), (0, 1, 0, 0, 1, 0), "1--Handshaking/c.jpg"),
        wflw_line(3, (1, 2, 4, 8), (1, 0, 1, 1, 0, 0), "1--Handshaking/d.jpg"),
    ],
}


def wflw_list(root, split):
    return root / "WFLW_annotations" / "list_98pt_rect_attr_train_test" / f"list_98pt_rect_attr_{split}.txt"


@pytest.fixture
def wflw(tmp_path):
    root = tmp_path / "wflw"
    for gray, name in enumerate(
        ("0--Parade/b.jpg", "0--Parade/a.jpg", "1--Handshaking/c.jpg", "1--Handshaking/d.jpg")
    ):
        draw(root / "WFLW_images" / name, 50 * gray)
    for split, lines in WFLW_LINES.items():
        wflw_list(root, split).parent.mkdir(parents=True, exist_ok=True)
        wflw_list(root, split).write_text("\n".join(lines) + "\n")
    return root


def test_wflw(wflw):
    source = open_source("wflw", wflw)
    assert (source.scheme.name, source.extend_top, source.extend_bottom) == ("wflw", 0, 0.10)
    rows = read(source, "train")
    attributes = ["pose", "expression", "illumination", "make_up", "occlusion", "blur"]
    assert list(rows[0]) == ["image", "landmarks", "box", "name", "picture", "subset", "split", *attributes]
    assert names(rows) == ["0--Parade/b.jpg#1", "0--Parade/b.jpg#2", "0--Parade/a.jpg#3"]
    assert [row["picture"] for row in rows] == ["0--Parade/b.jpg", "0--Parade/b.jpg", "0--Parade/a.jpg"]
    assert rows[0]["box"] == [5, 6, 20, 30]
    assert rows[2]["landmarks"] == [[-30 + i / 2, -29.75 + i / 2] for i in range(98)]
    assert [rows[1][name] for name in attributes] == [1, 0, 0, 0, 0, 1]
    assert source.features["blur"] == datasets.Value("int8")
    assert load_split(source, "train")[2]["image"].getpixel((0, 0)) == pytest.approx(50, abs=2)
    lines = {"pose": [1, 3], "expression": [2], "illumination": [3], "make_up": [3], "occlusion": [2]}
    for name, expected in lines.items():
        assert [int(face.split("#")[1]) for face in names(read(source, name))] == expected
    assert len(load_split(source, "blur")) == 0


def test_wflw_damaged_files(wflw, tmp_path):
    fails("no file or folder", "wflw", tmp_path / "nowhere")
    file, lines = wflw_list(wflw, "train"), WFLW_LINES["train"]

    def fails_with(message, *last):
        file.write_text("\n".join([*lines, *last]))
        fails(message, "wflw", wflw, "train")

    fails_with("attr_train.txt, line 4 has 206 fields, not 207: 98 points", lines[0].split(" ", 1)[1])
    fails_with("attr_train.txt, line 4 has 209 fields", f"1 2 {lines[0]}")
    fails_with("attr_train.txt, line 4 has something else where a number should be", f"x{lines[0]}")
    fails_with("attr_train.txt, line 4 has an attribute", wflw_line(1, (1, 2, 3, 4), (0, 2, 0, 0, 0, 0), "a.jpg"))
    fails_with("b.jpg has a box without area", wflw_line(1, (5, 2, 5, 4), (0,) * 6, "0--Parade/b.jpg"))
    file.write_bytes(b"\xff\xfe1 2")
    fails("attr_train.txt is not a text file", "wflw", wflw)
    file.write_text("\n")
    fails("attr_train.txt lists no face", "wflw", wflw)
    file.unlink()
    expected = re.escape(
        "attr_train.txt; expected WFLW_annotations/list_98pt_rect_attr_train_test/list_98pt_rect_attr"
    )
    fails(f"no file .*{expected}", "wflw", wflw)


def test_wflw_missing_pictures(wflw):
    (wflw / "WFLW_images" / "1--Handshaking" / "d.jpg").unlink()
    assert len(load_split(open_source("wflw", wflw), "test")) == 3  # only the first is looked for
    (wflw / "WFLW_images" / "1--Handshaking" / "c.jpg").unlink()
    fails("c.jpg, the first picture of .*attr_test.txt, is not in .*WFLW_images; expected", "wflw", wflw)


def test_wflw_changes_are_seen(wflw):
    assert len(load_split(open_source("wflw", wflw), "train")) == 3
    wflw_list(wflw, "train").write_text("\n".join(WFLW_LINES["train"][1:]))
    assert names(load_split(open_source("wflw", wflw), "train")) == ["0--Parade/b.jpg#1", "0--Parade/a.jpg#2"]


# VGGFace2

VGGFACE2 = {
    "train": ["n000002/0001_01,161,140,224,324", "n000002/0002_01,50,60,70,100", '"n000003/0001_01",-5,6,110.5,101'],
    "test": ["n000001/0001_01,1,2,99,100"],
}


def write_vggface2(root, folder=""):
    for split, lines in VGGFACE2.items():
        for gray, line in enumerate(lines):
            draw(root / split / folder / (line.split(",")[0].strip('"') + ".jpg"), 50 * gray)
        vggface2_list(root, split).parent.mkdir(parents=True, exist_ok=True)
        vggface2_list(root, split).write_text("\n".join(["NAME_ID,X,Y,W,H", *lines]) + "\n")
    return root


def vggface2_list(root, split):
    return root / "bb_landmark" / f"loose_bb_{split}.csv"


@pytest.fixture
def vggface2(tmp_path):
    return write_vggface2(tmp_path / "vggface2")


@pytest.mark.parametrize("folder", ["", "imgs"])
def test_vggface2(tmp_path, folder):
    source = open_source("vggface2", write_vggface2(tmp_path / "set", folder))
    assert (source.scheme, source.extend_top, source.extend_bottom) == (None, 0.05, 0.10)
    rows = read(source, "train")
    assert list(rows[0]) == ["image", "box", "name", "picture", "subset", "split", "identity"]
    assert names(rows) == ["n000002/0001_01", "n000003/0001_01"]  # the box of the other is 100 pixels high
    assert [row["box"] for row in rows] == [[161, 140, 224, 324], [-5, 6, 110.5, 101]]
    assert [row["identity"] for row in rows] == ["n000002", "n000003"]
    assert [row["picture"] for row in rows] == names(rows)
    assert load_split(source, "train")[1]["image"].getpixel((0, 0)) == pytest.approx(100, abs=2)
    assert len(load_split(source, "test")) == 0
    lower = open_source("vggface2", tmp_path / "set", min_height=99)
    assert (len(load_split(lower, "train")), len(load_split(lower, "test"))) == (3, 1)


def test_vggface2_is_opened_without_reading_it_all(vggface2):
    file = vggface2_list(vggface2, "train")
    file.write_text(file.read_text() + "n000004/0001_01,1,2\n")
    rows = open_source("vggface2", vggface2).rows("train")
    assert names([next(rows), next(rows)]) == ["n000002/0001_01", "n000003/0001_01"]
    with pytest.raises(DataError, match="loose_bb_train.csv, line 5 has 3 fields, not 5: NAME_ID,X,Y,W,H"):
        next(rows)


def test_vggface2_damaged_files(vggface2, tmp_path):
    fails("no file or folder", "vggface2", tmp_path / "nowhere")
    file = vggface2_list(vggface2, "train")
    header, *lines = file.read_text().splitlines()

    def fails_with(message, *text):
        file.write_text("\n".join(text))
        fails(message, "vggface2", vggface2, "train")

    fails_with("line 5 has something else where a number should be", header, *lines, "n1/1,1,2,3,high")
    fails_with("line 5 is not CSV", header, *lines, "x" * 200_000)
    fails_with("train.csv does not start with the columns NAME_ID,X,Y,W,H", *lines)
    fails_with("train.csv does not start with the columns")
    fails_with("train.csv lists no face", header)
    fails_with("n1/1.jpg has a box without area", header, *lines, "n1/1,1,2,0,300")
    fails_with(
        "n1/1.jpg, the first picture of .*train.csv, is not in .*train or .*imgs; expected", header, "n1/1,1,2,3,4"
    )
    file.unlink()
    fails("no file .*loose_bb_train.csv; expected bb_landmark/loose_bb_train.csv and pictures", "vggface2", vggface2)
    shutil.rmtree(vggface2 / "train")
    assert list(open_source("vggface2", vggface2).splits) == ["test"]
    shutil.rmtree(vggface2 / "test")
    fails("neither a folder train nor test; expected bb_landmark", "vggface2", vggface2)


def test_vggface2_changes_are_seen(vggface2):
    assert len(load_split(open_source("vggface2", vggface2), "train")) == 2
    assert len(load_split(open_source("vggface2", vggface2, min_height=99), "train")) == 3
    file = vggface2_list(vggface2, "train")
    file.write_text(file.read_text().replace("161", "162"))
    assert load_split(open_source("vggface2", vggface2), "train")[0]["box"][0] == 162


# AffectNet

AFFECTNET_HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"
)
AFFECTNET = {
    "training": [
        "1/a.jpg,134,135,899,890,181.64;530.91;188.32;627.82,1,0.785714,-0.055556",
        "1/b.jpg,1,2,3,4,5;6,8,-2,-2",
        "2/c.JPG,NULL,NULL,NULL,NULL,,3,0,0",
        "2/d.png,20,21,30,31,5;6,7,-0.5,0.25",
    ],
    "validation": ["1/e.jpg,10,11,12,13,5;6,0,0,0"],
}


def write_affectnet(root, lists=".", pictures="Manually_Annotated_Images", headers=(True, False)):
    for (name, lines), header in zip(AFFECTNET.items(), headers, strict=True):
        (root / lists).mkdir(parents=True, exist_ok=True)
        (root / lists / f"{name}.csv").write_text("\n".join([AFFECTNET_HEADER, *lines] if header else lines) + "\n")
        for gray, line in enumerate(lines):
            draw(root / pictures / line.split(",")[0], 50 * gray)
    return root


@pytest.fixture
def affectnet(tmp_path):
    return write_affectnet(tmp_path / "affectnet")


@pytest.mark.parametrize(
    "lists, pictures, headers",
    [
        (".", "Manually_Annotated_Images", (True, True)),
        ("Manually_Annotated_file_lists", "Manually_Annotated/Manually_Annotated_Images", (True, False)),
        (".", "cropped_Annotated", (False, True)),
        (".", ".", (False, False)),
    ],
)
def test_affectnet(tmp_path, lists, pictures, headers):
    source = open_source("affectnet", write_affectnet(tmp_path / "set", lists, pictures, headers))
    assert (source.scheme, source.extend_top, source.extend_bottom) == (None, 0.05, 0.25)
    rows = read(source, "train")
    attributes = ["expression", "valence", "arousal"]
    assert list(rows[0]) == ["image", "box", "name", "picture", "subset", "split", *attributes]
    assert names(rows) == ["1/a.jpg", "2/d.png"]
    assert [row["picture"] for row in rows] == names(rows)
    assert [row["box"] for row in rows] == [[134, 135, 899, 890], [20, 21, 30, 31]]
    assert [row["expression"] for row in rows] == [1, 7]
    np.testing.assert_allclose([row["valence"] for row in rows], [0.785714, -0.5])
    np.testing.assert_allclose([row["arousal"] for row in rows], [-0.055556, 0.25], rtol=1e-6)
    assert [str(source.features[name].dtype) for name in attributes] == ["int8", "float32", "float32"]
    assert load_split(source, "train")[1]["image"].getpixel((0, 0)) == 150
    assert names(read(source, "validation")) == ["1/e.jpg"]


def test_affectnet_columns_are_found_by_name(affectnet):
    columns = [line.split(",") for line in (AFFECTNET_HEADER, *AFFECTNET["training"])]
    turned = "\n".join(",".join([str(row), *reversed(line)]) for row, line in enumerate(columns))
    (affectnet / "training.csv").write_text(turned)
    rows = read(open_source("affectnet", affectnet), "train")
    assert [(row["name"], row["box"], row["expression"]) for row in rows] == [
        ("1/a.jpg", [134, 135, 899, 890], 1),
        ("2/d.png", [20, 21, 30, 31], 7),
    ]


def test_affectnet_damaged_files(affectnet, tmp_path):
    fails("no file or folder", "affectnet", tmp_path / "nowhere")
    file, lines = affectnet / "training.csv", AFFECTNET["training"]

    def fails_with(message, *text):
        file.write_text("\n".join(text))
        fails(message, "affectnet", affectnet, "train")

    fails_with("training.csv, line 5 has 3 fields, not 9: subDirectory_filePath,face_x", *lines, "1/a.jpg,1,2")
    fails_with("training.csv, line 5 has something else", *lines, "1/a.jpg,1,2,3,4,,happy,0,0")
    fails_with("training.csv, line 5 has something else", *lines, "1/a.jpg,1,NULL,3,4,,1,0,0")
    fails_with("training.csv has no column arousal", AFFECTNET_HEADER.replace("arousal", "excitement"), *lines)
    fails_with("training.csv lists no face with one of the 8", *lines[1:3])
    fails_with("training.csv lists no face")
    fails_with(
        "1/z.jpg, the first picture of .*training.csv, is not in .*Images or", lines[0].replace("a.jpg", "z.jpg")
    )
    file.write_text("\n".join(lines))
    (affectnet / "validation.csv").unlink()
    fails("no file .*validation.csv or .*file_lists/validation.csv; expected training.csv and", "affectnet", affectnet)


def test_affectnet_changes_are_seen(affectnet):
    assert load_split(open_source("affectnet", affectnet), "train")[0]["expression"] == 1
    file = affectnet / "training.csv"
    file.write_text(file.read_text().replace(",1,0.785714", ",2,0.785714"))
    assert load_split(open_source("affectnet", affectnet), "train")[0]["expression"] == 2
