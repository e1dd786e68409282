"""Perturbations of labeled faces: what a detector meets outside a benchmark, each at a stated strength.

A perturbation takes a face (pixels, points, box) and gives another; where it moves pixels, it moves the points with
them. Random draws depend on nothing but the seed, the perturbation and the face's row: not on the batch, on other
rows, nor on the strength, so that along a curve one and the same disturbance grows.

Lengths are in units of the box's longer side, so that they mean the same for small and for large faces. Strength 0
is always the face as it is.
"""

import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image


__all__ = ["PERTURBATIONS", "FaceInPicture", "Perturbation", "cut_region", "perturb", "rotate_points"]

# Half the side of the region that is kept around a face, in box sides. The crop of a box that is jittered or turned as
# strongly as below reaches 1.7; the rest is for the filters, and for the far ends of the normal distribution.
REGION_REACH = 2.0

JITTER_SIZE_RATIO = 1.6
"""Standard deviation of the logarithm of a jittered box's size over the deviation of its center: 8 % go with 5 %."""

LARGEST_ASPECT = 2.0
"""An occluding rectangle's width over its height, relative to the box's, is at most this and at least its inverse."""


@dataclass(frozen=True)
class FaceInPicture:
    """A labeled face with the picture that it is in.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        points: (L, 2) float64 in pixels, pixel centers at integers; NaN for a point that is not annotated.
        box: (4,) float64 (x, y, width, height), edges, in pixels.
        covered: (L,) which points something was drawn over; None where nothing was.
    """

    pixels: np.ndarray
    points: np.ndarray
    box: np.ndarray
    covered: np.ndarray | None = None

    @property
    def side(self) -> float:
        """The longer side of the box in pixels, at least 1."""
        return max(float(self.box[2:].max()), 1.0)

    @property
    def center(self) -> np.ndarray:
        """The center of the box, (2,), where edges lie: half a pixel more than points."""
        return self.box[:2] + self.box[2:] / 2


@dataclass(frozen=True)
class Perturbation:
    """One way to disturb a face.

    Attributes:
        name: Key in results.
        title: What a figure calls it.
        unit: What the strength is, with its unit: the label of an axis.
        strengths: The strengths that are measured, rising from 0.
        limit: The largest strength that means anything.
        description: How it is done, one sentence.
        apply: Takes a face, a strength above 0 and a generator of the row's own, and gives the disturbed face.
        tick: Writes a strength on an axis or in a table.
    """

    name: str
    title: str
    unit: str
    strengths: tuple[float, ...]
    limit: float
    description: str
    apply: Callable[[FaceInPicture, float, np.random.Generator], FaceInPicture]
    tick: Callable[[float], str] = "{:g}".format


def perturb(
    face: FaceInPicture, perturbation: Perturbation, strength: float, row: int, seed: int = 0
) -> FaceInPicture:
    """Disturb one face.

    Args:
        face: The face; it is not changed.
        perturbation: One of `PERTURBATIONS`.
        strength: In the perturbation's unit; 0 returns the face itself.
        row: Which face of its data set it is, from 0.
        seed: Which of the possible draws, not negative.

    Raises:
        ValueError: If the strength is out of the perturbation's range.
    """
    if not 0 <= strength <= perturbation.limit:
        raise ValueError(f"{perturbation.name} takes a strength from 0 to {perturbation.limit:g}, not {strength}.")
    if strength == 0:
        return face
    generator = np.random.default_rng([seed, row, zlib.crc32(perturbation.name.encode())])
    return perturbation.apply(face, float(strength), generator)


def cut_region(face: FaceInPicture) -> FaceInPicture:
    """Cut the surroundings of a face out of its picture at whole pixels, so that disturbing them is quick.

    What the picture does not have is not added: the crop that a model sees is the same before and after.
    """
    reach = REGION_REACH * face.side
    height, width = face.pixels.shape[:2]
    first = np.floor(face.center - reach).clip(0, [width - 1, height - 1]).astype(int)
    stop = np.ceil(face.center + reach).clip(first + 1, [width, height]).astype(int)
    pixels = face.pixels[first[1] : stop[1], first[0] : stop[0]]
    box = np.concatenate([face.box[:2] - first, face.box[2:]])
    return FaceInPicture(np.ascontiguousarray(pixels), face.points - first, box)


def rotate_points(points: np.ndarray, center: np.ndarray, degrees: float) -> np.ndarray:
    """Turn points (..., 2) clockwise, as seen in a picture, about a center given as edges are."""
    angle = math.radians(degrees)
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return (points + 0.5 - center) @ matrix.T + center - 0.5


def _jitter_box(face: FaceInPicture, strength: float, generator: np.random.Generator) -> FaceInPicture:
    deviation = strength / 100
    draws = generator.standard_normal(3)
    center = face.center + deviation * face.side * draws[:2]
    size = face.box[2:] * math.exp(JITTER_SIZE_RATIO * deviation * draws[2])
    return replace(face, box=np.concatenate([center - size / 2, size]))


def _blur(face: FaceInPicture, strength: float, generator: np.random.Generator) -> FaceInPicture:
    sigma = strength / 100 * face.side
    return replace(face, pixels=cv2.GaussianBlur(face.pixels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE))


def _compress(face: FaceInPicture, strength: float, generator: np.random.Generator) -> FaceInPicture:
    buffer = io.BytesIO()
    Image.fromarray(face.pixels).save(buffer, "JPEG", quality=round(100 - strength))
    return replace(face, pixels=np.asarray(Image.open(buffer)))


