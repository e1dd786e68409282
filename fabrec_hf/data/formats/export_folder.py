"""Folders that faces are exported to: refused early, and filled all at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import datasets

from ...common.drafts import Drafts
from ...errors import DataError


__all__ = ["check_columns", "new_split"]


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


@contextmanager
def new_split(folder: Path, *names: str) -> Iterator[Drafts]:
    """Yield where to write the parts of a split, which take their places in the end, and do not after an error.

    Args:
        folder: The folder of all splits; it is made if it is not there.
        names: The parts, files and folders.

    Raises:
        DataError: There is something of one of the names.
    """
    for name in names:
        if (folder / name).exists():
            raise DataError(f"{folder / name} exists already; name a new folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with Drafts(folder, *names) as drafts:
        yield drafts
