"""What the models return."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class FabRecAutoencoderOutput(ModelOutput):
    """Output of `FabRecAutoencoder`.

    Args:
        reconstruction: (N, 3, S, S) in the input's pixel space, RGB in [0, 1] minus the processor's mean.
        latent: (N, latent_size).
    """

    reconstruction: torch.Tensor | None = None
    latent: torch.Tensor | None = None


@dataclass
class FabRecLandmarkOutput(ModelOutput):
    """Output of `FabRecForLandmarkDetection`.

    Args:
        loss: Scalar loss of heatmaps and readout, when labels are given.
        heatmaps: (N, L, H, W), about 1 at a landmark and 0 elsewhere, unbounded.
        landmarks: (N, L, 2) x and y as fractions of the crop, 0 and 1 being its edges.
        scores: (N, L) in [0, 1], the height of the smoothed heatmap at the landmark. Of a calibrated checkpoint, how
            probable it is that the landmark lies within the tolerance of the truth; see `expected_errors`, too.
        drawn: (N, L, 2) the points of the heatmaps alone, before all else had its say.
        moves: (N, L, 2) how far a closer look moved each point, and would move it again, as fractions of the crop.
        latent: (N, latent_size).
        reconstruction: (N, 3, S, S), when asked for.
    """

    loss: torch.Tensor | None = None
    heatmaps: torch.Tensor | None = None
    landmarks: torch.Tensor | None = None
    scores: torch.Tensor | None = None
    drawn: torch.Tensor | None = None
    moves: torch.Tensor | None = None
    latent: torch.Tensor | None = None
    reconstruction: torch.Tensor | None = None


__all__ = ["FabRecAutoencoderOutput", "FabRecLandmarkOutput"]
