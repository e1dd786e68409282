"""Labeling a data set: what the labels hold, the same for any number of processes, and resumed after a kill."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image


datasets = pytest.importorskip("datasets")

from fabrec_hf import FabRecForLandmarkDetection, FabRecImageProcessor  # noqa: E402
from fabrec_hf.common.drafts import PREFIX  # noqa: E402
from fabrec_hf.data import load_faces  # noqa: E402
from fabrec_hf.data.face_set import find_face_set  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from fabrec_hf.inference.landmark_finder import LandmarkFinder  # noqa: E402
from fabrec_hf.inference.shard_labeling import (  # noqa: E402
    LabelSettings,
    find_shards,
    finish_labels,
    label_shards,
    open_labels,
)
from support.faces import draw_face  # noqa: E402
from support.landmark_checkpoints import save_landmark_model  # noqa: E402
from support.warm_processes import run_file  # noqa: E402


ROOT = Path(__file__).parents[2]

import label_dataset  # noqa: E402
from label_dataset import LabelArguments  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = save_landmark_model(tmp_path_factory.mktemp("tiny"))
    FabRecImageProcessor(size={"height": 32, "width": 32}, extend_top=0.1).save_pretrained(folder)
    return folder


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Five files of seven drawn faces with boxes; one picture is broken, and one row has no box and no face."""
    folder = tmp_path_factory.mktemp("shards") / "faces"
    folder.mkdir()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "box": datasets.List(datasets.Value("float32"), length=4),
            "name": datasets.Value("string"),
        }
    )
    for shard in range(5):
        rows = {"image": [], "box": [], "name": []}
        for index in range(7):
            image, _, box = draw_face(10 * shard + index)
            rows["image"].append({"bytes": encoded(image), "path": None})
            rows["box"].append(box)
            rows["name"].append(f"{shard}-{index}")
        if shard == 2:
            rows["image"][1]["bytes"] = rows["image"][1]["bytes"][:200]
            rows["image"][4]["bytes"] = encoded(Image.new("RGB", (60, 40)))
            rows["box"][4] = None
        rows = datasets.Dataset.from_dict(rows, features=features)
        rows.to_parquet(folder / f"train-{shard:05d}-of-00005.parquet")
    return folder


def label(data, folder, checkpoint, settings=None):
    finder, settings = LandmarkFinder(str(checkpoint), "cpu"), settings or LabelSettings()
    found = find_shards(data)
    label_shards(open_labels(folder, found, finder, settings), folder, finder, settings)
    return finish_labels(folder, found, finder)


def test_labels_are_what_processor_and_model_give(checkpoint, shards, tmp_path):
    report = label(shards, tmp_path / "labels", checkpoint)["train"]
    assert (report.pictures, report.faces, report.without_face, report.unreadable) == (35, 33, 1, 1)
    assert sum(report.score_histogram) == 33 and report.missing_points == 0
    labels = load_faces(tmp_path / "labels", columns=("image", "landmarks", "box"))
    assert labels["name"] == [f"{a}-{b}" for a in range(5) for b in range(7) if (a, b) not in ((2, 1), (2, 4))]

    model = FabRecForLandmarkDetection.from_pretrained(checkpoint)
    processor = FabRecImageProcessor.from_pretrained(checkpoint)
    for index in (0, 9, 32):
        shard, row = map(int, labels[index]["name"].split("-"))
        image, _, box = draw_face(10 * shard + row)
        np.testing.assert_allclose(labels[index]["box"], box, rtol=1e-6)
        assert np.array_equal(np.asarray(labels[index]["image"]), np.asarray(image))
        inputs = processor(image, boxes=[np.float32(box).tolist()])
        with torch.inference_mode():
            outputs = model(inputs["pixel_values"])
        expected = processor.landmarks_from_crop(outputs.landmarks, inputs["crop_boxes"])[0]
        np.testing.assert_allclose(labels[index]["landmarks"], expected, atol=1e-3)
        np.testing.assert_allclose(labels[index]["scores"], outputs.scores[0], atol=1e-5)

    # Scheme and crop rule travel with the labels, which can be trained on and pushed as they are.
    face_set = find_face_set(tmp_path / "labels")
    assert (face_set.scheme.name, face_set.extend_top) == ("mtfl", 0.1)
    summary = json.loads((tmp_path / "labels" / "summary.json").read_text())
    assert (summary["faces"], summary["shards"]) == (33, 5)
    assert summary["mean_score"] == pytest.approx(np.mean(labels["scores"]), abs=1e-6)
    repository = datasets.load_dataset(str(tmp_path / "labels"), cache_dir=str(tmp_path / "cache"))
    assert repository["train"].num_rows == 33


