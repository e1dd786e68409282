"""Readers of CSV tables and of image folders with metadata, on files written by hand."""

import json
import logging

import numpy as np
import pytest


datasets = pytest.importorskip("datasets")

from fabrec_hf.data.formats.layouts import AttributeTypes, split_of  # noqa: E402
from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.errors import DataError, SchemeError  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme  # noqa: E402
from support.hand_written import NAN, picture, rows  # noqa: E402
from support.read_splits import load_split  # noqa: E402


@pytest.fixture
def table(root):
    def write(text, **options):
        (root / "faces.csv").write_text(text, encoding="utf-8")
        return open_source("csv", root / "faces.csv", **options)

    return write


def values(source, column, split="train"):
    return [row[column] for row in rows(source, split)]


# ------------------------------------------------------------------------------------------------ CSV


def test_a_table_with_everything(table, root):
    source = table(
        "image,box_x,box_y,box_width,box_height,left_eye_x,left_eye_y,right_eye.y,right_eye.x,name,picture,subset,"
        "age,group,code,smiles,empty\n"
        'b/1.png,1.5,2,3,4,5,6,8,7,Ann,photo/1,helen,31,"a, b",007,true,\n'
        "\n"
        "2.png,,,,,nan,nan,,,Bob,photo/2,,2.5,,1,False,\n"
    )
    assert source.scheme == LandmarkScheme("custom", 2, ("left_eye", "right_eye"), ((0, 1),))
    assert {name: value.dtype for name, value in source.attributes.items()} == {
        "age": "float64", "group": "string", "code": "string", "smiles": "bool", "empty": "string"
    }  # fmt: skip
    first, second = rows(source)
    assert first["image"]["path"] == str(root / "b" / "1.png") and first["box"].tolist() == [1.5, 2, 3, 4]
    np.testing.assert_array_equal(first["landmarks"], [[5, 6], [7, 8]])
    np.testing.assert_array_equal(second["landmarks"], [NAN, NAN])
    assert second["box"] is None
    columns = ("name", "picture", "subset", "age", "group", "code", "smiles", "empty")
    assert [first[column] for column in columns] == ["Ann", "photo/1", "helen", 31, "a, b", "007", True, None]
    assert [second[column] for column in columns] == ["Bob", "photo/2", None, 2.5, None, "1", False, None]
    assert source.files == (root / "faces.csv",)


@pytest.mark.parametrize("header", ["x0,y0,x1,y1", "x_0,y_0,x_1,y_1", "x1,y1,x2,y2", "0_x,0_y,1_x,1_y", "y0,x1,y1,x0"])
def test_points_without_names(table, header):
    source = table(f"path,{header}\na.png,1,2,3,4\n")
    assert source.scheme == LandmarkScheme("custom", 2)
    expected = [[4, 1], [2, 3]] if header.startswith("y") else [[1, 2], [3, 4]]
    np.testing.assert_array_equal(values(source, "landmarks")[0], expected)


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("file_name;x0;y0", "a.png;1;2"),
        ("filename\tx0\ty0", "a.png\t1\t2"),
        ('"image";"x0";"y0"', '"a.png";"1";"2"'),
        ("\ufeffpath, x0 ,y0", "a.png , 1,2 "),
        ("x0,y0,image,", "1,2,a.png,"),
        ("x,y,width,height,image,x0,y0", "9,9,9,9,a.png,1,2"),
    ],
)
def test_separators_and_columns_in_any_order(table, header, line):
    source = table(f"{header}\n{line}\n")
    row = rows(source)[0]
    assert row["picture"] == row["name"] == "a.png" and row["landmarks"].tolist() == [[1, 2]]
    assert (row["box"] is not None) == ("width" in header)
    assert not source.attributes


def test_a_table_without_points_and_with_an_own_column_for_pictures(table):
    source = table("image;photo;width;n\n1;a.png;640;1.5\n", image_column="photo")
    assert source.scheme is None and source.features["n"].dtype == "float64"
    assert rows(source)[0]["picture"] == "a.png" and rows(source)[0]["width"] == 640
    with pytest.raises(DataError, match="no points that a scheme could belong to"):
        table("image\na.png\n", scheme="300w")
    assert values(table("image\na.png\nb.png\n"), "name") == ["a.png", "b.png"]


