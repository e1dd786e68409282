"""Converting a source of faces to Parquet: what is written, what is reported, and what interrupts it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


datasets = pytest.importorskip("datasets")

from fabrec_hf.common.drafts import PREFIX  # noqa: E402
from fabrec_hf.data import conversion, face_boxes, load_faces, shards  # noqa: E402
from fabrec_hf.data.conversion import ConversionSettings, convert_faces  # noqa: E402
from fabrec_hf.data.face_set import find_face_set  # noqa: E402
from fabrec_hf.data.formats.parquet_source import open_source  # noqa: E402
from fabrec_hf.data.readers import guess_kind  # noqa: E402
from fabrec_hf.data.source import FaceSource  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from fabrec_hf.model.face_detection import Detection  # noqa: E402
from fabrec_hf.model.known_schemes import get_scheme  # noqa: E402
from support.made_sources import SCHEME, make_row, make_source  # noqa: E402
from support.read_splits import load_split  # noqa: E402


NAN = float("nan")


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_rows_come_back_as_they_were(tmp_path):
    rows = [
        make_row(tmp_path, 0, landmarks=[(0.1, 2.25), (NAN, NAN), (3, 6)], subset="a", age=31),
        make_row(tmp_path, 1, box=None, age=None),
    ]
    source = make_source({"train": rows}, attributes={"age": datasets.Value("int8")})
    convert_faces(source, tmp_path / "out", ConversionSettings(boxes="none"))
    faces = load_faces(tmp_path / "out", columns=("image", "landmarks", "box"))
    assert faces.column_names == ["image", "landmarks", "box", "name", "picture", "subset", "split", "age"]
    assert faces["name"][:] == ["face 0", "face 1"]
    assert faces["split"][:] == ["train", "train"]
    assert (faces["subset"][:], faces["age"][:]) == (["a", None], [31, None])
    expected = np.array([[0.1, 2.25], [NAN, NAN], [3, 6]], dtype=np.float32)
    np.testing.assert_array_equal(np.array(faces["landmarks"][0], dtype=np.float32), expected)
    assert faces["box"][:] == [[0, 1, 6, 6], None]
    assert faces[1]["image"].getpixel((0, 0)) == (1, 0, 9)
    stored = faces.cast_column("image", datasets.Image(decode=False))[0]["image"]
    assert stored == {"bytes": (tmp_path / "0.png").read_bytes(), "path": "0.png"}


def test_the_report_counts_what_there_is(tmp_path):
    turned = Image.new("RGB", (8, 10), "red")
    turned.getexif()[0x0112] = 6  # upright it is 10 wide and 8 high
    turned.save(tmp_path / "turned.jpg", exif=turned.getexif())
    rows = [
        make_row(tmp_path, 0, landmarks=[(-0.5, 2), (7.4, 9.4), (7.5, 0)]),  # the first and the last lie outside
        make_row(tmp_path, 1, landmarks=[(NAN, NAN)] * 3),
        make_row(tmp_path, 0, landmarks=[(1, 1), (1, NAN), (2, 3)]),
        make_row(tmp_path, 2, landmarks=[(9, 7), (8, 8), (0, 0)]) | {"image": tmp_path / "turned.jpg"},
    ]
    report = convert_faces(make_source({"train": rows}), tmp_path / "out").splits["train"]
    assert (report["faces"], report["points"], report["missing_points"]) == (4, 8, 4)
    assert (report["outside_points"], report["unlabelled_faces"]) == (3, 1)
    assert (report["turned"], report["copies"], report["boxes"]) == (1, 1, {"given": 4})


def test_boxes_are_made_up_by_rule(tmp_path, monkeypatch):
    rows = [
        make_row(tmp_path, 0, box=None),
        make_row(tmp_path, 1, landmarks=[(4, 4), (NAN, NAN), (NAN, NAN)], box=None),
        make_row(tmp_path, 2),
    ]

    def boxes(rule, scheme=SCHEME):
        face_set = convert_faces(
            make_source({"train": rows}, scheme), tmp_path / f"{rule}-{scheme.name}", ConversionSettings(boxes=rule)
        )
        faces = load_faces(tmp_path / f"{rule}-{scheme.name}", columns=("box",))
        return faces["box"][:], face_set.splits["train"]["boxes"]

    # The points and the detector replace a given box where they can.
    assert boxes("points") == ([[1, 2, 4, 4], [0, 0, 8, 10], [1, 2, 4, 4]], {"points": 2, "image": 1})
    assert boxes("given") == ([[1, 2, 4, 4], [0, 0, 8, 10], [0, 1, 6, 6]], {"points": 1, "image": 1, "given": 1})
    assert boxes("image") == ([[0, 0, 8, 10], [0, 0, 8, 10], [0, 1, 6, 6]], {"image": 2, "given": 1})
    assert boxes("none") == ([None, None, [0, 1, 6, 6]], {"none": 2, "given": 1})

    # The largest face does not hold the points, the second does; a single point elsewhere belongs to neither.
    found = [Detection((20, 20, 9, 9), 0.9), Detection((1, 2, 4, 5), 0.8)]
    monkeypatch.setattr(face_boxes, "default_face_detector", lambda: lambda image: found)
    assert boxes("detector") == ([[1, 2, 4, 5]] * 3, {"detector": 3})
    expected = [[1, 2, 4, 5], [1, 2, 4, 5], [0, 1, 6, 6]]  # the detector is the default for a face without a box
    assert boxes("auto") == (expected, {"detector": 2, "given": 1})
    found.pop()
    assert boxes("auto", replace(SCHEME, name="again"))[0] == [[1, 2, 4, 4], [0, 0, 8, 10], [0, 1, 6, 6]]


def test_the_points_of_a_whole_face_are_its_default_box(tmp_path):
    points = np.random.default_rng(0).uniform(1, 7, (68, 2)).astype(np.float32)
    source = make_source({"train": [make_row(tmp_path, 0, landmarks=points, box=None)]}, get_scheme("300w"))
    assert convert_faces(source, tmp_path / "out").splits["train"]["boxes"] == {"points": 1}
    box = load_faces(tmp_path / "out", columns=("box",))["box"][0]
    np.testing.assert_array_equal(box, [*points.min(0), *(points.max(0) - points.min(0))])


def test_any_number_of_processes_writes_the_same_files(tmp_path):
    rows = {"train": [make_row(tmp_path, i) for i in range(7)], "test": [make_row(tmp_path, i) for i in range(7, 9)]}
    convert_faces(make_source(rows), tmp_path / "one", ConversionSettings(shard_size=2))
    convert_faces(make_source(rows), tmp_path / "two", ConversionSettings(shard_size=2, num_proc=2))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    names = [*(f"train-0000{i}-of-00004.parquet" for i in range(4)), "test-00000-of-00001.parquet"]
    assert sorted(path.name for path in (tmp_path / "one" / "data").iterdir()) == sorted(names)
    assert load_faces(tmp_path / "one", "train")["name"][:] == [f"face {i}" for i in range(7)]


def test_rows_are_read_as_they_are_written(tmp_path, monkeypatch):
    read = []

    def rows():
        for index in range(40):
            read.append(index)
            yield make_row(tmp_path, index)

    seen = []
    monkeypatch.setattr(conversion, "write_shard", lambda *args: seen.append(len(read)) or shards.write_shard(*args))
    convert_faces(FaceSource("test", {"train": rows}, SCHEME), tmp_path / "out", ConversionSettings(shard_size=10))
    assert seen == [10, 20, 30, 40]


def test_one_picture_in_two_splits_is_an_error(tmp_path):
    rows = {
        "train": [make_row(tmp_path, i) for i in range(5)],
        "test": [make_row(tmp_path, 7), make_row(tmp_path, 3) | {"name": "face 3 again"}],
    }
    with pytest.raises(DataError, match="1 pictures stand both in train and in test.*face 3 and face 3 again"):
        convert_faces(make_source(rows), tmp_path / "out", ConversionSettings(shard_size=2))
    assert not (tmp_path / "out").exists()
    face_set = convert_faces(make_source(rows), tmp_path / "out", ConversionSettings(shard_size=2, allow_copies=True))
    assert [split["copies"] for split in face_set.splits.values()] == [0, 0]


def test_an_interrupted_conversion_goes_on_where_it_was(tmp_path, monkeypatch):
    source = make_source({"train": [make_row(tmp_path, i) for i in range(6)]})
    convert_faces(source, tmp_path / "whole", ConversionSettings(shard_size=2))
    written = []

    def write(rows, path, settings):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path.name)
        return shards.write_shard(rows, path, settings)

    monkeypatch.setattr(conversion, "write_shard", write)
    with pytest.raises(KeyboardInterrupt):
        convert_faces(source, tmp_path / "out", ConversionSettings(shard_size=2))
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()
    kept = tmp_path / ".out.partial" / "data" / "train-1.parquet"
    kept.write_bytes(kept.read_bytes() + b"mark")
    kept.with_name(f"{PREFIX}killed").write_bytes(b"half of a shard")
    convert_faces(source, tmp_path / "out", ConversionSettings(shard_size=2))
    last = files_of(tmp_path / "out")
    assert last.pop("train-00001-of-00003.parquet").endswith(b"mark")  # taken over, not written again
    assert last.items() <= files_of(tmp_path / "whole").items()
    assert not (tmp_path / ".out.partial").exists()


def test_what_another_job_left_is_not_taken_over(tmp_path):
    rows = [make_row(tmp_path, i) for i in range(3)]
    workplace = tmp_path / ".out.partial"
    (workplace / "data").mkdir(parents=True)
    (workplace / "data" / "train-9.parquet").write_bytes(b"old")
    (workplace / "job.json").write_text(json.dumps(["another"]))
    convert_faces(make_source({"train": rows}), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "data").iterdir()) == ["train-00000-of-00001.parquet"]


def test_a_picture_that_cannot_be_read_is_named_or_left_out(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    rows = [make_row(tmp_path, i) for i in range(5)]
    rows[1]["image"], rows[3]["image"] = tmp_path / "absent.png", tmp_path / "broken.png"
    with pytest.raises(DataError, match="absent.png cannot be read: No such file"):
        convert_faces(make_source({"train": rows}), tmp_path / "out")
    rows[1]["image"] = tmp_path / "1.png"
    with pytest.raises(DataError, match="broken.png cannot be read; is it an image"):
        convert_faces(make_source({"train": rows}), tmp_path / "out")
    face_set = convert_faces(
        make_source({"train": rows}), tmp_path / "out", ConversionSettings(skip_unreadable=True, shard_size=2)
    )
    assert (face_set.splits["train"]["faces"], face_set.splits["train"]["skipped"]) == (4, 1)
    assert load_faces(tmp_path / "out")["name"][:] == ["face 0", "face 1", "face 2", "face 4"]
    with pytest.raises(DataError, match="no face whose picture can be read"):
        convert_faces(make_source({"train": [rows[3]]}), tmp_path / "none", ConversionSettings(skip_unreadable=True))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"landmarks": [(1, 2)]}, "has 1 annotated points, but three has 3"),
        ({"box": (0, 0, 5, 0)}, "has a box without area"),
        ({"box": (0, 0, NAN, 4)}, "has a box without area"),
        ({"color": "red"}, "unannounced columns: color"),
    ],
)
def test_a_row_that_breaks_its_promise_is_refused(tmp_path, row, message):
    with pytest.raises(DataError, match=message):
        convert_faces(make_source({"train": [make_row(tmp_path, 0) | row]}), tmp_path / "out")


def test_an_output_in_use_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    source = make_source({"train": [make_row(tmp_path, 0)]})
    convert_faces(source, tmp_path / "out")  # an empty folder will do
    before = files_of(tmp_path / "out")
    with pytest.raises(DataError, match="exists and is not empty"):
        convert_faces(source, tmp_path / "out")
    assert files_of(tmp_path / "out") == before
    with pytest.raises(ValueError, match="boxes must be one of"):
        convert_faces(source, tmp_path / "new", ConversionSettings(boxes="guess"))
    with pytest.raises(ValueError, match="at least 1"):
        convert_faces(source, tmp_path / "new", ConversionSettings(num_proc=0))


def test_a_converted_folder_knows_its_scheme_and_loads_by_its_card(tmp_path):
    rows = {name: [make_row(tmp_path, i)] for i, name in enumerate(("train", "test", "private"))}
    source = make_source(rows, extend_top=0.2, extend_bottom=0.12)
    written = convert_faces(source, tmp_path / "out")
    assert find_face_set(tmp_path / "out") == written
    assert find_face_set(tmp_path / "out" / "data" / "test-00000-of-00001.parquet") == written
    assert (written.scheme, written.extend_top, written.extend_bottom) == (SCHEME, 0.2, 0.12)
    assert find_face_set(tmp_path) is None
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: rows["name"][:] for name, rows in loaded.items()} == {
        "train": ["face 0"],
        "test": ["face 1"],
        "private": ["face 2"],
    }
    assert load_faces(tmp_path / "out", "private")["name"][:] == ["face 2"]
    (tmp_path / "out" / "face_set.json").write_text("{")
    with pytest.raises(DataError, match="face_set.json is damaged"):
        find_face_set(tmp_path / "out")


def test_parquet_is_a_source_too(tmp_path):
    rows = {"train": [make_row(tmp_path, i, age=i) for i in range(3)], "test": [make_row(tmp_path, 3, age=None)]}
    first = make_source(rows, attributes={"age": datasets.Value("int8")}, extend_top=0.2)
    convert_faces(first, tmp_path / "one", ConversionSettings(shard_size=2))
    source = open_source(tmp_path / "one")
    assert (source.kind, source.scheme, source.extend_top) == ("test", SCHEME, 0.2)
    convert_faces(source, tmp_path / "two", ConversionSettings(shard_size=2))
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert load_split(source, "test")[0]["image"].getpixel((0, 0)) == (3, 0, 9)


def test_streaming_gives_the_same_rows(tmp_path):
    convert_faces(
        make_source({"train": [make_row(tmp_path, i) for i in range(5)]}),
        tmp_path / "out",
        ConversionSettings(shard_size=2),
    )
    streamed = load_faces(Path(tmp_path / "out"), streaming=True)
    assert isinstance(streamed, datasets.IterableDataset)
    for row, expected in zip(streamed, load_faces(tmp_path / "out"), strict=True):
        assert row.pop("image").tobytes() == expected.pop("image").tobytes()
        assert row == expected


def test_the_kind_of_data_shows_in_its_files(tmp_path, drawn_faces, pts_folder):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "metadata.jsonl").write_text("")
    assert guess_kind(tmp_path / "a.json") == "coco" and guess_kind(drawn_faces) == "parquet"
    assert guess_kind(pts_folder) == "pts" and guess_kind(tmp_path / "pictures") == "imagefolder"
    assert guess_kind(f"{drawn_faces}/*.parquet") == "parquet"
    for path, words in (("a.txt", "cannot be told"), ("none.json", "no file or folder"), (".git", "no file")):
        with pytest.raises(DataError, match=words):
            guess_kind(tmp_path / path)
