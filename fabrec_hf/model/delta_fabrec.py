"""A landmark detector kept as its small difference from the autoencoder that it was taught on.

The generator of a detector is that of its autoencoder, and fine-tuning moves each convolution of the encoder within a
few directions: about two megabytes hold what a small model learned, its transfer layers and head included. In the
file, a convolution's change is the product of two thin matrices (Hu et al. 2022, "LoRA", there as a way to train);
what is not part of the autoencoder is kept as it is.
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from .embedded_fabrec import embedded_or_given


DELTA_NAME = "delta.safetensors"
"""Stands in a checkpoint's folder in the place of `model.safetensors`."""

# These go first in `from_pretrained`.
WHOLE_NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

# What the names of the two thin matrices end in; their product is the change of the weight of that name.
COLUMNS, ROWS = ".delta_columns", ".delta_rows"
PREFIX = "autoencoder."

Weights = Mapping[str, torch.Tensor]


def make_delta(weights: Weights, autoencoder: Weights, rank: int) -> dict[str, torch.Tensor]:
    """Return what a detector has learned beyond an autoencoder, in 16 bits.

    Args:
        weights: The detector's, with the autoencoder's under `autoencoder.`.
        autoencoder: Those of the autoencoder that it was taught on.
        rank: The most directions that are kept of the change of a convolution: those with the largest singular values.

    Raises:
        ValueError: The detector's generator is another one, so that it was taught on another autoencoder; or a value
            does not fit into 16 bits.
    """
    for name, value in weights.items():
        if not torch.isfinite(value.half() if value.is_floating_point() else value).all():
            raise ValueError(f"{name} does not fit into 16 bits.")
    delta: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        before = autoencoder.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
        if before is None:
            delta[name] = value
        elif before.shape != value.shape:
            raise ValueError(f"it was taught on another autoencoder: {name} has another shape.")
        elif not torch.equal(before.half(), value.half()):  # perhaps taught before its autoencoder was rounded
            if name.startswith(f"{PREFIX}decoder."):
                raise ValueError(f"it was taught on another autoencoder: {name} differs.")
            change = value.float() - before.float()
            delta |= _thin_matrices(name, change.flatten(1), rank) if value.ndim == 4 else {name: value}
    halved = {name: value.half() if value.is_floating_point() else value for name, value in delta.items()}
    return {name: value.contiguous() for name, value in halved.items()}


def apply_delta(delta: Weights, autoencoder: Weights) -> dict[str, torch.Tensor]:
    """Return the weights of the detector that `make_delta` was given, up to what the rank left out, in 32 bits.

    Raises:
        ValueError: The two do not fit together.
    """
    weights = {PREFIX + name: value.clone() for name, value in autoencoder.items()}
    for name, value in delta.items():
        if name.endswith(COLUMNS):
            target = name.removesuffix(COLUMNS)
            rows, before = delta.get(target + ROWS), weights.get(target)
            if before is None or rows is None or not _fit(value, rows, before):
                raise ValueError(f"its {name} does not fit the autoencoder.")
            weights[target] = before.float() + (value.float() @ rows.float()).view_as(before)
        elif name.endswith(ROWS):
            if name.removesuffix(ROWS) + COLUMNS not in delta:
                raise ValueError(f"its {name} lacks its other half.")
        elif name.startswith(PREFIX) and (name not in weights or weights[name].shape != value.shape):
            raise ValueError(f"its {name} does not fit the autoencoder.")
        else:
            weights[name] = value.float() if value.is_floating_point() else value
    return weights


def _fit(columns: torch.Tensor, rows: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether two thin matrices have a product of a convolution's shape, told before memory is taken for it."""
    if columns.ndim != 2 or rows.ndim != 2 or before.ndim != 4 or not 0 < columns.shape[1] == rows.shape[0]:
        return False
    return columns.shape[0] == before.shape[0] and rows.shape[1] == before[0].numel()


def delta_bytes(delta: Weights, name: str, autoencoder: Weights) -> bytes:
    """Return the content of a file that holds a delta.

    Args:
        delta: From `make_delta`.
        name: What to load the autoencoder by: embedded name, folder or repository.
        autoencoder: Its weights, which are told from others by their sum.
    """
    metadata = {"format": "pt", "autoencoder": name, "autoencoder_sha256": weights_sum(autoencoder)}
    return save(dict(delta), metadata)


def holds_delta(folder: str | Path) -> bool:
    """Whether a folder holds a delta and no whole weights, which would go first."""
    return (Path(folder) / DELTA_NAME).is_file() and not any((Path(folder) / name).is_file() for name in WHOLE_NAMES)


def delta_base(folder: str | Path) -> str | None:
    """Return the name of the checkpoint that a delta adds to; None if a folder holds no delta that says so."""
    if not holds_delta(folder):
        return None
    try:
        with safe_open(Path(folder) / DELTA_NAME, "pt") as content:
            return (content.metadata() or {}).get("autoencoder")
    except (OSError, SafetensorError):
        return None


def whole_weights(
    folder: Any, load_autoencoder: Callable[[str], Weights], subfolder: str | None = None
) -> dict[str, torch.Tensor] | None:
    """Put together the weights of a detector that is kept as a delta.

    Args:
        folder: Its path. Of anything else that `from_pretrained` takes there are no deltas.
        load_autoencoder: Gives the weights of the autoencoder of a name.
        subfolder: Where in the folder the checkpoint is.

    Returns:
        Weights by name, in 32 bits; None if this is no folder with a delta, or one that holds whole weights, too.

    Raises:
        ValueError: The delta is for other weights than those of that name, or does not say for which.
        SafetensorError: The file is damaged.
    """
    if not folder or not holds_delta(Path(folder, subfolder or "")):
        return None
    with safe_open(Path(folder, subfolder or "", DELTA_NAME), "pt") as content:
        about = content.metadata() or {}
        delta = {name: content.get_tensor(name) for name in content.keys()}
    if not {"autoencoder", "autoencoder_sha256"} <= about.keys():
        raise ValueError(f"its {DELTA_NAME} does not say which autoencoder it is for.")
    name = about["autoencoder"]
    source = embedded_or_given(name)
    if holds_delta(source):  # perhaps even itself
        raise ValueError(f"its {DELTA_NAME} is for {name}, which is one, too.")
    if Path(name).is_absolute() and not Path(name).is_dir():
        raise ValueError(f"its {DELTA_NAME} is for the autoencoder in {name}, which is not there any more.")
    autoencoder = load_autoencoder(source)
    if weights_sum(autoencoder) != about["autoencoder_sha256"]:
        raise ValueError(f"it was taught on another autoencoder than {name} is now: teach it again.")
    return apply_delta(delta, autoencoder)


def weights_sum(weights: Weights) -> str:
    """Return the SHA-256 of weights in 16 bits, which is how the embedded ones are kept."""
    total = hashlib.sha256()
    for name, value in sorted(weights.items()):
        if value.is_floating_point():
            total.update(name.encode() + value.detach().half().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _thin_matrices(name: str, change: torch.Tensor, rank: int) -> dict[str, torch.Tensor]:
    """Factor a matrix so that both factors have entries of like size, which 16 bits hold best."""
    left, strength, right = torch.linalg.svd(change, full_matrices=False)
    root = strength[:rank].sqrt()
    return {name + COLUMNS: left[:, :rank] * root, name + ROWS: root[:, None] * right[:rank]}


__all__ = ["DELTA_NAME", "apply_delta", "delta_bytes", "holds_delta", "make_delta", "weights_sum", "whole_weights"]
