"""The reader of 300-W, on tiny sets in both layouts that are in use."""

import shutil

import numpy as np
import pytest
import scipy.io


datasets = pytest.importorskip("datasets")

from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from support.raw_sets import draw, fails, names, read  # noqa: E402
from support.read_splits import load_split  # noqa: E402


# 300-W. A face's points start at (x, y) and take a box of 67 x 134 there, counted from 1 as in the distribution.


def write_pts(file, x, y, count=68):
    lines = [f"{x + i:.3f} {y + 2 * i:.3f}" for i in range(count)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(["version: 1", f"n_points:  {count}", "{", *lines, "}", ""]))


def write_boxes(folder, part, files, cells=True):
    """Write a MATLAB file of boxes as a cell array of structs or as a struct array."""
    fields = ["imgName", "bb_detector", "bb_ground_truth"]
    rows = [
        (name, np.array([[10.0 * i + 1, 2, 10 * i + 5, 8]]), np.array([[i + 2.0, 3, i + 6, 12]])) for i, name in files
    ]
    array = np.empty((1, len(rows)), dtype=object if cells else [(field, object) for field in fields])
    for i, row in enumerate(rows):
        array[0, i] = dict(zip(fields, row, strict=True)) if cells else row
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / f"bounding_boxes_{part}.mat", {"bounding_boxes": array})


PARTS = {  # part: folder of the distribution, folder of the authors, end of the MATLAB file's name, file names
    "afw": ("afw", "images/train/afw", "afw", ["12_2.jpg", "12_1.jpg", "100_1.jpg"]),
    "helen_train": ("helen/trainset", "images/train/helen", "helen_trainset", ["7_1.jpg"]),
    "lfpw_train": ("lfpw/trainset", "images/train/lfpw", "lfpw_trainset", ["image_0002.png", "image_0001.png"]),
    "helen_test": ("helen/testset", "images/test/common/helen", "helen_testset", ["9_1.jpg"]),
    "lfpw_test": ("lfpw/testset", "images/test/common/lfpw", "lfpw_testset", ["image_0001.png"]),
    "ibug": ("ibug", "images/test/challenging/ibug", "ibug", ["image_092 _01.jpg"]),
    "indoor": ("300W/01_Indoor", "images/test/300W/01_Indoor", None, ["indoor_001.png"]),
    "outdoor": ("300W/02_Outdoor", "images/test/300W/01_Outdoor", None, ["outdoor_001.png"]),
}


def write_w300(root, layout=0, cells=True, box_folder="Bounding Boxes"):
    for number, (*folders, mat, files) in enumerate(PARTS.values()):
        for i, name in enumerate(files):
            draw(root / folders[layout] / name, 10 * number + i)
            write_pts((root / folders[layout] / name).with_suffix(".pts"), 20 + number, 30 + i)
        if mat:
            listed = [(i, name.replace(" ", "")) for i, name in enumerate(files)]
            write_boxes(root / box_folder, mat, listed, cells)
    return root


@pytest.fixture
def w300(tmp_path):
    return write_w300(tmp_path / "300w")


@pytest.mark.parametrize("layout, cells, box_folder", [(0, True, "Bounding Boxes"), (1, False, "bounding_boxes")])
def test_300w(tmp_path, layout, cells, box_folder):
    source = open_source("300w", write_w300(tmp_path / "set", layout, cells, box_folder))
    assert list(source.splits) == ["train", "test", "private"]
    assert (source.scheme.name, source.extend_top, source.extend_bottom) == ("300w", 0.20, 0.12)
    rows = read(source, "train")
    assert list(rows[0]) == ["image", "landmarks", "box", "name", "picture", "subset", "split"]
    assert names(rows) == [
        *("afw/100_1.jpg", "afw/12_1.jpg", "afw/12_2.jpg", "helen_train/7_1.jpg"),
        *("lfpw_train/image_0001.png", "lfpw_train/image_0002.png"),
    ]
    pictures = [row["picture"] for row in rows]
    assert pictures == [
        "afw/100",
        "afw/12",
        "afw/12",
        "helen_train/7_1",
        *(f"lfpw_train/image_000{i}" for i in (1, 2)),
    ]
    assert [row["subset"] for row in rows] == ["afw"] * 3 + ["helen_train"] + ["lfpw_train"] * 2
    assert {row["split"] for row in rows} == {"train"}
    # 12_1.jpg was written second: its points start at (20, 31) and its box is (3, 3, 7, 12), both counted from 1.
    assert rows[1]["landmarks"][0] == [19, 30] and rows[1]["landmarks"][67] == [86, 164]
    assert rows[1]["box"] == [2, 2, 4, 9]
    assert load_split(source, "train")[1]["image"].getpixel((0, 0)) == pytest.approx(1, abs=1)
    assert names(read(source, "full")) == names(read(source, "test"))
    assert [row["subset"] for row in read(source, "common")] == ["helen_test", "lfpw_test"]
    challenging = read(source, "challenging")
    assert names(challenging) == ["ibug/image_092 _01.jpg"]  # listed without its space
    assert challenging[0]["box"] == [1, 2, 4, 9]
    assert names(read(source, "indoor")) == ["indoor/indoor_001.png"]
    outdoor = read(source, "outdoor")  # no box is published: that of the points, from (27, 30)
    assert names(outdoor) == ["outdoor/outdoor_001.png"]
    assert outdoor[0]["box"] == [26, 29, 67, 134]


