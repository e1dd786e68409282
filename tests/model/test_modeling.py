"""The autoencoder and the landmark model: sizes, what runs, what trains."""

import copy

import pytest
import torch
from transformers import AutoModelForKeypointDetection

from fabrec_hf import FabRecAutoencoder, FabRecAutoencoderConfig, FabRecConfig, FabRecForLandmarkDetection, get_scheme
from fabrec_hf.learning.discriminators import (
    FabRecImageDiscriminator,
    FabRecLatentDiscriminator,
)
from fabrec_hf.model.landmark_decoding import Drawing
from support.tiny_models import TINY, pictures, random_statistics, tiny_config, tiny_model


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


# Sizes: the reference implementation's own numbers.


@pytest.mark.parametrize(
    ("size", "encoder", "decoder"), [(256, 11_379_491, 10_868_096), (128, 11_227_299, 10_699_776)]
)
def test_base_autoencoder_has_the_reference_parameter_counts(size, encoder, decoder):
    with torch.device("meta"):
        model = FabRecAutoencoder(FabRecAutoencoderConfig(image_size=size))
    assert (count(model.encoder), count(model.decoder)) == (encoder, decoder)


def test_discriminators_have_the_reference_parameter_counts():
    assert count(FabRecLatentDiscriminator()) == 1_102_001
    assert count(FabRecImageDiscriminator()) == 1_743_744


@pytest.mark.parametrize(
    ("num_landmarks", "transfer_layers", "expected"),
    [
        (68, None, 880_640),
        (98, None, 911_360),
        (19, None, 830_464),
        # Table 7: transfer layers left out from the bottom, published as 881k, 291k, 143k and 106k
        (68, [1, 2, 3, 4], 880_640),
        (68, [2, 3, 4], 290_816),
        (68, [3, 4], 143_360),
        (68, [4], 106_496),
        (68, [], 69_632),
    ],
)
def test_head_has_the_reference_parameter_counts(num_landmarks, transfer_layers, expected):
    with torch.device("meta"):
        model = FabRecForLandmarkDetection(FabRecConfig(num_landmarks=num_landmarks, transfer_layers=transfer_layers))
    trained = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    assert sum(trained) == count(model.transfer_layers) + count(model.heatmap_head) == expected


def test_small_preset_is_half_as_wide_at_128_pixels():
    config = FabRecConfig.small(num_landmarks=68)
    assert (config.image_size, list(config.widths), config.latent_size) == (128, [32, 64, 128, 256], 99)
    assert (config.heatmap_size, config.heatmap_sigma) == (64, 3.5)
    with torch.device("meta"):
        model = FabRecForLandmarkDetection(config)
    # ITLs of 128, 64 and 32 channels, and a 4 x 4 head of 32 channels
    assert count(model.transfer_layers) == 9 * (128**2 + 64**2 + 32**2)
    assert count(model.heatmap_head) == 16 * 32 * 68
    assert list(FabRecAutoencoderConfig.small(latent_size=50).widths) == [32, 64, 128, 256]
    assert FabRecAutoencoderConfig.small(latent_size=50).latent_size == 50


# What runs.


@pytest.mark.parametrize(("image_size", "heatmap_size"), [(32, 16), (64, 32), (64, 64), (128, 32), (256, 64)])
def test_shapes_at_every_size(image_size, heatmap_size):
    model = tiny_model(image_size=image_size, heatmap_size=heatmap_size)
    with torch.no_grad():
        outputs = model(pictures(2, image_size), output_reconstruction=True)
        autoencoder = model.autoencoder(pictures(2, image_size))
    assert outputs.heatmaps.shape == (2, 5, heatmap_size, heatmap_size)
    assert outputs.landmarks.shape == (2, 5, 2) and outputs.scores.shape == (2, 5)
    assert outputs.latent.shape == (2, 8) and outputs.loss is None
    assert outputs.reconstruction.shape == autoencoder.reconstruction.shape == (2, 3, image_size, image_size)
    torch.testing.assert_close(outputs.reconstruction, autoencoder.reconstruction, atol=1e-6, rtol=0)
    assert outputs.reconstruction.abs().max() < 1  # tanh
    assert bool((outputs.scores >= 0).all() and (outputs.scores <= 1).all())


