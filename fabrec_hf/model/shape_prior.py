"""What faces of a landmark scheme look like, learned from the annotated ones: it pulls points back that stand out."""

from collections.abc import Sequence

import torch
from torch import nn


# Standard deviations, and how far a bend reaches, in fractions of the crop. Chosen on validation faces of 300-W at 1,
# 10 and 50 shots, where none of them matters much.
NOISE = 0.02
DEFORMATION = 0.01
REACH = 0.2
AFFINE = 3.0


class ShapePrior(nn.Module):
    """Corrects detected landmarks by the most probable shape that explains them.

    Shapes are taken for Gaussian: the mean of the annotated ones, which may move as a whole by any affine map, vary as
    the annotated ones do, and bend smoothly in ways that none of them shows. Detections are shapes with independent
    noise. Then the posterior mean is one linear map, `mean + gain (landmarks - mean)`, which costs next to nothing.
    A new one changes nothing. Not in the paper.

    Args:
        num_landmarks: L.

    Attributes:
        mean: (L, 2) fractions of the crop.
        gain: (2 L, 2 L), for x and y of the points in turn.
    """

    def __init__(self, num_landmarks: int):
        super().__init__()
        self.mean: torch.Tensor
        self.gain: torch.Tensor
        self.register_buffer("mean", torch.full((num_landmarks, 2), 0.5))
        self.register_buffer("gain", torch.eye(2 * num_landmarks))

    def forward(self, landmarks: torch.Tensor) -> torch.Tensor:
        """Correct landmarks (N, L, 2), fractions of the crop."""
        mean = self.mean.to(landmarks.dtype)
        offsets = (landmarks - mean).flatten(1)
        return mean + (offsets @ self.gain.to(landmarks.dtype).T).view_as(landmarks)

    @torch.no_grad()
    def fit(self, landmarks: torch.Tensor, flip_index: Sequence[int] | None = None) -> None:
        """Learn the shapes of annotated faces.

        Args:
            landmarks: (N, L, 2) fractions of the crop, NaN for a point that is not annotated. A point that no face has
                is left alone, and has no part in what is said of the others.
            flip_index: Permutation of the points under mirroring; with it the mirrored faces count, too.
        """
        shapes = landmarks.detach().double().cpu()
        if flip_index is not None:
            mirrored = shapes[:, list(flip_index)] * shapes.new_tensor([-1, 1]) + shapes.new_tensor([1, 0])
            shapes = torch.cat([shapes, mirrored])
        known = shapes.isfinite().all(-1).any(0)
        shapes = shapes[:, known]
        mean = shapes.nanmean(0)
        covariance = _covariance(mean, (shapes - mean).nan_to_num())
        noise = NOISE**2 * torch.eye(len(covariance), dtype=covariance.dtype)
        rows = known.repeat_interleave(2).nonzero()[:, 0]
        gain = torch.eye(2 * len(known), dtype=covariance.dtype)
        gain[rows[:, None], rows] = torch.linalg.solve(covariance + noise, covariance).T
        self.mean[known] = mean.to(self.mean)
        self.gain.copy_(gain)


def _covariance(mean: torch.Tensor, deviations: torch.Tensor) -> torch.Tensor:
    """How shapes about `mean` (L, 2) vary, given those that are `deviations` (N, L, 2) away: (2 L, 2 L)."""
    smooth = DEFORMATION**2 * torch.exp(-0.5 * (torch.cdist(mean, mean) / REACH) ** 2)
    place = torch.cat([torch.ones_like(mean[:, :1]), mean - mean.mean(0)], dim=1)
    either_axis = smooth + AFFINE**2 * place @ place.T
    seen = deviations.flatten(1)
    return torch.kron(either_axis, torch.eye(2).to(mean)) + seen.T @ seen / len(seen)


__all__ = ["ShapePrior"]