def test_faces_are_searched_for_and_unsure_points_left_out(checkpoint, tmp_path):
    picture = Image.open(ROOT / "examples" / "astronaut.jpg").convert("RGB")
    twice = Image.new("RGB", (2 * picture.width, picture.height))
    twice.paste(picture, (0, 0))
    twice.paste(picture, (picture.width, 0))
    rows = {
        "image": [twice, Image.new("RGB", (90, 90))],
        "box": [[0.0, 0.0, 9.0, 9.0]] * 2,
        "landmarks": [[[1.0, 2.0]]] * 2,
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "box": datasets.List(datasets.Value("float32")),
            "landmarks": datasets.List(datasets.List(datasets.Value("float32"))),
        }
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "one.parquet")
    report = label(tmp_path / "one.parquet", tmp_path / "labels", checkpoint, LabelSettings(True, 1.0))["train"]
    assert (report.pictures, report.faces, report.without_face, report.missing_points) == (2, 2, 1, 10)
    labels = load_faces(tmp_path / "labels", columns=("landmarks", "scores"))
    assert np.isnan(np.array(labels["landmarks"])).all() and np.array(labels["landmarks"]).shape == (2, 5, 2)
    lefts = sorted(box[0] for box in labels["box"])
    assert lefts[1] - lefts[0] == pytest.approx(picture.width, abs=10)


