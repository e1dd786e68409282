"""Augmentation of whole batches on the model's device (paper sections 4.2.1 and 4.2.2).

Faces are held as uint8 canvases: the square crop enlarged about its centre, so that a rotated or shifted crop finds
real pixels beyond the border. One affine sampling then makes each augmented crop straight from its canvas.
All draws come from torch's global generator: seed it before a step to repeat the step.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import gaussian_blur, rgb_to_grayscale


@dataclass
class AugmentationConfig:
    """Ranges of the random changes, drawn uniformly for every crop; only the width of the blur is one for the batch.

    Args:
        flip: Probability of mirroring the crop.
        rotation: Largest rotation in degrees, both ways.
        translation: Largest shift along x and y as a fraction of the crop's side.
        scale: Smallest and largest size of the face relative to the plain crop.
        occlusion: Probability of covering a rectangle with a piece of another picture of the batch.
        color: Largest relative change of brightness, contrast and saturation, and of each channel by half of it.
        grayscale: Probability of removing the colours.
        blur: Probability of a Gaussian blur of 0.5 to 2 pixels.
    """

    flip: float = 0.5
    rotation: float = 0.0
    translation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    occlusion: float = 0.0
    color: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0


def augment(
    canvases: torch.Tensor,
    size: int,
    crop_fraction: float,
    config: AugmentationConfig,
    landmarks: torch.Tensor | None = None,
    flip_index: list[int] | None = None,
    share: tuple[int, int] = (0, 1),
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cut one randomly changed crop from each canvas.

    Args:
        canvases: (N, 3, C, C) uint8.
        size: Side of the crops in pixels.
        crop_fraction: Side of the plain crop relative to the canvas; the two share their centre.
        config: What to draw from.
        landmarks: (N, L, 2) as fractions of the plain crop, NaN for missing points.
        flip_index: Permutation of the points under mirroring; without it nothing is mirrored when landmarks are given.
        share: (rank, number of processes) of a batch that several processes share, each holding every n-th canvas from
            its rank on. With the same seed in all of them the draws are those of one process with the whole batch;
            but what covers a face is a piece of the process's own canvases.

    Returns:
        Crops (N, 3, size, size) float in [0, 1], and the landmarks in them as fractions of the crop.
    """
    draw = _Draws(len(canvases), canvases.device, *share)
    mirrored = draw(0, 1) < config.flip
    if landmarks is not None and flip_index is None:
        mirrored = torch.zeros_like(mirrored)
    matrices, offsets = _draw_affine(draw, config, mirrored)
    crops = sample_crops(canvases, matrices, offsets, size, crop_fraction)
    crops = _recolor(_occlude(crops, config.occlusion, draw), config, draw)
    if landmarks is not None:
        # A point of the plain crop at p, measured from the centre, is seen at q with p = M q + t.
        centered = (2 * landmarks - 1) - offsets[:, None]
        landmarks = 0.5 * (torch.linalg.solve(matrices, centered.mT).mT + 1)
        if flip_index is not None:
            landmarks = torch.where(mirrored[:, None, None], landmarks[:, flip_index], landmarks)
    return crops.clamp(0, 1), landmarks


def plain_crops(canvases: torch.Tensor, size: int, crop_fraction: float) -> torch.Tensor:
    """Cut the unchanged crops: (N, 3, C, C) uint8 to (N, 3, size, size) float in [0, 1]."""
    matrices = torch.eye(2, device=canvases.device).expand(len(canvases), 2, 2)
    return sample_crops(canvases, matrices, matrices.new_zeros(len(canvases), 2), size, crop_fraction)


def sample_crops(
    canvases: torch.Tensor, matrices: torch.Tensor, offsets: torch.Tensor, size: int, crop_fraction: float
) -> torch.Tensor:
    """Sample crops whose point q in [-1, 1] shows the point M q + t of the plain crop, mirrored at canvas borders."""
    theta = torch.cat([matrices, offsets[..., None]], dim=2) * crop_fraction
    grid = F.affine_grid(theta, [len(canvases), 3, size, size], align_corners=False)
    return F.grid_sample(canvases.float() / 255, grid, padding_mode="reflection", align_corners=False)


class _Draws:
    """Uniform random numbers, one row for each picture of this process's share of a batch."""

    def __init__(self, count: int, device: torch.device, rank: int, world_size: int):
        self.count, self.device, self.rank, self.world_size = count, device, rank, world_size

    def __call__(self, low: float, high: float, *shape: int) -> torch.Tensor:
        """Draw (count, *shape) between two numbers; the processes draw the same and each keeps its own rows."""
        draws = torch.rand(self.count * self.world_size, *shape, device=self.device)
        return low + (high - low) * draws[self.rank :: self.world_size]


def _draw_affine(
    draw: _Draws, config: AugmentationConfig, mirrored: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    angle = torch.deg2rad(draw(-config.rotation, config.rotation))
    size = 1 / draw(*config.scale)  # a larger face means a smaller window
    direction = 1 - 2 * mirrored.float()
    cosine, sine = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([cosine * size * direction, -sine * size], dim=1),
        torch.stack([sine * size * direction, cosine * size], dim=1),
    ]
    return torch.stack(rows, dim=1), 2 * config.translation * draw(-1, 1, 2)


def _occlude(crops: torch.Tensor, probability: float, draw: _Draws) -> torch.Tensor:
    if not probability or len(crops) < 2:
        return crops
    size = crops.shape[-1]
    positions = (torch.arange(size, device=crops.device) + 0.5) / size
    center, half_side = draw(0, 1, 2, 1), draw(0.05, 0.25, 2, 1)
    inside = (positions - center).abs() < half_side
    covered = inside[:, 0, None, None, :] & inside[:, 1, None, :, None]
    covered &= (draw(0, 1) < probability)[:, None, None, None]
    return torch.where(covered, crops.roll(1, dims=0).flip(-2), crops)


def _recolor(crops: torch.Tensor, config: AugmentationConfig, draw: _Draws) -> torch.Tensor:
    def factor(amount: float, channels: int = 1) -> torch.Tensor:
        return draw(1 - amount, 1 + amount, channels, 1, 1)

    if config.color or config.grayscale:
        gray = rgb_to_grayscale(crops)
        saturation = factor(config.color)
        if config.grayscale:
            saturation = torch.where(draw(0, 1, 1, 1, 1) < config.grayscale, 0, saturation)
        crops = gray + (crops - gray) * saturation
    if config.color:
        mean = crops.mean(dim=(1, 2, 3), keepdim=True)
        crops = (mean + (crops - mean) * factor(config.color)) * factor(config.color) * factor(config.color / 2, 3)
    if config.blur:
        sigma = 0.5 + 1.5 * float(torch.rand(()))
        chosen = draw(0, 1, 1, 1, 1) < config.blur
        crops = torch.where(chosen, gaussian_blur(crops, [9, 9], [sigma, sigma]), crops)
    return crops


__all__ = [
    "AugmentationConfig",
    "augment",
    "plain_crops",
    "sample_crops",
]
