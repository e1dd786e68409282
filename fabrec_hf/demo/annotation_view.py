"""The picture that a person clicks: a face enlarged, with what is placed, what is proposed and what comes next."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..model.geometry import crop_box_from_box
from .annotation import AnnotatedFace


__all__ = ["AnnotationView", "crop_of", "draw_annotation"]

SIDE = 720
# What is shown around the crop that the model sees, as a share of it.
SURROUNDINGS = 0.25
PLACED, PROPOSED, CURRENT, RIM = (62, 245, 212), (255, 176, 32), (255, 255, 255), (20, 20, 30)


@dataclass(frozen=True)
class AnnotationView:
    """Where the enlarged picture lies in the photograph.

    Attributes:
        corner: (x, y) of its upper left corner, in pixels of the photograph from its edge.
        scale: Pixels of the photograph for a pixel of the picture.
    """

    corner: tuple[float, float]
    scale: float

    def to_photograph(self, x: float, y: float) -> tuple[float, float]:
        """Turn a clicked pixel into a point of the photograph, centres at integers in both."""
        return (
            (x + 0.5) * self.scale + self.corner[0] - 0.5,
            (y + 0.5) * self.scale + self.corner[1] - 0.5,
        )

    def from_photograph(self, points: np.ndarray) -> np.ndarray:
        """Turn points (L, 2) of the photograph into pixels of the picture from its edge."""
        return (points + 0.5 - np.asarray(self.corner)) / self.scale


def crop_of(box: Sequence[float]) -> AnnotationView:
    """Return the view of a face box."""
    x, y, side, _ = crop_box_from_box(np.asarray(box, dtype=np.float64)).tolist()
    margin = SURROUNDINGS / 2 * side
    return AnnotationView((x - margin, y - margin), side * (1 + SURROUNDINGS) / SIDE)


def draw_annotation(
    image: Image.Image, face: AnnotatedFace, current: int, proposal: np.ndarray | None = None
) -> Image.Image:
    """Draw a face for annotation: placed points aqua, proposed ones amber and hollow, the current one circled.

    Args:
        image: The upright photograph.
        face: The face.
        current: The point to place next.
        proposal: (L, 2) proposed positions in pixels of the photograph, NaN where there is none.

    Returns:
        An RGB picture of 720 x 720 pixels.
    """
    view = crop_of(face.box)
    place = (view.scale, 0, view.corner[0], 0, view.scale, view.corner[1])
    # Bilinear sampling alone would alias where the photograph is shrunk.
    reduced = max(1, int(view.scale))
    if reduced > 1:
        image = image.reduce(reduced)
        place = tuple(value / reduced for value in place)
    canvas = image.transform((SIDE, SIDE), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR)
    pen = ImageDraw.Draw(canvas)
    placed = view.from_photograph(face.landmarks()) if face.points else np.empty((0, 2))
    for index, point in enumerate(placed):
        is_placed = bool(np.isfinite(point).all())
        if not is_placed and proposal is not None and not face.hidden[index]:
            point = view.from_photograph(proposal[index : index + 1])[0]
        if np.isfinite(point).all():
            _draw_point(pen, point, str(index + 1), is_placed, index == current)
    return canvas


def _draw_point(pen: ImageDraw.ImageDraw, point: np.ndarray, number: str, placed: bool, current: bool) -> None:
    x, y = point.tolist()
    color = PLACED if placed else PROPOSED
    if current:
        for radius, width, fill in ((17, 5, RIM), (16, 3, CURRENT)):
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=fill, width=width)
    pen.ellipse((x - 7, y - 7, x + 7, y + 7), fill=RIM)
    pen.ellipse((x - 5, y - 5, x + 5, y + 5), fill=color if placed else RIM, outline=color, width=2)
    pen.text((x + 10, y - 8), number, fill=color, stroke_width=2, stroke_fill=RIM, font=ImageFont.load_default(18))
