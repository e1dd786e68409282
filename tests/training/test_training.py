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
from fabrec_hf.errors import DataError, SchemeError
from fabrec_hf.learning.landmark_training import LandmarkRecipe
from fabrec_hf.learning.schedules import batch_indices, cosine_factor
from fabrec_hf.learning.training_stage import rate_factor
from support.scripts import run_script
from support.tiny_checkpoints import save_landmarks


ROOT = Path(__file__).parents[2]


def launch(script: str, *arguments) -> None:
    """Run a training script as a user does."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", str(ROOT / "training" / script)]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


PRETRAIN = ["--preset", "small", "--widths", 8, 8, 8, 8, "--batch_size", 8, "--learning_rate", 1e-3, "--beta1", 0.9]
PRETRAIN += ["--max_steps", 6, "--coarse_steps", 2, "--adversarial_start", 3, "--checkpoint_every", 2]
PRETRAIN += ["--gradient_penalty", 1, "--picture_every", 3, "--held_out_fraction", 0.3]


@pytest.fixture(scope="module")
def autoencoder(drawn_faces, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "autoencoder"
    launch("pretrain.py", "--data", drawn_faces, "--output_dir", output, *PRETRAIN)
    return output


def test_pretraining_saves_a_model_pictures_and_discriminators(autoencoder):
    model = FabRecAutoencoder.from_pretrained(autoencoder)
    assert model.config.image_size == 128 and list(model.config.widths) == [8, 8, 8, 8]
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
        done = run_script("pretrain.py", *arguments)
        assert done.returncode == 0 and "Resuming" in done.stderr, done.stderr
    finally:
        (output / "checkpoint-4").rename(autoencoder / "checkpoint-4")
    for name in ("model.safetensors", "discriminators/model.safetensors"):
        expected, resumed = load_file(autoencoder / name), load_file(output / name)
        assert expected.keys() == resumed.keys()
        assert all(torch.equal(expected[key], resumed[key]) for key in expected)


LANDMARKS = ["--head_steps", 4, "--finetune_steps", 4, "--batch_size", 4, "--heatmap_size", 16, "--heatmap_sigma", 1]
LANDMARKS += ["--checkpoint_every", 2, "--validation_fraction", 0.25, "--transfer_initialization", "identity"]
LANDMARKS += ["--cosine_schedule", "--warmup_steps", 2, "--color", 0.2, "--grayscale", 0.2, "--blur", 0.2]


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


@pytest.mark.parametrize("step", [4, 6])
def test_a_resumed_landmark_training_ends_with_the_same_weights(detector, autoencoder, drawn_faces, tmp_path, step):
    """Going on from the start of the second stage, which has another optimizer than the first, and from within it."""
    output = tmp_path / "resumed"
    arguments = ["--data", drawn_faces, "--autoencoder", autoencoder, "--output_dir", output]
    arguments += [*LANDMARKS, "--resume_from_checkpoint", detector / f"checkpoint-{step}"]
    done = run_script("train_landmarks.py", *arguments)
    assert done.returncode == 0, done.stderr
    expected, resumed = load_file(detector / "model.safetensors"), load_file(output / "model.safetensors")
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)


def test_a_finished_model_is_calibrated_on_the_faces_set_aside(drawn_faces, tmp_path, same_threads):
    """In a new folder, beside the same weights; what is calibrated already comes out the same."""
    from train_landmarks import LandmarkTrainingArguments, main

    def calibrate(model: Path, name: str, fraction: float = 0.4) -> dict:
        output = str(tmp_path / name)
        arguments = {"data": [str(drawn_faces)], "validation_fraction": fraction, "calibrate": str(model)}
        main(LandmarkTrainingArguments(output_dir=output, **arguments))
        return FabRecForLandmarkDetection.from_pretrained(output).config.error_model

    plain = save_landmarks(tmp_path / "plain")
    model = calibrate(plain, "new")
    assert model["count"] == 50 and model["tolerance"] == 5.0  # five points of ten of the 24 faces
    before, after = (load_file(folder / "model.safetensors") for folder in (plain, tmp_path / "new"))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert calibrate(tmp_path / "new", "again") == model, "from heights, not from scores that are calibrated already"
    with pytest.raises(DataError, match="is not empty"):
        calibrate(plain, "new")
    with pytest.raises(DataError, match="2 faces have too few"):
        calibrate(plain, "few", 0.1)
    with pytest.raises(SchemeError, match="68 points"):
        calibrate(save_landmarks(tmp_path / "other", scheme="300w"), "wrong")
    with pytest.raises(ValueError, match="give the --validation_fraction"):
        calibrate(plain, "seen", 0.0)
    assert (
        not any((tmp_path / name).exists() for name in ("few", "wrong", "seen")) and len(list(tmp_path.iterdir())) == 4
    )


def test_the_script_shortens_a_long_gradient(autoencoder, drawn_faces, tmp_path, monkeypatch, same_threads):
    """A step of plain descent at a rate of one moves all that learns by the gradient itself."""
    from train_landmarks import LandmarkTrainingArguments, main

    monkeypatch.setattr(torch.optim, "Adam", torch.optim.SGD)
    settings = {"data": [str(drawn_faces)], "autoencoder": str(autoencoder), "report_to": "none", "heatmap_size": 16}
    settings |= {"head_steps": 0, "finetune_steps": 1, "batch_size": 4}

    def weights(name: str, rate: float, max_grad_norm: float = 0.0) -> torch.Tensor:
        rates = {"finetune_head_learning_rate": rate, "encoder_learning_rate": rate}
        output = str(tmp_path / name)
        main(LandmarkTrainingArguments(output_dir=output, max_grad_norm=max_grad_norm, **settings, **rates))
        saved = load_file(tmp_path / name / "model.safetensors")
        return torch.cat([saved[key].flatten().double() for key in sorted(saved)])

    before = weights("before", 0.0)
    whole = weights("whole", 1.0) - before
    length = float(whole.norm())
    halved = weights("halved", 1.0, length / 2) - before
    assert length > 0 and torch.allclose(halved, whole / 2, rtol=1e-3, atol=1e-5 * length)


def test_one_shot_trains_on_one_face_and_knows_its_shape(autoencoder, drawn_faces, tmp_path):
    arguments = ["--data", drawn_faces, "--autoencoder", autoencoder, "--output_dir", tmp_path / "one"]
    done = run_script(
        "train_landmarks.py", *arguments, "--shots", 1, "--head_steps", 2, "--heatmap_size", 16, "--shape_prior", True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "one" / "training_results.json").read_text())["faces"] == 1
    prior = FabRecForLandmarkDetection.from_pretrained(tmp_path / "one").shape_prior
    assert not torch.equal(prior.gain, torch.eye(len(prior.gain))) and (prior.mean - 0.5).abs().max() > 0.1


def test_a_killed_and_resumed_pretraining_ends_as_an_unbroken_one(drawn_faces, tmp_path):
    """SIGKILL at an arbitrary moment, then two more steps, against as many steps without a break."""
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    words = ["--data", drawn_faces, *PRETRAIN, "--checkpoint_every", 1, "--picture_every", 100000]
    command = [sys.executable, str(ROOT / "training" / "pretrain.py"), *map(str, words)]
    command += ["--output_dir", str(killed), "--max_steps", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(list(killed.glob("checkpoint-*[0-9]"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    whole = [path for path in killed.glob("checkpoint-*") if (path / "progress.json").is_file()]
    assert whole
    steps = max(json.loads((path / "progress.json").read_text())["step"] for path in whole) + 2
    for output, more in ((killed, ["--resume_from_checkpoint", "latest"]), (unbroken, [])):
        done = run_script("pretrain.py", *words, "--output_dir", output, "--max_steps", steps, *more)
        assert done.returncode == 0, done.stderr
    expected, resumed = load_file(unbroken / "model.safetensors"), load_file(killed / "model.safetensors")
    assert all(torch.equal(expected[key], resumed[key]) for key in expected)


def test_a_finished_pretraining_can_be_continued_with_its_discriminators(autoencoder, drawn_faces, tmp_path):
    arguments = ["--data", drawn_faces, "--output_dir", tmp_path / "more", "--initial_model", autoencoder]
    arguments += [*PRETRAIN, "--max_steps", 1, "--coarse_steps", 0, "--adversarial_start", 0, "--learning_rate", 0]
    arguments += ["--image_discriminator_learning_rate", 0, "--latent_discriminator_learning_rate", 0]
    done = run_script("pretrain.py", *arguments)
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "discriminators/model.safetensors"):
        before, after = load_file(autoencoder / name), load_file(tmp_path / "more" / name)
        weights = [key for key in before if "running" not in key and "num_batches" not in key]
        assert weights and all(torch.equal(before[key], after[key]) for key in weights)


def test_a_run_is_never_mixed_with_another(autoencoder, detector, drawn_faces, tmp_path):
    """Starting anew in a used folder, going on past the end, or with stages of other lengths."""
    arguments = ["--data", drawn_faces, *PRETRAIN]
    again = run_script("pretrain.py", *arguments, "--output_dir", autoencoder)
    assert again.returncode == 2 and "--resume_from_checkpoint" in again.stderr.splitlines()[-1]
    past = run_script("pretrain.py", *arguments, "--output_dir", autoencoder, "--resume_from_checkpoint", "latest")
    assert past.returncode == 2 and "6 steps already" in past.stderr.splitlines()[-1]
    arguments = ["--data", drawn_faces, "--autoencoder", autoencoder, "--output_dir", tmp_path / "other", *LANDMARKS]
    arguments += ["--head_steps", 3, "--resume_from_checkpoint", detector / "checkpoint-6"]
    other = run_script("train_landmarks.py", *arguments)
    assert other.returncode == 2 and "stages that end at [4, 8]" in other.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("pretrain.py", ["--data", "nowhere"], "nowhere"),
        ("pretrain.py", ["--data", "nowhere", "--preset", "huge"], "--preset"),
        ("pretrain.py", ["--data", "nowhere", "--config", "missing.yaml"], "missing.yaml"),
        ("train_landmarks.py", ["--data", "nowhere"], "nowhere"),
        ("pretrain.py", ["--data", "nowhere", "--scale", "0", "1"], "--scale"),
        ("train_landmarks.py", ["--data", "nowhere", "--protocol", "mine"], "--protocol"),
        ("train_landmarks.py", ["--data", "FACES", "--scheme", "nonsense"], "nonsense"),
        ("train_landmarks.py", ["--data", "FACES", "--scheme", "300w"], "68 points"),
        ("train_landmarks.py", ["--data", "FACES", "--autoencoder", "no-such-folder"], "no-such-folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(script, arguments, message, autoencoder, drawn_faces, tmp_path):
    arguments = [drawn_faces if argument == "FACES" else argument for argument in arguments]
    if script == "train_landmarks.py" and "--autoencoder" not in arguments:
        arguments += ["--autoencoder", autoencoder]
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


def test_rates_stay_at_their_peak_unless_a_cosine_is_asked_for():
    steady, falling = LandmarkRecipe(warmup_steps=10), LandmarkRecipe(warmup_steps=10, cosine_schedule=True)
    assert [rate_factor(steady, step, 100) for step in (0, 4, 9, 10, 99)] == pytest.approx([0.1, 0.5, 1, 1, 1])
    assert rate_factor(falling, 55, 100) == pytest.approx(0.505)  # half of the cosine, down to a hundredth
    # A warm-up takes a quarter of the stage at most: five steps of twenty.
    assert rate_factor(steady, 0, 20) == rate_factor(falling, 0, 20) == pytest.approx(0.2)
    assert rate_factor(LandmarkRecipe(), 0, 3) == 1.0