def test_splits_and_options_of_a_table(table, root):
    source = table("image,split\na.png,train\nb.png,val\nc.png,validation\nd.png,private\n")
    assert list(source.splits) == ["train", "validation", "private"]
    assert values(source, "name", "validation") == ["b.png", "c.png"] and values(source, "name") == ["a.png"]
    with pytest.raises(DataError, match="tells its splits itself"):
        table("image,split\na.png,train\n", split="test")
    (root / "below").mkdir()
    source = table("image\na.png\n", split="test", images="below")
    assert values(source, "image", "test")[0]["path"] == str(root / "below" / "a.png")
    assert list(table("image\na.png\n", split="val").splits) == ["validation"]
    with pytest.raises(DataError, match="split: a split is called by letters"):
        table("image\na.png\n", split="my split")
    mine = LandmarkScheme("mine", 2, ("a", "b"))
    assert values(table("image,b_x,b_y,a_x,a_y\np.png,1,2,3,4", scheme=mine), "landmarks")[0].tolist() == [
        [3, 4], [1, 2]
    ]  # fmt: skip


def test_a_table_is_loaded_with_its_pictures(table, root):
    picture(root / "a.png")
    loaded = load_split(table("image,x0,y0,age\na.png,0.1,2,3\n"), "train")
    assert loaded[0]["image"].size == (40, 30) and loaded[0]["age"] == 3
    assert loaded[0]["landmarks"] == [[float(np.float32(0.1)), 2]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "faces.csv needs a header"),
        ("a.png,1,2\nb.png,3,4\n", "faces.csv needs a header: its first line must name a column image, file_name"),
        ("image,x0,y0\n", "holds no face, only a header"),
        ("image,x0,y0\na.png,1\n", "line 2: 2 cells, but the header names 3"),
        ("image,x0,y0\n,1,2\n", "line 2: the column image is empty"),
        ("image,x0,y0\na.png,1,\n", "line 2: of x0 and y0 only one is given"),
        ("image,x0,y0\na.png,1,2\nb.png,1,two\n", "line 3: the column y0 holds 'two', which is no number"),
        ("image,x0,y0\na.png,1,inf\n", "y0 holds 'inf'"),
        ("image,x0,y0\na.png,1,1_0\n", "y0 holds '1_0'"),
        ("image;x0;y0\na.png;1;2,5\n", "y0 holds '2,5'"),
        ("image,x0,y0,x1\na.png,1,2,3\n", "the column x1 has no y beside it"),
        ("image,nose_y\na.png,1\n", "the column nose_y has no x beside it"),
        ("image,x0,y0,nose_x,nose_y\na.png,1,2,3,4\n", r"points with names \(nose\) and with numbers"),
        ("image,x0,y0,x2,y2\na.png,1,2,3,4\n", "numbered 0 to 2, but some are missing"),
        ("image,x0,y0,x_0\na.png,1,2,3\n", "x0 and x_0 are the same coordinate"),
        ("image,age,age\na.png,1,2\n", "names the column age twice"),
        ("image,box_x,box_y,box_width\na.png,1,2,3\n", "no column box_height; a box needs"),
        ("image,x,y,width,height\na.png,1,2,,4\n", "line 2: of x, y, width, height some are missing"),
        ("image,age\na.png,1\na.png,2\n", "has neither points nor boxes"),
        ("#filename,region_shape_attributes\na.png,{}\n", "faces.csv is no table of faces but a CSV of VIA"),
        ("image,landmarks\na.png,[[1]]\n", "has a column 'landmarks'"),
        ("image,split\na.png,\n", "line 2: a split is called by letters"),
    ],
)
def test_a_mistake_in_a_table_is_one_line(table, text, message):
    with pytest.raises(DataError, match=message) as error:
        rows(table(text))
    assert "\n" not in str(error.value)


def test_other_wrong_tables(table, root):
    for options, message in [
        ({"image_column": "photo"}, "no column 'photo'; its first line names image, x0, y0"),
        ({"scheme": "mtfl"}, "has 1 points a face, but the scheme mtfl 5"),
        ({"images": "nowhere"}, "no folder nowhere of pictures"),
    ]:
        with pytest.raises((DataError, SchemeError), match=message):
            table("image,x0,y0\na.png,1,2\n", **options)
    with pytest.raises(DataError, match="is a folder; name the CSV file"):
        open_source("csv", root)
    (root / "faces.csv").write_bytes(b"image\n\xff.png\n")
    with pytest.raises(DataError, match="faces.csv cannot be read"):
        open_source("csv", root / "faces.csv")


# ------------------------------------------------------------------------------------------------ image folders


def lines(path, *objects):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(values) for values in objects) + "\n")


def test_a_folder_without_metadata(root):
    picture(root / "b" / "2.png")
    picture(root / "1.JPEG")
    (root / "notes.txt").write_text("no picture")
    source = open_source("imagefolder", root, split="test")
    assert source.scheme is None and source.files == ()
    assert values(source, "name", "test") == values(source, "picture", "test") == ["1.JPEG", "b/2.png"]
    assert load_split(source, "test")[1]["image"].size == (40, 30)
    picture(root / "3.png")
    assert open_source("imagefolder", root, split="test").stamp("test") != source.stamp("test")
    with pytest.raises(DataError, match="added to .* or removed since it was opened"):
        rows(source, "test")


