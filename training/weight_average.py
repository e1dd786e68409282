"""The moving average of a network's weights that pre-training measures, draws and saves."""

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


__all__ = ["WeightAverage"]

Tensors = tuple[torch.Tensor, ...] | list[torch.Tensor]


class WeightAverage(AveragedModel):
    """Exponential moving average of weights and BatchNorm statistics.

    The n-th average keeps min(decay, (1 + n) / (10 + n)) of the one before, so that what the network was at first is
    soon forgotten.

    Args:
        model: The network.
        decay: Share of the average that stays in a step, once there have been many.
    """

    def __init__(self, model: torch.nn.Module, decay: float):
        self.decay = decay
        super().__init__(model, multi_avg_fn=self._update, use_buffers=True)

    def restart(self) -> None:
        """Forget everything: the next update takes the weights as they are."""
        self.n_averaged.zero_()

    def _update(self, averages: Tensors, weights: Tensors, count: torch.Tensor | int) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(self.decay, (1 + n) / (10 + n)))(averages, weights, count)