def test_encode_decode_and_forward_agree():
    model = random_statistics(FabRecAutoencoder(FabRecAutoencoderConfig(**TINY))).eval()
    with torch.no_grad():
        outputs = model(pictures())
        latent = model.encode(pictures())
        assert torch.equal(outputs.latent, latent)
        assert torch.equal(outputs.reconstruction, model.decode(latent))
        assert model(pictures(), num_stages=2).reconstruction.shape == (2, 3, 32, 32)
    assert latent.std(dim=0).max() > 0  # different pictures, different latents


def test_landmarks_are_the_same_bits_with_and_without_reconstruction():
    model = random_statistics(tiny_model())
    with torch.no_grad():
        plain = model(pictures())
        full = model(pictures(), output_reconstruction=True)
    assert plain.reconstruction is None and full.reconstruction is not None
    for name in ("landmarks", "scores", "heatmaps", "latent"):
        assert torch.equal(plain[name], full[name])


def test_a_step_of_training_can_do_without_landmarks():
    model = random_statistics(tiny_model())
    labels = torch.rand(2, model.config.num_landmarks, 2)
    with torch.no_grad():
        full = model(pictures(), labels=labels)
        lean = model(pictures(), labels=labels, output_landmarks=False)
    assert lean.landmarks is None and lean.scores is None
    for name in ("loss", "heatmaps", "latent"):
        assert torch.equal(lean[name], full[name])


def test_color_half_of_the_decoder_runs_only_when_asked_for():
    model = tiny_model(image_size=128, heatmap_size=32)
    runs = {}
    decoder = model.autoencoder.decoder
    for name, module in [("to_rgb", decoder.to_rgb)] + [(f"stage {k}", s) for k, s in enumerate(decoder.stages, 1)]:
        runs[name] = 0
        module.register_forward_hook(lambda *_, name=name: runs.__setitem__(name, runs[name] + 1))
    assert list(runs) == ["to_rgb", "stage 1", "stage 2", "stage 3", "stage 4"]
    with torch.no_grad():
        model(pictures(size=128))
    assert runs == {"to_rgb": 0, "stage 1": 1, "stage 2": 1, "stage 3": 0, "stage 4": 0}
    with torch.no_grad():
        model(pictures(size=128), output_reconstruction=True)
    assert runs["to_rgb"] == runs["stage 3"] == runs["stage 4"] == 1
    assert runs["stage 1"] == 2  # shared by both halves, not run once for each


def test_identity_transfer_layers_start_as_the_frozen_generator():
    with_layers, without = tiny_model(), tiny_model(transfer_layers=[])
    without.load_state_dict({k: v for k, v in with_layers.state_dict().items() if not k.startswith("transfer_layers")})
    with torch.no_grad():
        torch.testing.assert_close(with_layers(pictures()).heatmaps, without(pictures()).heatmaps)
        random = tiny_model(transfer_initialization="random")
        random.autoencoder.load_state_dict(with_layers.autoencoder.state_dict())
        random.heatmap_head.load_state_dict(with_layers.heatmap_head.state_dict())
        assert (random(pictures()).heatmaps - without(pictures()).heatmaps).abs().max() > 1e-3


def test_flip_average_is_the_mean_with_the_mirrored_crop():
    scheme = get_scheme("mtfl")
    plain = random_statistics(tiny_model(landmark_scheme=scheme.to_dict()))
    averaged = tiny_model(landmark_scheme=scheme.to_dict(), flip_average=True)
    averaged.load_state_dict(plain.state_dict())
    with torch.no_grad():
        straight = plain(pictures()).heatmaps
        mirrored = plain(torch.flip(pictures(), dims=[3])).heatmaps.numpy()
        outputs = averaged(pictures())
    expected = straight.numpy().copy()
    swapped = [1, 0, 2, 4, 3]  # eyes and mouth corners change places, the nose stays
    for point, other in enumerate(swapped):
        expected[:, point] = (expected[:, point] + mirrored[:, other, :, ::-1]) / 2
    torch.testing.assert_close(outputs.heatmaps, torch.from_numpy(expected))
    assert (outputs.heatmaps - straight).abs().max() > 1e-3
    landmarks, scores, *_ = plain.decode(Drawing(outputs.heatmaps))
    assert torch.equal(outputs.landmarks, landmarks) and torch.equal(outputs.scores, scores)


# What trains.


def batch_norm_state(model):
    return {name: value.clone() for name, value in model.state_dict().items() if "running" in name or "num_b" in name}


