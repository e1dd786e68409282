"""The checkpoints that come with the package, found by their names without a network.

A model file, as `from_pretrained` asks it: the copy beside a checkpoint, where the package is not installed, finds no
weights and leaves every name as it is.
"""

import os
from pathlib import Path
from typing import Any


WEIGHTS = Path(__file__).parents[1] / "weights"


def embedded_names() -> list[str]:
    """Return the names of the checkpoints that come with the package, in alphabetical order."""
    return sorted(config.parent.name for config in WEIGHTS.glob("*/config.json"))


def embedded_or_given(name_or_path: Any, /, **where: Any) -> Any:
    """Put the folder of an embedded checkpoint in the place of its name.

    Args:
        name_or_path: What `from_pretrained` was given.
        **where: `revision`, `cache_dir` and `subfolder` as it was given them; others are ignored. Who names one of
            these means a repository.

    Returns:
        The folder as a string, if this is the name of an embedded checkpoint and no file or folder here has that name;
        otherwise `name_or_path`.
    """
    if any(where.get(option) for option in ("revision", "cache_dir", "subfolder")):
        return name_or_path
    if name_or_path not in embedded_names() or os.path.exists(name_or_path):
        return name_or_path
    return str(WEIGHTS / name_or_path)


__all__ = ["WEIGHTS", "embedded_names", "embedded_or_given"]
