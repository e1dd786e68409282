"""The pictures and videos that a command is given: found, named, opened; and boxes written on a command line.

Nothing here loads PyTorch before a picture is opened, so that a file that is not there is named at once.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError

from ..data.picture_files import (
    MEGAPIXELS,
    NEEDS_HEIC,
    PICTURE_SUFFIXES,
    TOO_LARGE,
    VIDEO_SUFFIXES,
    heic_is_readable,
    pictures_note,
    skipped_files,
)
from ..errors import BoxError, ImageError


if TYPE_CHECKING:
    from ..model.image_inputs import Picture


__all__ = [
    "check_inside",
    "collect_inputs",
    "copy_names",
    "load_picture",
    "distinct_names",
    "is_video",
    "open_picture",
    "parse_boxes",
    "open_noted_picture",
]

# Ends the stem of what `fabrec detect` draws.
OVERLAY_MARK = ".landmarks"


def is_video(path: Path) -> bool:
    """Whether a file is read as a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def collect_inputs(inputs: Iterable[str], remark: Callable[[str], None] | None = None) -> list[Path]:
    """List the pictures and videos that files and folders stand for, each once, folders in alphabetical order.

    Args:
        inputs: Files and folders.
        remark: Gets a sentence for every folder in which there is something that is not read.

    Raises:
        ImageError: If a file or folder is missing, or a folder holds neither.
    """
    paths: dict[Path, Path] = {}
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            found, left_out = _list_folder(path)
            if not found:
                known = ", ".join(sorted({*PICTURE_SUFFIXES, *VIDEO_SUFFIXES}))
                raise ImageError(f"{path}: no picture or video in this folder; it looks for {known}{left_out}.")
            if left_out and remark:
                remark(f"{path}{left_out}.")
        elif str(name).lower().startswith(("http://", "https://")):
            raise ImageError(f"{name}: addresses are not opened here; download the picture, and give the file.")
        elif path.exists():
            found = [path]
        else:
            raise ImageError(f"{path}: no such file.")
        for entry in found:
            paths.setdefault(entry.resolve(), entry)
    return list(paths.values())


def _list_folder(folder: Path) -> tuple[list[Path], str]:
    """Return the pictures and videos of a folder, and a phrase that says what else there is, "" for nothing."""
    seen = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    known = {*PICTURE_SUFFIXES, *VIDEO_SUFFIXES}
    files = [entry for entry in seen if not entry.is_dir() and not entry.stem.endswith(OVERLAY_MARK)]
    found = [entry for entry in files if entry.suffix.lower() in known]
    others = skipped_files(entry for entry in files if entry.suffix.lower() not in known)
    folders = sum(entry.is_dir() for entry in seen)
    text = f": not read, since they are neither pictures nor videos: {others}" if others else ""
    return found, text + (f"; {folders} folders in it are not searched" if folders else "")


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for the results of each input: its stem, and where that is taken its stem and a number."""
    names: dict[str, None] = {}
    stems = {path.stem for path in paths}
    numbers: dict[str, int] = {}
    for path in paths:
        name, number = path.stem, numbers.get(path.stem, 1)
        while name in names or (number > 1 and name in stems):
            number += 1
            name = f"{path.stem}-{number}"
        numbers[path.stem] = number
        names[name] = None
    return list(names)


def copy_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return what each input is called where copies of all of them lie side by side."""
    return {path: f"{name}{path.suffix}" for path, name in zip(paths, distinct_names(paths), strict=True)}


def open_picture(path: Path) -> Image.Image:
    """Read a picture completely and turn it upright.

    Raises:
        ImageError: If it is not an image, or is truncated; the message does not name the file.
    """
    return open_noted_picture(path)[0]


def open_noted_picture(path: Path) -> tuple[Image.Image, str]:
    """Read a picture as `open_picture` does, and say which one was taken of a file that holds several.

    Returns:
        The upright picture, and a sentence; "" where the file holds one picture.

    Raises:
        ImageError: As from `open_picture`.
    """
    readable = heic_is_readable()
    try:
        with Image.open(path) as image:
            if image.width * image.height > MEGAPIXELS * 1_000_000:
                raise ImageError(f"{TOO_LARGE}.")
            note = pictures_note(image)
            image.load()
            return ImageOps.exif_transpose(image), note
    except UnidentifiedImageError as error:
        from ..model.image_inputs import is_heic

        if not readable and is_heic(path.read_bytes()[:12]):
            raise ImageError(f"{NEEDS_HEIC}.") from error
        raise ImageError("this is not an image that can be read.") from error
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(f"{TOO_LARGE}.") from error
    except PermissionError as error:
        raise ImageError("there is no permission to read it.") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"it cannot be read: {' '.join(str(error).split()) or type(error).__name__}.") from error


def load_picture(path: Path) -> tuple["Picture", str]:
    """Read a picture as all that works on it takes it, decoded once; and the sentence of `open_noted_picture`.

    Raises:
        ImageError: As from `open_picture`.
    """
    from ..model.image_inputs import Picture

    image, note = open_noted_picture(path)
    try:
        return Picture(image), note
    except ValueError as error:
        raise ImageError(str(error)) from error


def parse_boxes(texts: Iterable[str]) -> list[tuple[float, float, float, float]]:
    """Read boxes written as x,y,width,height.

    Raises:
        BoxError: If one is malformed or has no area.
    """
    boxes: list[tuple[float, float, float, float]] = []
    for text in texts:
        try:
            x, y, width, height = (float(number) for number in text.split(","))
        except ValueError:
            hint = "; name the picture before --boxes" if Path(text).exists() else ""
            raise BoxError(f"{text.strip()!r} is not a box: write x,y,width,height in pixels{hint}.") from None
        if not all(math.isfinite(value) for value in (x, y, width, height)):
            raise BoxError(f"The box {text.strip()} is not finite.")
        if width <= 0 or height <= 0:
            raise BoxError(f"The box {text.strip()} has no area: width and height must be positive.")
        boxes.append((x, y, width, height))
    return boxes


def check_inside(box: Sequence[float], size: tuple[int, int]) -> None:
    """Refuse a box that shares nothing with a picture of (width, height).

    Raises:
        BoxError: If it does.
    """
    x, y, width, height = box
    if x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        text = ",".join(f"{value:g}" for value in box)
        raise BoxError(f"the box {text} lies outside this picture of {size[0]} x {size[1]} pixels.")
