"""Encoders other than the paper's: a feature extractor of timm's, or the trunk of MediaPipe's face mesh network."""

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_fabrec import FACE_MESH, FabRecAutoencoderConfig
from .image_inputs import IMAGE_MEAN


class FaceMeshBlock(nn.Module):
    """A depthwise and a pointwise convolution beside a shortcut, which is pooled and padded with empty channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, at least as many.
        stride: 2 halves the map; the odd pixel of padding then lies below and to the right, as in TensorFlow.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__()
        self.stride, self.extra_channels = stride, out_channels - in_channels
        padding = 1 if stride == 1 else 0
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, stride, padding, groups=in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, kernel_size=1)
        self.activation = nn.PReLU(out_channels)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H / stride, W / stride)."""
        residual = hidden_states
        if self.stride == 2:
            residual = F.pad(residual, (0, 1, 0, 1))
            hidden_states = F.max_pool2d(hidden_states, kernel_size=2)
        residual = self.pointwise(self.depthwise(residual))
        if self.extra_channels:
            hidden_states = F.pad(hidden_states, (0, 0, 0, 0, 0, self.extra_channels))
        return self.activation(hidden_states + residual)


class FaceMeshBackbone(nn.Module):
    """The trunk of MediaPipe's face mesh network (Kartynnik et al. 2019): 0.48 million parameters.

    It looks at 192 x 192 pixels, to which a crop of another size is resized, and ends in a map of 3 x 3.
    `training/convert_face_mesh.py` reads the published weights, which are under the Apache-2.0 license.
    """

    INPUT_SIZE = 192
    # Output channels of the blocks; the first block of each further group halves the map.
    GROUPS = ((16, 16), (32, 32, 32), (64, 64, 64), (128, 128, 128), (128, 128, 128), (128, 128, 128))
    # Channels and sides of the maps that the groups end in.
    map_sizes = tuple((widths[-1], 96 >> place) for place, widths in enumerate(GROUPS))

    def __init__(self):
        super().__init__()
        channels = self.GROUPS[0][0]
        self.stem = nn.Conv2d(3, channels, kernel_size=3, stride=2)
        self.activation = nn.PReLU(channels)
        blocks = []
        for group, widths in enumerate(self.GROUPS):
            for place, width in enumerate(widths):
                blocks.append(FaceMeshBlock(channels, width, stride=2 if group and not place else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the map (N, C, H, W) that each group ends in, of RGB in [0, 1], (N, 3, S, S)."""
        if images.shape[-1] != self.INPUT_SIZE:
            images = F.interpolate(images, size=(self.INPUT_SIZE, self.INPUT_SIZE), mode="bilinear")
        hidden_states, found = self.activation(self.stem(F.pad(images, (0, 1, 0, 1)))), []
        blocks = iter(self.blocks)
        for widths in self.GROUPS:
            for block in itertools.islice(blocks, len(widths)):
                hidden_states = block(hidden_states)
            found.append(hidden_states)
        return found


class TimmBackbone(nn.Module):
    """The maps of one of timm's feature extractors, for pictures normalized as it learned them.

    Args:
        name: A model of `timm.list_models()` that can give features, with `:STRIDE` for an earlier end, such as
            `tf_efficientnet_lite0:16`.
        image_size: Side of the pictures in pixels.

    Raises:
        ValueError: timm has no such model, or the model has no such map.
    """

    def __init__(self, name: str, image_size: int):
        super().__init__()
        import timm

        name, _, stride = name.partition(":")
        try:
            network = timm.create_model(name, pretrained=False, features_only=True)
        except (RuntimeError, AttributeError) as error:
            raise ValueError(f"backbone {name!r} is no feature extractor that timm knows: {error}") from error
        strides = network.feature_info.reduction()
        if stride and int(stride) not in strides:
            raise ValueError(f"backbone {name!r} has maps of stride {strides}, not {stride}.")
        place = strides.index(int(stride)) if stride else len(strides) - 1
        self.network = timm.create_model(
            name, pretrained=False, features_only=True, out_indices=tuple(range(place + 1))
        )
        channels = self.network.feature_info.channels()
        self.map_sizes = [
            (count, -(-image_size // step)) for count, step in zip(channels, strides[: place + 1], strict=True)
        ]
        settings = getattr(self.network, "pretrained_cfg", None) or {}
        self.mean, self.std = settings.get("mean", IMAGE_MEAN), settings.get("std", (1.0, 1.0, 1.0))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Map RGB in [0, 1], (N, 3, S, S), to maps (N, C, H, W), the finest first."""
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return self.network((images - mean) / std)


class FabRecBackboneEncoder(nn.Module):
    """An encoder with another trunk than the paper's: backbone, pooling, one linear layer to the latent vector."""

    def __init__(self, config: FabRecAutoencoderConfig):
        super().__init__()
        name = config.backbone or ""
        self.backbone = FaceMeshBackbone() if name == FACE_MESH else TimmBackbone(name, config.image_size)
        self.pooling = config.encoder_pooling
        self.map_sizes = list(self.backbone.map_sizes)  # channels and side of each map
        channels, side = self.map_sizes[-1]
        self.fc = nn.Linear(channels * side**2 if self.pooling == "flatten" else channels, config.latent_size)

    def maps(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Return maps (N, C, H, W), the finest first, of images (N, 3, S, S) as the processor makes them."""
        return self.backbone(pixel_values + pixel_values.new_tensor(IMAGE_MEAN)[:, None, None])

    def pool_map(self, last: torch.Tensor) -> torch.Tensor:
        """Return what the linear layer sees, (N, F), of the last map."""
        return last.flatten(1) if self.pooling == "flatten" else last.mean(dim=(2, 3))

    def features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return what the linear layer sees, (N, F), of images (N, 3, S, S)."""
        return self.pool_map(self.maps(pixel_values)[-1])

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Encode (N, 3, S, S), RGB in [0, 1] minus the processor's mean, to the latent (N, latent_size)."""
        return self.fc(self.features(pixel_values))


__all__ = ["FabRecBackboneEncoder", "FaceMeshBackbone", "TimmBackbone"]
