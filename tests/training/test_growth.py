"""A grown autoencoder starts as the smaller one on the halved picture, and ends as a plain larger one."""

import pytest
import torch
import torch.nn.functional as F
from growth import finish, grow, set_blend  # noqa: E402

from fabrec_hf import FabRecAutoencoder, FabRecAutoencoderConfig


def small_autoencoder():
    torch.manual_seed(0)
    config = FabRecAutoencoderConfig(image_size=128, latent_size=8, widths=[8, 8, 8, 8], encoder_depth=1)
    model = FabRecAutoencoder(config)
    for module in model.modules():  # statistics and scales as after a training
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


@pytest.mark.parametrize("training", [False, True])
def test_the_grown_network_starts_as_the_old_one_on_the_halved_picture(training):
    old = small_autoencoder().train(training)
    pictures = torch.rand(3, 3, 256, 256) - 0.5
    with torch.no_grad():
        expected = old(F.avg_pool2d(pictures, 2))
    state = {name: value.clone() for name, value in old.state_dict().items()}
    grown = grow(small_autoencoder()).train(training)
    with torch.no_grad():
        found = grown(pictures)
    assert grown.config.image_size == 256 and found.reconstruction.shape == (3, 3, 256, 256)
    torch.testing.assert_close(found.latent, expected.latent)
    doubled = expected.reconstruction.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(found.reconstruction, doubled)
    assert state.keys() == old.state_dict().keys()


def test_the_grown_network_ends_as_a_plain_one(tmp_path):
    grown = grow(small_autoencoder()).eval()
    pictures = torch.rand(2, 3, 256, 256) - 0.5
    set_blend(grown, 0.5)
    with torch.no_grad():
        between = grown(pictures)
        set_blend(grown, 0.0)
        last = grown(pictures)
    plain = finish(grown)
    plain.save_pretrained(tmp_path)
    loaded = FabRecAutoencoder.from_pretrained(tmp_path)
    reference = FabRecAutoencoder(FabRecAutoencoderConfig.from_dict(loaded.config.to_dict()))
    assert loaded.state_dict().keys() == reference.state_dict().keys()
    with torch.no_grad():
        result = loaded(pictures)
    torch.testing.assert_close(result.latent, last.latent)
    torch.testing.assert_close(result.reconstruction, last.reconstruction)
    assert not torch.allclose(between.latent, last.latent)
    assert finish(plain) is plain


def test_both_paths_learn_while_they_are_mixed():
    grown = grow(small_autoencoder()).train()
    set_blend(grown, 0.5)
    grown(torch.rand(2, 3, 256, 256) - 0.5).reconstruction.abs().sum().backward()
    assert all(parameter.grad is not None for parameter in grown.parameters())


def test_only_what_can_grow_grows():
    config = FabRecAutoencoderConfig(image_size=64, latent_size=8, widths=[8, 8, 8, 8])
    with pytest.raises(ValueError, match="Only 128-px"):
        grow(FabRecAutoencoder(config))
    with pytest.raises(ValueError, match="all of its 5 stages"):
        grow(small_autoencoder()).decoder(torch.zeros(1, 8), num_stages=4)
