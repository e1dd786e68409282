"""The autoencoder and the landmark model: what loads into what, and what is refused."""

import logging

import pytest
import torch
from torch import nn

from fabrec_hf import FabRecAutoencoder, FabRecAutoencoderConfig, FabRecForLandmarkDetection, get_scheme
from fabrec_hf.learning.discriminators import (
    FabRecDiscriminators,
)
from support.tiny_models import TINY, pictures, random_statistics, tiny_config, tiny_model


# What loads into what.


def test_save_and_load_round_trip(tmp_path):
    scheme = get_scheme("mtfl")
    model = random_statistics(tiny_model(landmark_scheme=scheme.to_dict(), transfer_layers=[2], decoding="argmax"))
    model.save_pretrained(tmp_path)
    loaded, info = FabRecForLandmarkDetection.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert not loaded.training
    assert loaded.config.landmark_scheme == scheme.to_dict()
    assert (loaded.config.transfer_layers, loaded.config.decoding) == ([2], "argmax")
    with torch.no_grad():
        before, after = model(pictures()), loaded(pictures())
    assert torch.equal(before.heatmaps, after.heatmaps) and torch.equal(before.landmarks, after.landmarks)


def test_an_autoencoder_becomes_a_landmark_model(tmp_path):
    autoencoder = random_statistics(FabRecAutoencoder(FabRecAutoencoderConfig(**TINY))).eval()
    autoencoder.save_pretrained(tmp_path)
    model, info = FabRecForLandmarkDetection.from_pretrained(
        tmp_path, num_landmarks=7, heatmap_size=32, output_loading_info=True
    )
    assert info["missing_keys"] == {"heatmap_head.weight", "transfer_layers.0.weight", "transfer_layers.1.weight"}
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    for name, value in autoencoder.state_dict().items():
        assert torch.equal(model.state_dict()[f"autoencoder.{name}"], value), name
    dirac = torch.zeros(8, 8, 3, 3)
    dirac[range(8), range(8), 1, 1] = 1
    assert torch.equal(model.transfer_layers[0].weight, dirac)
    assert model.heatmap_head.weight.shape == (8, 7, 4, 4)
    assert 0 < model.heatmap_head.weight.abs().max() <= (1 / (7 * 16)) ** 0.5  # PyTorch's default for this layer
    assert not any(parameter.requires_grad for parameter in model.autoencoder.parameters())


def test_a_landmark_model_gives_back_its_autoencoder(tmp_path):
    model = random_statistics(tiny_model())
    model.save_pretrained(tmp_path)
    autoencoder, info = FabRecAutoencoder.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    for name, value in model.autoencoder.state_dict().items():
        assert torch.equal(autoencoder.state_dict()[name], value), name
    assert all(parameter.requires_grad for parameter in autoencoder.parameters())


def test_another_number_of_landmarks_starts_a_new_head_only_on_request(tmp_path):
    model = tiny_model()
    nn.init.normal_(model.transfer_layers[0].weight)
    model.save_pretrained(tmp_path)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        FabRecForLandmarkDetection.from_pretrained(tmp_path, num_landmarks=9)
    other = FabRecForLandmarkDetection.from_pretrained(tmp_path, num_landmarks=9, ignore_mismatched_sizes=True)
    assert other.heatmap_head.weight.shape[1] == 9
    assert torch.equal(other.transfer_layers[0].weight, model.transfer_layers[0].weight)
    assert other(pictures()).landmarks.shape == (2, 9, 2)


def test_another_number_of_landmarks_needs_another_scheme(tmp_path):
    tiny_model(landmark_scheme=get_scheme("mtfl").to_dict()).save_pretrained(tmp_path)
    with pytest.raises(Exception, match="landmark_scheme has 5 points but num_landmarks is 68"):
        FabRecForLandmarkDetection.from_pretrained(tmp_path, num_landmarks=68, ignore_mismatched_sizes=True)
    model = FabRecForLandmarkDetection.from_pretrained(
        tmp_path, num_landmarks=68, landmark_scheme=get_scheme("300w").to_dict(), ignore_mismatched_sizes=True
    )
    assert (model.config.num_landmarks, model.config.landmark_scheme["name"]) == (68, "300w")


def test_discriminators_round_trip_and_judge(tmp_path):
    torch.manual_seed(0)
    discriminators = FabRecDiscriminators(FabRecAutoencoderConfig(**TINY)).eval()
    discriminators.save_pretrained(tmp_path)
    loaded = FabRecDiscriminators.from_pretrained(tmp_path)
    images = pictures(3, 128)
    with torch.no_grad():
        verdicts = loaded.image(images)
        assert verdicts.shape == (3,) and torch.equal(verdicts, discriminators.image(images))
        assert loaded.latent(torch.zeros(3, 8)).shape == (3,)
        assert loaded.image(pictures(2, 256)).shape == (2,)
    # the weights start small enough for undecided verdicts
    assert verdicts.abs().max() < 1


# What is refused.


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 3, 32, 32), (2, 1, 64, 64), (2, 3, 64, 32)])
def test_wrong_images_are_refused(shape):
    with pytest.raises(ValueError, match=r"pixel_values must be \(N, 3, 64, 64\)"):
        tiny_model()(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2, 4, 2), (2, 5), (1, 5, 2), (2, 5, 3)])
def test_wrong_labels_are_refused(shape):
    with pytest.raises(ValueError, match=r"labels must be \(2, 5, 2\)"):
        tiny_model()(pictures(), labels=torch.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 96}, "image_size must be a power of two"),
        ({"image_size": 16}, "image_size must be a power of two from 32 to 4096"),
        ({"widths": [4, 4, 8]}, "widths must be four"),
        ({"widths": [4, 4, 8, 0]}, "widths must be four positive"),
        ({"latent_size": 0}, "latent_size"),
        ({"encoder_depth": 0}, "encoder_depth"),
        ({"num_landmarks": 0}, "num_landmarks must be at least 1"),
        ({"landmark_scheme": get_scheme("300w").to_dict()}, "has 68 points but num_landmarks is 5"),
        ({"heatmap_size": 8}, "heatmap_size must be a power of two from 16 to image_size 64"),
        ({"heatmap_size": 128}, "heatmap_size must be a power of two from 16 to image_size 64"),
        ({"transfer_layers": [0, 1]}, r"transfer_layers must lie in 1\.\.2"),
        ({"transfer_layers": [3]}, r"transfer_layers must lie in 1\.\.2"),
        ({"heatmap_sigma": 0.0}, "heatmap_sigma must be positive"),
        ({"foreground_weight": -1.0}, "foreground_weight not negative"),
        ({"transfer_initialization": "zeros"}, "transfer_initialization must be one of identity, random"),
        ({"decoding": "softargmax"}, "decoding must be one of subpixel, argmax"),
        ({"heatmap_alignment": "corners"}, "heatmap_alignment must be one of edges, indices"),
        ({"flip_average": True}, "flip_average needs a landmark_scheme"),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(fields, message):
    with pytest.raises(Exception, match=message):
        tiny_config(**fields)


def test_a_field_of_the_wrong_type_is_refused():
    with pytest.raises(Exception, match="latent_size"):
        tiny_config(latent_size="99")


def test_loading_a_complete_checkpoint_warns_of_nothing(tmp_path, caplog):
    tiny_model().save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, logger="transformers"):
        FabRecForLandmarkDetection.from_pretrained(tmp_path)
    assert not caplog.records