def test_300w_options(w300):
    detector = open_source("300w", w300, box_source="detector")
    assert [row["box"] for row in read(detector, "train")][:3] == [[20, 1, 4, 6], [10, 1, 4, 6], [0, 1, 4, 6]]
    assert list(detector.splits) == ["train", "test"]
    points = read(open_source("300w", w300, box_source="points", origin=0), "challenging")
    assert points[0]["landmarks"][0] == [25, 30]
    assert points[0]["box"] == [25, 30, 67, 134]
    zero = read(open_source("300w", w300, origin=0), "challenging")
    assert zero[0]["box"] == [2, 3, 4, 9]
    fails("box_source must be one of ground_truth, detector, points", "300w", w300, box_source="tight")
    fails("origin must be 0 or 1, not 2", "300w", w300, origin=2)
    shutil.rmtree(w300 / "Bounding Boxes")
    fails("no file .*Bounding Boxes/bounding_boxes_afw.mat; pass --box-source points", "300w", w300)
    assert len(read(open_source("300w", w300, box_source="points"), "train")) == 6


def test_300w_parts_that_are_not_there(w300, tmp_path):
    shutil.rmtree(w300 / "300W")
    shutil.rmtree(w300 / "helen" / "testset")
    fails(
        r"test split of 300-W is there \(lfpw_test, ibug\) but for .*helen/testset; expected .*300w/01", "300w", w300
    )
    shutil.rmtree(w300 / "lfpw" / "testset")
    shutil.rmtree(w300 / "ibug")
    source = open_source("300w", w300)
    assert list(source.splits) == ["train"]
    with pytest.raises(DataError, match="no split 'test'; it has train"):
        load_split(source, "test")
    (tmp_path / "empty").mkdir()
    fails("empty holds no split of 300-W; expected the folders afw, helen/trainset", "300w", tmp_path / "empty")
    fails("no file or folder .*nowhere; expected 300-W", "300w", tmp_path / "nowhere")
    write_w300(tmp_path / "private")
    for folder in ("afw", "helen", "lfpw", "ibug", "Bounding Boxes"):
        shutil.rmtree(tmp_path / "private" / folder)
    assert list(open_source("300w", tmp_path / "private").splits) == ["private"]
    fails("private set of 300-W comes without a detector's boxes", "300w", tmp_path / "private", box_source="detector")


def test_300w_pairs(w300):
    ibug = w300 / "ibug"
    for name in ("image_092 _01_mirror.jpg", "._image_092 _01.jpg", "notes.txt"):
        shutil.copy(ibug / "image_092 _01.jpg", ibug / name)  # what is not of the set is left out
    assert len(read(open_source("300w", w300), "challenging")) == 1
    draw(ibug / "b.JPG")
    fails("b.JPG has no points: there is no b.pts", "300w", w300)
    write_pts(ibug / "b.PTS", 1, 1)
    fails("ibug.mat has no box for .*b.JPG; pass --box-source points", "300w", w300, "test")
    write_boxes(w300 / "Bounding Boxes", "ibug", [(0, "b.png"), (1, "image_092 _01.png")])
    assert names(read(open_source("300w", w300), "challenging")) == ["ibug/b.JPG", "ibug/image_092 _01.jpg"]
    draw(ibug / "b.png")
    fails("b.JPG and b.png have one .pts file", "300w", w300)
    (ibug / "b.JPG").unlink()
    (ibug / "b.png").unlink()
    fails("b.PTS has no picture beside it", "300w", w300)
    for file in ibug.iterdir():
        file.unlink()
    fails("ibug holds no pictures with .pts files", "300w", w300)


def test_300w_damaged_files(w300):
    write_pts(w300 / "ibug" / "image_092 _01.pts", 1, 1, count=67)
    fails("image_092 _01.jpg has 67 annotated points, but 300w has 68", "300w", w300, "challenging")
    (w300 / "afw" / "12_2.pts").write_text("version: 1\nn_points: 68\n{\n1 2\n1\n")
    fails("12_2.pts", "300w", w300, "train")
    mat = w300 / "Bounding Boxes" / "bounding_boxes_helen_testset.mat"
    mat.write_bytes(b"boxes")
    fails("helen_testset.mat is not a readable MATLAB file", "300w", w300, "test")
    scipy.io.savemat(mat, {"boxes": 1})
    fails("helen_testset.mat has no variable bounding_boxes", "300w", w300, "test")
    scipy.io.savemat(mat, {"bounding_boxes": np.eye(4)})
    fails("helen_testset.mat is not a list of imgName", "300w", w300, "test")


def test_300w_changes_are_seen(w300):
    before = open_source("300w", w300).stamp("test")
    assert open_source("300w", w300).stamp("test") == before
    write_pts(w300 / "ibug" / "image_092 _01.pts", 101, 201)
    assert load_split(open_source("300w", w300), "challenging")[0]["landmarks"][0] == [100, 200]
    write_boxes(w300 / "Bounding Boxes", "ibug", [(4, "image_092_01.jpg")])
    assert load_split(open_source("300w", w300), "challenging")[0]["box"] == [5, 2, 4, 9]
    assert load_split(open_source("300w", w300, box_source="points"), "challenging")[0]["box"] == [100, 200, 67, 134]
