"""`fabrec evaluate` and its script: what they print and write, alone and in several processes, and their errors."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from support.faces import draw_face
from support.warm_processes import run_code, run_file, run_ranks


datasets = pytest.importorskip("datasets")

from fabrec_hf.checkpoints.loading import load_landmark_model  # noqa: E402
from fabrec_hf.cli import main  # noqa: E402
from fabrec_hf.data import load_faces  # noqa: E402
from fabrec_hf.data.face_set import FaceSet  # noqa: E402
from fabrec_hf.errors import CheckpointError  # noqa: E402
from fabrec_hf.evaluation.scoring import ScoringSettings, evaluate_checkpoint, score_faces  # noqa: E402
from fabrec_hf.model.configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig  # noqa: E402
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme, Normalizer, get_scheme  # noqa: E402
from fabrec_hf.model.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection  # noqa: E402


ROOT = Path(__file__).parents[2]
TINY = {"image_size": 32, "widths": [4, 8, 8, 8], "encoder_depth": 1}


def make_model(scheme_name: str) -> FabRecForLandmarkDetection:
    torch.manual_seed(0)
    scheme = get_scheme(scheme_name)
    heatmaps = {"heatmap_size": 32, "heatmap_sigma": 2.0, "num_landmarks": scheme.num_landmarks}
    return FabRecForLandmarkDetection(FabRecConfig(**TINY, **heatmaps, landmark_scheme=scheme.to_dict())).eval()


def make_faces(count: int, landmarks: np.ndarray | None = None, **columns: list) -> datasets.Dataset:
    """Drawn faces, with points of their own if they have others than the five of mtfl."""
    images, points, boxes = zip(*(draw_face(seed) for seed in range(count)), strict=True)
    features = {
        "image": datasets.Image(),
        "landmarks": datasets.List(datasets.List(datasets.Value("float64"))),
        "box": datasets.List(datasets.Value("float64"), length=4),
    }
    points = np.asarray(points if landmarks is None else landmarks).tolist()
    rows = {"image": list(images), "landmarks": points, "box": list(boxes)}
    dataset = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    for name, values in columns.items():
        dataset = dataset.add_column(name, values)
    return dataset


@pytest.fixture(scope="module")
def model():
    return make_model("mtfl")


@pytest.fixture(scope="module")
def processor():
    return FabRecImageProcessor(size=32)


@pytest.fixture(scope="module")
def faces():
    return make_faces(7)


@pytest.fixture
def checkpoint(tmp_path, model, processor):
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_command_prints_what_the_function_returns(checkpoint, tmp_path, model, processor, faces, capsys):
    faces.to_parquet(tmp_path / "test-0.parquet")
    faces.select(range(2)).to_parquet(tmp_path / "train-0.parquet")
    arguments = ["--model", str(checkpoint), "--data", str(tmp_path), "--batch-size", "3"]
    assert main(["evaluate", *arguments, "--json", "--protocol", "paper"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = evaluate_checkpoint(model, processor, faces, ScoringSettings(protocol="paper"))
    assert printed["count"] == 7  # of several splits the test set is the default
    assert {key: printed[key] for key in ("failure_rate", "scheme", "subsets", "normalizer", "name")} == {
        "failure_rate": expected["failure_rate"],
        "scheme": "mtfl",
        "subsets": {},
        "normalizer": {"kind": "points", "points": [0, 1]},
        "name": "model",
    }
    assert printed["nme"] == pytest.approx(expected["nme"], rel=1e-6)
    assert printed["auc"] == pytest.approx(expected["auc"], rel=1e-6)
    assert main(["evaluate", *arguments, "--split", "train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "**model, measured**"
    assert lines[2].startswith("| faces of | count | NME in % |") and lines[4].startswith("| all the data | 2 | ")
    assert main(["evaluate", *arguments, "--format", "latex", "--name", "10%_off"]) == 0
    assert r"\caption{10\%\_off, measured}" in capsys.readouterr().out
    assert not (tmp_path / "results.json").exists()


def test_a_conversion_of_points_is_said(tmp_path, processor, capsys):
    """98 points on data with 68, which a folder may name otherwise."""
    for part in (make_model("wflw"), processor):
        part.save_pretrained(tmp_path / "model")
    data = tmp_path / "data"
    data.mkdir()
    make_faces(3, np.random.default_rng(0).uniform(10, 80, (3, 68, 2))).to_parquet(data / "test.parquet")
    words = ["evaluate", "--model", str(tmp_path / "model"), "--data", str(data), "--json"]
    assert main([*words, "--normalizer", "inter_pupil", "--output", str(tmp_path / "report")]) == 0
    streams = capsys.readouterr()
    assert "of the scheme wflw, are converted to the 68 points of 300w that the data has" in streams.err
    results = json.loads(streams.out)
    assert (results["scheme"], results["converted_from"], results["count"]) == ("300w", "wflw", 3)
    assert results["normalizer"]["points"] == [[36, 37, 38, 39, 40, 41], [42, 43, 44, 45, 46, 47]]
    assert (tmp_path / "report" / "failures.png").is_file()
    mine = LandmarkScheme("mine", 68, tuple(f"p{index}" for index in range(68)))
    FaceSet("csv", mine, 0.0, 0.0).write(data)
    assert main(words) == 2
    assert "has the points of the scheme mine" in capsys.readouterr().err


def test_command_takes_a_normalizer_by_name_and_by_points(checkpoint, tmp_path, model, processor, faces, capsys):
    faces.to_parquet(tmp_path / "faces.parquet")
    arguments = ["evaluate", "--model", str(checkpoint), "--data", str(tmp_path / "faces.parquet"), "--json"]
    cases = {
        "inter_pupil": Normalizer("points", (0, 1)),
        "box_diagonal": Normalizer("box_diagonal"),
        "2,4": Normalizer("points", (2, 4)),
        "nose, right_mouth_corner": Normalizer("points", (2, 4)),
    }
    for words, normalizer in cases.items():
        assert main([*arguments, "--normalizer", words]) == 0
        printed = json.loads(capsys.readouterr().out)
        expected = evaluate_checkpoint(model, processor, faces, ScoringSettings(normalizer=normalizer))
        assert printed["normalizer"] == normalizer.to_dict()
        assert printed["nme"] == pytest.approx(expected["nme"], rel=1e-6)
    for words, message in (
        ("inter_ocular", "does not say which points"),
        ("widest", "No normalizer is called"),
        ("1,7", "outside 0 to 4"),
        ("1,2,3", "two points"),
        ("nose,ear", "no point 'ear'"),
        ("2,2", "two different ends"),
    ):
        assert main([*arguments, "--normalizer", words]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.count("\n") == 1
        assert f"--normalizer {words}: " in captured.err and message in captured.err


def test_command_says_what_the_scores_are_worth(tmp_path, processor, faces, capsys):
    calibrated = make_model("mtfl")
    curve = {"heights": [0.0, 1.0], "scores": [0.25, 0.75], "tolerance": 5.0, "count": 99}
    calibrated.config.score_calibration = curve
    calibrated.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    faces.to_parquet(tmp_path / "faces.parquet")
    arguments = ["evaluate", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "faces.parquet")]
    scores = score_faces(calibrated, processor, faces)
    assert scores.score_tolerance == 5.0
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["confidence"]
    errors, sureness = scores.point_errors.ravel(), scores.point_scores.ravel()
    assert found["points"] == 35 and found["left_out"] == 0
    assert found["mean_error"] == pytest.approx(errors.mean(), rel=1e-6)
    kept = sureness >= found["kept"]["score"]
    assert 28 <= kept.sum() == round(35 * found["kept"]["share"])
    assert found["kept"]["error"] == pytest.approx(errors[kept].mean(), rel=1e-6)
    assert found["calibration"]["found"] == pytest.approx((errors <= 5).mean())
    assert found["calibration"]["score"] == pytest.approx(sureness.mean(), rel=1e-5)
    assert main(arguments) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Confidence: ")]
    assert f"no order {errors.mean():.2f})" in line and f"--min-score {found['kept']['score']:g})" in line
    assert f"{100 * (errors <= 5).mean():.0f} % of the points lie within 5 %" in line
    assert main([*arguments, "--format", "latex"]) == 0
    assert r"\% (fabrec detect -{}-min-score" in capsys.readouterr().out
    # Over another length, 5 % is another distance than the scores were calibrated by.
    assert main([*arguments, "--normalizer", "box", "--json"]) == 0
    assert "calibration" not in json.loads(capsys.readouterr().out)["confidence"]


def test_command_writes_everything_or_nothing(tmp_path, processor, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    points = np.random.default_rng(3).uniform(10, 80, (7, 68, 2))
    points[4] = np.nan  # the one challenging face cannot be scored
    faces_300w = make_faces(
        7,
        points,
        subset=["helen_test", "lfpw_test", "indoor", "outdoor", "ibug", "helen_test", "indoor"],
        name=[f'{index}, "face".jpg' for index in range(7)],
    )
    model_300w = make_model("300w")
    model_300w.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    faces_300w.to_parquet(tmp_path / "faces.parquet")
    output = tmp_path / "new" / "results"
    arguments = ["evaluate", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "faces.parquet")]
    arguments += ["--output", str(output)]

    write, written = Path.write_bytes, []

    def fail(path, content):
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fail)
        assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "No space left" in captured.err
    assert len(written) == 3 and list(output.iterdir()) == []

    assert main([*arguments, "--worst", "2", "--json"]) == 0
    names = {"results.json", "per_image.csv", "table.md", "table.tex", "ced.png", "confidence.png", "failures.png"}
    assert {path.name for path in output.iterdir()} == names
    printed = capsys.readouterr().out
    assert (output / "results.json").read_text() == printed
    result = json.loads(printed, parse_constant=pytest.fail)  # NaN is no JSON
    assert result["subsets"]["challenging"]["nme"] is None
    scores = score_faces(model_300w, processor, faces_300w)
    with (output / "per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == faces_300w["name"][:]
    assert list(rows[0])[:2] == ["name", "nme"] and set(rows[0]) == {"name", "nme", *scores.part_errors}
    for column, errors in {"nme": scores.errors, **scores.part_errors}.items():
        read = [float(row[column]) if row[column] else math.nan for row in rows]
        np.testing.assert_array_equal(read, errors)
    assert "(ours)" in (output / "table.md").read_text()
    assert (output / "table.tex").read_text().count(r"\begin{tabular}") >= 2
    with Image.open(output / "ced.png") as ced, Image.open(output / "failures.png") as failures:
        assert ced.width > 800 and failures.width > 600
    assert main([*arguments, "--format", "markdown"]) == 0  # a second time, over the first
    assert capsys.readouterr().out == (output / "table.md").read_text()


def test_without_matplotlib_the_curves_are_left_out(checkpoint, tmp_path, faces, capsys, monkeypatch):
    faces.to_parquet(tmp_path / "faces.parquet")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    arguments = ["evaluate", "--model", str(checkpoint), "--data", str(tmp_path / "faces.parquet"), "--json"]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main([*arguments, "--output", str(tmp_path / "results")]) == 0
    captured = capsys.readouterr()
    assert "matplotlib is not installed, so ced.png and confidence.png are left out" in captured.err
    written = {path.name for path in (tmp_path / "results").iterdir()}
    assert written == {"results.json", "per_image.csv", "table.md", "table.tex", "failures.png"}
    assert (tmp_path / "results" / "results.json").read_text() == captured.out


SCRIPT = ROOT / "training" / "evaluate_landmarks.py"


def test_two_processes_find_what_one_finds(checkpoint, drawn_faces, tmp_path):
    """Bit for bit, though the one computes with two threads and the two with one each."""
    pytest.importorskip("matplotlib")
    arguments = ["--model", str(checkpoint), "--data", str(drawn_faces), "--worst", "5", "--output"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    one = run_file(SCRIPT, *arguments, tmp_path / "one", environment=environment | {"OMP_NUM_THREADS": "2"})
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    command = [*launcher, *arguments, str(tmp_path / "two")]
    two = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    for done in (one, two):
        assert done.returncode == 0, done.stderr
    assert one.stdout == two.stdout and one.stdout.count("measured") == 1  # the second process keeps silent
    pictures = ("ced.png", "confidence.png", "failures.png")
    for name in ("results.json", "per_image.csv", "table.md", "table.tex", *pictures):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert json.loads((tmp_path / "one" / "results.json").read_text())["count"] == 24


def test_a_picture_that_one_process_cannot_read_stops_all(checkpoint, drawn_faces, tmp_path):
    """Rows 4 to 7 are the second process's: the first one reports for it, and nothing waits or is written."""
    rows = load_faces(drawn_faces)
    broken = rows.cast_column("image", datasets.Image(decode=False)).to_dict()
    broken["image"][5]["bytes"] = broken["image"][5]["bytes"][:100]
    datasets.Dataset.from_dict(broken, features=rows.features).to_parquet(tmp_path / "broken.parquet")
    arguments = ["--model", checkpoint, "--data", tmp_path / "broken.parquet", "--output", tmp_path / "results"]
    done = run_ranks(SCRIPT, *arguments, environment={"ACCELERATE_USE_CPU": "true"})
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.count("fabrec evaluate: error: A picture in rows 4 to 7 cannot be read") == 1
    assert not (tmp_path / "results").exists()


