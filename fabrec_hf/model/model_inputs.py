"""What the models refuse, in words."""

import torch

from .configuration_fabrec import FabRecConfig


def check_inputs(config: FabRecConfig, pixel_values: torch.Tensor, labels: torch.Tensor | None = None) -> None:
    """Raise `ValueError` if crops (N, 3, S, S) or labels (N, L or L + A, 2) do not fit a configuration."""
    size, count = config.image_size, config.num_landmarks
    if pixel_values.ndim != 4 or tuple(pixel_values.shape[1:]) != (3, size, size):
        raise ValueError(
            f"pixel_values must be (N, 3, {size}, {size}), got {tuple(pixel_values.shape)}; "
            "prepare them with the checkpoint's image processor."
        )
    counts = {count, count + config.num_anchors}
    if labels is not None and tuple(labels.shape) not in {(len(pixel_values), points, 2) for points in counts}:
        raise ValueError(f"labels must be ({len(pixel_values)}, {count}, 2), got {tuple(labels.shape)}.")


__all__ = ["check_inputs"]
