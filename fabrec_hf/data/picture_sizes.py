"""How large a picture is, which way up it is stored, and points that were taken from it as it is stored.

A camera that is held upright stores the picture lying, with an EXIF orientation that says how to turn it. This package
turns pictures upright, and points refer to the upright picture. Some tools ignore the orientation, so that their
points refer to the picture as it is stored.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from .picture_files import heic_is_readable


__all__ = ["PictureSize", "read_size", "upright_box", "upright_points"]

_ORIENTATION = 0x0112  # the EXIF tag


@dataclass(frozen=True)
class PictureSize:
    """The size of a picture.

    Attributes:
        stored: (width, height) in the file.
        orientation: The EXIF orientation, 1 to 8; 1 is upright.
    """

    stored: tuple[int, int]
    orientation: int = 1

    @property
    def upright(self) -> tuple[int, int]:
        """(width, height) after the orientation is applied."""
        return self.stored[::-1] if self.orientation >= 5 else self.stored

    @property
    def turned(self) -> bool:
        """Whether the orientation changes anything."""
        return self.orientation != 1

    def holds(self, points: np.ndarray, upright: bool = True) -> bool:
        """Whether all annotated points of (L, 2) lie in the picture, but for a hundredth of its size."""
        width, height = self.upright if upright else self.stored
        margin = 0.01 * max(width, height)
        known = points[~np.isnan(points).any(axis=1)]
        return bool((known >= -margin).all() and (known <= np.array([width, height]) + margin).all())


def read_size(image: Mapping[str, Any] | Image.Image) -> PictureSize:
    """Read the size from the head of a file.

    Args:
        image: What `datasets` stores, `bytes`, else a `path`; or an opened picture.

    Raises:
        OSError: If the file cannot be read, or is no picture.
    """
    if isinstance(image, Image.Image):
        orientation = image.getexif().get(_ORIENTATION)
        return PictureSize(image.size, orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1)
    heic_is_readable()
    with Image.open(io.BytesIO(image["bytes"]) if image["bytes"] is not None else image["path"]) as opened:
        return read_size(opened)


def upright_points(points: np.ndarray, size: PictureSize) -> np.ndarray:
    """Turn (..., 2) points of the stored picture into those of the upright one, pixel centers at integers."""
    x, y = points[..., 0], points[..., 1]
    right, bottom = size.stored[0] - 1 - x, size.stored[1] - 1 - y
    turned = {
        1: (x, y),
        2: (right, y),
        3: (right, bottom),
        4: (x, bottom),
        5: (y, x),
        6: (bottom, x),
        7: (bottom, right),
        8: (y, right),
    }[size.orientation]
    return np.stack(turned, axis=-1)


def upright_box(box: np.ndarray, size: PictureSize) -> np.ndarray:
    """Turn a box (x, y, width, height), edges, of the stored picture into that of the upright one."""
    corners = np.array([box[:2], box[:2] + box[2:]]) - 0.5  # edges to pixel centers
    turned = upright_points(corners, size) + 0.5
    low, high = turned.min(axis=0), turned.max(axis=0)
    return np.concatenate([low, high - low]).astype(np.float32)
