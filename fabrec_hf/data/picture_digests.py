"""Pictures told apart by their files: whether a detector is scored on those that it has learned from."""

import json
import os
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError
from .face_table import encoded_images
from .splits import picture_content


if TYPE_CHECKING:
    import datasets


__all__ = ["LEARNED_NAME", "count_learned", "learned_pictures", "picture_digests"]

LEARNED_NAME = "learned_pictures.json"
"""The file beside a fitted detector that lists the digests of the pictures that it has learned from."""


def picture_digests(dataset: "datasets.Dataset") -> list[str]:
    """Return a hash of every row's `image`, as it is stored.

    Raises:
        DataError: If a picture is a path that cannot be read.
    """
    rows = encoded_images(dataset.select_columns(["image"]))
    try:
        return [blake2b(picture_content(row["image"]), digest_size=8).hexdigest() for row in rows]
    except OSError as error:
        raise DataError(f"A picture cannot be read: {error}.") from error


def learned_pictures(digests: Iterable[str]) -> bytes:
    """Return the content of `LEARNED_NAME`."""
    return (json.dumps({"digest": "blake2b-8", "pictures": sorted(set(digests))}) + "\n").encode()


def count_learned(model: str | os.PathLike, dataset: "datasets.Dataset") -> int:
    """Count the faces whose picture a fitted detector has learned from; 0 where it does not say.

    Args:
        model: The folder of the detector, or a name, which says nothing.
        dataset: Faces with `image`.
    """
    file = Path(model) / LEARNED_NAME
    if not file.is_file():
        return 0
    try:
        known = set(json.loads(file.read_text())["pictures"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0  # a remark is not worth an error
    return sum(digest in known for digest in picture_digests(dataset))
