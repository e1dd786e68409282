"""Fused models: the plain model's landmarks, from modules that hold no BatchNorm and no transposed convolution."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fabrec_hf import get_scheme
from fabrec_hf.checkpoints.loading import load_landmark_model
from fabrec_hf.data import load_faces
from fabrec_hf.model.fusion_fabrec import fuse_transposed, upsample
from fabrec_hf.model.heatmaps import decode_heatmaps, encode_heatmaps
from support.faces import SHARED
from support.tiny_models import pictures, random_statistics, tiny_model


CONFIGURATIONS = {
    "plain": {},
    "deep": {"encoder_depth": 3, "image_size": 128, "heatmap_size": 32},
    "flipped": {"flip_average": True, "landmark_scheme": get_scheme("mtfl").to_dict()},
    "argmax": {"decoding": "argmax", "heatmap_alignment": "indices"},
    "without transfer layers": {"transfer_layers": [2]},
}


@pytest.mark.parametrize("fields", CONFIGURATIONS.values(), ids=list(CONFIGURATIONS))
def test_fused_is_the_same_network(fields):
    model = random_statistics(tiny_model(**fields))
    size = model.config.image_size
    expected = model(pictures(3, size))
    found = model.fuse()(pictures(3, size))
    assert expected.heatmaps.std() > 1e-3
    for name in ("heatmaps", "latent", "scores"):
        torch.testing.assert_close(found[name], expected[name].detach(), atol=1e-5, rtol=1e-4)
    assert (found.landmarks - expected.landmarks).abs().max() * size < 1e-3
    assert found.loss is None and found.reconstruction is None


def test_nothing_slow_is_left_and_the_model_is_as_it_was():
    model = random_statistics(tiny_model()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fused = model.fuse()
    kinds = {type(module) for module in fused.modules()}
    assert not kinds & {nn.BatchNorm2d, nn.ConvTranspose2d}
    assert model.training and model.transfer_layers[0].weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not fused.training and not any(parameter.requires_grad for parameter in fused.parameters())

    expected = fused(pictures()).heatmaps.clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(fused(pictures()).heatmaps, expected)


def test_transposed_convolutions_by_hand():
    # One input pixel of value 2 draws the kernel, doubled, where stride 2 and padding 1 put it.
    layer = nn.ConvTranspose2d(1, 1, kernel_size=4, stride=2, padding=1, bias=False)
    layer.weight = nn.Parameter(torch.arange(16.0).reshape(1, 1, 4, 4))
    image = torch.zeros(1, 1, 3, 3)
    image[0, 0, 1, 2] = 2.0
    expected = torch.zeros(6, 6)
    expected[1:5, 3:6] = 2 * torch.arange(16.0).reshape(4, 4)[:, :3]
    assert torch.equal(upsample(fuse_transposed([layer]), image)[0, 0], expected)


def test_transposed_convolutions_of_one_input_run_as_one():
    torch.manual_seed(0)
    layers = [nn.ConvTranspose2d(3, width, 4, 2, 1, bias=bias) for width, bias in ((2, True), (5, False))]
    image = torch.randn(2, 3, 7, 4)
    expected = torch.cat(
        [F.conv_transpose2d(image, layer.weight, layer.bias, stride=2, padding=1) for layer in layers], dim=1
    )
    torch.testing.assert_close(upsample(fuse_transposed(layers), image), expected, atol=1e-5, rtol=1e-5)


def test_a_fused_model_refuses_what_the_model_refuses():
    with pytest.raises(ValueError, match="pixel_values must be"):
        tiny_model().fuse()(pictures(1, 32))


def test_a_fused_model_computes_in_16_bits():
    model = random_statistics(tiny_model())
    fused = model.fuse().to(torch.bfloat16)
    assert fused.dtype == torch.bfloat16 and fused.device.type == "cpu"
    outputs = fused(pictures().to(torch.bfloat16))
    assert outputs.landmarks.dtype == torch.float32
    assert (outputs.heatmaps - model(pictures()).heatmaps).abs().max() < 0.05


@pytest.mark.parametrize("method", ["subpixel", "argmax"])
@pytest.mark.parametrize("size", [16, 64, 128])
def test_every_way_to_blur_is_the_same(method, size):
    points = torch.rand(2, 7, 2, generator=torch.Generator().manual_seed(size)) * 1.1 - 0.05  # some beyond the border
    heatmaps = encode_heatmaps(points, size, sigma=7 * size / 128)
    heatmaps += 0.02 * torch.randn(heatmaps.shape, generator=torch.Generator().manual_seed(1))
    found = {blur: decode_heatmaps(heatmaps, method, 7 * size / 128, 0.0, blur) for blur in BLURS}
    # An independent way: sums over windows cut out of the map one by one, and the largest of them.
    radius = round(size * 4 / 128)
    window = 2 * radius + 1
    padded = F.pad(heatmaps, [radius] * 4).unfold(2, window, 1).unfold(3, window, 1).sum((-1, -2))
    ones = F.pad(torch.ones(size, size), [radius] * 4).unfold(0, window, 1).unfold(1, window, 1).sum((-1, -2))
    blurred = padded / (window**2 if method == "argmax" else ones)
    for landmarks, scores in found.values():
        torch.testing.assert_close(scores, blurred.flatten(2).amax(-1).clamp(0, 1), atol=1e-5, rtol=0)
        torch.testing.assert_close(landmarks, found["products"][0], atol=1e-6, rtol=0)
        if method == "argmax":
            indices = blurred.flatten(2).argmax(-1)
            expected = torch.stack([indices % size, indices // size], dim=-1)
            torch.testing.assert_close(landmarks, (expected + 0.5) / size)


BLURS = ("products", "convolutions", "pooling", "channels_last")


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the 300-W test pictures")
def test_fused_landmarks_on_real_faces():
    model, processor = load_landmark_model("3fabrec-300w")
    faces = load_faces(SHARED / "data" / "300w", "test", columns=("image", "landmarks", "box"))
    rows = faces[:48]
    inputs = processor(rows["image"], boxes=[[box] for box in rows["box"]])
    with torch.no_grad():
        expected = model(inputs["pixel_values"]).landmarks.numpy()
        found = model.fuse()(inputs["pixel_values"]).landmarks.numpy()
    errors = np.abs(found - expected) * model.config.image_size
    assert errors.shape == (48, 68, 2) and errors.max() < 1e-3
