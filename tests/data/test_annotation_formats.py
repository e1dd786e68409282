"""Readers of `.pts` folders and of dlib's XML, on files written by hand."""

import logging

import numpy as np
import pytest


datasets = pytest.importorskip("datasets")

from fabrec_hf.data.formats.pts import read_pts, write_pts  # noqa: E402
from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.errors import DataError, SchemeError  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme  # noqa: E402
from support.hand_written import picture, rows  # noqa: E402
from support.read_splits import load_split  # noqa: E402


def pts(path, *points):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(f"{x} {y}" for x, y in points))


def values(source, column, split="train"):
    return [row[column] for row in rows(source, split)]


# ------------------------------------------------------------------------------------------------ one .pts file


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nn_points: 3\n{\n1.5 2\nnan nan\n-3e1 0.25\n}\n",
        "version:1\nn_points :  3 {\n  1.5\t2  \n\nNaN nan\n-30 .25 }\n\n",
        "\ufeffversion: 1\r\nn_points: 3\r\n{\r\n1.5 2\r\nnan nan\r\n-30 0.25\r\n}\r\n",
        "1.5 2\nnan nan\n-30 0.25",
        "\n1.5 2\nnan nan\n\n-30 0.25\n",
        "{\n1.5 2\nnan nan\n-30 0.25\n}",
    ],
)
def test_pts_files_in_any_spacing(tmp_path, text):
    (tmp_path / "a.pts").write_text(text, encoding="utf-8")
    for path in (tmp_path / "a.pts", str(tmp_path / "a.pts")):
        points = read_pts(path)
        assert points.dtype == np.float64
        np.testing.assert_array_equal(points, [[1.5, 2], [np.nan, np.nan], [-30, 0.25]])
        np.testing.assert_array_equal(read_pts(path, origin=1), [[0.5, 1], [np.nan, np.nan], [-31, -0.75]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a.pts, line 0: .*without any point"),
        ("version: 1\nn_points: 0\n{\n}\n", "line 4: .*without any point"),
        ("version: 1\nn_points: 3\n{\n1 2\n3 4\n}\n", "line 6: 2 points, but n_points says 3"),
        ("n_points: many\n1 2", "line 1: n_points must be a whole number, not 'many'"),
        ("n_points: -1\n1 2", "line 1: n_points must be"),
        ("1 2\n3 4 5", "line 2: expected two numbers, found '3 4 5'"),
        ("n_points: 2\n{\n1 2\n3\n}", "line 4: expected two numbers, found '3'"),
        ("1 2\nn_points: 1", "line 2: expected two numbers"),
        ("1 2\n}", "line 2: expected two numbers"),
        ("1 2\n3 x", "line 2: expected two numbers"),
        ("1 2\n3 nan", "line 2: a point is two finite numbers"),
        ("1 2\ninf 4", "line 2: a point is two finite numbers"),
        ("{\n1 2\n", "line 2: .*before the closing brace"),
        ("{\n1 2\n}\n3 4", "line 4: '3 4' follows the closing brace"),
    ],
)
def test_a_mistake_in_a_pts_file_is_named_with_its_line(tmp_path, text, message):
    (tmp_path / "a.pts").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_pts(tmp_path / "a.pts")
    assert "a.pts" in str(error.value) and "\n" not in str(error.value)


def test_pts_files_that_cannot_be_read(tmp_path):
    (tmp_path / "b.pts").write_bytes(b"\xff\xfe\x00\x81")
    pts(tmp_path / "a.pts", (1, 2))
    for arguments, message in [
        ((tmp_path / "none.pts",), "none.pts cannot be read: No such file"),
        ((tmp_path,), "cannot be read"),
        ((tmp_path / "b.pts",), "b.pts cannot be read: it is not text"),
        ((tmp_path / "a.pts", 2), "origin of .pts files is 0 or 1, not 2"),
    ]:
        with pytest.raises(DataError, match=message):
            read_pts(*arguments)