def test_two_processes_write_what_one_writes_and_a_killed_run_goes_on(checkpoint, shards, tmp_path):
    """Bit for bit: one process with two threads, two gloo processes with one each, of which three files are new."""
    one, two = tmp_path / "one", tmp_path / "two"
    script, arguments = ROOT / "training" / "label_dataset.py", ["--data", shards, "--model", checkpoint]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    done = run_file(script, *arguments, "--output_dir", one, environment=environment | {"OMP_NUM_THREADS": "2"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("train: 35 pictures, 33 faces, 1 pictures without a face, 1 unread")

    finder = LandmarkFinder(str(checkpoint), "cpu")
    todo = open_labels(two, find_shards(shards), finder, LabelSettings())
    label_shards(todo[1:3], two, finder, LabelSettings())
    (two / "data" / f"{PREFIX}killed").write_bytes(b"half of a file")
    kept = (two / "data" / "train-00001-of-00005.parquet").stat().st_mtime_ns
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, *map(str, [script, *arguments, "--output_dir", two])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("pictures without") == 1  # one summary
    assert "5 shards, 3 of them labeled now" in done.stdout
    names = sorted(path.name for path in (one / "data").iterdir())
    assert names == [f"train-{index:05d}-of-00005.parquet" for index in range(5)]
    for name in [*(f"data/{name}" for name in names), "summary.json", "face_set.json", "README.md", "job.json"]:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert (two / "data" / "train-00001-of-00005.parquet").stat().st_mtime_ns == kept


def test_labeling_stops_in_time_and_goes_on(checkpoint, shards, tmp_path, capsys):
    """No file is begun after the minutes are over, but always one."""
    out = tmp_path / "labels"
    arguments = {"data": str(shards), "output_dir": str(out), "model": str(checkpoint)}
    for done in (1, 2):
        pause = label_dataset.main(LabelArguments(**arguments, max_minutes=1e-6))
        assert (pause.done, pause.left) == (done, 5 - done) and pause.seconds_left > 0
        words = f"Stopped in time at file {done}: {5 - done} files left, about "
        assert capsys.readouterr().out.startswith(words)
        assert len(list((out / "data").iterdir())) == done and not (out / "summary.json").exists()
    assert label_dataset.main(LabelArguments(**arguments, max_minutes=600)) is None
    assert "5 shards, 3 of them labeled now" in capsys.readouterr().out
    assert json.loads((out / "summary.json").read_text())["pictures"] == 35
    with pytest.raises(ValueError, match="--max_minutes must be more than 0"):
        LabelArguments(**arguments, max_minutes=0.0)


def test_the_columns_are_what_datasets_would_write(checkpoint, tmp_path):
    """Also of data that says what its columns mean: a class keeps its names."""
    known = datasets.Features({"image": datasets.Image(), "sex": datasets.ClassLabel(names=["a", "b"])})
    box = {"box": datasets.List(datasets.Value("float64"))}
    image, _, place = draw_face(0)
    rows = {"box": [place], "image": [image], "sex": [1]}
    file = tmp_path / "faces.parquet"
    datasets.Dataset.from_dict(rows, features=datasets.Features(box | known)).to_parquet(file)
    label(file, tmp_path / "labels", checkpoint)
    float32 = datasets.Value("float32")
    ours = {"landmarks": datasets.List(datasets.List(float32, length=2), length=5)}
    ours |= {"box": datasets.List(float32, length=4), "scores": datasets.List(float32, length=5)}
    expected = datasets.Features(known | ours).arrow_schema
    found = pyarrow.parquet.read_schema(tmp_path / "labels" / "data" / "train-00000-of-00001.parquet")
    assert found.remove_metadata() == expected.remove_metadata()
    assert json.loads(found.metadata[b"huggingface"]) == json.loads(expected.metadata[b"huggingface"])


def test_mistakes_take_one_line(checkpoint, shards, tmp_path):
    finder = LandmarkFinder(str(checkpoint), "cpu")
    found = find_shards(shards)
    open_labels(tmp_path / "labels", found, finder, LabelSettings())
    with pytest.raises(DataError, match="another model or other settings"):
        open_labels(tmp_path / "labels", found, finder, LabelSettings(min_score=0.5))
    with pytest.raises(DataError, match="is missing: run the same command again"):
        finish_labels(tmp_path / "labels", found, finder)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(DataError, match="is not empty"):
        open_labels(tmp_path / "full", found, finder, LabelSettings())
    with pytest.raises(DataError, match="no test split; it has train"):
        find_shards(shards, "test")
    datasets.Dataset.from_dict({"text": ["hello"]}).to_parquet(tmp_path / "text.parquet")
    with pytest.raises(DataError, match="has no column image; it has text"):
        label(tmp_path / "text.parquet", tmp_path / "other", checkpoint)
    with pytest.raises(ValueError, match="--min_score must lie in 0 to 1, not 2"):
        LabelArguments("faces", "labels", min_score=2.0)


def test_the_files_of_a_repository(shards, tmp_path, monkeypatch):
    """What the Hub would answer, by a builder of a local repository; its files may be anywhere that fsspec reads."""
    build = datasets.load_dataset_builder
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda name: build(str(shards)))
    found = find_shards("someone/faces")
    assert [shard.target for shard in found] == [f"train-{index:05d}-of-00005.parquet" for index in range(5)]
    assert all(Path(shard.source).is_file() for shard in found)

    def missing(name):
        raise FileNotFoundError(f"Couldn't find any data file at {name}.\nMore lines.")

    monkeypatch.setattr(datasets, "load_dataset_builder", missing)
    with pytest.raises(DataError, match="There is no data someone/nothing, neither here nor on the Hub"):
        find_shards("someone/nothing")
