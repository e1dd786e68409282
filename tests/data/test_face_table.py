"""Rows without the `datasets` library: the same ones, by pyarrow."""

import io
import pickle
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fabrec_hf.data import first_shots, held_out_faces, load_faces, random_shots, validation_split
from fabrec_hf.data.decoding import decode_pictures
from fabrec_hf.data.face_table import FaceTable, encoded_images
from fabrec_hf.data.picture_digests import picture_digests
from fabrec_hf.errors import DataError


NAN = float("nan")


def encoded(row: int) -> bytes:
    """A picture of 8 x 6 pixels; every third one is a JPEG that EXIF turns, to 6 x 8."""
    file, image = io.BytesIO(), Image.new("RGB", (8, 6), (row, 2 * row, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(file, **({"format": "JPEG", "exif": exif} if row % 3 == 0 else {"format": "PNG"}))
    return file.getvalue()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two files of seven faces each; one point is not annotated, and one face is without a box."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for shard in range(2):
        rows = range(7 * shard, 7 * shard + 7)
        table = {
            "image": [{"bytes": encoded(row), "path": None} for row in rows],
            "landmarks": [[[row, 1.5], [NAN, NAN], [3, row]] for row in rows],
            "box": [None if row == 4 else [row, 0.0, 4.0, 5.0] for row in rows],
            "picture": [f"photograph {row // 2}" for row in rows],
            "age": [None if row == 2 else row for row in rows],
        }
        table = pyarrow.table(table)
        if shard == 1:  # the order of columns is no difference
            table = table.select(table.column_names[::-1])
        pyarrow.parquet.write_table(table, folder / f"train-{shard}.parquet", row_group_size=3)
    return folder


def without_datasets(monkeypatch, read):
    """Call a function while `datasets` cannot be imported."""
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "datasets", None)
        return read()


def both(monkeypatch, *arguments, **options):
    """What `load_faces` gives with `datasets`, and without it."""
    theirs = load_faces(*arguments, **options)
    ours = without_datasets(monkeypatch, lambda: load_faces(*arguments, **options))
    assert isinstance(theirs, datasets.Dataset) and isinstance(ours, FaceTable)
    return theirs, ours


def plain(rows):
    """Rows with the pixels of their pictures."""
    return [{key: np.asarray(value) if key == "image" else value for key, value in row.items()} for row in rows]


def test_rows_are_those_of_datasets(folder, monkeypatch):
    theirs, ours = both(monkeypatch, folder)
    assert len(ours) == 14 and ours.column_names == theirs.column_names
    np.testing.assert_equal(plain(ours), plain(theirs))
    np.testing.assert_equal(plain([ours[3], ours[-1]]), plain([theirs[3], theirs[-1]]))
    assert ours[0]["image"].size == (6, 8) and ours[1]["image"].size == (8, 6)
    assert ours["picture"] == list(theirs["picture"]) and ours[2]["age"] is None
    for key in (slice(5, 9), slice(9, 4, -2), [12, 0, 7], np.array([3, 3]), range(2, 4)):
        mine, other = ours.select_columns(["landmarks", "age"])[key], theirs.select_columns(["landmarks", "age"])[key]
        np.testing.assert_equal(mine, other)
    with pytest.raises(IndexError, match="no row 14: the table has 14"):
        ours[14]


def test_chosen_rows_and_columns_are_those_of_datasets(folder, monkeypatch):
    theirs, ours = both(monkeypatch, folder)
    ways = (
        lambda faces: faces.select([9, 2, 4]).select(range(1, 3)),
        lambda faces: encoded_images(faces.select_columns("image")).select(range(2)),
        lambda faces: faces.remove_columns(["image", "box"]).rename_column("age", "years"),
        lambda faces: first_shots(faces, 3),
        lambda faces: random_shots(faces, 5, seed=3),
        lambda faces: validation_split(faces, 0.4)[1],
        lambda faces: held_out_faces(faces, 0.5)[1],
    )
    for way in ways:
        mine = without_datasets(monkeypatch, lambda way=way: way(ours))
        other = way(theirs)
        assert isinstance(mine, FaceTable) and 0 < len(mine) == len(other) < 15
        assert mine.column_names == other.column_names
        np.testing.assert_equal(plain(mine), plain(other))
    assert np.array_equal(decode_pictures(ours, 6, progress=False), decode_pictures(theirs, 6, progress=False))
    assert picture_digests(ours) == picture_digests(theirs)


def test_columns_are_adapted_as_those_of_datasets(tmp_path, monkeypatch):
    """Other names, a visibility of COCO, boxes made of the points, and pictures that are only bytes, or paths."""
    (tmp_path / "one.png").write_bytes(encoded(1))
    points = [[[1, 1, 2], [5, 2, 1], [0, 0, 0]], [[0, 3, 2], [2, 7, 2], [1, 4, 1]]]
    names = {"landmarks": "keypoints"}
    for name, images in {"bytes": [encoded(1), encoded(2)], "paths": [str(tmp_path / "one.png")] * 2}.items():
        file = tmp_path / f"{name}.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"image": images, "keypoints": points}), file)
        theirs, ours = both(monkeypatch, file, columns=("image", "landmarks", "box"), names=names)
        np.testing.assert_equal(plain(ours), plain(theirs))
        np.testing.assert_equal(ours["landmarks"][0], [[1, 1], [5, 2], [NAN, NAN]])
        assert ours["box"] == [[1, 1, 4, 1], [0, 3, 2, 4]]
        assert ours.select([1])["box"] == [[0, 3, 2, 4]]


def test_another_process_reads_the_same_rows_where_they_are(folder, monkeypatch):
    _, ours = both(monkeypatch, folder)
    content = pickle.dumps(ours.select(range(3)))
    assert len(content) < 5000 and ours.store.table.nbytes > 5000  # the rows themselves stay where they are
    np.testing.assert_equal(plain(pickle.loads(content)), plain(ours)[:3])
    copy = ours.store.path
    assert copy.is_file()
    del ours
    assert not copy.exists()


def test_what_needs_datasets_says_so(folder, monkeypatch):
    for read in (lambda: load_faces(folder, streaming=True), lambda: load_faces("someone/faces")):
        with pytest.raises(DataError, match=r"needs the datasets library: pip install 'datasets>=4\.0'"):
            without_datasets(monkeypatch, read)
    file = folder / "train-1.parquet"
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"train-1\.parquet cannot be read, are the files whole\?") as caught:
        without_datasets(monkeypatch, lambda: load_faces(folder))
    assert "\n" not in str(caught.value)
