"""The two halves of the 3FabRec autoencoder: a ResNet-18 encoder and its inversion (paper section 4.2.1)."""

import torch
from timm.models.resnet import BasicBlock, downsample_conv
from torch import nn

from .configuration_fabrec import FabRecAutoencoderConfig


class FabRecEncoder(nn.Module):
    """ResNet-18 with a latent vector for an output (paper section 4.2.1).

    Four stages of `widths` channels reduce a 128-px face to 4 x 4. A larger input gets one more stage of the first
    width in front for every doubling, and the stages that follow it halve their maps.
    """

    def __init__(self, config: FabRecAutoencoderConfig):
        super().__init__()
        widths = list(config.widths)
        extra = max(0, len(config.decoder_widths) - 4)
        self.conv1 = nn.Conv2d(3, widths[0], kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        stages, in_channels = [], widths[0]
        self.map_sizes: list[tuple[int, int]] = []  # channels and side of each map
        for index, out_channels in enumerate(widths[:1] * extra + widths):
            stages.append(_encoder_stage(in_channels, out_channels, 1 if index == 0 else 2, config.encoder_depth))
            in_channels = out_channels
            self.map_sizes.append((out_channels, -(-config.image_size // (4 << index))))
        self.stages = nn.Sequential(*stages)
        # The last map is 4 x 4 from 128 px on, for which there are more stages, and 2 x 2 or one pixel below.
        self.pool = nn.AdaptiveAvgPool2d(1) if config.encoder_pooling == "average" else nn.Identity()
        positions = 1 if config.encoder_pooling == "average" else min(4, config.image_size // 32) ** 2
        self.fc = nn.Linear(widths[-1] * positions, config.latent_size)

    def maps(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Return the map (N, C, H, W) that each stage ends in, of images (N, 3, S, S)."""
        found = [self.maxpool(self.relu(self.bn1(self.conv1(pixel_values))))]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[1:]

    def pool_map(self, last: torch.Tensor) -> torch.Tensor:
        """Return what the last layer sees, (N, F), of the last map."""
        return self.pool(last).flatten(1)

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return what the last layer sees, (N, F), of images (N, 3, S, S)."""
        return self.pool_map(self.maps(pixel_values)[-1])

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode (N, 3, S, S) to the raw latent (N, latent_size): no activation, no normalization."""
        return self.fc(self.features(pixel_values))


def _encoder_stage(in_channels: int, out_channels: int, stride: int, depth: int) -> nn.Sequential:
    shortcut = None
    if stride != 1 or in_channels != out_channels:
        shortcut = downsample_conv(in_channels, out_channels, kernel_size=1, stride=stride)
    blocks = [BasicBlock(in_channels, out_channels, stride, shortcut)]
    blocks += [BasicBlock(out_channels, out_channels) for _ in range(depth - 1)]
    return nn.Sequential(*blocks)


class FabRecDecoderBlock(nn.Module):
    """Inverted residual block: 4 x 4 transposed convolutions double the side of its input (paper section 4.2.1)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(in_channels, out_channels, kernel_size=4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (N, C_in, H, W) to (N, C_out, 2H, 2W)."""
        residual = self.relu(self.bn1(self.conv1(hidden_states)))
        return self.relu(self.bn2(self.conv2(residual)) + self.upsample(hidden_states))


class FabRecDecoder(nn.Module):
    """Inverted ResNet: latent to 4 x 4 x 512, one block per doubling, a last transposed convolution to RGB, tanh."""

    def __init__(self, config: FabRecAutoencoderConfig):
        super().__init__()
        channels = config.widths[-1]
        self.fc = nn.Linear(config.latent_size, channels)
        self.conv1 = nn.ConvTranspose2d(channels, channels, kernel_size=4, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.stages = nn.ModuleList()
        for out_channels in config.decoder_widths:
            self.stages.append(FabRecDecoderBlock(channels, out_channels))
            channels = out_channels
        self.to_rgb = nn.ConvTranspose2d(channels, 3, kernel_size=4, stride=2, padding=1, bias=False)

    def first_stage(self, latent: torch.Tensor) -> torch.Tensor:
        """Decode (N, latent_size) to the activations that the transfer layers start from, (N, C, 8, 8)."""
        hidden_states = self.fc(latent)[..., None, None]
        return self.stages[0](self.relu(self.bn1(self.conv1(hidden_states))))

    def forward(
        self, latent: torch.Tensor, first: torch.Tensor | None = None, num_stages: int | None = None
    ) -> torch.Tensor:
        """Decode (N, latent_size) to an image (N, 3, S, S) in (-1, 1), RGB minus the processor's mean.

        Args:
            latent: (N, latent_size).
            first: `first_stage(latent)`, when the caller has it already.
            num_stages: Go from that stage straight to colors, for an image of side `8 * 2**num_stages`: the stages
                of the first width share their color layer. All of them by default.
        """
        hidden_states = self.first_stage(latent) if first is None else first
        for stage in self.stages[1:num_stages]:
            hidden_states = stage(hidden_states)
        return torch.tanh(self.to_rgb(hidden_states))


__all__ = ["FabRecDecoder", "FabRecDecoderBlock", "FabRecEncoder"]
