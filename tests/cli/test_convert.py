"""`fabrec convert` as a user calls it: what it writes, prints and refuses, from every kind back to every format."""

import json

import numpy as np
import pytest
from PIL import Image


datasets = pytest.importorskip("datasets")

from fabrec_hf.cli import main  # noqa: E402
from fabrec_hf.data import load_faces  # noqa: E402
from fabrec_hf.data.face_set import find_face_set, shared_face_set  # noqa: E402
from fabrec_hf.data.scheme_conversion import SchemeConversion  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from fabrec_hf.model.known_schemes import get_scheme  # noqa: E402


NAMES = ("left_ear", "right_ear", "chin")


@pytest.fixture
def table(tmp_path):
    """A CSV file of five faces in two splits; one point is missing, one face has no box."""
    lines = [
        "image,split,left_ear_x,left_ear_y,right_ear_x,right_ear_y,chin_x,chin_y,box_x,box_y,box_width,box_height"
    ]
    for index in range(5):
        Image.new("RGB", (40, 30), (40 * index, 9, 9)).save(tmp_path / f"{index}.png")
        split = "test" if index > 2 else "train"
        chin = "," if index == 1 else "10.25,20.5"
        box = ",,," if index == 2 else "2,3,20,18"
        lines.append(f"{index}.png,{split},4.5,6,16,6.125,{chin},{box}")
    (tmp_path / "faces.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "faces.csv"


def convert(*words):
    return main(["convert", *map(str, words)])


def refused(capsys, *words):
    """Run a command that must fail; returns its one line."""
    capsys.readouterr()
    assert convert(*words) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.strip().splitlines()
    assert captured.out == "" and "Traceback" not in line
    return line


def contents(folder, split):
    faces = load_faces(folder, split).cast_column("image", datasets.Image(decode=False))
    return [
        (row["image"]["bytes"], np.float32(row["landmarks"]).tobytes(), np.float32(row["box"]).tobytes())
        for row in faces
    ]


def test_the_report_says_what_was_found(table, tmp_path, capsys):
    assert convert("csv", table, tmp_path / "out", "--boxes", "points") == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "|" in line]
    header, train, test = rows[0], rows[2], rows[3]
    assert dict(zip(header, train, strict=True)) == {
        "split": "train", "faces": "3", "points": "8", "missing points": "1", "outside points": "0",
        "unlabelled faces": "0", "copies": "0", "skipped": "0", "boxes": "3 points",
    }  # fmt: skip
    assert (test[0], test[1], test[-1]) == ("test", "2", "2 points")
    assert "3 points, scheme custom, 1 flip pairs." in printed
    assert load_faces(tmp_path / "out", "train")["box"][2] == [4.5, 6.0, 11.5, 14.5]
    assert find_face_set(tmp_path / "out").scheme.point_names == NAMES


@pytest.mark.parametrize("form", ["coco", "pts", "cvat", "labelme", "labelstudio", "via"])
def test_other_formats_come_back_with_scheme_crop_rule_and_every_bit(table, tmp_path, form):
    (tmp_path / "ears.yaml").write_text("name: ears\npoint_names: [left_ear, right_ear, chin]\nedges: [[0, 2]]\n")
    assert convert("csv", table, tmp_path / "one", "--boxes", "points", "--scheme", tmp_path / "ears.yaml") == 0
    facts = json.loads((tmp_path / "one" / "face_set.json").read_text()) | {"extend_top": 0.05}
    (tmp_path / "one" / "face_set.json").write_text(json.dumps(facts))
    assert convert("parquet", tmp_path / "one", tmp_path / "files", "--to", form) == 0
    assert convert(form, tmp_path / "files", tmp_path / "two") == 0
    for split in ("train", "test"):
        assert contents(tmp_path / "one", split) == contents(tmp_path / "two", split)
    first, second = find_face_set(tmp_path / "one"), find_face_set(tmp_path / "two")
    assert (first.scheme, first.extend_top, first.extend_bottom) == (
        second.scheme, second.extend_top, second.extend_bottom,
    )  # fmt: skip
    assert first.scheme.name == "ears" and first.extend_top == 0.05
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_imglab_gets_whole_pixels(table, tmp_path):
    assert convert("csv", table, tmp_path / "one", "--boxes", "points") == 0
    assert convert("parquet", tmp_path / "one", tmp_path / "files", "--to", "dlib") == 0
    assert convert("dlib", tmp_path / "files", tmp_path / "two", "--boxes", "given") == 0
    for split in ("train", "test"):
        first, second = load_faces(tmp_path / "one", split), load_faces(tmp_path / "two", split)
        np.testing.assert_allclose(second["landmarks"], np.rint(first["landmarks"]))
    assert load_faces(tmp_path / "two", "train")["box"][0] == [4, 6, 12, 14]  # 4.5 to 16 and 6 to 20.5, to even ones
    first, second = find_face_set(tmp_path / "one"), find_face_set(tmp_path / "two")
    assert (first.scheme, first.extend_bottom) == (second.scheme, second.extend_bottom)


