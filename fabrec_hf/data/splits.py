"""Deterministic ways to split a data set of faces: every one gives the same rows on every machine.

Membership is decided by hashes (BLAKE2b) and NumPy generators with a seed, never by Python's own `hash`, which
differs from process to process.
"""

from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DataError
from .face_table import encoded_images


if TYPE_CHECKING:
    import datasets


__all__ = [
    "first_shots",
    "held_out_faces",
    "is_held_out",
    "picture_content",
    "random_rows",
    "random_shots",
    "validation_split",
]


def _position(key: bytes) -> int:
    """Hash a key to an integer that is uniform in [0, 2**64)."""
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "big")


def _check_fraction(fraction: float) -> None:
    if not 0 < fraction < 1:
        raise ValueError(f"The fraction must lie between 0 and 1, not {fraction}.")


def validation_split(
    dataset: "datasets.Dataset", fraction: float = 0.1, seed: int = 0
) -> "tuple[datasets.Dataset, datasets.Dataset]":
    """Carve a validation set out of a training set, by photograph.

    All faces of one photograph go to the same side (column `picture`, or `name` where there is none): a face beside
    one that was trained on, in the same light and resolution, would make the validation too kind.

    Args:
        dataset: The training set.
        fraction: Share of the photographs to validate on, in (0, 1); at least one photograph is taken.
        seed: Which of the possible splits.

    Returns:
        The rows to train on and the rows to validate on, both in the order of `dataset`.

    Raises:
        DataError: If the data set has neither column, or fewer than two photographs.
    """
    _check_fraction(fraction)
    column = next((name for name in ("picture", "name") if name in dataset.column_names), None)
    if column is None:
        raise DataError("A validation split needs a column picture or name, so that no photograph is on both sides.")
    pictures = np.array(list(dataset[column]), dtype=object)
    distinct = sorted(set(pictures), key=lambda picture: _position(f"{seed}/{picture}".encode()))
    if len(distinct) < 2:
        raise DataError("A validation split needs faces from at least two pictures.")
    count = min(max(1, round(fraction * len(distinct))), len(distinct) - 1)
    chosen = set(distinct[:count])
    mask = np.array([picture in chosen for picture in pictures])
    return dataset.select(np.flatnonzero(~mask)), dataset.select(np.flatnonzero(mask))


def held_out_faces(dataset: "datasets.Dataset", fraction: float = 0.02) -> "tuple[datasets.Dataset, datasets.Dataset]":
    """Set faces aside that no pre-training ever sees, to measure reconstructions on.

    A face's side depends on nothing but its encoded picture: not on the shard it stands in, nor on what other data is
    loaded with it, and copies of one picture are on one side. (Names would not do: in published sets they repeat.)

    Args:
        dataset: Faces with an `image` column.
        fraction: Share of the faces to set aside, in (0, 1). A larger share contains every smaller one.

    Returns:
        The rows to train on and the rows held out, both in the order of `dataset`.

    Raises:
        DataError: If there is no `image` column.
    """
    _check_fraction(fraction)
    if "image" not in dataset.column_names:
        raise DataError("Faces can only be held out of a data set with a column image.")
    encoded = encoded_images(dataset.select_columns("image"))
    held_out = np.fromiter((is_held_out(row["image"], fraction) for row in encoded), dtype=bool)
    return dataset.select(np.flatnonzero(~held_out)), dataset.select(np.flatnonzero(held_out))


def is_held_out(image: dict, fraction: float = 0.02) -> bool:
    """Say whether `held_out_faces` sets a face aside.

    Args:
        image: The face's picture, encoded: `{"bytes": ..., "path": ...}`.
        fraction: The share of faces that is set aside.
    """
    return _position(picture_content(image)) >= int((1 - fraction) * 2**64)


def picture_content(image: dict) -> bytes:
    """Return the encoded picture of what `datasets` stores, `{"bytes": ..., "path": ...}`.

    Raises:
        OSError: If it is a path that cannot be read.
    """
    if image["bytes"] is not None:
        return image["bytes"]
    with open(image["path"], "rb") as file:
        return file.read()


def first_shots(dataset: "datasets.Dataset", count: int) -> "datasets.Dataset":
    """Return the first rows: the few-shot protocol of the paper, whose training sets are in the authors' order.

    Args:
        dataset: The training set.
        count: Number of faces, from 1 to the size of the data set.

    Raises:
        DataError: If the data set has fewer faces.
    """
    return dataset.select(range(_check_count(len(dataset), count)))


def random_shots(dataset: "datasets.Dataset", count: int, seed: int) -> "datasets.Dataset":
    """Return randomly drawn rows, none twice, in the order in which they were drawn.

    With one seed, a smaller draw is the beginning of a larger one.

    Args:
        dataset: The training set.
        count: Number of faces, from 1 to the size of the data set.
        seed: Which draw.

    Raises:
        DataError: If the data set has fewer faces.
    """
    return dataset.select(random_rows(len(dataset), count, seed))


def random_rows(total: int, count: int, seed: int) -> np.ndarray:
    """Draw the rows, integers (count,), that `random_shots` takes of `total` faces.

    Raises:
        DataError: If there are fewer faces.
    """
    _check_count(total, count)
    return np.random.default_rng(seed).permutation(total)[:count]


def _check_count(total: int, count: int) -> int:
    if not 1 <= count <= total:
        raise DataError(f"{count} faces were asked for, but the data set has {total}.")
    return count
