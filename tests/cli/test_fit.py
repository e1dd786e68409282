"""`fabrec fit` as a user calls it: what it saves and when, what it says meanwhile, and what reads its folder."""

import json
import os
import re
import select
import signal
import stat
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from support.tiny_checkpoints import save_autoencoder
from support.warm_processes import run_code


datasets = pytest.importorskip("datasets")

from fabrec_hf.cli import fit as fit_verb  # noqa: E402
from fabrec_hf.cli import main  # noqa: E402
from fabrec_hf.common.drafts import PREFIX  # noqa: E402
from fabrec_hf.data import load_faces, parquet  # noqa: E402


@pytest.fixture
def autoencoder(tmp_path):
    return save_autoencoder(tmp_path / "autoencoder")


@pytest.fixture
def export(drawn_faces, tmp_path):
    """Four drawn faces as COCO keypoints whose pictures lie elsewhere; the eyes' boxes, and one point outside."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    names = ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]
    content = {"categories": [{"id": 1, "name": "face", "keypoints": names}], "images": [], "annotations": []}
    for index, row in enumerate(load_faces(drawn_faces).select(range(4))):
        row["image"].save(folder / f"{index}.png")
        points = np.array(row["landmarks"])
        if index == 3:
            points[0] = -7
        keypoints = [value for x, y in points for value in (x, y, 2)]
        content["images"].append({"id": index, "file_name": f"C:\\faces\\{index}.png"})
        content["annotations"].append({"id": index, "image_id": index, "category_id": 1, "keypoints": keypoints})
    (tmp_path / "annotated").mkdir()
    (tmp_path / "annotated" / "faces.json").write_text(json.dumps(content))
    return tmp_path / "annotated" / "faces.json"


def run(*words):
    return main([str(word) for word in words])


def test_a_fit_says_what_it_imports_and_how_far_it_is(export, autoencoder, tmp_path, capsys):
    common = ["fit", export, "--model", autoencoder, "--effort", 0.02]
    assert run(*common, "--output", tmp_path / "no") == 2
    assert "say where (images)" in capsys.readouterr().err
    assert run(*common, "--images", tmp_path / "photographs", "--output", tmp_path / "out") == 0
    streams = capsys.readouterr()
    assert (
        "1 points lie outside their pictures" in streams.err and "5 points, scheme custom, 2 flip pairs" in streams.err
    )
    tenths = [line for line in streams.err.splitlines() if line.startswith("fabrec fit: learning, step")]
    assert len(tenths) == 10 and tenths[-1].split()[4] == tenths[-1].split()[6].rstrip(",")
    assert " nine times of ten, from 2 of the faces" in streams.out
    results = json.loads((tmp_path / "out" / "fit.json").read_text())
    low, high = results["held_out_interval"]
    assert low < results["held_out_error"] < high
    # Nobody takes these drawings for faces.
    assert results["held_out_not_found"] == 2
    assert "The face detector misses 2 of the 2 faces: they were predicted in their given boxes." in streams.out


def test_the_detector_is_saved_before_the_estimate(drawn_faces, autoencoder, tmp_path, monkeypatch, capsys):
    saved = []

    class Watched(fit_verb._SavedDetector):
        def save(self, files):
            super().save(files)
            saved.append((set(files), load_file(self.output / "model.safetensors"), capsys.readouterr().err))

    monkeypatch.setattr(fit_verb, "_SavedDetector", Watched)
    words = ["fit", drawn_faces, "--shots", 4, "--model", autoencoder, "--effort", 0.02, "--output", tmp_path / "out"]
    assert run(*words) == 0
    (first, early, before), (last, late, _) = saved
    assert first == {"learned_pictures.json"} and last == {"learned_pictures.json", "fit.json", "held_out.png"}
    assert "estimating, step" not in before and f"saved to {tmp_path / 'out'}" in capsys.readouterr().err + saved[1][2]
    for name, value in early.items():
        if "calibration" not in name:
            assert (value == late[name]).all(), name
    assert stat.S_IMODE((tmp_path / "out" / "model.safetensors").stat().st_mode) & 0o444 == 0o444
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) & 0o555 == 0o555


def test_the_folder_is_a_pipeline_without_the_package(drawn_faces, autoencoder, tmp_path, capsys):
    words = ["fit", drawn_faces, "--shots", 2, "--folds", 0, "--model", autoencoder, "--effort", 0.02]
    assert run(*words, "--output", tmp_path / "out") == 0
    Image.new("RGB", (96, 96), (90, 60, 30)).save(tmp_path / "photo.png")
    script = (
        "import sys; sys.modules['fabrec_hf'] = None\n"
        "from transformers import pipeline\n"
        f"detect = pipeline('keypoint-detection', model={str(tmp_path / 'out')!r}, trust_remote_code=True)\n"
        f"print(len(detect({str(tmp_path / 'photo.png')!r}, boxes=[[20, 20, 50, 50]])[0]['keypoints']))\n"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin"}
    done = run_code(script, environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["5"]


def test_evaluation_on_learned_pictures_is_remarked(drawn_faces, autoencoder, tmp_path, capsys):
    words = ["fit", drawn_faces, "--shots", 3, "--folds", 0, "--model", autoencoder, "--effort", 0.02]
    assert run(*words, "--output", tmp_path / "out") == 0
    capsys.readouterr()
    assert run("evaluate", "--model", tmp_path / "out", "--data", drawn_faces, "--format", "json") == 0
    assert "has learned from the pictures of 3 of these 24 faces" in capsys.readouterr().err
    (tmp_path / "out" / "learned_pictures.json").unlink()
    assert run("evaluate", "--model", tmp_path / "out", "--data", drawn_faces, "--format", "json") == 0
    assert "has learned" not in capsys.readouterr().err


def test_fit_makes_a_detector_from_any_format(pts_folder, autoencoder, tmp_path, capsys):
    output = tmp_path / "detector"
    words = ["fit", pts_folder, "--output", output, "--model", autoencoder, "--effort", 0.01, "--json"]
    assert main([str(word) for word in words]) == 0
    results = json.loads(capsys.readouterr().out)
    assert (
        results["faces"] == 4 and results["points"] == 3 and results["folds"] == 1 and results["held_out_faces"] == 2
    )
    assert json.loads((output / "fit.json").read_text()) == results
    assert Image.open(output / "held_out.png").size[0] > 300
    assert main(["detect", str(pts_folder / "0.png"), "--model", str(output), "--boxes", "20,20,50,50", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert len(record["faces"][0]["keypoints"]) == 3
    assert main([str(word) for word in words]) == 2, "nothing is overwritten"
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_fit_learns_the_same_from_a_reader_and_from_what_convert_wrote(pts_folder, autoencoder, tmp_path):
    assert run("convert", "pts", pts_folder, tmp_path / "faces") == 0
    common = ["--model", autoencoder, "--effort", 0.02, "--shots", 3, "--seed", 5]
    assert run("fit", pts_folder, "--output", tmp_path / "direct", *common) == 0
    assert run("fit", tmp_path / "faces", "--output", tmp_path / "by-parquet", *common) == 0
    first, second = (tmp_path / name for name in ("direct", "by-parquet"))
    for name in ("model.safetensors", "learned_pictures.json", "held_out.png", "preprocessor_config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    results = [json.loads((folder / "fit.json").read_text()) | {"seconds": 0} for folder in (first, second)]
    assert results[0] == results[1] and results[0]["faces"] == 3


@pytest.mark.parametrize("limit", [None, 0], ids=["in memory", "memory-mapped"])
def test_nothing_stays_in_the_cache_of_datasets(drawn_faces, pts_folder, autoencoder, tmp_path, monkeypatch, limit):
    """Neither of a fit nor of a conversion; large Parquet files are mapped from a copy that goes with the fit."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    if limit is not None:
        monkeypatch.setattr(parquet, "IN_MEMORY", limit)
    fit = ["--model", autoencoder, "--effort", 0.01, "--folds", 0, "--shots", 2]
    assert run("fit", pts_folder, "--output", tmp_path / "one", *fit) == 0
    assert run("fit", drawn_faces, "--output", tmp_path / "two", *fit) == 0
    assert run("convert", "pts", pts_folder, tmp_path / "coco", "--to", "coco") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotated", "autoencoder", "coco", "one", "two"]