def test_split_folders_without_metadata(root):
    picture(root / "test" / "1.png")
    picture(root / "Train" / "a" / "1.png")
    source = open_source("imagefolder", root)
    assert list(source.splits) == ["train", "test"]
    assert values(source, "name") == ["Train/a/1.png"] and values(source, "name", "test") == ["test/1.png"]
    (root / "val").mkdir()
    with pytest.raises(DataError, match="val holds no picture"):
        open_source("imagefolder", root)


def test_metadata_lines(root, caplog):
    for name in ("1", "2", "3", "4"):
        picture(root / f"{name}.png")
    lines(
        root / "metadata.jsonl",
        {
            "file_name": "1.png",
            "landmarks": [[1, 2.5], None],
            "box": [1, 2, 3, 4],
            "age": 3,
            "tags": ["a"],
            "ok": True,
        },
        {"file_name": "2.png", "landmarks": [1, 2, None, None], "visibility": [True, False], "age": 2.5, "who": 7},
        {"file_name": "3.png", "name": "Cy", "picture": "p", "subset": "s", "landmarks": [[1, 2], [3, 4]], "who": "x"},
        {"file_name": "3.png", "box": None, "extra": None},
    )
    with caplog.at_level(logging.WARNING):
        source = open_source("imagefolder", root)
    assert [record.getMessage() for record in caplog.records] == [
        "Lists and mappings are no attributes, left out: tags.",
        f"1 pictures are left out, since {root / 'metadata.jsonl'} does not name them.",
    ]
    assert source.scheme == LandmarkScheme("custom", 2) and source.visibility
    assert {name: value.dtype for name, value in source.attributes.items()} == {
        "age": "float64", "ok": "bool", "who": "string", "extra": "string"
    }  # fmt: skip
    found = rows(source)
    assert [row["name"] for row in found] == ["1.png:1", "2.png:2", "Cy", "3.png:4"]
    assert [row["picture"] for row in found] == ["1.png", "2.png", "p", "3.png"] and found[2]["subset"] == "s"
    for row, points in zip(found, ([[1, 2.5], NAN], [[1, 2], NAN], [[1, 2], [3, 4]], [NAN, NAN]), strict=True):
        np.testing.assert_array_equal(row["landmarks"], points)
    assert [row["visibility"] for row in found] == [None, [True, False], None, None]
    assert found[0]["box"].tolist() == [1, 2, 3, 4] and found[3]["box"] is None
    assert [row["who"] for row in found] == [None, "7", "x", None]
    assert load_split(source, "train")[1]["visibility"] == [True, False]


def test_metadata_table(root):
    picture(root / "1.png")
    (root / "metadata.csv").write_text("file_name,nose_x,nose_y,age\n1.png,1,2,3\n")
    source = open_source("imagefolder", root, split="test", scheme=LandmarkScheme("mine", 1))
    assert source.scheme.name == "mine" and values(source, "landmarks", "test")[0].tolist() == [[1, 2]]
    (root / "metadata.jsonl").write_text("")
    with pytest.raises(DataError, match="has both metadata.jsonl and metadata.csv"):
        open_source("imagefolder", root)


def test_metadata_of_every_split(root):
    picture(root / "train" / "1.png")
    picture(root / "valid" / "1.png")
    lines(root / "train" / "metadata.jsonl", {"file_name": "1.png", "landmarks": [[1, 2]], "age": 3})
    (root / "valid" / "metadata.csv").write_text("file_name,x0,y0,age,note\n1.png,3,4,2.5,x\n")
    source = open_source("imagefolder", root)
    assert list(source.splits) == ["train", "validation"]
    first, second = rows(source)[0], rows(source, "validation")[0]
    assert (first["name"], second["name"], second["picture"]) == ("train/1.png", "valid/1.png", "valid/1.png")
    assert second["image"]["path"] == str(root / "valid" / "1.png")
    assert (first["age"], second["age"], first["note"], second["note"]) == (3.0, 2.5, None, "x")
    assert source.features["age"].dtype == "float64" and second["landmarks"].tolist() == [[3, 4]]
    with pytest.raises(DataError, match="tells its splits itself"):
        open_source("imagefolder", root, split="test")
    (root / "valid" / "metadata.csv").write_text("file_name,x0,y0,x1,y1\n1.png,3,4,2.5,5\n")
    with pytest.raises(DataError, match="have different points"):
        open_source("imagefolder", root)
    (root / "valid" / "metadata.csv").unlink()
    with pytest.raises(DataError, match="valid has no metadata, but .*train has; give them apart"):
        open_source("imagefolder", root)
    lines(root / "valid" / "metadata.jsonl", {"file_name": "1.png", "landmarks": [[1, 2]], "split": "test"})
    with pytest.raises(DataError, match="has a column split, but its folder is the validation split already"):
        open_source("imagefolder", root)