def test_written_points_come_back_as_the_same_numbers(tmp_path):
    random = np.random.default_rng(0)
    single = (random.random((500, 2)) * 10.0 ** random.integers(-9, 9, (500, 1))).astype(np.float32)
    single[7] = np.nan
    single[8] = np.uint32(0x15AE43FD).view(np.float32)  # its shortest decimal, 7.038531e-26, is another as a float64
    write_pts(tmp_path / "a.pts", single)
    np.testing.assert_array_equal(read_pts(tmp_path / "a.pts").astype(np.float32), single)
    assert "nan nan" in (tmp_path / "a.pts").read_text()
    double = random.random((50, 2)) * 1000
    write_pts(tmp_path / "a.pts", double)
    np.testing.assert_array_equal(read_pts(tmp_path / "a.pts"), double)
    pixels = (random.random((500, 2)) * 4000).astype(np.float32)
    write_pts(tmp_path / "a.pts", pixels, origin=1)
    np.testing.assert_array_equal(read_pts(tmp_path / "a.pts", origin=1).astype(np.float32), pixels)
    write_pts(tmp_path / "a.pts", np.array([[0.1, 12], [np.nan, 3]], dtype=np.float32))
    assert (tmp_path / "a.pts").read_text() == "version: 1\nn_points: 2\n{\n0.1 12.0\nnan nan\n}\n"
    for points in (np.zeros((0, 2)), np.zeros((3, 3)), [[1.0, np.inf]], None):
        with pytest.raises(DataError, match="takes points of shape"):
            write_pts(tmp_path / "b.pts", points)
    assert not (tmp_path / "b.pts").exists()


# ------------------------------------------------------------------------------------------------ folders of .pts


def test_a_folder_of_pts_files(root, caplog):
    picture(root / "b" / "two.PNG")
    picture(root / "one.jpg")
    picture(root / "group.webp")
    picture(root / "group_of_2.jpg")
    picture(root / "alone.jpg")
    pts(root / "b" / "two.pts", (3, 4), ("nan", "nan"))
    pts(root / "one.pts", (1, 2), (5, 6))
    pts(root / "group_2.pts", (7, 7), (7, 7))
    pts(root / "group_1.pts", (8, 8), (8, 8))
    pts(root / "group_of_2.pts", (9, 9), (9, 9))
    pts(root / ".hidden" / "x.pts", (1, 1), (1, 1))
    with caplog.at_level(logging.WARNING):
        source = open_source("pts", root)
    assert [record.getMessage() for record in caplog.records] == [
        f"1 pictures in {root} are left out, since they have no .pts file."
    ]
    assert source.scheme == LandmarkScheme("custom", 2)
    found = rows(source)
    assert [row["name"] for row in found] == ["b/two", "group_1", "group_2", "group_of_2", "one"]
    assert [row["picture"] for row in found] == [
        "b/two.PNG", "group.webp", "group.webp", "group_of_2.jpg", "one.jpg"
    ]  # fmt: skip
    assert found[1]["image"] == {"path": str(root / "group.webp"), "bytes": None}
    np.testing.assert_array_equal(found[0]["landmarks"], [[3, 4], [np.nan, np.nan]])
    np.testing.assert_array_equal(found[4]["landmarks"], [[1, 2], [5, 6]])
    assert all(row["box"] is None for row in found)
    assert {file.name for file in source.files} == {
        "two.pts", "one.pts", "group_1.pts", "group_2.pts", "group_of_2.pts"
    }  # fmt: skip
    loaded = load_split(source, "train")
    assert loaded[4]["image"].size == (40, 30) and loaded[4]["landmarks"] == [[1, 2], [5, 6]]


def test_pts_options(root):
    picture(root / "pictures" / "a" / "x.png")
    pts(root / "points" / "a" / "x.pts", (1, 2))
    source = open_source("pts", root / "pictures", annotations=root / "points", origin=1, split="test", scheme=None)
    assert values(source, "landmarks", "test")[0].tolist() == [[0, 1]]
    assert values(source, "name", "test") == ["a/x"]
    # A name without a folder in front is looked for below the data as well.
    picture(root / "x.png")
    pts(root / "own" / "x.pts", (5, 6))
    (root / "pictures" / "a" / "x.png").unlink()
    assert values(open_source("pts", root, annotations="own"), "landmarks")[0].tolist() == [[5, 6]]


def test_pts_folders_named_after_splits(root, caplog):
    for place in ("train", "val", "extra"):
        picture(root / place / "x.png")
        pts(root / place / "x.pts", (1, 2))
    with caplog.at_level(logging.WARNING):
        source = open_source("pts", root)
    assert list(source.splits) == ["train", "validation"]
    assert len(caplog.records) == 1 and "left out: extra" in caplog.text
    assert values(source, "name", "validation") == ["val/x"]
    with pytest.raises(DataError, match="tells its splits itself; leave out the split 'test'"):
        open_source("pts", root, split="test")
    (root / "dev").mkdir()
    with pytest.raises(DataError, match="both are the validation split"):
        open_source("pts", root)