def test_fit_says_what_it_did_and_what_is_estimated(drawn_faces, autoencoder, tmp_path, capsys):
    def printed(*words) -> str:
        common = ["fit", drawn_faces, "--model", autoencoder, "--effort", 0.01]
        assert main([str(word) for word in [*common, *words]]) == 0
        return capsys.readouterr().out

    text = printed("--shots", 1, "--output", tmp_path / "one")
    assert text.startswith("Learned 5 points from 1 face in ") and "which takes two faces or more" in text
    assert not (tmp_path / "one" / "held_out.png").exists()
    text = printed("--shots", 4, "--output", tmp_path / "four")
    assert "from 2 of the faces, predicted by" in text and "in 4 times the time: --folds 4." in text
    text = printed("--shots", 4, "--folds", 2, "--output", tmp_path / "halves")
    assert "by 2-fold cross-validation: each face" in text and "Leave-one-out: --folds 4." in text
    text = printed("--shots", 3, "--folds", 99, "--output", tmp_path / "left-out")
    assert "by leave-one-out: each face" in text and "--folds" not in text
    text = printed("--shots", 2, "--folds", 0, "--output", tmp_path / "none")
    assert "not estimated (as asked); --folds 1 holds a third out, --folds 2 leaves one face out" in text


@pytest.mark.parametrize("rows", [["a.png,40,40"], ["a.png,40,40", "b.png,30,50", "c.png,,"]])
def test_fit_learns_a_single_point_without_names_or_pairs(rows, drawn_faces, autoencoder, tmp_path, capsys):
    for index, row in enumerate(load_faces(drawn_faces).select(range(len(rows)))):
        row["image"].save(tmp_path / f"{'abc'[index]}.png")
    (tmp_path / "points.csv").write_text("\n".join(["image,tip_x,tip_y", *rows, ""]))
    words = ["fit", tmp_path / "points.csv", "--output", tmp_path / "detector", "--model", autoencoder]
    assert main([str(word) for word in [*words, "--effort", 0.01, "--json"]]) == 0
    results = json.loads(capsys.readouterr().out)
    annotated = sum(not row.endswith(",,") for row in rows)
    assert results["points"] == 1 and results["faces"] == annotated and results["training_error"] > 0
    assert results["held_out_faces"] == (1 if annotated > 1 else 0)