def _darken(face: FaceInPicture, strength: float, generator: np.random.Generator) -> FaceInPicture:
    encoded = np.arange(256) / 255
    light = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4) * 2.0**-strength
    darker = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return replace(face, pixels=np.round(255 * darker).astype(np.uint8)[face.pixels])


def _occlude(face: FaceInPicture, strength: float, generator: np.random.Generator) -> FaceInPicture:
    place, aspect = generator.random(2), LARGEST_ASPECT ** generator.uniform(-1, 1)
    color = generator.integers(0, 256, 3)
    size = face.box[2:] * np.sqrt(strength / 100 * np.array([aspect, 1 / aspect]))
    start = face.box[:2] + place * (face.box[2:] - size)
    (columns, across), (rows, down) = (
        _coverage(first, first + length, extent)
        for first, length, extent in zip(start, size, face.pixels.shape[1::-1], strict=True)
    )
    pixels = face.pixels.copy()
    under = pixels[rows, columns].astype(float)
    covered = (down[:, None] * across)[..., None]
    pixels[rows, columns] = (under + covered * (color - under)).round()
    edges = face.points + 0.5  # NaN lies nowhere
    inside = ((edges >= start) & (edges <= start + size)).all(axis=1)
    return replace(face, pixels=pixels, covered=inside)


def _coverage(start: float, stop: float, extent: int) -> tuple[slice, np.ndarray]:
    """Return the pixels of an axis that lie between two edges, and the share of each of them that does."""
    first, last = np.clip([math.floor(start), math.ceil(stop)], 0, extent)
    pixels = np.arange(first, last)
    return slice(first, last), (np.minimum(pixels + 1, stop) - np.maximum(pixels, start)).clip(0, 1)


def _rotate(face: FaceInPicture, strength: float, generator: np.random.Generator) -> FaceInPicture:
    degrees = strength if generator.random() < 0.5 else -strength
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    x, y = face.center
    # Pillow asks where a pixel of the result comes from, in edges: the turn backwards.
    backwards = (cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y)
    image = Image.fromarray(face.pixels)
    turned = image.transform(image.size, Image.Transform.AFFINE, backwards, Image.Resampling.BICUBIC)
    points = rotate_points(face.points, face.center, degrees)
    return FaceInPicture(np.asarray(turned), points, _box_of_turned_points(face, points))


def _box_of_turned_points(face: FaceInPicture, points: np.ndarray) -> np.ndarray:
    """Return the box that stands to the turned points as the face's box stands to its own.

    Where the box is the tight box of the points, that is the tight box of the turned ones; margins that a box has
    beside its points are kept as shares of the tight box's sides. A face whose points span no area keeps its box.
    """
    annotated = ~np.isnan(points).any(axis=1)
    if not annotated.any():
        return face.box
    before, after = face.points[annotated], points[annotated]
    low, span = before.min(axis=0), np.ptp(before, axis=0)
    if (span <= 0).any():
        return face.box
    start = (face.box[:2] - low) / span
    size = face.box[2:] / span
    turned_low, turned_span = after.min(axis=0), np.ptp(after, axis=0)
    return np.concatenate([turned_low + start * turned_span, size * turned_span])


def _quality(strength: float) -> str:
    return f"{100 - strength:g}" if strength else "none"


PERTURBATIONS: dict[str, Perturbation] = {
    entry.name: entry
    for entry in (
        Perturbation(
            "box_jitter",
            "Box jitter",
            "standard deviation of the center, % of the box side",
            (0, 2.5, 5, 10, 15),
            100,
            "The box's center is shifted along x and y by N(0, s) of its longer side, and its size is multiplied by "
            f"exp N(0, {JITTER_SIZE_RATIO:g} s); s = 5 % is the standard case, with 8 % for the size.",
            _jitter_box,
        ),
        Perturbation(
            "blur",
            "Gaussian blur",
            "standard deviation, % of the box side",
            (0, 1, 2, 4, 6),
            100,
            "The picture is blurred by a Gaussian whose standard deviation is a share of the box's longer side.",
            _blur,
        ),
        Perturbation(
            "jpeg",
            "JPEG compression",
            "JPEG quality",
            (0, 50, 70, 90, 95),
            99,
            "The surroundings of the face are compressed in the resolution they have (4:2:0 chroma); the strength is "
            "100 minus the quality, and at 0 nothing is compressed. A larger face in pixels would suffer less.",
            _compress,
            _quality,
        ),
        Perturbation(
            "darkness",
            "Darkness",
            "light taken away, photographic stops",
            (0, 2, 4, 6, 8),
            16,
            "The light of the picture (its sRGB values made linear) is halved once for every stop and stored in "
            "8 bits again; no sensor noise is added.",
            _darken,
        ),
        Perturbation(
            "occlusion",
            "Occlusion",
            "area covered, % of the box",
            (0, 5, 10, 20, 40),
            50,
            "A rectangle of one random color covers a share of the box at a random place within it; its sides are "
            "to each other as those of the box, times a random ratio between "
            f"1/{LARGEST_ASPECT:g} and {LARGEST_ASPECT:g}.",
            _occlude,
        ),
        Perturbation(
            "rotation",
            "In-plane rotation",
            "angle to either side, degrees",
            (0, 10, 20, 30, 45),
            180,
            "Picture and points are turned about the center of the box, clockwise or counter-clockwise at random, "
            "black beyond the picture; the box is then drawn around the turned points as tightly as it was before.",
            _rotate,
        ),
    )
}
