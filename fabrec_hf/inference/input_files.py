"""The pictures and videos that a command is given: found, named, opened; and boxes written on a command line."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import BoxError, ImageError
from .video_files import VIDEO_SUFFIXES


__all__ = ["check_inside", "collect_inputs", "distinct_names", "is_video", "open_picture", "parse_boxes"]

# What is taken for a picture in a folder; a file that is named is opened whatever it is called.
PICTURE_SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
# Ends the stem of what `fabrec detect` draws.
OVERLAY_MARK = ".landmarks"


def is_video(path: Path) -> bool:
    """Whether a file is read as a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def collect_inputs(inputs: Iterable[str]) -> list[Path]:
    """List the pictures and videos that files and folders stand for, each once, folders in alphabetical order.

    Raises:
        ImageError: If a file or folder is missing, or a folder holds neither.
    """
    paths: dict[Path, Path] = {}
    known = PICTURE_SUFFIXES | VIDEO_SUFFIXES
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            found = sorted(
                entry
                for entry in path.iterdir()
                if entry.suffix.lower() in known
                and not entry.name.startswith(".")
                and not entry.stem.endswith(OVERLAY_MARK)
            )
            if not found:
                raise ImageError(
                    f"{path}: no picture or video in this folder; it looks for {', '.join(sorted(known))}."
                )
        elif path.exists():
            found = [path]
        else:
            raise ImageError(f"{path}: no such file.")
        for entry in found:
            paths.setdefault(entry.resolve(), entry)
    return list(paths.values())


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


def open_picture(path: Path) -> Image.Image:
    """Read a picture completely and turn it upright.

    Raises:
        ImageError: If it is not an image, or is truncated; the message does not name the file.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ImageError("this is not an image that can be read.") from error
    except PermissionError as error:
        raise ImageError("there is no permission to read it.") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"it cannot be read: {' '.join(str(error).split()) or type(error).__name__}.") from error


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
