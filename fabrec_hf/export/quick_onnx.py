"""Layers that ONNX Runtime computes slowly on a CPU, written with operators that it computes quickly.

Its `GridSample` and `PRelu` go number by number. Together they took 5 of 13 ms a face on one thread.
"""

from collections.abc import Sequence

import torch
from torch import nn

from ..model.local_refinement import PLACES, REACH


__all__ = ["SplitPReLU", "gather_around", "rewrite_for_onnx_runtime"]


class SplitPReLU(nn.Module):
    """A PReLU as the sum of a linear part and a ReLU.

    Args:
        activation: The PReLU, with one slope or one a channel.
    """

    def __init__(self, activation: nn.PReLU):
        super().__init__()
        self.slope: torch.Tensor
        self.rest: torch.Tensor
        slope = activation.weight.detach()[:, None, None]
        self.register_buffer("slope", slope)
        self.register_buffer("rest", 1 - slope)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map (N, C, H, W) to the same shape."""
        return self.slope * hidden_states + self.rest * torch.relu(hidden_states)


def gather_around(landmarks: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return what `look_around` returns, from whole rows of channels: (N, L, 2) and (N, C, S, S) to (N, L, D)."""
    around = landmarks.new_tensor(PLACES)
    seen = []
    for values in maps:
        count, channels, side, _ = values.shape
        places = landmarks[:, :, None] + around * (REACH / side)
        cells = (places * side - 0.5).clamp(0, side - 1).flatten(1, 2)  # (N, L * P, 2), centers at integers
        corner = cells.floor().clamp(max=side - 2)
        x, y = (cells - corner).split(1, dim=-1)
        corner = corner.long()
        starts = torch.arange(count, device=values.device)[:, None] * side**2
        first = starts + corner[..., 1] * side + corner[..., 0]
        rows = values.float().permute(0, 2, 3, 1).reshape(-1, channels)
        upper = rows[first] * (1 - x) + rows[first + 1] * x
        lower = rows[first + side] * (1 - x) + rows[first + side + 1] * x
        seen.append((upper * (1 - y) + lower * y).unflatten(1, (-1, len(PLACES))).flatten(2))
    return torch.cat(seen, dim=-1)


def rewrite_for_onnx_runtime(model: nn.Module, quantized: bool = False) -> None:
    """Change the layers of a fused twin in place; it finds the same landmarks as before, up to rounding.

    Args:
        model: The twin.
        quantized: Whether its network is going to have 8 bits: a PReLU then stays whole, as its parts would be rounded
            each by itself.
    """
    for module in list(model.modules()) if not quantized else ():
        for name, child in module.named_children():
            if isinstance(child, nn.PReLU):
                setattr(module, name, SplitPReLU(child))
    refinement = getattr(model, "local_refinement", None)
    if refinement is not None:
        refinement.look_around = gather_around
