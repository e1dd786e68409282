"""What visitors send: limits, and the only places where a file of theirs is opened."""

import io
import os
import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..data.picture_files import NEEDS_HEIC, heic_is_readable, pictures_note
from ..errors import DataError, ImageError
from ..model.image_inputs import Picture, is_heic


__all__ = ["Limits", "Photograph", "Uploads", "checked_list", "decode_picture", "display_name"]

# Decoders for which a visitor has a use; Pillow knows dozens of others, and what is not installed is left out.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "HEIF")
# A TGA file has no mark of its own, so that nearly anything may be taken for one: its name decides.
BY_NAME = {".tga": ("TGA",)}


@dataclass(frozen=True)
class Limits:
    """What one visitor may ask for.

    Attributes:
        file_bytes: Size of a file.
        pixels: Pixels of a picture.
        photographs: Photographs in a session.
        session_bytes: Size of all of them.
        faces: Faces looked at in one photograph.
        points: Points of a scheme.
        checkpoints: Checkpoints of a session.
        sessions: Sessions on disk, of all visitors.
        jobs: Trainings that may wait.
    """

    file_bytes: int = 20 * 2**20
    pixels: int = 50_000_000
    photographs: int = 200
    session_bytes: int = 400 * 2**20
    faces: int = 12
    points: int = 100
    checkpoints: int = 6
    sessions: int = 500
    jobs: int = 16


@dataclass(frozen=True)
class Photograph:
    """A picture that was read.

    Attributes:
        name: What its owner calls it, made fit to be shown.
        image: Upright, RGB, perhaps smaller than the file.
        size: (width, height) of the upright picture in the file.
        note: A sentence about a file that holds several pictures, "" for any other.
    """

    name: str
    image: Image.Image
    size: tuple[int, int]
    note: str = ""

    @property
    def scale(self) -> float:
        """Pixels of the file for each pixel of `image`."""
        return self.size[0] / self.image.width


class Uploads:
    """The folder that the web server puts uploads into: nothing outside of it is ever opened or handed out.

    Args:
        folder: The folder.
        limits: What is accepted.
    """

    def __init__(self, folder: Path, limits: Limits):
        self.folder, self.limits = folder.resolve(), limits

    def check(self, path: str | Path) -> Path:
        """Return the path of an upload; links are followed first.

        Raises:
            ImageError: If it is none, or too large.
        """
        try:
            real = Path(path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise ImageError("This upload is gone: send it again.") from error
        if not real.is_relative_to(self.folder) or not real.is_file():
            raise ImageError("Only files that were uploaded can be used.")
        if real.stat().st_size > self.limits.file_bytes:
            raise ImageError(f"{display_name(real.name)}: larger than {self.limits.file_bytes // 2**20} MB.")
        return real

    def read_picture(self, path: str | Path, side: int | None = None) -> Photograph:
        """Read an uploaded picture.

        Args:
            path: Where the web server says it is.
            side: Shrink it to this many pixels at its longer side.

        Raises:
            ImageError: If it is no upload, too large, or not a picture.
        """
        real = self.check(path)
        return decode_picture(real.read_bytes(), real.name, self.limits, side)

    def new_file(self, name: str) -> Path:
        """Return a path for a file that a visitor will download, in a folder that cannot be guessed."""
        folder = self.folder / secrets.token_hex(20)
        folder.mkdir(parents=True)
        return folder / name


def decode_picture(content: bytes, name: str, limits: Limits, side: int | None = None) -> Photograph:
    """Decode a picture, after looking at its size.

    Args:
        content: The file.
        name: What to call it.
        limits: How many pixels it may have.
        side: Shrink it to this many pixels at its longer side.

    Raises:
        ImageError: If it is not a picture, or has too many pixels.
    """
    name = display_name(name)
    try:
        with Image.open(io.BytesIO(content), formats=_formats(name)) as image:
            width, height = image.size
            if width * height > limits.pixels:
                raise ImageError(f"{name}: {width} x {height} pixels are more than {limits.pixels / 1e6:.0f} million.")
            turned, note = image.getexif().get(0x0112, 1) >= 5, pictures_note(image)
            if side is not None:
                image.draft("RGB", (side, side))
            image.load()
            # As everywhere in the package: 16 bits are scaled, and what is transparent is black.
            upright = Image.fromarray(Picture(image).rgb)
    except ImageError:
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, DecompressionBombError, ...
        if is_heic(content) and not heic_is_readable():
            raise ImageError(f"{name} is HEIC, which this server cannot read: send JPEG ({NEEDS_HEIC}).") from error
        raise ImageError(f"{name} is not a picture that can be read: send JPEG, PNG or WebP.") from error
    if min(upright.size) < 8:
        raise ImageError(f"{name}: {width} x {height} pixels are too few.")
    if side is not None:
        upright.thumbnail((side, side))
    return Photograph(name, upright, (height, width) if turned else (width, height), note)


def _formats(name: str) -> list[str]:
    """Return the decoders that a file may be opened by."""
    heic_is_readable()
    Image.init()
    return [form for form in (*FORMATS, *BY_NAME.get(os.path.splitext(name)[1].lower(), ())) if form in Image.OPEN]


def display_name(name: str) -> str:
    """Make a file name fit to be shown and to be written: letters, digits and a few marks, at most 60 of them."""
    name = unicodedata.normalize("NFC", name.replace("\\", "/").rpartition("/")[2])
    name = re.sub(r"[^\w.\- ]", "_", name).strip(". ")
    return name[-60:] or "picture"


def checked_list(paths: Sequence[str] | None, most: int, what: str = "photographs") -> list[str]:
    """Return uploads as a list.

    Raises:
        DataError: If there are none, or too many.
    """
    paths = list(paths or ())
    if not paths:
        raise DataError(f"Choose {what} first.")
    if len(paths) > most:
        raise DataError(f"{len(paths)} files are more than the {most} that are accepted at a time.")
    return paths
