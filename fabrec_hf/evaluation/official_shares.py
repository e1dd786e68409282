"""A part of a published test set, weighted so that its difficult faces count as much as they do in the whole set."""

from collections.abc import Mapping
from typing import Any

import numpy as np


__all__ = ["WHOLE_SETS", "raking_weights", "weigh_part"]

# Faces of the whole test set, and of the groups that it is described by (Wu et al. 2018, "Look at Boundary", WFLW).
WHOLE_SETS: dict[str, tuple[int, dict[str, int]]] = {
    "wflw": (
        2500,
        {"pose": 326, "expression": 314, "illumination": 698, "make_up": 206, "occlusion": 736, "blur": 773},
    )
}


def raking_weights(groups: np.ndarray, shares: np.ndarray, rounds: int = 100) -> np.ndarray:
    """Weigh faces so that each group has its share (raking, iterative proportional fitting).

    Args:
        groups: (N, G) booleans: the groups that a face belongs to, any number of them.
        shares: (G,) share of each group in the whole set, between 0 and 1.
        rounds: How often all groups are brought to their shares, one after the other.

    Returns:
        (N,) weights whose sum is 1.

    Raises:
        ValueError: A group has no face, or every face.
    """
    if not groups.any(0).all() or groups.all(0).any():
        raise ValueError("Every group needs faces within and without.")
    weights = np.full(len(groups), 1 / len(groups))
    for _ in range(rounds):
        for member, share in zip(groups.T, shares, strict=True):
            weights[member] *= share / weights[member].sum()
            weights[~member] *= (1 - share) / weights[~member].sum()
    return weights


def weigh_part(errors: np.ndarray, masks: Mapping[str, np.ndarray], kind: str) -> dict[str, Any] | None:
    """Estimate the error on a whole test set from the part of it that there is.

    Args:
        errors: (N,) NME of each face in percent; NaN is left out.
        masks: (N,) booleans by the name of the group.
        kind: The published set, such as `"wflw"`.

    Returns:
        `nme`, weighted; `faces` it is of; `of` how many; `none`, the NME of the faces of no group, if there are any.
        None where the set is not known by its groups, or the whole of it is there.
    """
    whole, counts = WHOLE_SETS.get(kind, (0, {}))
    known = ~np.isnan(errors)
    if len(errors) >= whole or not counts.keys() <= masks.keys():
        return None
    groups = np.stack([masks[name][known] for name in counts], axis=1)
    try:
        weights = raking_weights(groups, np.array(list(counts.values())) / whole)
    except ValueError:
        return None
    none = ~groups.any(1)
    return {
        "nme": float(weights @ errors[known]),
        "faces": int(known.sum()),
        "of": whole,
        "none": float(errors[known][none].mean()) if none.any() else None,
    }
