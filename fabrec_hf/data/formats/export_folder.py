"""Folders that faces are exported to: refused early, and filled all at once."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets

from ...errors import DataError


__all__ = ["check_columns", "check_new", "unfinished_folder"]


def check_columns(dataset: datasets.Dataset, form: str) -> None:
    """Refuse faces without pictures or landmarks.

    Args:
        dataset: What is to be written.
        form: What is to be written from it, in words.

    Raises:
        DataError: A column is missing.
    """
    missing = [name for name in ("image", "landmarks") if name not in dataset.column_names]
    if missing:
        raise DataError(f"The faces have no column {', '.join(missing)} to write {form} from.")


def check_new(*places: Path) -> None:
    """Refuse places that are taken.

    Raises:
        DataError: There is something at one of them.
    """
    for place in places:
        if place.exists():
            raise DataError(f"{place} exists already; name a new folder.")


@contextmanager
def unfinished_folder(folder: Path) -> Iterator[Path]:
    """Make a folder, and yield a hidden one in it, of the same permissions, to fill and to move out of.

    What was not moved to its place is gone in the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        unfinished.chmod(folder.stat().st_mode)
        yield unfinished
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
