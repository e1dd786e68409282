"""`fabrec fit` as a user calls it: what it saves and when, what it says meanwhile, and what reads its folder."""

import json
import stat
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from support.tiny_checkpoints import save_autoencoder


datasets = pytest.importorskip("datasets")

from fabrec_hf.cli import fit as fit_verb  # noqa: E402
from fabrec_hf.cli import main  # noqa: E402
from fabrec_hf.data import load_faces  # noqa: E402


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


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
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=240)
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
