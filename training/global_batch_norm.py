"""BatchNorm over the batch of all processes, on any device.

`torch.nn.SyncBatchNorm` does the same on GPUs only. With it, a run that several processes share is the run that one
process would have made, which a test shows on two CPU processes.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.nn.functional import all_reduce


__all__ = ["GlobalBatchNorm2d", "share_batch_norm"]


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose mean and variance are those of all processes, which hold equally many samples."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Normalize (N, C, H, W)."""
        if not self.training:
            return super().forward(inputs)
        world_size = torch.distributed.get_world_size()
        mean = all_reduce(inputs.mean(dim=(0, 2, 3))) / world_size
        centered = inputs - mean[:, None, None]
        variance = all_reduce(centered.square().mean(dim=(0, 2, 3))) / world_size
        self._track(mean.detach(), variance.detach(), inputs[:, 0].numel() * world_size)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centered * scale[:, None, None] + self.bias[:, None, None]

    def _track(self, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
        """Update the running statistics as BatchNorm2d does, with the unbiased variance."""
        buffers: Any = self
        with torch.no_grad():
            buffers.num_batches_tracked.add_(1)
            buffers.running_mean.lerp_(mean, self.momentum)
            buffers.running_var.lerp_(variance * (count / max(1, count - 1)), self.momentum)


def share_batch_norm(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every BatchNorm2d of a module by one over all processes; parameters and buffers stay the same objects.

    Args:
        module: The module, changed in place.
        device: Where it is going to train.
    """
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = GlobalBatchNorm2d(child.num_features, child.eps, child.momentum)
                for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                    setattr(shared, key, getattr(child, key))
                setattr(parent, name, shared)
    return module
