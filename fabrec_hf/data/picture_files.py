"""Which files are pictures, and how they are opened: the one table of suffixes, HEIC, and how large they may be."""

import functools
import importlib
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


__all__ = [
    "HEIC_SUFFIXES",
    "MEGAPIXELS",
    "NEEDS_HEIC",
    "PICTURE_SUFFIXES",
    "TOO_LARGE",
    "VIDEO_SUFFIXES",
    "heic_is_readable",
    "is_picture",
    "pictures_note",
    "skipped_files",
]

MEGAPIXELS = 300
"""What a picture may have at most. A telephone takes 200; Pillow itself warns from 89 and refuses from 179."""

TOO_LARGE = f"it has more than {MEGAPIXELS} megapixels; make it smaller first"

# Pillow warns from a limit on, in the words of a program, and refuses from twice the limit on.
Image.MAX_IMAGE_PIXELS = MEGAPIXELS * 1_000_000 // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

HEIC_SUFFIXES = (".heic", ".heif", ".hif")
"""What phones call the pictures that an extra reads."""

PICTURE_SUFFIXES = (
    *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm"),
    *(".tga", ".tif", ".tiff", ".webp"),
    *HEIC_SUFFIXES,
)
"""What a file is called that is taken for a picture, in lower case."""

VIDEO_SUFFIXES = (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".webm", ".wmv")
"""What a file is called that is taken for a video, in lower case."""

_ONE = ("MPO", "HEIF")

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


def pictures_note(image: Image.Image) -> str:
    """Say which picture is taken of a file that holds several: an animation, or the pages of a TIFF; "" for others.

    What a camera puts beside the photograph itself (MPO, HEIC) is no other picture.
    """
    count = getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1
    return f"it holds {count} pictures, of which the first is taken." if count > 1 and image.format not in _ONE else ""


def skipped_files(names: Iterable[str | os.PathLike]) -> str:
    """Say how many files of a folder are not read, by suffix, most frequent first: `3 .txt, 1 .raw`; "" for none.

    Hidden files are passed over in silence, as everywhere.
    """
    kinds = Counter(Path(name).suffix.lower() or "without a suffix" for name in names if Path(name).name[0] != ".")
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
