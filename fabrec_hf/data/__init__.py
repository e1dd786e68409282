"""Face data as `datasets.Dataset`: Parquet readers and the ways to split what they read."""

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from .parquet import load_faces
    from .splits import first_shots, held_out_faces, random_shots, validation_split

__all__ = ["first_shots", "held_out_faces", "load_faces", "random_shots", "validation_split"]


def __getattr__(name: str) -> Any:
    """Load a function when it is first used: what kinds of data there are can be listed without `datasets`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = "parquet" if name == "load_faces" else "splits"
    return getattr(importlib.import_module(f".{place}", __name__), name)
