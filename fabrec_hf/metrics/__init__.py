"""Scores for landmark detectors: plain functions here, `evaluate` modules in the folders beside them.

`evaluate.load(str(module_path("nme")))` loads a module without a network; its folder's README.md is its card.
"""

from pathlib import Path

# Python sets a package's name on its parent when it first loads it. Loaded here, the folder of the `evaluate` module
# comes before the function of the same name, which then keeps the name whoever imports the module later.
from . import failure_rate as _failure_rate_module  # noqa: F401
from .landmark_errors import (
    area_under_curve,
    count_missing,
    cumulative_error_distribution,
    failure_rate,
    normalized_mean_error,
    normalizing_distance,
    part_errors,
    point_errors,
    summarize_errors,
)
from .normalizers import as_scheme, named_normalizer
from .sequence_jitter import (
    RunningAcceleration,
    accelerations,
    flicker,
    mean_acceleration,
    normalized_mean_flicker,
    summarize_jitter,
)


__all__ = [
    "RunningAcceleration",
    "accelerations",
    "area_under_curve",
    "as_scheme",
    "count_missing",
    "cumulative_error_distribution",
    "failure_rate",
    "flicker",
    "mean_acceleration",
    "module_path",
    "named_normalizer",
    "normalized_mean_error",
    "normalized_mean_flicker",
    "normalizing_distance",
    "part_errors",
    "point_errors",
    "summarize_errors",
    "summarize_jitter",
]


def module_path(name: str) -> Path:
    """Return the folder of an `evaluate` module, for `evaluate.load(str(...))`.

    Args:
        name: `"nme"`, `"failure_rate"`, `"auc"`, `"ced"`, `"jitter"` or `"face_landmarks"`.

    Raises:
        ValueError: If there is no such module.
    """
    folder = Path(__file__).parent
    names = sorted(path.stem for path in folder.glob("*/*.py") if path.stem == path.parent.name)
    if name not in names:
        raise ValueError(f"No evaluate module is called {name!r}; there are {', '.join(names)}.")
    return folder / name
