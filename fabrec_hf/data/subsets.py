"""The parts of published test sets that results are reported on: 300-W, WFLW and AFLW (paper tables 1 to 6)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np


if TYPE_CHECKING:
    import datasets


__all__ = ["SUBSETS", "Subset", "subset_masks"]


@dataclass(frozen=True)
class Subset:
    """The rows of a split whose column has one of some values.

    Attributes:
        split: The split that the rows are from.
        column: The column that decides.
        values: The values that belong to the subset; none: every element of the column must be true.
    """

    split: str
    column: str
    values: tuple[Any, ...] = ()

    def contains(self, row: Mapping[str, Any]) -> bool:
        """Say whether a row of the split belongs to the subset."""
        value = row[self.column]
        if self.values:
            return value in self.values
        return value is not None and bool(np.all(value))


def _attributes(*names: str) -> dict[str, Subset]:
    return {name: Subset("test", name, (1, True)) for name in names}


# By the kind of data, which for these sets is also the name of its landmark scheme; the full test set first.
SUBSETS: dict[str, dict[str, Subset]] = {
    "300w": {
        "full": Subset("test", "subset", ("helen_test", "lfpw_test", "ibug")),
        "common": Subset("test", "subset", ("helen_test", "lfpw_test")),
        "challenging": Subset("test", "subset", ("ibug",)),
        "indoor": Subset("private", "subset", ("indoor",)),
        "outdoor": Subset("private", "subset", ("outdoor",)),
    },
    "wflw": _attributes("pose", "expression", "illumination", "make_up", "occlusion", "blur"),
    "aflw": {"frontal": Subset("test", "visibility")},
}


def subset_masks(dataset: "datasets.Dataset", kind: str) -> dict[str, np.ndarray]:
    """Find the known subsets in a data set, whichever split it is.

    Args:
        dataset: Rows with the columns that decide.
        kind: A published set, such as `"300w"`.

    Returns:
        For every subset of which there is at least one row, (N,) booleans. Subsets whose column the data lacks are
        left out, and so is `full` where a part of it is missing.
    """
    known = {name: subset for name, subset in SUBSETS.get(kind, {}).items() if subset.column in dataset.column_names}
    if not known:
        return {}
    columns = dataset.select_columns(sorted({subset.column for subset in known.values()}))
    rows = list(columns)
    masks = {name: np.array([subset.contains(row) for row in rows]) for name, subset in known.items()}
    if "full" in masks:  # the pack of one part is not the full set
        present = {row[known["full"].column] for row in rows}
        if not present.issuperset(known["full"].values):
            del masks["full"]
    return {name: mask for name, mask in masks.items() if mask.any()}
