"""Points of a new scheme from the points that a detector knows already, in closed form."""

from collections.abc import Sequence

import torch
from torch import nn


# All were chosen on validation faces of 300-W with 1, 10 and 50 annotated faces.
RIDGE = 0.1
# How much the size of a face in its crop counts beside its shape, whose coordinates are of unit length together.
SIZE_WEIGHT = 3.0
# Distant anchors are taken for unsteady, as much as if so many more faces showed them as far off as they are: few
# faces alone would often find one at the other side steady.
DISTANCE_WEIGHT = 2.0


class PointRegression(nn.Module):
    """Predicts points from anchors: the steadiest anchor of each, a mean offset, and a ridge regression of the rest.

    Shapes are compared about their mean point and at unit size; where and how large they are in the crop are features
    of the regression, too. A new one puts every point on the first anchor. Not in the paper.

    Args:
        num_landmarks: L.
        num_anchors: A.

    Attributes:
        nearest: (L,) the anchor that each point goes with.
        offsets: (L, 2) from there, in units of the shape's size.
        center: (2 A + 3,) mean of the features.
        gain: (2 L, 2 A + 3) what the features add, in units of the shape's size, for x and y of the points in turn.
        share: (L,) how much the regression has to say beside the point's own heatmap, 0 to 1.
    """

    def __init__(self, num_landmarks: int, num_anchors: int):
        super().__init__()
        features = 2 * num_anchors + 3
        self.nearest: torch.Tensor
        self.offsets: torch.Tensor
        self.center: torch.Tensor
        self.gain: torch.Tensor
        self.share: torch.Tensor
        self.register_buffer("nearest", torch.zeros(num_landmarks, dtype=torch.long))
        self.register_buffer("offsets", torch.zeros(num_landmarks, 2))
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("gain", torch.zeros(2 * num_landmarks, features))
        self.register_buffer("share", torch.zeros(num_landmarks))

    def forward(self, anchors: torch.Tensor) -> torch.Tensor:
        """Predict points (N, L, 2) from anchors (N, A, 2), both as fractions of the crop."""
        shapes, middle, size = _normalize(anchors)
        features = _features(shapes, middle, size) - self.center.to(anchors.dtype)
        points = shapes[:, self.nearest] + self.offsets.to(anchors.dtype)
        points = points + (features @ self.gain.to(anchors.dtype).T).view_as(points)
        return points * size + middle

    def combine(self, landmarks: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
        """Mix landmarks read off heatmaps (N, L, 2) with what the anchors (N, A, 2) say of them, by `share`."""
        return torch.lerp(landmarks, self(anchors), self.share.to(landmarks.dtype)[:, None])

    @torch.no_grad()
    def fit(
        self,
        anchors: torch.Tensor,
        landmarks: torch.Tensor,
        flip_index: Sequence[int] | None = None,
        anchor_flip_index: Sequence[int] | None = None,
    ) -> None:
        """Learn from annotated faces; `share` stays.

        Args:
            anchors: (N, A, 2) the anchors that the detector finds, fractions of the crop.
            landmarks: (N, L, 2) where the points are, NaN for one that is not annotated. A point that no face has
                stays as it is.
            flip_index: Permutation of the points under mirroring; with both permutations the mirrored faces count,
                too.
            anchor_flip_index: Permutation of the anchors.
        """
        anchors, landmarks = anchors.detach().double().cpu(), landmarks.detach().double().cpu()
        if flip_index is not None and anchor_flip_index is not None:
            anchors = torch.cat([anchors, mirror(anchors, anchor_flip_index)])
            landmarks = torch.cat([landmarks, mirror(landmarks, flip_index)])
        self.center.copy_(_features(*_normalize(anchors)).mean(0))
        known = landmarks.isfinite().all(-1)
        # Points that the same faces have are solved for together.
        patterns, members = torch.unique(known, dim=1, return_inverse=True)
        for number, rows in enumerate(patterns.T):
            points = (members == number).nonzero()[:, 0]
            if rows.any():
                self._solve(anchors[rows], landmarks[rows][:, points], points)

    def _solve(self, anchors: torch.Tensor, landmarks: torch.Tensor, points: torch.Tensor) -> None:
        shapes, middle, size = _normalize(anchors)
        targets = (landmarks - middle) / size
        offsets = targets[:, :, None] - shapes[:, None]  # (N, points, A, 2)
        mean = offsets.mean(0)
        unsteady = (offsets - mean).square().sum((0, -1)) + DISTANCE_WEIGHT * mean.square().sum(-1)
        nearest = unsteady.argmin(1)
        offset = mean[torch.arange(len(points)), nearest]
        rest = (targets - shapes[:, nearest] - offset).flatten(1)
        features = _features(shapes, middle, size)
        center = features.mean(0)
        features = features - center
        products = features @ features.T + RIDGE * torch.eye(len(features), dtype=features.dtype)
        gain = (features.T @ torch.linalg.solve(products, rest)).T
        # `center` is the mean of all faces, of which these may be some.
        offset = offset + (gain @ (self.center.cpu().to(center) - center)).view(-1, 2)
        self.nearest[points] = nearest.to(self.nearest.device)
        self.offsets[points] = offset.to(self.offsets)
        self.gain.view(len(self.nearest), 2, -1)[points] = gain.view(len(points), 2, -1).to(self.gain)


def mirror(points: torch.Tensor, flip_index: Sequence[int] | torch.Tensor) -> torch.Tensor:
    """Return points (N, L, 2), fractions of the crop, as they are in the mirrored crop."""
    x, y = points[:, flip_index].unbind(-1)
    return torch.stack([1 - x, y], dim=-1)


def _normalize(anchors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return shapes (N, A, 2) of unit length about their middle (N, 1, 2), and their size (N, 1, 1)."""
    middle = anchors.mean(dim=1, keepdim=True)
    shapes = anchors - middle
    size = shapes.square().sum(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-6)
    return shapes / size, middle, size


def _features(shapes: torch.Tensor, middle: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Return what the regression sees, (N, 2 A + 3)."""
    radius = size[:, :, 0] / shapes.shape[1] ** 0.5
    return torch.cat([shapes.flatten(1), middle[:, 0], SIZE_WEIGHT * radius], dim=1)


__all__ = ["PointRegression", "mirror"]