def test_pts_with_a_table_beside_them(root, caplog):
    for name in ("a", "b", "c"):
        picture(root / f"{name}.png")
        pts(root / f"{name}.pts", (1, 2))
    (root / "faces.csv").write_text(
        "image,box_x,box_y,box_width,box_height,name,picture,subset,age,left_x,good\n"
        "b.png,1.5,2,3,4,Bea,photo/7,helen,31,0.5,True\n"
        "gone.png,1,2,3,4,,,,1,1,False\n"
        "a.png,,,,,,,,,,\n"
    )
    source = open_source("pts", root)
    found = rows(source)
    assert [row["name"] for row in found] == ["Bea", "a.png", "c"]  # those of the table, then the others
    assert found[0]["box"].tolist() == [1.5, 2, 3, 4] and found[1]["box"] is None
    assert (found[0]["picture"], found[0]["subset"]) == ("photo/7", "helen")
    assert [(row["age"], row["left_x"], row["good"]) for row in found] == [(31, 0.5, True)] + [(None,) * 3] * 2
    assert root / "faces.csv" in source.files


def test_wrong_pts_folders(root):
    picture(root / "a" / "one.png")
    with pytest.raises(DataError, match="a holds no .pts file"):
        open_source("pts", root / "a")
    pts(root / "a" / "one.pts", (1, 2), (3, 4))
    for options, message in [
        ({"origin": 2}, "origin of .pts files is 0 or 1"),
        ({"scheme": "300w"}, "one.pts has 2 points a face, but the scheme 300w 68"),
        ({"scheme": "nonsense"}, "nonsense"),
        ({"annotations": "nowhere"}, "no folder nowhere of .pts files"),
        ({"images": "a"}, "takes no option images"),
    ]:
        with pytest.raises((DataError, SchemeError), match=message):
            open_source("pts", root / "a", **options)
    with pytest.raises(DataError, match="is a file; name the folder"):
        open_source("pts", root / "a" / "one.pts")
    picture(root / "a" / "two.png")
    pts(root / "a" / "two.pts", (1, 2))
    with pytest.raises(DataError, match="two.png has 1 annotated points, but custom has 2"):
        rows(open_source("pts", root / "a"))
    pts(root / "a" / "three.pts", (1, 2), (3, 4))
    with pytest.raises(DataError, match="three.pts has no picture of its name"):
        open_source("pts", root / "a")
    picture(root / "a" / "three.png")
    picture(root / "a" / "three.jpg")
    with pytest.raises(DataError, match="three.pts may belong to three.jpg or three.png"):
        open_source("pts", root / "a")


# ------------------------------------------------------------------------------------------------ dlib


def imglab(*images):
    return (
        "<?xml version='1.0' encoding='ISO-8859-1'?>\n<dataset>\n<images>\n"
        + "\n".join(images)
        + ("\n</images>\n</dataset>\n")
    )


def box(inside="", more=""):
    return f"<box top='20' left='10' width='30' height='40' {more}>{inside}</box>"


def part(name, x=1, y=2):
    return f"<part name='{name}' x='{x}' y='{y}'/>"


def test_dlib_numbers_give_the_order(root):
    first = box(part("10", 5, 6) + part("02", 3, 4) + "<label> me </label>", "gender='female' age='31.5' occluded='1'")
    second = box(part("2", 7, 8))
    ignored = box(part("99"), "ignore='1'")
    text = imglab(f"<image file='b/one.jpg'>{first}{ignored}</image>", f"<image file='two.jpg'>{second}</image>")
    (root / "faces.xml").write_text(text)
    source = open_source("dlib", root / "faces.xml")
    assert source.scheme == LandmarkScheme("custom", 2)
    found = rows(source)
    assert [row["name"] for row in found] == [row["picture"] for row in found] == ["b/one.jpg", "two.jpg"]
    assert found[0]["image"]["path"] == str(root / "b" / "one.jpg")
    assert found[0]["box"].tolist() == [10, 20, 30, 40]
    np.testing.assert_array_equal(found[0]["landmarks"], [[3, 4], [5, 6]])
    np.testing.assert_array_equal(found[1]["landmarks"], [[7, 8], [np.nan, np.nan]])
    known = [[row[name] for name in source.attributes] for row in found]
    assert list(source.attributes) == ["label", "gender", "age", "occluded"]
    assert known == [["me", "female", 31.5, True], [None, None, None, False]]
    elsewhere = open_source("dlib", root / "faces.xml", images=root.parent, split="test")
    assert rows(elsewhere, "test")[1]["image"]["path"] == str(root.parent / "two.jpg")
    assert list(open_source("dlib", root / "faces.xml", scheme=LandmarkScheme("mine", 2)).splits) == ["train"]


