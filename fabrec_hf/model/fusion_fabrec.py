"""The landmark detector rewritten for inference: the same landmarks from fewer and larger operations.

What is merged, each exactly up to rounding:

- Every BatchNorm is folded into the convolution before it.
- The decoder's first three linear maps (latent to channels, channels to 4 x 4 maps, BatchNorm) become one.
- The two 4 x 4 transposed convolutions of a decoder block, which read the same input, run as one. It is written as a
  2 x 2 convolution whose channels are then laid out as pixels: a transposed convolution of stride 2 is four
  convolutions of 2 x 2, one for each parity of row and column. Runtimes have faster kernels for that, and can
  quantize it.
- A transfer layer that was left out costs nothing. One that is there is not merged: a 3 x 3 layer and the 4 x 4
  transposed convolution behind it would make one of 8 x 8, which is dearer (64 products instead of 9 + 32 for every
  pair of channels of a block, 64 instead of 9 + 16 of the head) and wrong along the border, where the layer's output
  ends in zeros and the merged one's would not.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .landmark_decoding import Drawing
from .layers_fabrec import FabRecEncoder
from .local_refinement import local_maps


def fuse_transposed(layers: Sequence[nn.ConvTranspose2d]) -> nn.Conv2d:
    """Turn transposed convolutions (4 x 4, stride 2, padding 1) of one input into one 2 x 2 convolution.

    Args:
        layers: Modules with the same input channels, with or without bias.

    Returns:
        A convolution for `upsample`, whose output channels are those of the layers one after the other, four of each:
        one for each parity of row and column.
    """
    weight = torch.cat([layer.weight for layer in layers], dim=1)  # (C_in, C_out, 4, 4)
    out_channels = weight.shape[1]
    # Output row 2 m - 1 sees input rows m - 1 and m through kernel rows 2 and 0, output row 2 m through 3 and 1.
    taps = torch.tensor([[2, 0], [3, 1]], device=weight.device)
    phases = weight[:, :, taps[:, None, :, None], taps[None, :, None, :]]  # (C_in, C_out, 2, 2, 2, 2)
    fused = nn.Conv2d(weight.shape[0], 4 * out_channels, kernel_size=2, padding=1, device=weight.device)
    biases = [weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias for layer in layers]
    fused.weight = nn.Parameter(phases.permute(1, 2, 3, 0, 4, 5).flatten(0, 2).contiguous())
    fused.bias = nn.Parameter(torch.cat(biases).repeat_interleave(4))
    return fused


def upsample(convolution: nn.Conv2d, hidden_states: torch.Tensor) -> torch.Tensor:
    """Run a convolution of `fuse_transposed`: (N, C_in, H, W) to (N, C_out, 2H, 2W)."""
    # The padding makes one row and column of phases too many on each side.
    return F.pixel_shuffle(convolution(hidden_states), 2)[:, :, 1:-1, 1:-1]


class FusedResidualBlock(nn.Module):
    """A residual block of the encoder with its BatchNorm layers folded.

    Args:
        block: timm's `BasicBlock`, in eval mode.
    """

    def __init__(self, block: Any):
        super().__init__()
        self.conv1 = fuse_conv_bn_eval(block.conv1, block.bn1)
        self.conv2 = fuse_conv_bn_eval(block.conv2, block.bn2)
        self.shortcut = nn.Identity() if block.downsample is None else fuse_conv_bn_eval(*block.downsample)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H or H / 2, W or W / 2)."""
        residual = self.conv2(F.relu(self.conv1(hidden_states)))
        return F.relu(residual + self.shortcut(hidden_states))


