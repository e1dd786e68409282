"""The two discriminators of the adversarial autoencoder: needed to train it, never to use it (paper section 3.2)."""

import torch
from torch import nn
from transformers import initialization as init

from ..model.configuration_fabrec import FabRecAutoencoderConfig
from ..model.modeling_fabrec import FabRecPreTrainedModel


class FabRecImageDiscriminator(nn.Module):
    """Convolutional critic of images: real photograph or reconstruction (D_x of the paper's equation 4).

    Five 4 x 4 convolutions of stride 2 with LeakyReLU, a sixth to one channel, averaged. The weights do not depend on
    the image size.
    """

    def __init__(self, width: int = 32):
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for in_channels, out_channels in zip(widths[:-1], widths[1:], strict=True):
            layers += [
                nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=False),
                nn.BatchNorm2d(out_channels),
                nn.LeakyReLU(0.2),
            ]
        layers += [nn.Conv2d(widths[-1], 1, 4, 1, 0, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(0)]
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Judge images (N, 3, S, S), S >= 128; returns logits (N,), positive for real."""
        return self.layers(images)


class FabRecLatentDiscriminator(nn.Module):
    """Perceptron that tells latents from draws of the prior N(0, I) (D_z of the paper's equation 4)."""

    def __init__(self, latent_size: int = 99, width: int = 1000):
        super().__init__()
        # Dropout stands before the ReLU in the reference; for inverted dropout the order makes no difference.
        self.layers = nn.Sequential(
            nn.Linear(latent_size, width),
            nn.Dropout(0.2),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.Dropout(0.2),
            nn.ReLU(),
            nn.Linear(width, 1),
            nn.Flatten(0),
        )

    def forward(self, latent: torch.Tensor) -> torch.Tensor:
        """Judge latents (N, latent_size); returns logits (N,), positive for the prior."""
        return self.layers(latent)


class FabRecDiscriminators(FabRecPreTrainedModel):
    """Both discriminators as one checkpoint that lies beside an autoencoder's, to continue its training."""

    def __init__(self, config: FabRecAutoencoderConfig):
        super().__init__(config)
        self.image = FabRecImageDiscriminator()
        self.latent = FabRecLatentDiscriminator(config.latent_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):  # PyTorch's default: larger weights would start with saturated verdicts
            init.kaiming_uniform_(module.weight, a=5**0.5)
        else:
            super()._init_weights(module)


__all__ = ["FabRecDiscriminators", "FabRecImageDiscriminator", "FabRecLatentDiscriminator"]
