"""The files that hold a checkpoint's weights: one, or shards in 16 bits with an index."""

import json
import re
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ..common.choices import FORMATS
from ..errors import CheckpointError


__all__ = [
    "INDEX_NAME",
    "SHARD_NAME",
    "WEIGHTS_NAME",
    "check_shard_size",
    "graph_format",
    "is_export",
    "save_shards",
    "shard_names",
    "weight_files",
]

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
SHARD_NAME = re.compile(r"model-\d{5}-of-\d{5}\.safetensors", re.ASCII)


def graph_format(folder: str | Path) -> str | None:
    """Return the format of the graph for another runtime that a folder holds; None if it holds none."""
    return next((name for name, files in FORMATS.items() if (Path(folder) / files[0]).is_file()), None)


def is_export(folder: str | Path) -> bool:
    """Whether a folder holds a graph that `fabrec export` wrote, and no weights of a checkpoint beside it."""
    return graph_format(folder) is not None and not any(Path(folder).glob("*.safetensors"))


def weight_files(folder: str | Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, as `from_pretrained` would read them.

    Args:
        folder: Of the checkpoint.

    Returns:
        `model.safetensors`, or else the shards that the index names, in order; nothing if there is neither.

    Raises:
        CheckpointError: The index cannot be read, or a shard that it names is not there.
    """
    folder = Path(folder)
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    index = folder / INDEX_NAME
    if not index.is_file():
        return []
    try:
        names = shard_names(index.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{index} cannot be read: {error.strerror}.") from error
    except CheckpointError as error:
        raise CheckpointError(f"{index} {error}") from error
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks {missing[0]}, which its {INDEX_NAME} names: copy all shards.")
    return [folder / name for name in names]


def shard_names(index: bytes) -> list[str]:
    """Return the names of the shards that the content of an index lists, in order.

    Raises:
        CheckpointError: It is no index, or lists something else; the message goes on after the name of the file.
    """
    try:
        names = sorted(set(json.loads(index)["weight_map"].values()))
        strange = [name for name in names if not SHARD_NAME.fullmatch(name)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError("is no index of shards: copy it again from where it was saved.") from error
    if strange or not names:
        raise CheckpointError(f"names {strange[0] if strange else 'no file'}, which is no shard of weights.")
    return names


def check_shard_size(size: str | None) -> None:
    """Refuse what is no size of a shard.

    Raises:
        ValueError: It is not a number with a unit.
    """
    if size is not None and not (re.fullmatch(r"\d+(\.\d+)?[KMG]B", size, re.ASCII) and float(size[:-2]) > 0):
        raise ValueError(f"the shard size is a number with KB, MB or GB such as 14MB, got {size!r}.")


def save_shards(model: PreTrainedModel, folder: str | Path, size: str) -> None:
    """Save a model in 16 bits, in files of at most a size; `from_pretrained` computes in 32 bits as before.

    Weights are kept as float16, or as bfloat16 where they exceed what that holds. Where all fit into one file there is
    no index.

    Args:
        model: The model, float32; it stays as it is.
        folder: Where to, as for `save_pretrained`.
        size: Of a shard, such as `"14MB"`; a single weight that is larger gets a file of its own.

    Raises:
        ValueError: The size is none.
    """
    check_shard_size(size)
    model.save_pretrained(
        folder, state_dict={name: _halved(value) for name, value in model.state_dict().items()}, max_shard_size=size
    )


def _halved(value: torch.Tensor) -> torch.Tensor:
    if not value.is_floating_point():
        return value
    half = value.half()
    return half if half.isfinite().all() else value.bfloat16()