def test_lists_of_wflw(wflw, tmp_path, capsys):
    (wflw / "1.pts").unlink()
    common = ["--scheme", "wflw", "--origin", "0", "--boxes", "points"]
    assert convert("pts", wflw, tmp_path / "files", "--to", "wflw", *common) == 0
    assert convert("wflw", tmp_path / "files", tmp_path / "two") == 0
    (face,) = load_faces(tmp_path / "two")
    assert face["landmarks"] == [[i, 2 * i] for i in range(98)] and face["box"] == [0, 0, 97, 194]
    assert find_face_set(tmp_path / "two").scheme == get_scheme("wflw")
    message = "The lists of WFLW hold 98 points each, not 68; write another form."
    assert message in refused(capsys, "pts", wflw, tmp_path / "no", "--to", "wflw", "--to-scheme", "300w", *common)
    assert not (tmp_path / "no").exists()


@pytest.fixture
def wflw(tmp_path):
    """Two pictures with the 98 points of WFLW as .pts files; point i lies at (i, 2 i), and one is missing."""
    folder = tmp_path / "wflw"
    folder.mkdir()
    for index in range(2):
        Image.new("RGB", (100, 200), (index, 9, 9)).save(folder / f"{index}.png")
        points = ["nan nan" if (index, i) == (1, 61) else f"{i} {2 * i}" for i in range(98)]
        text = "\n".join(["version: 1", "n_points: 98", "{", *points, "}"])
        (folder / f"{index}.pts").write_text(text + "\n")
    return folder


def test_landmarks_are_converted_to_fewer(wflw, tmp_path, capsys):
    common = ["--scheme", "wflw", "--origin", "0", "--boxes", "points"]
    for name, more in (("all", []), ("68", ["--to-scheme", "300w"]), ("5", ["--to-scheme", "mtfl"])):
        assert convert("pts", wflw, tmp_path / name, *common, *more) == 0
    assert "The landmarks were converted from the 98 points of wflw." in capsys.readouterr().out
    everything, some, five = (load_faces(tmp_path / name) for name in ("all", "68", "5"))
    assert some["box"][:] == five["box"][:] == everything["box"][:] == [[0, 0, 97, 194]] * 2, "boxes are of all points"
    eyes = [60, 61, 63, 64, 65, 67], [68, 69, 71, 72, 73, 75]
    xs = [*range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 60), *eyes[0], *eyes[1], *range(76, 96)]
    assert some[0]["landmarks"] == [[x, 2 * x] for x in xs]
    means = [sum(eye) / 6 for eye in eyes]
    np.testing.assert_allclose(five[0]["landmarks"], [[x, 2 * x] for x in (*means, 54, 76, 82)], rtol=1e-6)
    assert np.isnan(five[1]["landmarks"][0]).all() and not np.isnan(five[1]["landmarks"][1:]).any()
    assert find_face_set(tmp_path / "68").scheme == get_scheme("300w")
    facts = find_face_set(tmp_path / "5")
    assert facts.scheme == get_scheme("mtfl")
    assert (facts.splits["train"]["points"], facts.splits["train"]["missing_points"]) == (9, 1)


def test_a_point_made_of_several_is_visible_if_all_are(tmp_path):
    visible = [True] * 68
    visible[36] = visible[30] = False
    conversion = SchemeConversion(get_scheme("300w"), get_scheme("mtfl"))
    row = conversion.convert({"landmarks": np.ones((68, 2)), "visibility": visible, "name": "a"})
    assert row["visibility"].tolist() == [False, True, False, True, True] and row["name"] == "a"


def test_other_formats_take_the_fewer_points(wflw, tmp_path):
    words = ["--scheme", "wflw", "--origin", "0", "--boxes", "points", "--to-scheme", "mtfl", "--to", "coco"]
    assert convert("pts", wflw, tmp_path / "coco", *words) == 0
    categories = json.loads((tmp_path / "coco" / "annotations" / "train.json").read_text())["categories"]
    assert categories[0]["keypoints"] == list(get_scheme("mtfl").point_names)


def test_points_that_cannot_be_converted_are_refused(table, wflw, tmp_path, capsys):
    line = refused(capsys, "csv", table, tmp_path / "out", "--to-scheme", "mtfl")
    assert "the scheme custom, which cannot be converted to mtfl; only those of wflw and 300w can" in line
    names = tmp_path / "mine.yaml"
    names.write_text("name: mine\nnum_landmarks: 98\n")
    assert "the scheme mine, which cannot be converted to 300w" in refused(
        capsys, "pts", wflw, tmp_path / "out", "--scheme", names, "--to-scheme", "300w"
    )
    assert convert("pts", wflw, tmp_path / "68", "--scheme", "wflw", "--boxes", "points", "--to-scheme", "300w") == 0
    line = refused(capsys, "parquet", tmp_path / "68", tmp_path / "out", "--to-scheme", "300w")
    assert "the scheme 300w, which cannot be converted to 300w; they can to mtfl." in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["parquet", "coco", "pts"])