class FusedEncoder(nn.Module):
    """`FabRecEncoder` with its BatchNorm layers folded."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.conv1 = fuse_conv_bn_eval(encoder.conv1, encoder.bn1)
        self.maxpool = encoder.maxpool
        self.stages = nn.ModuleList(nn.Sequential(*map(FusedResidualBlock, stage)) for stage in encoder.stages)
        self.flattens = not isinstance(encoder.pool, nn.AdaptiveAvgPool2d)
        self.fc = encoder.fc

    def maps(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Return the map (N, C, H, W) that each stage ends in, of images (N, 3, S, S)."""
        found = [self.maxpool(F.relu(self.conv1(pixel_values)))]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[1:]

    def pool_map(self, last: torch.Tensor) -> torch.Tensor:
        """Return what the last layer sees, (N, F), of the last map."""
        return last.flatten(1) if self.flattens else last.mean(dim=(2, 3))


class FusedDecoderBlock(nn.Module):
    """`FabRecDecoderBlock` with its transposed convolutions in one and its BatchNorm layers folded."""

    def __init__(self, block: Any):
        super().__init__()
        self.up = fuse_transposed(
            [
                fuse_conv_bn_eval(block.conv1, block.bn1, transpose=True),
                fuse_conv_bn_eval(block.upsample[0], block.upsample[1], transpose=True),
            ]
        )
        self.conv2 = fuse_conv_bn_eval(block.conv2, block.bn2)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (N, C_in, H, W) to (N, C_out, 2H, 2W)."""
        residual, shortcut = upsample(self.up, hidden_states).chunk(2, dim=1)
        return F.relu(self.conv2(F.relu(residual)) + shortcut)


class FusedHeatmapNetwork(nn.Module):
    """From pixels to heatmaps: encoder, the used half of the decoder, transfer layers and head, all fused.

    Args:
        model: A `FabRecForLandmarkDetection` in eval mode; not changed. Weights are shared where nothing was merged.
    """

    def __init__(self, model: Any):
        super().__init__()
        decoder = model.autoencoder.decoder
        count = len(model.transfer_layers)
        encoder = model.autoencoder.encoder
        self.encoder = FusedEncoder(encoder) if isinstance(encoder, FabRecEncoder) else encoder
        self.first = _fuse_first(decoder.fc, fuse_conv_bn_eval(decoder.conv1, decoder.bn1, transpose=True))
        self.stages = nn.ModuleList(FusedDecoderBlock(block) for block in decoder.stages[:count])
        self.transfer_layers = model.transfer_layers
        self.head = fuse_transposed([model.heatmap_head])
        self.point_readout = model.point_readout
        self.looks_closer = model.local_refinement is not None

    def forward(self, pixel_values: torch.Tensor) -> tuple[Drawing, torch.Tensor]:
        """Return the drawing of images (N, 3, S, S), and latents (N, latent_size)."""
        maps = self.encoder.maps(pixel_values)
        features = self.encoder.pool_map(maps[-1])
        latent = self.encoder.fc(features)
        readout = None if self.point_readout is None else self.point_readout(features).unflatten(1, (-1, 2))
        local = local_maps(maps) if self.looks_closer else ()
        hidden_states = F.relu(self.first(latent)).unflatten(1, (-1, 4, 4))
        for stage, transfer_layer in zip(self.stages, self.transfer_layers, strict=True):
            hidden_states = transfer_layer(stage(hidden_states))
        return Drawing(upsample(self.head, hidden_states), readout, local), latent


def _fuse_first(linear: nn.Linear, transposed: Any) -> nn.Linear:
    """Merge a linear layer and the transposed convolution that unfolds its 1 x 1 output to 4 x 4 into one layer."""
    kernel = transposed.weight.flatten(1)  # (C, C_out * 16)
    fused = nn.Linear(linear.in_features, kernel.shape[1], device=kernel.device)
    fused.weight = nn.Parameter(kernel.T @ linear.weight)
    fused.bias = nn.Parameter(linear.bias @ kernel + transposed.bias.repeat_interleave(16))
    return fused


__all__ = ["FusedHeatmapNetwork", "fuse_transposed", "upsample"]
