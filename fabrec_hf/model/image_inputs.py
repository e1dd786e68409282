"""Whatever a user calls an image becomes one upright RGB tensor: files, URLs, PIL images, arrays and tensors."""

import importlib
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from transformers.image_utils import ChannelDimension, load_image


# The mean color of the authors' training images in [0, 1]; their code subtracts it and divides by nothing.
IMAGE_MEAN = [0.518, 0.418, 0.361]
# What marks a file as HEIC, behind its length and "ftyp".
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
# Floats may overshoot [0, 1] by what a resampling filter or a lossy conversion adds; more means another scale.
FLOAT_TOLERANCE = 0.01


class Picture:
    """A picture that was read, once: whatever takes an image takes it too, and reads it no second time.

    Face detector, image processor and drawing each want another form of the same pixels.

    Args:
        image: what [`load_rgb`] takes.
        index: the image's place in the call, for error messages.

    Attributes:
        pixels: (3, H, W) tensor as [`load_rgb`] returns it; not to be written to.

    Raises:
        FileNotFoundError, ValueError, TypeError: as [`load_rgb`].

    Example:
        >>> picture = Picture(Image.new("L", (640, 480)))
        >>> picture.size, picture.rgb.shape
        ((640, 480), (480, 640, 3))
    """

    def __init__(self, image: Any, index: int = 0):
        self.pixels = load_rgb(image, index)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright picture in pixels."""
        return self.pixels.shape[2], self.pixels.shape[1]

    @cached_property
    def rgb(self) -> np.ndarray:
        """The same as an (H, W, 3) array of uint8; not to be written to."""
        pixels = self.pixels.cpu().permute(1, 2, 0)
        if pixels.dtype != torch.uint8:
            pixels = pixels.round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(pixels.numpy())


def as_picture(image: Any) -> Picture:
    """Returns an image of any kind as a [`Picture`]: itself if it is one."""
    return image if _is_picture(image) else Picture(image)


def _is_picture(image: Any) -> bool:
    """Whether an image is a [`Picture`], be it of a copy of this file that came with another part of a checkpoint."""
    return isinstance(getattr(image, "pixels", None), torch.Tensor)


def as_image_list(images: Any) -> list[Any]:
    """Makes a flat list of images out of one image, a sequence of images, or a batched array or tensor.

    Args:
        images: a PIL image, path, URL, `Picture`, (H, W) / (H, W, C) array or (H, W) / (C, H, W) tensor; a list or
            tuple of them; or a 4-D array or tensor, one image a row.

    Returns:
        The images, not yet read.

    Raises:
        TypeError: if `images` is none of these.
    """
    if isinstance(images, (str, os.PathLike, Image.Image)) or _is_picture(images):
        return [images]
    if isinstance(images, (np.ndarray, torch.Tensor)):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, Sequence):
        return list(images)
    raise TypeError(f"images must be a PIL image, path, array or tensor, or a list of them, got {type(images)}.")


def load_rgb(image: Any, index: int = 0, input_data_format: str | ChannelDimension | None = None) -> torch.Tensor:
    """Reads one image as an upright RGB tensor.

    A PIL image or file is turned upright first, as its EXIF orientation says: boxes and points always refer to the
    upright picture. 16-bit values are scaled to 8 bits with their fraction kept. What is transparent becomes black,
    the same as what lies beyond the picture.

    Args:
        image: path, http(s) or data URL, PIL image of any mode, array (HWC or HW) or tensor (CHW or HW). Arrays and
            tensors hold 1, 3 or 4 channels of uint8, uint16, integers in 0..255, bool, or floats in [0, 1]. A
            `Picture` gives what was read already.
        index: the image's place in the call, for error messages.
        input_data_format: "channels_first" or "channels_last" of an array or tensor; inferred if None, and where both
            fit arrays are read as HWC and tensors as CHW.

    Returns:
        (3, H, W) tensor on the device of `image`: uint8, or float32 with values in [0, 255] where 8 bits would lose
        some.

    Raises:
        FileNotFoundError: if the path does not exist.
        ValueError: if the image is empty, truncated, not an image, or holds values out of range; one line.
        TypeError: if `image` is none of the kinds above.
    """
    if _is_picture(image):
        return image.pixels
    name = f"image {index}"
    if isinstance(image, (str, os.PathLike)):
        name = f"image {index} ({os.fspath(image)[:200]})"
        image = _open(image, name)
    if isinstance(image, Image.Image):
        image = _pil_to_array(image, name)
        input_data_format = ChannelDimension.LAST
    if isinstance(image, np.ndarray):
        if image.dtype.hasobject or image.dtype.kind not in "buif":
            raise ValueError(f"{name}: an array of {image.dtype} is no image.")
        # torch reads neither foreign byte orders nor mirrored views, and warns of read-only memory.
        image = np.require(image, dtype=image.dtype.newbyteorder("="), requirements=["C", "W"])
        image = _channels_first(torch.from_numpy(image), name, input_data_format, prefer=ChannelDimension.LAST)
    elif isinstance(image, torch.Tensor):
        image = _channels_first(image.detach(), name, input_data_format, prefer=ChannelDimension.FIRST)
    else:
        raise TypeError(f"{name} must be a PIL image, path, array or tensor, got {type(image)}.")
    return _flatten_to_rgb(_to_8_bit_range(image, name))


def _open(source: str | os.PathLike, name: str) -> Image.Image:
    """Reads a file or URL completely, so that a truncated one fails here and not later."""
    if isinstance(source, str) and source.startswith(("http://", "https://", "data:image/")):
        return load_image(source)
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"{name}: no such file.")
    if path.is_dir():
        raise ValueError(f"{name} is a folder, not an image file.")
    try:
        _know_heic(path)
        with Image.open(path) as image:
            image.load()
    except PermissionError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        reason = "not an image file" if isinstance(error, Image.UnidentifiedImageError) else _one_line(error)
        raise ValueError(f"{name} cannot be read: {reason}.") from error
    return image


def is_heic(content: bytes) -> bool:
    """Whether a file begins as HEIC does, whatever it is called."""
    return content[4:8] == b"ftyp" and content[8:12] in HEIC_BRANDS


def _know_heic(path: Path) -> None:
    """Teach Pillow to read HEIC where a file is such a one, and say what is missing where that cannot be.

    Raises:
        ValueError: pillow-heif is not installed.
    """
    with path.open("rb") as file:
        if not is_heic(file.read(12)):
            return
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError as error:
        raise ValueError("HEIC needs pillow-heif: pip install pillow-heif") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _pil_to_array(image: Image.Image, name: str) -> np.ndarray:
    """Returns a PIL image of any mode, upright, as an (H, W) or (H, W, 3 or 4) array of 8, 16 or 32 bits."""
    try:
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # or a copy would be made for nothing
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            return np.array(image)
        if image.mode in ("I", "F"):
            return _wide_gray(np.array(image), image.mode, name)
        if image.has_transparency_data:
            # Premultiplied modes have no direct way to RGBA.
            image = image.convert("LA") if image.mode == "La" else image
            return np.array(image.convert("RGBA"))
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # a lazily opened image is decoded only here
        raise ValueError(f"{name} cannot be read: {_one_line(error)}.") from error


def _wide_gray(values: np.ndarray, mode: str, name: str) -> np.ndarray:
    """Gives the gray values of PIL's modes "I" and "F", which do not say their range, one that fits them."""
    if values.size == 0:
        return values.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    # Pillow opens 16-bit files as "I", but `Image.convert("I")` keeps 0..255; so does "F", which also carries [0, 1].
    for limit in (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0):
        if 0.0 <= low and high <= limit:
            return values.astype(np.float32) / np.float32(limit)
    raise ValueError(f"values of mode {mode} must lie in 0..65535, got {low:g} to {high:g}")


