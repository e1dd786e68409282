"""Decode a whole data set once, into uint8 pixels that are augmented in batches afterward."""

import io
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ..errors import DataError
from ..model.geometry import crop_box_from_box
from ..model.image_inputs import Picture
from .canvases import Canvases
from .face_table import encoded_images


if TYPE_CHECKING:
    import datasets


CANVAS_RATIO = math.sqrt(2)
"""Side of a canvas over the side of its crop: a crop turned by 45 degrees still fits (the reference's 363 / 256)."""


@dataclass(frozen=True)
class FaceDecoder:
    """Turns rows of faces into uint8 canvases of one size.

    Attributes:
        size: Side of the canvases in pixels.
        margins: What crops add above and below the `box` of a row, as fractions of its height; the canvas is then the
            crop enlarged by `CANVAS_RATIO`. Without margins the whole picture is taken for a face crop.
    """

    size: int
    margins: tuple[float, float] | None = None

    @property
    def crop_fraction(self) -> float:
        """Side of the crop relative to the canvas."""
        return 1.0 if self.margins is None else 1 / CANVAS_RATIO

    def __call__(self, row: dict) -> np.ndarray:
        """Decode a row with an encoded `image`, its number as `row` and perhaps `box`, to (size, size, 3).

        Raises:
            DataError: If the picture cannot be read.
        """
        if self.margins is None:
            return np.asarray(open_picture_of_row(row).resize((self.size, self.size), Image.Resampling.BICUBIC))
        crop_box = crop_box_from_box(row["box"], *self.margins).tolist()
        return np.asarray(cut_canvas(open_picture_of_row(row), crop_box, self.size))


def decode_pictures(dataset: "datasets.Dataset", size: int, progress: bool = True) -> torch.Tensor:
    """Decode whole pictures, taken as face crops already, to (N, 3, size, size) uint8."""
    return _decode_all(dataset, FaceDecoder(size), size, progress)


def decode_faces(dataset: "datasets.Dataset", decoder: FaceDecoder, progress: bool = True) -> Canvases:
    """Decode all faces to canvases of the decoder's size."""
    return Canvases(_decode_all(dataset, decoder, decoder.size, progress), decoder.crop_fraction)


def decode_canvases(
    dataset: "datasets.Dataset", crop_boxes: Iterable, crop_size: int, progress: bool = True
) -> Canvases:
    """Decode the square crops enlarged by `CANVAS_RATIO`, black beyond the picture.

    Args:
        dataset: Rows with an `image`.
        crop_boxes: One square crop (x, y, width, height) a row, in the picture's pixels.
        crop_size: Side of the crops in pixels, which the canvases exceed by `CANVAS_RATIO`.
        progress: Show a progress bar.
    """
    size = round(crop_size * CANVAS_RATIO)
    boxes = [tuple(float(value) for value in box) for box in crop_boxes]

    def decode(row: dict) -> np.ndarray:
        return np.asarray(cut_canvas(open_picture_of_row(row), boxes[row["row"]], size))

    return Canvases(_decode_all(dataset, decode, size, progress), 1 / CANVAS_RATIO)


def cut_canvas(image: Image.Image, crop_box: Sequence[float], size: int) -> Image.Image:
    """Cut the square crop enlarged by `CANVAS_RATIO` out of an RGB picture and resize it, without rounding the box."""
    x, y, width, height = crop_box
    margin = (CANVAS_RATIO - 1) / 2
    left, top = x - margin * width, y - margin * height
    right, bottom = left + CANVAS_RATIO * width, top + CANVAS_RATIO * height
    origin_x, origin_y = math.floor(left), math.floor(top)
    padded = image.crop((origin_x, origin_y, math.ceil(right), math.ceil(bottom)))  # black where there is no picture
    box = (left - origin_x, top - origin_y, right - origin_x, bottom - origin_y)
    return padded.resize((size, size), Image.Resampling.BICUBIC, box=box)


def open_picture_of_row(row: dict) -> Image.Image:
    """Read a picture as the image processor does: upright RGB, whatever its mode.

    Args:
        row: With an encoded `image` (`bytes`, else a `path`), and its number as `row`.

    Raises:
        DataError: If the picture cannot be read.
    """
    source = row["image"]
    try:
        image = Image.open(io.BytesIO(source["bytes"]) if source["bytes"] else source["path"])
        pixels = Picture(image).rgb
    except (OSError, ValueError) as error:
        raise DataError(f"The picture in row {row['row']} cannot be read: {error}") from error
    return Image.fromarray(pixels)


def _decode_all(
    dataset: "datasets.Dataset", decode: Callable[[dict], np.ndarray], size: int, progress: bool
) -> torch.Tensor:
    rows = encoded_images(dataset)
    pixels = np.empty((len(rows), size, size, 3), dtype=np.uint8)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        for start in tqdm(range(0, len(rows), 1024), desc="decoding", unit="kface", disable=not progress):
            batch = rows.select(range(start, min(start + 1024, len(rows))))
            numbered = [row | {"row": index} for index, row in enumerate(batch, start=start)]
            for row, decoded in zip(numbered, pool.map(decode, numbered), strict=True):
                pixels[row["row"]] = decoded
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


__all__ = [
    "CANVAS_RATIO",
    "FaceDecoder",
    "cut_canvas",
    "decode_canvases",
    "decode_faces",
    "decode_pictures",
    "open_picture_of_row",
]