def test_one_picture_in_two_splits_is_refused_in_every_format(table, tmp_path, capsys, form):
    (tmp_path / "4.png").write_bytes((tmp_path / "0.png").read_bytes())
    line = refused(capsys, "csv", table, tmp_path / "out", "--to", form, "--boxes", "points")
    assert "1 pictures stand both in train and in test" in line and "--allow-copies" in line
    assert not (tmp_path / "out").exists()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    Image.new("RGB", (40, 30), "white").save(tmp_path / "4.png")  # what the message asks for
    assert convert("csv", table, tmp_path / "out", "--to", form, "--boxes", "points") == 0


def test_a_picture_that_is_not_whole_is_found(table, tmp_path, capsys):
    random = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(random).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    for boxes in ("points", "detector"):
        (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
        assert "2.png cannot be read" in refused(capsys, "csv", table, tmp_path / "out", "--boxes", boxes)
    assert convert("csv", table, tmp_path / "out", "--skip-unreadable", "--boxes", "points") == 0
    assert find_face_set(tmp_path / "out").splits["train"]["skipped"] == 1


def write_parquet(path, **changes):
    values = {
        "image": [{"bytes": b"", "path": "a.png"}, {"bytes": b"", "path": "b.png"}],
        "landmarks": [[[1.0, 2.0], [3.0, 4.0]]] * 2,
    }
    datasets.Dataset.from_dict(values | changes).to_parquet(path)


def test_damaged_parquet_is_one_line(tmp_path, capsys):
    path, out = tmp_path / "faces.parquet", tmp_path / "out"
    datasets.Dataset.from_dict({"name": ["a"]}).to_parquet(path)
    assert "has no column image" in refused(capsys, "parquet", path, out)
    path.write_bytes(b"not parquet")
    assert "not a readable Parquet file" in refused(capsys, "parquet", path, out)
    write_parquet(path, image=[{"bytes": b"x", "path": None}, None])
    assert "Row 1 of" in refused(capsys, "parquet", path, out, "--skip-unreadable")
    write_parquet(path, landmarks=[[[1.0, 2.0], [3.0, 4.0]], None])
    assert "Row 1 of" in refused(capsys, "parquet", path, out, "--skip-unreadable")
    write_parquet(
        path, image=[{"bytes": b"\x89PNG" * 999, "path": None}] * 2, landmarks=[[[1.0, 2.0]] * 2, [[1.0, 2.0]]]
    )
    line = refused(capsys, "parquet", path, out, "--skip-unreadable")
    assert len(line) < 300 and "faces.parquet, row 1 has 1 annotated points" in line


def test_mistakes_are_one_line(table, tmp_path, capsys):
    assert "takes no option origin" in refused(capsys, "csv", table, tmp_path / "out", "--origin", "1")
    assert "There is no file or folder" in refused(capsys, "pts", tmp_path / "nowhere", tmp_path / "out")
    assert "is not empty" in refused(capsys, "csv", table, tmp_path)
    assert "must be at least 1" in refused(capsys, "csv", table, tmp_path / "out", "--num-proc", "0")
    with pytest.raises(SystemExit) as stopped:
        convert("tsv", table, tmp_path / "out")
    assert stopped.value.code == 2


def test_a_glob_and_a_bare_name_know_their_set_too(table, tmp_path, monkeypatch):
    assert convert("csv", table, tmp_path / "out", "--boxes", "points") == 0
    whole = find_face_set(tmp_path / "out")
    assert find_face_set(tmp_path / "out" / "data" / "*.parquet") == whole
    assert find_face_set(tmp_path / "out" / "data" / "train-00000-of-00001.parquet") == whole
    monkeypatch.chdir(tmp_path / "out" / "data")
    assert find_face_set("train-00000-of-00001.parquet") == find_face_set(".") == whole
    assert shared_face_set([".", tmp_path / "out"]) == whole
    with pytest.raises(DataError, match="differ in scheme or crop rule"):
        shared_face_set([".", tmp_path])


def test_data_of_other_points_is_not_scored(tmp_path, capsys):
    """As many points as the model has, but of other names: the numbers would mean nothing."""
    header = ",".join(f"p{i}_x,p{i}_y" for i in range(68))
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    points = ",".join(f"{1 + i % 30},{2 + i % 20}" for i in range(68))
    (tmp_path / "faces.csv").write_text(f"image,{header}\na.png,{points}\n")
    assert convert("csv", tmp_path / "faces.csv", tmp_path / "out", "--boxes", "points") == 0
    capsys.readouterr()
    assert main(["evaluate", "--data", str(tmp_path / "out")]) == 2
    assert "differ in the names of their points" in capsys.readouterr().err
