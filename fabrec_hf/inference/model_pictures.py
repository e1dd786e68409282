"""What goes into the models and comes out of them, as pictures."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


__all__ = ["enlarge", "highest_heat", "to_pictures"]


def to_pictures(pixel_values: torch.Tensor, processor: Any) -> np.ndarray:
    """Turn (N, 3, S, S) as the models take and give them into (N, S, S, 3) uint8."""
    mean = torch.tensor(processor.image_mean).view(1, 3, 1, 1)
    return ((pixel_values.float().cpu() + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()


def highest_heat(heatmaps: torch.Tensor, side: int) -> np.ndarray:
    """Return the highest of the heatmaps (N, L, H, H) at each place of N pictures, (N, side, side) in [0, 1]."""
    heat = heatmaps.amax(dim=1, keepdim=True).float().cpu()
    return F.interpolate(heat, size=side, mode="bilinear").clamp(0, 1)[:, 0].numpy()


def enlarge(pixels: np.ndarray, side: int) -> Image.Image:
    """Bring pixels (H, W, 3) uint8 to a square picture of a side."""
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((side, side), Image.Resampling.BICUBIC)