def test_a_single_process_needs_no_accelerate(checkpoint, tmp_path, faces):
    faces.to_parquet(tmp_path / "faces.parquet")
    code = (
        "import sys; sys.modules['accelerate'] = None; from fabrec_hf.cli import main; "
        f"sys.exit(main(['evaluate', '--model', {str(checkpoint)!r}, '--data', {str(tmp_path / 'faces.parquet')!r}]))"
    )
    done = run_code(code)
    assert done.returncode == 0, done.stderr


def test_command_answers_mistakes_in_one_line(checkpoint, tmp_path, faces, capsys):
    data = tmp_path / "faces.parquet"
    faces.to_parquet(data)
    FabRecAutoencoder(
        FabRecAutoencoderConfig(**{key: TINY[key] for key in TINY if key != "heatmap_size"})
    ).save_pretrained(tmp_path / "autoencoder")
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in checkpoint.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes()[: 2000 if file.suffix == ".safetensors" else None])
    cases = [
        ((checkpoint, tmp_path / "nowhere"), "no file or folder"),
        ((tmp_path / "nowhere", data), "No checkpoint"),
        (("nowhere", data), "No checkpoint 'nowhere'"),
        ((tmp_path / "empty", data), "no config.json"),
        ((tmp_path / "autoencoder", data), "finds no landmarks"),
        ((damaged, data), "cannot be loaded"),
        ((checkpoint, data, "--batch-size", "0"), "must be positive"),
        ((checkpoint, data, "--threshold", "0"), "must be positive"),
        ((checkpoint, data, "--threshold", "nan"), "must be positive"),
        ((checkpoint, data, "--shots", "0"), "--shots"),
        ((checkpoint, data, "--worst", "0"), "--worst"),
        ((checkpoint, data, "--output", data), "is not a folder"),
        ((checkpoint, data, "--output", data / "results"), "is not a folder"),
        ((checkpoint, data, "--device", "abacus"), "--device abacus"),
    ]
    for (name, path, *more), message in cases:
        capsys.readouterr()
        assert main(["evaluate", "--model", str(name), "--data", str(path), *map(str, more)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err.strip().splitlines()[-1]
        assert "Traceback" not in captured.err


def test_a_checkpoint_that_lacks_weights_is_refused(checkpoint):
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    del weights["heatmap_head.weight"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks heatmap_head.weight"):
        load_landmark_model(str(checkpoint))
