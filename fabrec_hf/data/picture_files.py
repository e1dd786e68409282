"""Which files are pictures: the one table of suffixes, and the decoder of HEIC, which Pillow itself lacks."""

import functools
import importlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


__all__ = ["HEIC_SUFFIXES", "NEEDS_HEIC", "PICTURE_SUFFIXES", "heic_is_readable", "is_picture", "skipped_files"]

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
"""What phones call the pictures that an extra reads."""

PICTURE_SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm"),
    *(".tga", ".tif", ".tiff", ".webp"),
    *HEIC_SUFFIXES,
)
"""What a file is called that is taken for a picture, in lower case."""

NEEDS_HEIC = "reading HEIC pictures needs pillow-heif: pip install 'fabrec-hf[heic]'"
"""What to do where a HEIC picture cannot be read."""


def is_picture(path: str | os.PathLike) -> bool:
    """Whether a file is taken for a picture, by its suffix."""
    return os.fspath(path).lower().endswith(PICTURE_SUFFIXES)


@functools.cache
def heic_is_readable() -> bool:
    """Teach Pillow to read HEIC, for all of the process, and return whether that was possible."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return True


def is_heic(content: bytes) -> bool:
    """Whether a file begins as HEIC does, whatever it is called."""
    return content[4:8] == b"ftyp" and content[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")


def skipped_files(names: Iterable[str | os.PathLike]) -> str:
    """Say how many files of a folder are not read, by suffix, most frequent first: `3 .txt, 1 .raw`; "" for none.

    Hidden files are passed over in silence, as everywhere.
    """
    kinds = Counter(Path(name).suffix.lower() or "without a suffix" for name in names if Path(name).name[0] != ".")
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
