"""Checkpoints that an earlier release saved keep loading, and give what they gave then."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForKeypointDetection

from fabrec_hf import FabRecAutoencoder, FabRecForLandmarkDetection
from fabrec_hf.checkpoints.loading import load_autoencoder, load_landmark_model


FOLDER = Path(__file__).parents[1] / "previous_layout"
IMAGES = torch.linspace(-0.5, 0.5, 3 * 32 * 32).view(1, 3, 32, 32)


@pytest.fixture(scope="module")
def expected():
    return load_file(FOLDER / "expected.safetensors")


@pytest.mark.parametrize("auto_class", [AutoModel, AutoModelForKeypointDetection, FabRecForLandmarkDetection])
def test_a_landmark_checkpoint_gives_the_same_points(auto_class, expected):
    model, report = auto_class.from_pretrained(FOLDER / "landmarks", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        outputs = model.eval()(IMAGES)
    torch.testing.assert_close(outputs.landmarks, expected["landmarks"], atol=1e-4, rtol=0)
    torch.testing.assert_close(outputs.scores, expected["scores"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("auto_class", [AutoModel, FabRecAutoencoder])
def test_an_autoencoder_gives_the_same_latents_and_pictures(auto_class, expected):
    model, report = auto_class.from_pretrained(FOLDER / "autoencoder", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        outputs = model.eval()(IMAGES)
    torch.testing.assert_close(outputs.latent, expected["latent"], atol=1e-4, rtol=0)
    torch.testing.assert_close(outputs.reconstruction, expected["reconstruction"], atol=1e-4, rtol=0)


def test_the_library_takes_them_for_whole():
    model, processor = load_landmark_model(FOLDER / "landmarks")
    assert model.config.landmark_scheme["name"] == "mtfl" and processor.size.height == 32
    assert load_autoencoder(FOLDER / "autoencoder").config.latent_size == 8
    assert AutoImageProcessor.from_pretrained(FOLDER / "autoencoder").size.height == 32
