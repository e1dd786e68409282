"""Trainings that publish their model when they are done."""

import json
import os
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from huggingface_hub import ModelCard

from support.tiny_checkpoints import save_autoencoder
from support.warm_processes import run_file


ROOT = Path(__file__).parents[2]
PRETRAIN = ["--preset", "small", "--image_size", "32", "--widths", "8", "8", "8", "8", "--batch_size", "4"]
PRETRAIN += ["--max_steps", "1", "--adversarial_weight", "0", "--held_out_fraction", "0.3"]
LANDMARKS = ["--head_steps", "1", "--heatmap_size", "16", "--heatmap_sigma", "1", "--batch_size", "4"]


def train(script: str, *arguments: object, environment: dict[str, str]) -> CompletedProcess:
    return run_file(ROOT / "training" / script, *arguments, "--push_to_hub", environment=environment)


@pytest.mark.parametrize("script", ["pretrain.py", "train_landmarks.py"])
def test_a_finished_training_is_published(hub, drawn_faces, tmp_path, script):
    output, name = tmp_path / "run", f"faces/trained-by-{script.removesuffix('.py').replace('_', '-')}"
    more = PRETRAIN
    if script == "train_landmarks.py":
        more = [*LANDMARKS, "--autoencoder", str(save_autoencoder(tmp_path / "autoencoder"))]
    arguments = ["--data", drawn_faces, "--output_dir", output, *more, "--hub_model_id", name]
    done = train(script, *arguments, environment=hub.environment(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    files = set(hub.api().list_repo_files(name))
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= files
    assert not any("/" in file for file in files)  # no checkpoint with its optimizers, no discriminators
    card = ModelCard(Path(hub.api().hf_hub_download(name, "README.md", cache_dir=tmp_path)).read_text())
    if script == "train_landmarks.py":
        assert card.data.pipeline_tag == "keypoint-detection" and "| landmarks | 24 annotated faces |" in card.text
        weights = hub.api().hf_hub_download(name, "model.safetensors", cache_dir=tmp_path)
        assert Path(weights).read_bytes() == (output / "model.safetensors").read_bytes()
        assert json.loads((output / "config.json").read_text())["landmark_scheme"]["name"] == "mtfl"


def test_a_training_that_could_not_publish_does_not_start(hub, drawn_faces, tmp_path):
    arguments = ["--data", drawn_faces, "--output_dir", tmp_path / "run", *LANDMARKS, "--hub_model_id", "faces/closed"]
    arguments += ["--autoencoder", save_autoencoder(tmp_path / "autoencoder")]
    done = train("train_landmarks.py", *arguments, environment=hub.environment(tmp_path, token="reader"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: The token may not write to faces/closed")
    assert not os.path.exists(tmp_path / "run")