def _channels_first(
    image: torch.Tensor, name: str, input_data_format: str | ChannelDimension | None, prefer: ChannelDimension
) -> torch.Tensor:
    """Returns (C, H, W) with C of 1, 3 or 4."""
    if image.ndim == 2:
        image = image[None]
    elif image.ndim == 3:
        fits = [
            layout
            for layout, axis in ((ChannelDimension.FIRST, 0), (ChannelDimension.LAST, 2))
            if image.shape[axis] in (1, 3, 4) and input_data_format in (None, layout, layout.value)
        ]
        if fits:
            image = image if (prefer if prefer in fits else fits[0]) == ChannelDimension.FIRST else image.movedim(2, 0)
        else:
            image = image[:0]
    if image.ndim != 3 or image.shape[0] == 0:
        raise ValueError(f"{name} must be (H, W) or have 1, 3 or 4 channels, first or last.")
    if image.shape[1] == 0 or image.shape[2] == 0:
        raise ValueError(f"{name} is empty: {image.shape[2]} x {image.shape[1]} pixels.")
    return image


def _to_8_bit_range(image: torch.Tensor, name: str) -> torch.Tensor:
    """Brings all types to uint8, or to float32 in [0, 255]."""
    if image.dtype == torch.uint8:
        return image
    if image.dtype == torch.bool:
        return image.to(torch.uint8) * 255
    if image.dtype == torch.uint16:
        return image.to(torch.float32) / 257
    if image.is_complex():
        raise ValueError(f"{name}: a tensor of {image.dtype} is no image.")
    if image.dtype in (torch.uint32, torch.uint64):  # torch hardly computes with these
        image = image.to(torch.float64)
        if image.max() <= 255:
            return image.to(torch.uint8)
        raise ValueError(f"{name} holds integers up to {image.max():.0f}: give uint8 (0..255) or uint16 (0..65535).")
    low, high = image.min().item(), image.max().item()
    if image.is_floating_point():
        # Written so that NaN fails too.
        if not (low >= -FLOAT_TOLERANCE and high <= 1 + FLOAT_TOLERANCE):
            raise ValueError(f"{name} holds floats from {low:g} to {high:g}: scale them to [0, 1], or give uint8.")
        return image.to(torch.float32).clamp(0, 1) * 255
    if low < 0 or high > 255:
        raise ValueError(f"{name} holds integers from {low} to {high}: give uint8 (0..255) or uint16 (0..65535).")
    return image.to(torch.uint8)


def _flatten_to_rgb(image: torch.Tensor) -> torch.Tensor:
    """Repeats gray and lays what is transparent over black."""
    if image.shape[0] == 1:
        return image.expand(3, -1, -1)
    if image.shape[0] == 4:
        return image[:3].to(torch.float32) * (image[3:].to(torch.float32) / 255)
    return image


__all__ = ["Picture", "as_image_list", "as_picture", "is_heic", "load_rgb"]
