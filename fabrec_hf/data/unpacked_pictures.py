"""Pictures of a Parquet or Hub data set as files, for what works on files."""

import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from ..errors import DataError
from .face_table import encoded_images
from .parquet import load_faces


__all__ = ["unpack_pictures"]


def unpack_pictures(
    name: str, folder: Path, split: str | None = None, columns: Mapping[str, str] | None = None
) -> dict[Path, str]:
    """Write the pictures of a data set into a folder, as they are stored.

    Args:
        name: Of the data set, see `readers.holds_rows`.
        folder: Where to write, a folder that is there.
        split: Which one; `"train"` where there are several.
        columns: What the column `image` is called, if otherwise.

    Returns:
        For each file what it is called: `faces.parquet#12` for the thirteenth row.

    Raises:
        DataError: The data set cannot be read, or a row has no picture.
    """
    rows = encoded_images(load_faces(name, split, ("image",), default_split="train", names=columns))
    called, stem = {}, Path(name).stem
    for row in range(len(rows)):
        image = rows[row]["image"] or {}
        try:
            content = image.get("bytes") or Path(image["path"]).read_bytes()
            with Image.open(io.BytesIO(content)) as picture:
                suffix = (picture.format or "png").lower()
        except (OSError, KeyError, TypeError) as error:
            raise DataError(f"{name}: row {row} has no picture that can be read.") from error
        file = folder / f"{stem}-{row:05}.{suffix}"
        file.write_bytes(content)
        called[file] = f"{name}#{row}"
    return called
