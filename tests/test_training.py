"""The training scripts, really launched for a few steps."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fabrec_hf import FabRecAutoencoder, FabRecForLandmarkDetection


ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "training"))

from training_utils import batch_indices, cosine_factor  # noqa: E402


def launch(script: str, *arguments, expect: int = 0) -> str:
    """Run a training script as a user does; returns what it wrote to stderr."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", str(ROOT / "training" / script)]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    # The launcher itself exits with 1 for any failure of the script, whose own code it prints.
    assert (done.returncode == 0) == (expect == 0), done.stderr
    return done.stderr


def run_script(script: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "training" / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


PRETRAIN = ["--preset", "small", "--widths", 4, 4, 8, 8, "--batch_size", 8, "--learning_rate", 1e-3, "--beta1", 0.9]
PRETRAIN += ["--max_steps", 6, "--coarse_steps", 2, "--adversarial_start", 3, "--checkpoint_every", 2]
PRETRAIN += ["--gradient_penalty", 1, "--picture_every", 3, "--held_out_fraction", 0.3]


@pytest.fixture(scope="module")
def autoencoder(drawn_faces, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "autoencoder"
    launch("pretrain.py", "--data", drawn_faces, "--output_dir", output, *PRETRAIN)
    return output


def test_pretraining_saves_a_model_pictures_and_discriminators(autoencoder):
    model = FabRecAutoencoder.from_pretrained(autoencoder)
    assert model.config.image_size == 128 and list(model.config.widths) == [4, 4, 8, 8]
    assert (autoencoder / "discriminators" / "model.safetensors").is_file()
    assert (autoencoder / "preprocessor_config.json").is_file()
    assert (autoencoder / "reconstructions-6.png").stat().st_size > 1000
    steps = sorted(path.name for path in autoencoder.glob("checkpoint-*"))
    assert steps == ["checkpoint-4", "checkpoint-6"]  # two are kept


def test_a_resumed_pretraining_ends_with_the_same_weights(autoencoder, drawn_faces, tmp_path):
    """Four steps, then two more in a new process, against six in one."""
    output = tmp_path / "resumed"
    output.mkdir()
    (autoencoder / "checkpoint-4").rename(output / "checkpoint-4")
    try:
        arguments = ["--data", drawn_faces, "--output_dir", output, "--resume_from_checkpoint", "latest", *PRETRAIN]
        assert "Resuming" in launch("pretrain.py", *arguments)
    finally:
        (output / "checkpoint-4").rename(autoencoder / "checkpoint-4")
    for name in ("model.safetensors", "discriminators/model.safetensors"):
        expected, resumed = load_file(autoencoder / name), load_file(output / name)
        assert expected.keys() == resumed.keys()
        assert all(torch.equal(expected[key], resumed[key]) for key in expected)


LANDMARKS = ["--head_steps", 4, "--finetune_steps", 4, "--batch_size", 4, "--heatmap_size", 16, "--heatmap_sigma", 1]
LANDMARKS += ["--checkpoint_every", 2, "--validation_fraction", 0.25, "--transfer_initialization", "identity"]
LANDMARKS += ["--color", 0.2, "--grayscale", 0.2, "--blur", 0.2]


@pytest.fixture(scope="module")
def detector(autoencoder, drawn_faces, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "landmarks"
    arguments = ["--data", drawn_faces, "--autoencoder", autoencoder, "--output_dir", output]
    launch("train_landmarks.py", *arguments, *LANDMARKS)
    return output


def test_landmark_training_leaves_the_generator_as_it_was(detector, autoencoder):
    before = FabRecAutoencoder.from_pretrained(autoencoder).state_dict()
    model = FabRecForLandmarkDetection.from_pretrained(detector)
    after = model.autoencoder.state_dict()
    decoder = [key for key in before if key.startswith("decoder.")]
    assert decoder and all(torch.equal(before[key], after[key]) for key in decoder)
    statistics = [key for key in before if "running" in key]
    assert statistics and all(torch.equal(before[key], after[key]) for key in statistics)
    # The encoder did learn, in the second stage.
    assert not torch.equal(before["encoder.fc.weight"], after["encoder.fc.weight"])
    assert model.config.landmark_scheme["name"] == "mtfl"
    results = json.loads((detector / "training_results.json").read_text())
    assert results["faces"] == 18 and results["validation_faces"] == 6 and results["validation_nme"] > 0


def test_a_resumed_landmark_training_ends_with_the_same_weights(detector, autoencoder, drawn_faces, tmp_path):
    """Going on from the start of the second stage, which has another optimizer than the first."""
    output = tmp_path / "resumed"
    arguments = ["--data", drawn_faces, "--autoencoder", autoencoder, "--output_dir", output]
    launch("train_landmarks.py", *arguments, *LANDMARKS, "--resume_from_checkpoint", detector / "checkpoint-4")
    expected, resumed = load_file(detector / "model.safetensors"), load_file(output / "model.safetensors")
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)


def test_one_shot_trains_on_one_face(autoencoder, drawn_faces, tmp_path):
    arguments = ["--data", drawn_faces, "--autoencoder", autoencoder, "--output_dir", tmp_path / "one"]
    done = run_script("train_landmarks.py", *arguments, "--shots", 1, "--head_steps", 2, "--heatmap_size", 16)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "one" / "training_results.json").read_text())["faces"] == 1


def test_a_killed_pretraining_leaves_whole_checkpoints(drawn_faces, tmp_path):
    output = tmp_path / "killed"
    command = [sys.executable, str(ROOT / "training" / "pretrain.py"), "--data", str(drawn_faces)]
    command += ["--output_dir", str(output), *map(str, PRETRAIN), "--max_steps", "100000", "--checkpoint_every", "1"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(output.glob("checkpoint-*[0-9]"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    whole = [path for path in output.glob("checkpoint-*") if (path / "progress.json").is_file()]
    assert whole
    for checkpoint in whole:
        for name in ("model.safetensors", "model_1.safetensors", "model_2.safetensors"):
            assert load_file(checkpoint / name)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("pretrain.py", ["--data", "nowhere"], "nowhere"),
        ("pretrain.py", ["--data", "nowhere", "--preset", "huge"], "--preset"),
        ("pretrain.py", ["--data", "nowhere", "--config", "missing.yaml"], "missing.yaml"),
        ("train_landmarks.py", ["--data", "nowhere"], "nowhere"),
        ("train_landmarks.py", ["--data", "nowhere", "--protocol", "mine"], "--protocol"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(script, arguments, message, tmp_path):
    done = run_script(script, *arguments, "--output_dir", tmp_path / "run")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr and message in done.stderr.splitlines()[-1]


def test_batches_visit_every_row_once_an_epoch():
    rows = torch.cat([batch_indices(10, 4, seed=3, step=step) for step in range(5)])
    assert sorted(rows[:10].tolist()) == list(range(10)) and sorted(rows[10:].tolist()) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert batch_indices(3, 8, seed=0, step=0).bincount().tolist() in ([3, 3, 2], [3, 2, 3], [2, 3, 3])


def test_cosine_schedule_by_hand():
    assert cosine_factor(0, 110, 10) == pytest.approx(0.1)
    assert cosine_factor(9, 110, 10) == pytest.approx(1.0)
    assert cosine_factor(60, 110, 10, floor=0.0) == pytest.approx(0.5)
    assert cosine_factor(110, 110, 10, floor=0.01) == pytest.approx(0.01)
