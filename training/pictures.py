"""The paper's pictures while an autoencoder learns: reconstructions, random faces and interpolations, as one sheet."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torchvision.utils import make_grid, save_image

from fabrec_hf.model.modeling_fabrec import FabRecAutoencoder


__all__ = ["draw_sheet"]


@torch.no_grad()
def draw_sheet(
    model: FabRecAutoencoder, images: torch.Tensor, mean: torch.Tensor, path: Path, num_stages: int | None = None
) -> None:
    """Write a PNG of five rows, whole or not at all.

    The rows: pictures; their reconstructions (the paper's figure 5); faces decoded from draws of the prior (figure 3);
    and two walks along straight lines of the latent space, from the first picture to the last and from the second to
    the last but one (figure 4).

    Args:
        model: The autoencoder in eval mode.
        images: (N, 3, S, S), as the model takes them; N columns, at least 4.
        mean: (1, 3, 1, 1), what was subtracted from them.
        path: The file.
        num_stages: Stages of the decoder to use, all by default.
    """
    latent = model.encode(images)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0)).to(latent)
    steps = torch.linspace(0, 1, len(images), device=latent.device, dtype=latent.dtype)[:, None]
    walks = [latent[[i]].lerp(latent[[-1 - i]], steps) for i in (0, 1)]
    drawn = [model.decoder(latents, num_stages=num_stages) for latents in (latent, noise, *walks)]
    rows = [F.adaptive_avg_pool2d(images, drawn[0].shape[-1]), *drawn]
    partial = path.with_name("partial.png")
    save_image(make_grid((torch.cat(rows) + mean).clamp(0, 1), nrow=len(images)), partial)
    partial.rename(path)
