"""Faces drawn with lines and ellipses, whose landmarks are known exactly, and where the real ones are."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


SHARED = Path(__file__).parents[3] / "shared"
"""Real faces and the parity fixture, beside the checkout; what needs them is skipped without them."""

# Eyes, nose tip and mouth corners of an upright face, as fractions of its box (the mtfl scheme's five points).
FIVE_POINTS = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def draw_face(seed: int, size: int = 96) -> tuple[Image.Image, np.ndarray, list[float]]:
    """Draw one face; returns the picture, its five landmarks (pixel centers at integers) and its box."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (size, size), tuple(random.integers(0, 120, 3).tolist()))
    side = size * random.uniform(0.45, 0.6)
    x, y = random.uniform(0.2 * size, 0.75 * size - side / 2, 2) - 0.1 * size
    draw = ImageDraw.Draw(image)
    draw.ellipse([x, y, x + side, y + side * 1.1], fill=tuple(random.integers(150, 255, 3).tolist()))
    points = np.array([x, y]) + FIVE_POINTS * side
    for px, py in points[:3]:
        draw.ellipse([px - 3, py - 3, px + 3, py + 3], fill=(20, 20, 60))
    draw.line([tuple(points[3]), tuple(points[4])], fill=(120, 0, 0), width=4)
    return image, points, [float(x), float(y), float(side), float(side)]
