"""Augmentation of whole batches on the model's device (paper sections 4.2.1 and 4.2.2).

Faces are held as `Canvases`: a rotated or shifted crop finds real pixels beyond its border. One affine sampling then
makes each augmented crop straight from its canvas.
All draws come from torch's global generator: seed it before a step to repeat the step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import gaussian_blur, rgb_to_grayscale

from ..data.canvases import Canvases


LARGEST_ELASTIC = 0.06
"""The slope of a deformation is at most 15.8 times `elastic` (the worst case over the signs of all its nodes): beyond
a slope of 1 a face could fold over itself, and no point of the crop would be the place of a landmark."""


@dataclass
class AugmentationConfig:
    """Ranges of the random changes, drawn uniformly for every crop; only the width of the blur is one for the batch.

    Args:
        flip: Probability of mirroring the crop.
        rotation: Largest rotation in degrees, both ways.
        translation: Largest shift along x and y as a fraction of the crop's side.
        scale: Smallest and largest size of the face relative to the plain crop.
        elastic: Largest shift along x and y of the 4 x 4 nodes of a smooth deformation, as a fraction of the crop's
            side, at most `LARGEST_ELASTIC`: other proportions and other expressions than those that were photographed.
        occlusion: Probability of covering a rectangle with a piece of another picture of the batch.
        color: Largest relative change of brightness, contrast and saturation, and of each channel by half of it.
        grayscale: Probability of removing the colors.
        blur: Probability of a Gaussian blur of 0.5 to 2 pixels.
    """

    flip: float = 0.5
    rotation: float = 0.0
    translation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    elastic: float = 0.0
    occlusion: float = 0.0
    color: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0

    def __post_init__(self):
        """Refuse deformations that cannot be undone for the landmarks."""
        if not 0 <= self.elastic <= LARGEST_ELASTIC:
            raise ValueError(f"elastic must lie between 0 and {LARGEST_ELASTIC}, got {self.elastic}.")


def check_scale(scale: Sequence[float]) -> None:
    """Refuse a range of sizes that is none.

    Raises:
        ValueError: It is not the smallest and the largest size.
    """
    if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
        raise ValueError(f"--scale takes the smallest and the largest size, got {scale}.")


def augment(
    canvases: Canvases,
    size: int,
    config: AugmentationConfig,
    landmarks: torch.Tensor | None = None,
    flip_index: list[int] | None = None,
    share: tuple[int, int] = (0, 1),
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Cut one randomly changed crop from each canvas.

    Args:
        canvases: Of N faces.
        size: Side of the crops in pixels.
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
    shifts = 2 * config.elastic * draw(-1, 1, 2, 4, 4) if config.elastic else None
    crops = sample_crops(canvases, matrices, offsets, size, shifts)
    crops = _recolor(_occlude(crops, config.occlusion, draw), config, draw)
    if landmarks is not None:
        # A point of the plain crop at p, measured from the center, is seen at q with p = M (q + d(q)) + t.
        centered = (2 * landmarks - 1) - offsets[:, None]
        landmarks = 0.5 * (_undo_shifts(torch.linalg.solve(matrices, centered.mT).mT, shifts) + 1)
        if flip_index is not None:
            landmarks = torch.where(mirrored[:, None, None], landmarks[:, flip_index], landmarks)
    return crops.clamp(0, 1), landmarks


def plain_crops(canvases: Canvases, size: int) -> torch.Tensor:
    """Cut the unchanged crops of N faces: (N, 3, size, size) float in [0, 1]."""
    matrices = torch.eye(2, device=canvases.device).expand(len(canvases), 2, 2)
    return sample_crops(canvases, matrices, matrices.new_zeros(len(canvases), 2), size)


def sample_crops(
    canvases: Canvases,
    matrices: torch.Tensor,
    offsets: torch.Tensor,
    size: int,
    shifts: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sample crops whose point q in [-1, 1] shows the point M (q + d(q)) + t of the plain crop.

    Args:
        canvases: Of N faces, continued beyond their borders by mirroring.
        matrices: M, (N, 2, 2).
        offsets: t, (N, 2).
        size: Side of the crops in pixels.
        shifts: (N, 2, K, K) values of d on a regular grid from -1 to 1, between which it is cubic; nothing without.
    """
    theta = torch.cat([matrices, offsets[..., None]], dim=2) * canvases.crop_fraction
    shape = [len(canvases), 3, size, size]
    grid = F.affine_grid(theta, shape, align_corners=False)
    if shifts is not None:
        straight = F.affine_grid(torch.eye(2, 3, device=canvases.device).expand_as(theta), shape, align_corners=False)
        moved = _interpolate(shifts, straight)
        grid = grid + (moved.flatten(1, 2) @ (canvases.crop_fraction * matrices).mT).view_as(grid)
    return F.grid_sample(canvases.pixels.float() / 255, grid, padding_mode="reflection", align_corners=False)


def _interpolate(shifts: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Values of d at points (N, H, W, 2): (N, H, W, 2)."""
    found = F.grid_sample(shifts, points, mode="bicubic", padding_mode="border", align_corners=True)
    return found.permute(0, 2, 3, 1)


def _undo_shifts(points: torch.Tensor, shifts: torch.Tensor | None) -> torch.Tensor:
    """Find q with q + d(q) = p for points p (N, L, 2), NaN where p is.

    The iteration contracts by the slope of d: by 0.47 at worst for shifts of 3 % of the crop, which leaves less than a
    thousandth of a pixel, and by 0.95 for `LARGEST_ELASTIC`, which leaves a fifth of one in the worst case.
    """
    if shifts is None:
        return points
    found = points
    for _ in range(15):
        found = points - _interpolate(shifts, found[:, None].nan_to_num())[:, 0]
    return found


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
    "LARGEST_ELASTIC",
    "AugmentationConfig",
    "augment",
    "check_scale",
    "plain_crops",
    "sample_crops",
]
