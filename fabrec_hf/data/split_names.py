"""What the parts of a set of faces are called."""

import re

from ..errors import DataError


__all__ = ["SPLITS", "canonical_split"]

SPLITS = {name: name for name in ("train", "test", "validation", "private")} | dict.fromkeys(
    ("valid", "val", "dev"), "validation"
)
"""The names that speak of a split, and what it is called here."""


def canonical_split(name: str, where: str) -> str:
    """Return the name of a split as it is used here, `validation` for `val`.

    Args:
        name: What somebody calls it.
        where: What an error begins with.

    Raises:
        DataError: If a split cannot be called so.
    """
    if not re.fullmatch(r"\w+(\.\w+)*", name):
        raise DataError(f"{where}: a split is called by letters, digits, _ and dots, not {name!r}.")
    return SPLITS.get(name.lower(), name)