def test_dlib_names_become_the_names_of_the_points(root):
    first = box(part("nose") + part("left_eye", 3, 4))
    second = box(part("right_eye", 5, 6) + part("nose", 7, 8))
    text = imglab(f"<image file='ü.jpg'>\n{first}\n{second}</image>").encode("latin-1")
    (root / "faces_test.xml").write_bytes(text)
    source = open_source("dlib", root / "faces_test.xml")
    assert source.scheme.point_names == ("nose", "left_eye", "right_eye") and source.scheme.flip_pairs == ((1, 2),)
    assert values(source, "name", "test") == ["ü.jpg:5", "ü.jpg:6"]  # the lines tell the faces of one picture apart
    np.testing.assert_array_equal(values(source, "landmarks", "test")[1], [[7, 8], [np.nan] * 2, [5, 6]])
    mine = LandmarkScheme("mine", 3, ("left_eye", "right_eye", "nose"))
    np.testing.assert_array_equal(
        values(open_source("dlib", root, scheme=mine), "landmarks", "test")[0], [[3, 4], [np.nan] * 2, [1, 2]]
    )


def test_dlib_boxes_alone_are_faces_without_labels(root):
    (root / "a.xml").write_text(imglab(f"<image file='a.jpg'>{box()}</image>"))
    source = open_source("dlib", root)
    assert source.scheme is None and rows(source)[0]["box"].tolist() == [10, 20, 30, 40]
    with pytest.raises(DataError, match="no points that a scheme could belong to"):
        open_source("dlib", root, scheme="300w")


def test_dlib_files_name_their_splits(root, caplog):
    for name, file in [("labels_300W_test", "a"), ("labels_300W_train", "b"), ("labels_300W", "c")]:
        (root / f"{name}.xml").write_text(imglab(f"<image file='{file}.jpg'>{box(part('0'))}</image>"))
    with caplog.at_level(logging.WARNING):
        source = open_source("dlib", root)
    assert list(source.splits) == ["train", "test"] and values(source, "name", "test") == ["a.jpg"]
    assert len(caplog.records) == 1 and "left out: labels_300W.xml" in caplog.text
    with pytest.raises(DataError, match="tells its splits itself"):
        open_source("dlib", root, split="test")
    (root / "more_train.xml").write_text(imglab())
    with pytest.raises(DataError, match="both are the train split"):
        open_source("dlib", root)
    for name in ("labels_300W_test", "labels_300W_train", "more_train"):
        (root / f"{name}.xml").unlink()
    (root / "labels_2.xml").write_text(imglab())
    with pytest.raises(DataError, match="does not say its split"):
        open_source("dlib", root)
    (root / "train_or_test.xml").write_text(imglab())
    with pytest.raises(DataError, match="speaks of the splits test and train"):
        open_source("dlib", root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (imglab("<image file='a.jpg'></image>"), "holds no box; is it a file of imglab"),
        ("<dataset>\n<images>", "a.xml, line 2: no whole XML"),
        ("", "no whole XML"),
        ('<!DOCTYPE d [<!ENTITY a "aaaa">]>\n' + imglab(), r"DOCTYPE|no whole XML"),
        ('<?xml version="1.0"?>\n<!DOCTYPE d [<!ENTITY a "a">]>\n<dataset/>', r"line 2: a document type \(DOCTYPE\)"),
        (imglab(f"<image>{box()}</image>"), "line 4: an image without the attribute file"),
        (imglab(box()), "line 4: a box outside of any image"),
        (imglab("<image file='a'><box top='1' left='2' width='3'/></image>"), "the attribute height is missing"),
        (imglab("<image file='a'><box top='1' left='x' width='3' height='1'/></image>"), "left is 'x', .* no number"),
        (imglab(f"<image file='a'>{box(part('0', 'nan'))}</image>"), "line 4: x is 'nan'"),
        (imglab(f"<image file='a'>{box(part('1') + part('01'))}</image>"), "the part '1' stands twice"),
        (imglab(f"<image file='a'>{box(part(''))}</image>"), "a part without the attribute name"),
        (imglab("<image file='a'>" + box(more="age='old'") + "</image>"), "age is 'old'"),
    ],
)
def test_a_mistake_in_a_dlib_file_is_named_with_its_line(root, text, message):
    (root / "a.xml").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        open_source("dlib", root / "a.xml")
    assert "a.xml" in str(error.value) and "\n" not in str(error.value)


def test_other_wrong_dlib_data(root):
    with pytest.raises(DataError, match="holds no .xml file"):
        open_source("dlib", root)
    (root / "a.xml").write_text(imglab(f"<image file='a'>{box(part('0'))}</image>"))
    with pytest.raises(SchemeError, match="has 1 points a face, but the scheme mtfl 5"):
        open_source("dlib", root, scheme="mtfl")
    with pytest.raises(DataError, match="no folder nowhere of pictures"):
        open_source("dlib", root, images="nowhere")
    flat = "<box top='1' left='1' width='0' height='3'/>"
    (root / "a.xml").write_text(imglab(f"<image file='a'>{flat}</image>"))
    assert rows(open_source("dlib", root))[0]["box"] is None
