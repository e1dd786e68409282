"""Grow a 128-px autoencoder to 256 px by one encoder stage and one decoder stage (paper section 4.2.1).

The larger network starts as the smaller one on the halved picture, exactly: it takes over step by step. Its new stem
and stages run beside the old stem and the old color layer, and a blend that falls from 1 to 0 mixes the two paths,
as progressive growing does (Karras et al., ICLR 2018). What remains in the end is the plain 256-px network. The new
parts begin as copies of the old ones of their shape.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fabrec_hf.model.configuration_fabrec import FabRecAutoencoderConfig
from fabrec_hf.model.layers_fabrec import FabRecDecoder, FabRecEncoder
from fabrec_hf.model.modeling_fabrec import FabRecAutoencoder


__all__ = ["finish", "grow", "set_blend"]


class GrowingEncoder(nn.Module):
    """An encoder for twice the size, mixed with the stem and first stage of the smaller one."""

    blend: torch.Tensor

    def __init__(self, new: FabRecEncoder, old: FabRecEncoder):
        super().__init__()
        self.new = new
        self.old_stem = nn.Sequential(old.conv1, old.bn1, old.relu, old.maxpool, old.stages[0])
        self.register_buffer("blend", torch.ones(()))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode (N, 3, 2S, 2S) to (N, latent_size)."""
        new = self.new
        hidden_states = new.maxpool(new.relu(new.bn1(new.conv1(pixel_values))))
        hidden_states = new.stages[1](new.stages[0](hidden_states))
        old = self.old_stem(F.avg_pool2d(pixel_values, 2))
        hidden_states = torch.lerp(hidden_states, old, self.blend)
        return new.fc(new.pool(new.stages[2:](hidden_states)).flatten(1))


class GrowingDecoder(nn.Module):
    """A decoder to twice the size, mixed with the enlarged picture of the smaller one."""

    blend: torch.Tensor

    def __init__(self, new: FabRecDecoder, old: FabRecDecoder):
        super().__init__()
        self.new = new
        self.old_to_rgb = old.to_rgb
        self.register_buffer("blend", torch.ones(()))

    def forward(
        self, latent: torch.Tensor, first: torch.Tensor | None = None, num_stages: int | None = None
    ) -> torch.Tensor:
        """Decode (N, latent_size) to (N, 3, 2S, 2S), as `FabRecDecoder` does.

        Raises:
            ValueError: If `num_stages` asks for a smaller picture, which a growing decoder does not draw.
        """
        new = self.new
        if num_stages not in (None, len(new.stages)):
            raise ValueError(f"A growing decoder uses all of its {len(new.stages)} stages, not {num_stages}.")
        hidden_states = new.first_stage(latent) if first is None else first
        for stage in new.stages[1:-1]:
            hidden_states = stage(hidden_states)
        old = F.interpolate(self.old_to_rgb(hidden_states), scale_factor=2, mode="nearest")
        return torch.tanh(torch.lerp(new.to_rgb(new.stages[-1](hidden_states)), old, self.blend))

    @property
    def stages(self) -> nn.ModuleList:
        """The stages of the larger decoder."""
        return self.new.stages


def grow(old: FabRecAutoencoder) -> FabRecAutoencoder:
    """Return an autoencoder of twice the size that computes what a smaller one computes; blend 1, see `set_blend`.

    Args:
        old: The smaller autoencoder, of 128 px; its layers become part of the larger one.

    Returns:
        With encoder and decoder of this module: for pictures (N, 3, 2S, 2S) it gives the latents of the smaller one
        for the halved pictures, and its reconstructions with every pixel doubled.

    Raises:
        ValueError: If it is not of 128 px, or has another encoder than the paper's.
    """
    if old.config.image_size != 128:
        raise ValueError(f"Only 128-px autoencoders grow, this one is of {old.config.image_size} px.")
    if old.config.backbone:
        raise ValueError(f"Only the paper's encoder grows, this one has the backbone {old.config.backbone}.")
    config = FabRecAutoencoderConfig.from_dict(old.config.to_dict() | {"image_size": 256})
    model = FabRecAutoencoder(config)
    encoder, decoder = model.encoder, model.decoder
    encoder.conv1.load_state_dict(old.encoder.conv1.state_dict())
    encoder.bn1.load_state_dict(old.encoder.bn1.state_dict())
    encoder.stages[0].load_state_dict(old.encoder.stages[0].state_dict())
    encoder.stages[1].load_state_dict(old.encoder.stages[0].state_dict(), strict=False)  # its shortcut is new
    for index, stage in enumerate(list(old.encoder.stages)[1:], start=2):
        encoder.stages[index] = stage
    encoder.fc = old.encoder.fc
    decoder.fc, decoder.conv1, decoder.bn1 = old.decoder.fc, old.decoder.conv1, old.decoder.bn1
    for index, stage in enumerate(old.decoder.stages):
        decoder.stages[index] = stage
    decoder.stages[-1].load_state_dict(old.decoder.stages[-1].state_dict())
    decoder.to_rgb.load_state_dict(old.decoder.to_rgb.state_dict())
    model.encoder = GrowingEncoder(encoder, old.encoder)
    model.decoder = GrowingDecoder(decoder, old.decoder)  # type: ignore[assignment]
    return model


def set_blend(model: FabRecAutoencoder, blend: float) -> None:
    """Say how much of the smaller network is left, from 1 (nothing but it) to 0 (nothing of it)."""
    for module in model.modules():
        if isinstance(module, (GrowingEncoder, GrowingDecoder)):
            module.blend.fill_(blend)


def finish(model: FabRecAutoencoder) -> FabRecAutoencoder:
    """Drop the smaller network from a grown one; any other model is returned as it is."""
    encoder, decoder = model.encoder, model.decoder
    if isinstance(encoder, GrowingEncoder) and isinstance(decoder, GrowingDecoder):
        model.encoder, model.decoder = encoder.new, decoder.new
    return model
