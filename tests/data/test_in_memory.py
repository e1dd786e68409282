"""Faces from a reader to memory: the rows that a conversion writes, and nothing that stays behind."""

import numpy as np
import pytest


datasets = pytest.importorskip("datasets")

from fabrec_hf.data import load_faces  # noqa: E402
from fabrec_hf.data.conversion import ConversionSettings, convert_faces  # noqa: E402
from fabrec_hf.data.in_memory import read_faces  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from support.made_sources import make_row, make_source  # noqa: E402


NAN = float("nan")


@pytest.fixture
def source(tmp_path):
    """Two splits; a point is missing, a box is, and one picture comes as bytes."""
    train = [make_row(tmp_path, index, age=index % 100) for index in range(130)]  # more than are read at a time
    train[1] |= {"landmarks": [(0.1, 2.25), (NAN, NAN), (3, 6)], "box": None, "age": None}
    train[2] |= {"image": {"bytes": (tmp_path / "2.png").read_bytes(), "path": None}}
    test = [make_row(tmp_path, 200 + index, age=7, box=(1, 1, 5, 6)) for index in range(3)]
    return make_source(
        {"train": train, "test": test}, attributes={"age": datasets.Value("int8")}, extend_top=0.2, notes=("A note.",)
    )


def plain(faces):
    """Rows with the content of their pictures."""
    rows = list(faces.cast_column("image", datasets.Image(decode=False)))
    for row in rows:
        path = row["image"]["path"]
        row["image"] = row["image"]["bytes"] or open(path, "rb").read()  # noqa: SIM115
    return rows


@pytest.mark.parametrize("boxes", ["auto", "points", "image", "none"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_rows_are_those_of_a_conversion(source, tmp_path, split, boxes):
    written = convert_faces(source, tmp_path / "out", ConversionSettings(boxes=boxes))
    faces, found = read_faces(source, split, boxes)
    expected = load_faces(tmp_path / "out", split, ("image", "landmarks", "box"))
    assert found == written and found.summary() == written.summary()
    assert faces.features == expected.features and faces.split == split
    np.testing.assert_equal(plain(faces), plain(expected))  # NaN is equal to NaN here
    assert faces[1]["image"].tobytes() == expected[1]["image"].tobytes()


def test_pictures_stay_where_they_are_and_nothing_is_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    before = sorted(tmp_path.iterdir())
    faces, _ = read_faces(source, boxes="points")
    assert sorted(tmp_path.iterdir()) == before and faces.cache_files == []
    stored = [row["image"] for row in faces.cast_column("image", datasets.Image(decode=False))]
    assert stored[0] == {"path": str(tmp_path / "0.png"), "bytes": None}
    assert [row["bytes"] is None for row in stored].count(False) == 1 and stored[2]["bytes"]


def test_the_split_is_the_only_one_or_train(source, tmp_path):
    assert len(read_faces(source, boxes="points")[0]) == 130
    only = make_source({"validation": [make_row(tmp_path, 0)]})
    assert read_faces(only)[0].split == "validation" == read_faces(only, "val")[0].split
    several = make_source({"test": [make_row(tmp_path, 0)], "private": [make_row(tmp_path, 1)]})
    with pytest.raises(DataError, match="holds the splits test, private; say which"):
        read_faces(several)
    with pytest.raises(DataError, match="has no train split; it has test, private"):
        read_faces(several, "train")


def test_what_a_conversion_refuses_is_refused(tmp_path):
    shared = make_row(tmp_path, 0)
    copies = {"train": [shared], "test": [make_row(tmp_path, 1), shared | {"name": None}]}
    with pytest.raises(DataError, match=r"1 pictures stand both in train and in test, for example face 0 and .*0.png"):
        read_faces(make_source(copies))
    assert len(read_faces(make_source(copies, split_by_face=True))[0]) == 1
    with pytest.raises(DataError, match="The test split holds no face"):
        read_faces(make_source({"train": [shared], "test": []}))
    with pytest.raises(DataError, match="gone.png cannot be read: No such file"):
        read_faces(make_source({"train": [shared | {"image": tmp_path / "gone.png"}]}))
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    with pytest.raises(DataError, match="cut.png cannot be read; is it an image, and whole"):
        read_faces(make_source({"train": [shared | {"image": tmp_path / "cut.png"}]}))
    with pytest.raises(DataError, match="has no landmarks to learn from"):
        read_faces(make_source({"train": [{"image": tmp_path / "0.png"}]}, scheme=None))
    with pytest.raises(ValueError, match="boxes must be one of"):
        read_faces(make_source({"train": [shared]}), boxes="best")
