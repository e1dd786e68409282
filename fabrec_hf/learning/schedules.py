"""What a step of training draws and how fast it learns: functions of its number, so that any run can be resumed."""

import math

import torch


__all__ = ["batch_indices", "cosine_factor", "seed_step"]


def seed_step(seed: int, step: int, process_index: int = 0) -> None:
    """Seed torch for one step, so that a resumed run draws what an unbroken one would have drawn."""
    torch.manual_seed((seed * 1_000_003 + process_index) * 1_000_003 + step)


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> torch.Tensor:
    """Rows of step `step` (from 0): shuffled passes over `count` rows, joined without gaps; (batch_size,)."""
    first = step * batch_size
    rows: list[torch.Tensor] = []
    while (missing := batch_size - sum(map(len, rows))) > 0:
        epoch, position = divmod(first + batch_size - missing, count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        rows.append(order[position : position + missing])
    return torch.cat(rows)


def cosine_factor(step: int, max_steps: int, warmup_steps: int, floor: float = 0.01) -> float:
    """Learning rate of a step over the peak rate: linear warm-up, then half a cosine down to `floor`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
