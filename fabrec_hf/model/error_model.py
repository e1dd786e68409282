"""How far off a point probably is, and the score that follows from it, in operations that export.

The logarithm of a point's error is taken for a normal variable. Its mean is linear in what the forward pass knows of
the point and of its face, plus an offset of the point's own: the contour of a face is always harder than its eyes.
`learning/score_calibration.py` fits it. Not in the paper.
"""

from typing import Any

import torch
import torch.nn.functional as F


# Below these, a heatmap is as good as empty, and two opinions are as good as one.
HEIGHT_FLOOR = 0.02
DISAGREEMENT_FLOOR = 0.01
# Below this, a move is as good as none.
MOVE_FLOOR = 0.003


def gather_evidence(
    heights: torch.Tensor, drawn: torch.Tensor, landmarks: torch.Tensor, moves: torch.Tensor
) -> torch.Tensor:
    """Return what errors are told from, (N, L, 8): logarithms for the point, then their means over the face.

    Args:
        heights: (N, L) the heatmaps' heights, 0 to 1.
        drawn: (N, L, 2) the points of the heatmaps alone.
        landmarks: (N, L, 2) the points that are the answer. How far they lie from those of the heatmaps, in units of
            the face's size, tells how much regression, readout and shape prior disagree with these.
        moves: (N, L, 2) how far a closer look moved each point and would move it again, in the same units.
    """
    middle = landmarks.mean(dim=1, keepdim=True)
    size = (landmarks - middle).square().sum(-1).mean(1, keepdim=True).sqrt().clamp(min=1e-3)
    disagreement = (drawn - landmarks).square().sum(-1).sqrt() / size
    known = torch.stack([heights.clamp(min=HEIGHT_FLOOR).log(), (disagreement + DISAGREEMENT_FLOOR).log()], dim=-1)
    own = torch.cat([known, (moves / size[..., None] + MOVE_FLOOR).log()], dim=-1)
    return torch.cat([own, own.mean(dim=1, keepdim=True).expand_as(own)], dim=-1)


def score_points(evidence: torch.Tensor, error_model: dict[str, Any]) -> torch.Tensor:
    """Return how probable it is that points are found, (N, L): that they err by no more than the tolerance.

    Args:
        evidence: (N, L, 8) from `gather_evidence`.
        error_model: `ErrorModel.to_dict()`.
    """
    weights, offsets = (evidence.new_tensor(error_model[name]) for name in ("weights", "offsets"))
    if len(weights) == 4:  # fitted before there was a closer look, without moves
        evidence = torch.cat([evidence[..., :2], evidence[..., 4:6]], dim=-1)
    # As a layer of one output: OpenVINO 2026.4 does not load a product with a vector here, and gets sums wrong.
    expected = F.linear(evidence, weights[None])[..., 0] + offsets
    limit = torch.log(evidence.new_tensor(error_model["tolerance"]))
    return 0.5 * (1 + torch.erf((limit - expected) / (error_model["spread"] * 2**0.5)))


def expected_errors(scores: torch.Tensor, error_model: dict[str, Any]) -> torch.Tensor:
    """Return the mean error of points of such scores, in percent of the scheme's normalizing length.

    Args:
        scores: From `score_points`, of any shape.
        error_model: The same.
    """
    deviations = torch.special.ndtri(scores.double().clamp(1e-6, 1 - 1e-6))
    spread = error_model["spread"]
    return (error_model["tolerance"] * torch.exp(0.5 * spread**2 - spread * deviations)).to(scores.dtype)


__all__ = ["expected_errors", "gather_evidence", "score_points"]
