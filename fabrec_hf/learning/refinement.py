"""Solve for what moves points by the maps around them: see `model/local_refinement.py`."""

import math

import torch

from ..model.known_schemes import LandmarkScheme
from ..model.local_refinement import LocalRefinement, look_around
from ..model.modeling_fabrec import FabRecForLandmarkDetection
from .augmentation import AugmentationConfig
from .labeled_faces import LabeledFaces


__all__ = ["fit_refinement"]

# Augmented crops to learn from: few faces are shown in many ways.
CROPS, LEAST_VIEWS, MOST_VIEWS = 500, 2, 100
# Points are displaced at random so often in each crop, by a normal variable of this deviation, a fraction of the crop:
# about as far as the detectors err. All were chosen on validation faces of 300-W, see docs/experiments.md.
DISPLACEMENTS = 3
DEVIATION = 0.009
# Ridge on features of unit variance: for one face, the power of their number that it falls with, and the least.
RIDGE, POWER, LEAST_RIDGE = 20.0, 0.75, 0.3


class _Moments:
    """Sums over all that was seen, a matrix for each point, from which a ridge regression is solved."""

    def __init__(self, first: torch.Tensor):
        _, points, size = first.shape
        # Sums about the right place lose no digits.
        self.center = first.mean(0)
        self.count = 0
        self.products = first.new_zeros(points, size, size)
        self.targets = first.new_zeros(points, size, 2)
        self.seen, self.moves = first.new_zeros(points, size), first.new_zeros(points, 2)
        self.weights = first.new_zeros(points)

    def add(self, seen: torch.Tensor, moves: torch.Tensor) -> None:
        """Add what was seen (N, L, D) and the moves (N, L, 2) that would be right, NaN where that is not known."""
        known = moves.isfinite().all(-1)
        moves = torch.where(known[..., None], moves, 0.0)
        values = ((seen - self.center) * known[..., None]).transpose(0, 1)  # (L, N, D)
        targets = moves.transpose(0, 1)
        self.products.baddbmm_(values.mT, values)
        self.targets.baddbmm_(values.mT, targets)
        self.seen += values.sum(1)
        self.moves += targets.sum(1)
        self.weights += known.sum(0)

    def solve(self, point: int, ridge: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return gain (D, 2) and bias (2,) of a point."""
        # On the CPU, for not every device has 64 bits.
        kept = (self.weights, self.seen, self.moves, self.products, self.targets, self.center)
        count, seen, moves, products, targets, center = (values[point].cpu().double() for values in kept)
        mean, move = seen / count, moves / count
        covariance = products / count - torch.outer(mean, mean)
        deviation = covariance.diagonal().clamp(min=0).sqrt() + 1e-3
        covariance = covariance / torch.outer(deviation, deviation)
        covariance.diagonal().add_(ridge)
        shared = (targets / count - torch.outer(mean, move)) / deviation[:, None]
        gain = torch.cholesky_solve(shared, torch.linalg.cholesky(covariance)) / deviation[:, None]
        return gain, move - (mean + center) @ gain


@torch.no_grad()
def fit_refinement(
    model: FabRecForLandmarkDetection,
    faces: LabeledFaces,
    scheme: LandmarkScheme,
    augmentation: AugmentationConfig,
    seed: int = 0,
) -> None:
    """Let a trained model look closer at its points; one without a `local_refinement` is left as it is.

    Augmented crops show the annotated points, displaced at random, and the move back is regressed from what the
    encoder's maps show around them.

    Args:
        model: Its encoder has learned what it will; changed in place.
        faces: What it learned from. A point that no face has stays where it is.
        scheme: What the points are.
        augmentation: How crops are varied.
        seed: Of crops and displacements.
    """
    refinement = model.local_refinement
    if refinement is None:
        return
    model.eval()
    torch.manual_seed(seed)
    views = min(MOST_VIEWS, max(LEAST_VIEWS, math.ceil(CROPS / len(faces))))
    flip_index = scheme.flip_index if scheme.flip_pairs else None
    rows = torch.arange(len(faces)).repeat(views)
    moments = None
    for pixels, shown in faces.augmented_inputs(rows, augmentation, flip_index, model.device):
        maps = model.local_maps(pixels)
        for _ in range(DISPLACEMENTS):
            moves = DEVIATION * torch.randn_like(shown)
            # An unknown point is looked for in the middle, and does not count.
            seen = look_around((shown - moves).nan_to_num(0.5), maps)
            moments = moments or _Moments(seen)
            moments.add(seen, moves + 0 * shown)
    if moments is not None:
        _settle(refinement, moments, max(LEAST_RIDGE, RIDGE / len(faces) ** POWER))
    if flip_index is not None:
        refinement.flip_index.copy_(torch.tensor(flip_index))


def _settle(refinement: LocalRefinement, moments: _Moments, ridge: float) -> None:
    for point in moments.weights.nonzero()[:, 0].tolist():
        gain, bias = moments.solve(point, ridge)
        refinement.gain[point], refinement.bias[point] = gain.to(refinement.gain), bias.to(refinement.bias)