def test_fit_refuses_what_it_cannot_use(drawn_faces, autoencoder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    common = ["--output", str(tmp_path / "out"), "--model", str(autoencoder)]
    for words, fragment in (
        ([str(tmp_path / "empty")], "holds no annotations"),
        ([str(drawn_faces), "--shots", "99"], "99 faces were asked for"),
        ([str(drawn_faces), "--scheme", "300w"], "has 68 points but the data 5"),
        ([str(drawn_faces), "--boxes", "points"], "take no --boxes"),
        ([str(drawn_faces), "--effort", "0"], "--effort"),
        ([str(drawn_faces), "--folds", "-1"], "--folds"),
        ([str(drawn_faces), "--device", "abacus"], "abacus"),
    ):
        assert main(["fit", *words, *common]) == 2
        captured = capsys.readouterr()
        assert fragment in captured.err.splitlines()[-1] and "Traceback" not in captured.err and captured.out == ""
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "autoencoder") == ["empty"]


@pytest.mark.parametrize(
    ("stage", "options"), [("learning", ["--effort", 900]), ("estimating", ["--effort", 0.05, "--folds", 24])]
)
def test_ctrl_c_saves_what_has_been_learned(drawn_faces, autoencoder, tmp_path, stage, options):
    """A real SIGINT, as soon as the bar of the stage, which is drawn on terminals only, shows an error."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    words = [sys.executable, "-c", "import sys; from fabrec_hf.cli import main; sys.exit(main())", "fit", drawn_faces]
    words += ["--output", tmp_path / "early", "--model", autoencoder, "--json", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 160, 0, 0))  # a bar needs room
    shown = b""
    with subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.PIPE, stderr=theirs, text=True, env=environment
    ) as process:
        os.close(theirs)
        deadline = time.monotonic() + 240
        while not re.search(rf"{stage}: .*error [\d.]+ %".encode(), shown) and time.monotonic() < deadline:
            shown += os.read(ours, 4096) if select.select([ours], [], [], 1)[0] else b""
        process.send_signal(signal.SIGINT)
        drain = threading.Thread(target=_read_to_the_end, args=(ours,))  # a full terminal would block the process
        drain.start()
        output, _ = process.communicate(timeout=120)
        drain.join()
    os.close(ours)
    assert process.returncode == 0, shown
    results = json.loads(output)
    assert results["stopped"] is True and (tmp_path / "early" / "model.safetensors").is_file()
    if stage == "learning":
        assert results["steps"] < 270_000 and results["held_out_faces"] == 0
    else:
        assert results["steps"] == 30 and 0 < results["held_out_faces"] < 24
        assert (tmp_path / "early" / "held_out.png").is_file()
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def _read_to_the_end(terminal: int) -> None:
    try:
        while os.read(terminal, 4096):
            pass
    except OSError:  # how Linux says that nobody writes any more
        pass
