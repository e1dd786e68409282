"""Reading faces from Parquet files and splitting them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.faces import SHARED


datasets = pytest.importorskip("datasets")

from fabrec_hf.data import first_shots, held_out_faces, load_faces, parquet, random_shots, validation_split  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402


ROOT = Path(__file__).parents[2]
LABELED = ("image", "landmarks", "box")


def make_faces(count, offset=0, points=3, labeled=True):
    """Return `count` faces, two to a picture, whose pixels all have the value of their row."""
    rows = {
        "image": [Image.new("RGB", (6, 4), (row % 256, row // 256, 7)) for row in range(offset, offset + count)],
        "name": [f"{row}.png" for row in range(offset, offset + count)],
    }
    features = {"image": datasets.Image(), "name": datasets.Value("string")}
    if labeled:
        pair = datasets.List(datasets.Value("float32"), length=2)
        rows["landmarks"] = [[[row, point] for point in range(points)] for row in range(offset, offset + count)]
        rows["box"] = [[0, 0, 6, 4]] * count
        rows["picture"] = [f"picture/{row // 2}" for row in range(offset, offset + count)]
        features["landmarks"] = datasets.List(pair, length=points)
        features["box"] = datasets.List(datasets.Value("float32"), length=4)
        features["picture"] = datasets.Value("string")
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "faces [of] mine*"
    root.mkdir()
    make_faces(4).to_parquet(root / "train-00000-of-00002.parquet")
    make_faces(3, 4).to_parquet(root / "train-00001-of-00002.parquet")
    make_faces(2, 7).to_parquet(root / "test-00000-of-00001.parquet")
    return root


def rows_of(faces):
    return [int(name.removesuffix(".png")) for name in faces["name"]]


def test_a_file_a_folder_a_glob_and_a_list_give_the_same_rows(folder):
    train = load_faces(folder, "train", LABELED)
    assert rows_of(train) == list(range(7))
    assert train[5]["image"].getpixel((0, 0)) == (5, 0, 7)
    assert train[5]["landmarks"] == [[5, 0], [5, 1], [5, 2]]
    assert train[5]["box"] == [0, 0, 6, 4]
    assert rows_of(load_faces(str(folder.parent / "face*" / "train-*.parquet"))) == list(range(7))
    assert rows_of(load_faces(sorted(folder.glob("train*")))) == list(range(7))
    assert rows_of(load_faces(folder / "test-00000-of-00001.parquet")) == [7, 8]
    assert rows_of(load_faces(folder, default_split="test")) == [7, 8]
    assert rows_of(load_faces(folder.parent, "train")) == list(range(7))


def test_folders_name_splits_too(tmp_path):
    root = tmp_path / "train my birds"  # the name of the folder itself says nothing
    for split, offset in (("train", 0), ("val", 5)):
        (root / split).mkdir(parents=True)
        make_faces(2, offset).to_parquet(root / split / "0.parquet")
    assert rows_of(load_faces(root, "train")) == [0, 1]
    assert rows_of(load_faces(root, "validation")) == rows_of(load_faces(root, "val")) == [5, 6]


def test_wrong_folders_are_named_with_what_was_expected(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1, but no more")
    make_faces(2, labeled=False).to_parquet(tmp_path / "plain.parquet")
    make_faces(2, points=4).to_parquet(tmp_path / "four.parquet")
    make_faces(2, points=3).to_parquet(tmp_path / "three.parquet")
    cases = [
        ((tmp_path / "nowhere",), "no file or folder .*nowhere; expected a Parquet file"),
        ((tmp_path / "no*thing",), "no file or folder"),
        ((tmp_path / "empty",), "empty holds no .parquet file"),
        ((tmp_path / "broken.parquet",), "broken.parquet is not a readable Parquet file"),
        ((folder,), "holds the splits test, train; say which"),
        ((folder, "validation"), "has no validation split; it has test, train"),
        ((folder / "test-00000-of-00001.parquet", "train"), "is the test split, not train"),
        ((tmp_path / "plain.parquet", None, LABELED), "no column landmarks, box; expected .* found image, name"),
        (([tmp_path / "plain.parquet", tmp_path / "three.parquet"],), "other columns .*box, landmarks, picture"),
        (([tmp_path / "four.parquet", tmp_path / "three.parquet"],), "of other types"),
        (([],), "No data was named"),
    ]
    for arguments, message in cases:
        with pytest.raises(DataError, match=message) as error:
            load_faces(*arguments)
        assert "\n" not in str(error.value)


def test_many_files_are_mapped_from_a_copy_and_few_are_not(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "of the user")
    small = load_faces(folder, "train", LABELED, cache_dir=tmp_path / "cache")
    assert small.cache_files == [] and not (tmp_path / "cache").exists()
    assert load_faces(folder, "train")._fingerprint == small._fingerprint != load_faces(folder, "test")._fingerprint
    monkeypatch.setattr(parquet, "IN_MEMORY", sum(file.stat().st_size for file in folder.glob("train*")) - 1)
    large = load_faces(folder, "train", LABELED, cache_dir=tmp_path / "cache")
    assert Path(large.cache_files[0]["filename"]).is_relative_to(tmp_path / "cache")
    assert large.features == small.features and large.split == small.split
    undecoded = [faces.cast_column("image", datasets.Image(decode=False)) for faces in (small, large)]
    assert list(undecoded[0]) == list(undecoded[1])
    assert load_faces(folder, "test").cache_files == [], "a smaller split"
    assert not (tmp_path / "of the user").exists()


def test_files_may_order_their_columns_differently(tmp_path):
    make_faces(2).to_parquet(tmp_path / "0.parquet")
    faces = make_faces(2, offset=2)
    faces.select_columns(faces.column_names[::-1]).to_parquet(tmp_path / "1.parquet")
    assert rows_of(load_faces(tmp_path, columns=LABELED)) == [0, 1, 2, 3]


def test_a_file_that_breaks_off_inside_is_named(folder):
    file = next(folder.glob("train*"))
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)  # the end, which says where everything is, stays
    file.write_bytes(content)
    with pytest.raises(DataError, match=f"{file.name}.*cannot be read, are the files whole"):
        load_faces(folder, "train")


def test_validation_split_never_divides_a_picture():
    faces = make_faces(40)
    train, validation = validation_split(faces, 0.2, seed=3)
    assert len(validation) == 8 and len(train) == 32  # 4 of 20 pictures, two faces each
    assert not set(train["picture"]) & set(validation["picture"])
    assert sorted(rows_of(train) + rows_of(validation)) == list(range(40))
    assert rows_of(train) == sorted(rows_of(train))


def test_validation_split_depends_on_the_seed_and_not_on_the_order():
    faces = make_faces(40)
    backwards = faces.select(range(39, -1, -1))
    _, first = validation_split(faces, 0.2, seed=3)
    _, again = validation_split(backwards, 0.2, seed=3)
    _, other = validation_split(faces, 0.2, seed=4)
    assert rows_of(first) == rows_of(again)[::-1]
    assert rows_of(first) != rows_of(other)


def test_validation_split_edges():
    train, validation = validation_split(make_faces(4), 0.01)
    assert len(train) == len(validation) == 2  # at least one picture
    train, validation = validation_split(make_faces(4), 0.99)
    assert len(train) == len(validation) == 2  # and never all
    train, validation = validation_split(make_faces(10, labeled=False), 0.2)
    assert len(validation) == 2  # by name where there is no picture
    with pytest.raises(DataError, match="at least two pictures"):
        validation_split(make_faces(2))
    with pytest.raises(DataError, match="picture or name"):
        validation_split(make_faces(2).remove_columns(["picture", "name"]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        validation_split(make_faces(4), 1.0)


def test_held_out_faces_depend_on_the_picture_alone():
    faces = make_faces(400, labeled=False)
    train, held_out = held_out_faces(faces, 0.1)
    assert sorted(rows_of(train) + rows_of(held_out)) == list(range(400))
    assert 20 <= len(held_out) <= 60  # binomial around 40, deviation 6
    apart = set(rows_of(held_out))
    _, of_a_shard = held_out_faces(faces.select(range(100, 200)).remove_columns("name"), 0.1)
    assert [row["image"].getpixel((0, 0))[0] for row in of_a_shard] == sorted(r for r in apart if 100 <= r < 200)
    _, fewer = held_out_faces(faces, 0.03)
    assert set(rows_of(fewer)) < apart


def test_held_out_faces_reads_pictures_that_are_files(tmp_path):
    colors = range(30)
    for color in colors:
        Image.new("L", (2, 2), color).save(tmp_path / f"{color}.png")
    paths = [str(tmp_path / f"{color}.png") for color in colors]
    by_path = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    embedded = datasets.Dataset.from_dict(
        {"image": [{"bytes": Path(path).read_bytes(), "path": None} for path in paths]},
        features=datasets.Features({"image": datasets.Image()}),
    )
    values = [[row["image"].getpixel((0, 0)) for row in held_out_faces(d, 0.3)[1]] for d in (by_path, embedded)]
    assert values[0] == values[1]
    assert 0 < len(values[0]) < 30
    with pytest.raises(DataError, match="column image"):
        held_out_faces(embedded.rename_column("image", "photo"))


def test_shots():
    faces = make_faces(20)
    assert rows_of(first_shots(faces, 3)) == [0, 1, 2]
    five, ten = rows_of(random_shots(faces, 5, seed=1)), rows_of(random_shots(faces, 10, seed=1))
    assert five == ten[:5] and len(set(ten)) == 10
    assert ten != list(range(10))
    assert five != rows_of(random_shots(faces, 5, seed=2))
    assert sorted(rows_of(random_shots(faces, 20, seed=1))) == list(range(20))
    for count in (0, 21):
        with pytest.raises(DataError, match=f"{count} faces were asked for, but the data set has 20"):
            first_shots(faces, count)
        with pytest.raises(DataError, match=f"{count} faces were asked for"):
            random_shots(faces, count, seed=0)


def test_splits_are_the_same_in_another_process():
    program = (
        "import datasets; from fabrec_hf.data import validation_split\n"
        "faces = datasets.Dataset.from_dict({'picture': [f'p{i}' for i in range(50)]})\n"
        "print(*validation_split(faces, 0.1, 7)[1]['picture'])"
    )
    faces = datasets.Dataset.from_dict({"picture": [f"p{i}" for i in range(50)]})
    environment = {"PYTHONHASHSEED": "123", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == list(validation_split(faces, 0.1, 7)[1]["picture"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared face data")
def test_shared_packs():
    train = load_faces(SHARED / "data/300w", "train", (*LABELED, "picture"))
    test = load_faces(SHARED / "data/300w", "test", LABELED)
    assert (len(train), len(test)) == (2012, 554)
    points, boxes = np.array(test["landmarks"]), np.array(test["box"])
    np.testing.assert_allclose(boxes[:, :2], points.min(1), atol=1e-3)
    np.testing.assert_allclose(boxes[:, 2:], points.max(1) - points.min(1), atol=1e-3)
    assert set(train.select(range(337))["subset"]) == {train[0]["subset"]}  # AFW is complete and comes first
    fit, validation = validation_split(train, 0.1)
    assert not set(fit["picture"]) & set(validation["picture"])
    assert 150 < len(validation) < 250
    faces = load_faces(SHARED / "data/faces")
    kept, held_out = held_out_faces(faces)
    assert len(faces) == 75_243 == len(kept) + len(held_out)
    assert 0.018 < len(held_out) / len(faces) < 0.022
    assert set(held_out["source"]) == {"cfp", "fairface", "utkface"}
