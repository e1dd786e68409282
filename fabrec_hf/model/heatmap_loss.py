"""The loss of the heatmaps (paper equation 5)."""

import torch


__all__ = ["heatmap_loss"]


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
