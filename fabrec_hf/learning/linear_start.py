"""Begin linear layers by ridge regression: what a layer can say of given features needs no steps of training."""

import torch
from torch import nn
from tqdm.auto import tqdm

from ..model.known_schemes import LandmarkScheme
from ..model.modeling_fabrec import FabRecForLandmarkDetection
from .augmentation import AugmentationConfig
from .labeled_faces import LabeledFaces


__all__ = ["begin_readout", "solve_linear"]

# Ridge penalty as a share of the mean variance of a feature.
PENALTY = 0.01
# Faces that a readout begins with: ten for each feature of the largest backbone tried are about enough.
MOST_FACES = 12_000


@torch.no_grad()
def solve_linear(layer: nn.Linear, inputs: torch.Tensor, targets: torch.Tensor, penalty: float = PENALTY) -> float:
    """Set a linear layer by ridge regression.

    Args:
        layer: D inputs, K outputs; changed in place.
        inputs: (N, D) what it sees.
        targets: (N, K) what it is to say.
        penalty: Strength of the ridge, as a share of the mean variance of an input.

    Returns:
        The share of the targets' variance that it explains, at most 1.
    """
    inputs, targets = inputs.double().cpu(), targets.double().cpu()
    center, middle = inputs.mean(0), targets.mean(0)
    inputs, targets = inputs - center, targets - middle
    strength = (penalty * inputs.square().sum() / inputs.shape[1]).clamp(min=1e-9)  # inputs may all be constant
    ridge = strength * torch.eye(inputs.shape[1], dtype=inputs.dtype)
    solution = torch.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ targets)
    layer.weight.copy_(solution.T)
    layer.bias.copy_(middle - center @ solution)
    return float(1 - (inputs @ solution - targets).square().sum() / targets.square().sum())


@torch.no_grad()
def begin_readout(
    model: FabRecForLandmarkDetection,
    faces: LabeledFaces,
    scheme: LandmarkScheme,
    augmentation: AugmentationConfig,
    seed: int = 0,
) -> None:
    """Let a fresh readout of a model's own points say what it can of the encoder's features as they are.

    A model without a readout is left as it is, and one whose readout is of anchors: that has learned already.

    Args:
        model: From `build_model`; changed in place.
        faces: What it will learn from; those with all points count, once each and `MOST_FACES` at most.
        scheme: What the points are.
        augmentation: How crops are varied.
        seed: Of the faces and their changes.
    """
    readout = model.point_readout
    whole = faces.landmarks.isfinite().all(-1).all(-1).nonzero()[:, 0]
    if readout is None or model.config.anchors is not None or len(whole) < 2:
        return
    model.eval()
    torch.manual_seed(seed)
    rows = whole[torch.randperm(len(whole))[:MOST_FACES]]
    flip_index = scheme.flip_index if scheme.flip_pairs else None
    features, points = [], []
    batches = faces.augmented_inputs(rows, augmentation, flip_index, model.device)
    for pixels, shown in tqdm(batches, desc="beginning the readout", unit="batch", leave=False):
        features.append(model.autoencoder.encoder.features(pixels).float().cpu())
        points.append(shown.flatten(1).float().cpu())
    solve_linear(readout, torch.cat(features), torch.cat(points))
