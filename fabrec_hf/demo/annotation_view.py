"""The picture that a person annotates: a face enlarged, with its surroundings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..model.geometry import crop_box_from_box


__all__ = ["SIDE", "AnnotationView", "crop_of", "cut_face"]

# Large enough to be zoomed into.
SIDE = 960
# What is shown around the crop that the model sees, as a share of it.
SURROUNDINGS = 0.25


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
        """Turn a clicked pixel into a point of the photograph, centers at integers in both."""
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


def cut_face(image: Image.Image, box: Sequence[float], side: int = SIDE) -> Image.Image:
    """Cut the view of a face out of its photograph; what lies outside the photograph is black.

    Args:
        image: The upright photograph.
        box: (x, y, width, height) of the face in pixels.
        side: Pixels of a side of the result, which shows the same whatever they are.

    Returns:
        An RGB picture of side x side pixels.
    """
    view = crop_of(box)
    scale = view.scale * SIDE / side
    place = (scale, 0, view.corner[0], 0, scale, view.corner[1])
    # Bilinear sampling alone would alias where the photograph is shrunk.
    reduced = max(1, int(scale))
    if reduced > 1:
        image = image.reduce(reduced)
        place = tuple(value / reduced for value in place)
    return image.transform((side, side), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR)