@pytest.mark.parametrize("unfreeze", [False, True])
def test_a_training_step_leaves_the_autoencoders_statistics_and_decoder_alone(unfreeze):
    model = random_statistics(tiny_model())
    if unfreeze:
        model.unfreeze_encoder()
    model.train()
    assert model.training and model.transfer_layers.training
    assert not any(module.training for module in model.autoencoder.modules())

    before, statistics = copy.deepcopy(model.state_dict()), batch_norm_state(model)
    assert statistics
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    loss = model(pictures(), labels=torch.rand(2, 5, 2)).loss
    loss.backward()
    optimizer.step()
    for name, value in batch_norm_state(model).items():
        assert torch.equal(value, statistics[name]), name

    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    head = {name for name in dict(model.named_parameters()) if name.startswith(("transfer_layers", "heatmap_head"))}
    encoder = {name for name in dict(model.named_parameters()) if name.startswith("autoencoder.encoder.")}
    assert changed == with_gradient == (head | encoder if unfreeze else head)


@pytest.mark.parametrize("kind", [FabRecAutoencoder, FabRecForLandmarkDetection])
def test_a_loaded_model_is_as_frozen_as_a_new_one(tmp_path, kind):
    (tiny_model() if kind is FabRecForLandmarkDetection else FabRecAutoencoder(tiny_config())).save_pretrained(
        tmp_path
    )
    for model in (
        FabRecForLandmarkDetection.from_pretrained(tmp_path, heatmap_size=32),
        AutoModelForKeypointDetection.from_pretrained(tmp_path, config=tiny_config()),
    ):
        trained = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert trained == {"transfer_layers", "heatmap_head"}
        assert not model.train().autoencoder.training


def test_autoencoder_itself_trains_its_batch_norm():
    model = FabRecAutoencoder(FabRecAutoencoderConfig(**TINY)).train()
    before = batch_norm_state(model)
    model(pictures())
    after = batch_norm_state(model)
    assert all(int(value) == 1 for name, value in after.items() if name.endswith("num_batches_tracked"))
    assert not torch.equal(after["encoder.bn1.running_mean"], before["encoder.bn1.running_mean"])


def test_loss_of_labels_with_missing_points_by_hand():
    model = tiny_model()
    labels = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(3))
    labels[0, 1] = torch.nan
    labels[1, 4, 0] = torch.nan  # half a point is no point
    outputs = model(pictures(), labels=labels)

    predicted = outputs.heatmaps.detach().double()
    total, maps = 0.0, 0
    for n in range(2):
        for point in range(5):
            if (n, point) in ((0, 1), (1, 4)):
                continue
            x, y = (labels[n, point].double() * 32 - 0.5).tolist()
            grid = torch.arange(32).double()
            target = torch.exp(-((grid[None, :] - x) ** 2 + (grid[:, None] - y) ** 2) / (2 * 1.75**2))
            total += float(((predicted[n, point] - target) ** 2).mean())
            maps += 1
    assert maps == 8
    assert outputs.loss.item() == pytest.approx(300 * total / maps, rel=1e-5)


def test_missing_points_get_no_gradient_at_all():
    model = tiny_model().train()
    heatmaps = []
    model.heatmap_head.register_forward_hook(lambda _module, _inputs, output: heatmaps.append(output))
    model.heatmap_head.register_forward_hook(lambda _module, _inputs, output: output.retain_grad())
    labels = torch.rand(2, 5, 2)
    labels[:, 2] = torch.nan
    labels[1, 0] = torch.nan
    model(pictures(), labels=labels).loss.backward()
    gradient = heatmaps[0].grad
    assert bool(gradient.isfinite().all())
    zero = (gradient == 0).all(dim=-1).all(dim=-1)
    expected = torch.zeros(2, 5, dtype=torch.bool)
    expected[:, 2] = expected[1, 0] = True
    assert torch.equal(zero, expected)
    assert bool((model.heatmap_head.weight.grad[:, 2] == 0).all())
    assert all(bool(p.grad.isfinite().all()) for p in model.transfer_layers.parameters())


def test_labels_without_any_point_give_zero():
    model = tiny_model().train()
    loss = model(pictures(), labels=torch.full((2, 5, 2), torch.nan)).loss
    assert loss.item() == 0
    loss.backward()
    assert bool((model.heatmap_head.weight.grad == 0).all())
