"""How sharp the picture of a face is."""

from collections.abc import Sequence

import numpy as np
from PIL import Image


__all__ = ["sharpness"]

SIDE = 100  # faces are compared at this size, so that a small one counts as the blurred one that it is when enlarged


def sharpness(image: Image.Image, box: Sequence[float]) -> float:
    """Return how much fine detail the picture of a face has, relative to its contrast.

    It is the standard deviation of the Laplacian over that of the brightness, of what the picture shows of the box.

    Args:
        image: The picture, upright.
        box: (x, y, width, height) of the face in its pixels.

    Returns:
        0 for one color, or for a box outside of the picture; see `fabrec select --help` for what is usual.
    """
    x, y, width, height = (float(value) for value in box)
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + width, image.width), min(y + height, image.height)
    scale = SIDE / max(width, height)
    size = round((right - left) * scale), round((bottom - top) * scale)
    if min(size) < 3:
        return 0.0
    seen = image.crop((int(left), int(top), -int(-right // 1), -int(-bottom // 1))).convert("L")
    gray = np.asarray(seen.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    contrast = float(gray.std())
    around = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float((4 * gray[1:-1, 1:-1] - around).std()) / contrast if contrast else 0.0
