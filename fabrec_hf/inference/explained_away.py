"""What of a face is not reconstructed: hands, hair, glasses, paint and shadows that are explained away.

An autoencoder of faces draws what its latent vector says of a face and nothing else (paper section 3.2), so that
where its picture differs from the input, something else than a face was seen.
"""

import math

import torch
import torch.nn.functional as F


__all__ = ["explained_away"]

# Standard deviation of the averaging as a share of the picture's side. Reconstructions are blurred, and without
# averaging every edge would count as a difference; with twice as much the map no longer shows where.
SMOOTHING = 1 / 32
# Distance between two averaged colors, red, green and blue in [0, 1], that counts as another thing altogether.
FULL_DISTANCE = 0.4


def explained_away(images: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """Map where a reconstruction shows something else than the picture.

    Args:
        images: (N, 3, H, W) what was encoded, the `pixel_values` of the image processor: red, green and blue on a
            scale where 1 is the range from black to white. An offset that both arguments share does not matter.
        reconstruction: (N, 3, H, W) what came back, from an autoencoder or a model's `output_reconstruction=True`.

    Returns:
        (N, H, W) float32 from 0, the same color, to 1, another color altogether: the distance of the locally
        averaged colors in units of `FULL_DISTANCE`.

    Raises:
        ValueError: If the shapes differ or are no shapes of pictures.

    Example:
        >>> import torch
        >>> picture = torch.zeros(1, 3, 64, 64)
        >>> covered = picture.clone()
        >>> covered[..., :32] = 1.0
        >>> explained_away(covered, picture)[0, 32, [0, 63]]
        tensor([1., 0.])
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape != reconstruction.shape:
        raise ValueError(
            f"images and reconstruction must both be (N, 3, H, W), got {tuple(images.shape)} and "
            f"{tuple(reconstruction.shape)}."
        )
    difference = images.float() - reconstruction.float()
    for axis in (2, 3):
        difference = _smooth(difference, axis)
    return (difference.square().sum(dim=1).sqrt() / FULL_DISTANCE).clamp(0, 1)


def _smooth(values: torch.Tensor, axis: int) -> torch.Tensor:
    """Average (N, C, H, W) along an axis with Gaussian weights, over the pixels that exist."""
    size = values.shape[axis]
    positions = torch.arange(size, device=values.device, dtype=values.dtype)
    sigma = SMOOTHING * math.sqrt(values.shape[2] * values.shape[3])
    weights = F.normalize(torch.exp(-0.5 * ((positions[:, None] - positions) / sigma) ** 2), p=1, dim=1)
    return weights @ values if axis == 2 else values @ weights.T