def test_one_metadata_file_for_all_splits(root):
    for place in ("train", "test"):
        picture(root / place / "1.png")
    lines(root / "metadata.jsonl", {"file_name": "train/1.png"}, {"file_name": "test/1.png"})
    source = open_source("imagefolder", root)
    assert values(source, "name") == ["train/1.png"] and values(source, "name", "test") == ["test/1.png"]
    lines(root / "metadata.jsonl", {"file_name": "train/1.png", "split": "dev"}, {"file_name": "test/1.png"})
    assert list(open_source("imagefolder", root).splits) == ["validation", "test"]
    lines(root / "metadata.jsonl", {"file_name": "train/1.png"}, {"file_name": "1.png"})
    with pytest.raises(DataError, match="tells the split of some pictures, but not of 1.png"):
        open_source("imagefolder", root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n", "holds no face"),
        ('{"file_name": "1.png"', "metadata.jsonl, line 1: no JSON object"),
        ("[1]", "line 1: expected an object with a file_name"),
        ('{"name": "1.png"}', "line 1: expected an object with a file_name"),
        ('{"file_name": 1}', "line 1: expected an object with a file_name"),
        (
            '{"file_name": "1", "landmarks": [[1, 2]]}\n{"file_name": "2", "landmarks": [[1, 2], [3, 4]]}',
            "line 2: .* 4 ",
        ),
        ('{"file_name": "1", "landmarks": [[1, 2], 3]}', "line 1: landmarks must be 2 points"),
        ('{"file_name": "1", "landmarks": [[1, 2, 3]]}', "line 1: landmarks must be 1 points"),
        ('{"file_name": "1", "landmarks": [1, 2, 3]}', "line 1: landmarks has 3 numbers, not 2"),
        ('{"file_name": "1", "landmarks": [[1, null]]}', "line 1: a point of landmarks has only one coordinate"),
        ('{"file_name": "1", "landmarks": [[1, "2"]]}', "line 1: landmarks must be a list of numbers"),
        ('{"file_name": "1", "landmarks": [[1, Infinity]]}', "line 1: landmarks holds an infinite number"),
        ('{"file_name": "1", "box": {"x": 1}}', "line 1: box must be a list of numbers"),
        ('{"file_name": "1", "box": [1, 2, 3]}', "line 1: box has 3 numbers, not 4"),
        ('{"file_name": "1", "landmarks": [[1, 2]], "visibility": [1, 0]}', "line 1: visibility must be a list of 1"),
        ('{"file_name": "1", "split": "a b"}', "line 1: a split is called by letters"),
    ],
)
def test_a_mistake_in_metadata_lines_is_named_with_its_line(root, text, message):
    (root / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        open_source("imagefolder", root)
    assert "\n" not in str(error.value)


def test_other_wrong_image_folders(root):
    with pytest.raises(DataError, match="holds no picture"):
        open_source("imagefolder", root)
    picture(root / "1.png")
    with pytest.raises(DataError, match="so there are no points for a scheme"):
        open_source("imagefolder", root, scheme="300w")
    with pytest.raises(DataError, match="is a file; name the folder"):
        open_source("imagefolder", root / "1.png")
    lines(root / "metadata.jsonl", {"file_name": "1.png"})
    with pytest.raises(DataError, match="no points that a scheme could belong to"):
        open_source("imagefolder", root, scheme="300w")


# ------------------------------------------------------------------------------------------------ names and types


def test_splits_in_names():
    for name, split in [
        ("labels_ibug_300W_train", "train"),
        ("person_keypoints_val2017", "validation"),
        ("DEV", "validation"),
        ("my-test.v2", "test"),
        ("trained", None),
        ("latest", None),
        ("trainval", None),
        ("contest_1", None),
    ]:
        assert split_of(name) == split
    with pytest.raises(DataError, match="speaks of the splits test and train"):
        split_of("train_test")


def test_types_of_attributes():
    types = AttributeTypes()
    types.see({"a": 1, "b": 1, "c": True, "d": True, "e": None, "f": 1.5, "g": 2**70, "h": [1], "image": "x"})
    types.see({"a": 2.5, "b": 3, "c": False, "d": 1, "e": None, "f": "x", "h": 3})
    assert types.found == {
        "a": "float64", "b": "int64", "c": "bool", "d": "string", "e": "string", "f": "string", "g": "string"
    }  # fmt: skip
    assert types.dropped == ["h"]
