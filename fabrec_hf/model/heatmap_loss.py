"""The losses of a detector: of its heatmaps (paper equation 5), and of the points that it reads out."""

import torch


__all__ = ["heatmap_loss", "readout_loss"]

# Makes an error of a heatmap pixel count about as much in both losses.
READOUT_WEIGHT = 2.0


def heatmap_loss(
    predictions: torch.Tensor, targets: torch.Tensor, annotated: torch.Tensor, foreground_weight: float = 0.0
) -> torch.Tensor:
    """Mean-squared heatmap error times 300, the reference's form of the paper's equation 5.

    Args:
        predictions: (N, L, H, W).
        targets: (N, L, H, W) in [0, 1].
        annotated: (N, L), False for points without annotation: they count neither in the sum nor in the mean.
        foreground_weight: A pixel of target value t counts `1 + foreground_weight * t`.

    Returns:
        Scalar; 0 when nothing is annotated.
    """
    per_map = _WeightedSquares.apply(predictions, targets, foreground_weight)
    return 300 * torch.where(annotated, per_map, 0).sum() / annotated.sum().clamp(min=1)


def readout_loss(readout: torch.Tensor, labels: torch.Tensor, heatmap_size: int) -> torch.Tensor:
    """Mean distance along x and y between points and labels, in heatmap pixels, times `READOUT_WEIGHT`.

    Not in the paper. Absolute errors, as a teacher's labels have some that are far off.

    Args:
        readout: (N, L, 2) as fractions of the crop.
        labels: (N, L, 2) likewise, NaN where not annotated.
        heatmap_size: Side of the heatmaps in pixels.

    Returns:
        Scalar; 0 when nothing is annotated.
    """
    annotated = labels.isfinite().all(dim=-1)
    distances = (readout - labels.nan_to_num()).abs().mean(dim=-1)
    mean = torch.where(annotated, distances, 0).sum() / annotated.sum().clamp(min=1)
    return READOUT_WEIGHT * heatmap_size * mean


class _WeightedSquares(torch.autograd.Function):
    """Mean of w * (p - t)**2 over each heatmap, w = 1 + foreground_weight * t; (N, L).

    Heatmaps are the largest tensors of a step, and on a CPU every pass over them counts: autograd would make and keep
    one for each operation, here forward and backward share the product w * (p - t).
    """

    @staticmethod
    def forward(ctx, predictions: torch.Tensor, targets: torch.Tensor, foreground_weight: float) -> torch.Tensor:
        residual = predictions - targets
        weighted = torch.addcmul(residual, residual, targets, value=foreground_weight)
        ctx.save_for_backward(weighted)
        return residual.mul_(weighted).mean(dim=(-2, -1))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor):
        (weighted,) = ctx.saved_tensors
        pixels = weighted.shape[-2] * weighted.shape[-1]
        return weighted * (gradient * (2 / pixels))[..., None, None], None, None
