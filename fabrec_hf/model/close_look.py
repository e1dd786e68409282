"""A close look at one face, at every turn: where it is, and by how much it is turned in the picture's plane.

YuNet knows upright faces. It finds turned ones too, but with a lower score, and reports their eyes almost as level as
those of an upright face. So a face is cut out and shown to it at eight turns; the score is highest where the face is
upright, and there the eyes can be trusted.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .turned_crops import wrapped
from .yunet import YuNet


# YuNet's boxes reach to the hairline. Medians over 300 faces of 300-W's training pictures, by
# `training/benchmarks/benchmark_face_detection.py`: the landmark box's center relative to the detected center, in
# units of the detected width and height, and its size relative to the detected size. On the 554 faces of
# the common test set this brings the mean IoU with the landmark box from 0.701 to 0.884.
CENTER_SHIFT = (0.002, 0.124)
SIZE_RATIO = (1.030, 0.755)

# Where the eyes, the tip of the nose and the corners of the mouth lie in the tight box of the landmarks, which is as
# high as it is wide: medians over 120 of 300-W's training faces, made symmetric.
FIVE_POINTS = np.array([[0.282, 0.18], [0.718, 0.18], [0.5, 0.44], [0.305, 0.637], [0.695, 0.637]])
# A box that ends less than this share of its size from the picture's border may hold a face that is cut off there.
AT_BORDER = 0.03

# Side in pixels of what the network sees of a face, and how many times the longer side of the face's box that is.
SIDE = 160
LOWEST_SCORE, MOST_PROPOSALS = 0.3, 1000
SURROUNDINGS = 2.2
# Another face in the corner of what is seen is not the one that was meant: shares of the side about the middle.
MIDDLE = 0.25
# A turned face scores lower than an upright one, which has level eyes and scores at least SURE. That is so of 92 % of
# 144 of 300-W's training faces, of 2 % of them at 45 degrees, and of none at 150, 180 and 210 degrees.
SURE = 0.91
LEVEL = 12.0
# A box that is so many times larger than the picture holds no face that could be seen.
LARGEST_SHARE = 4
OTHER_TURNS = (45.0, 90.0, 135.0, 225.0, 270.0, 315.0)
# Looks that follow the eyes of the best turn; after two of them the eyes are level to about ten degrees.
REFINEMENTS = 2


class Seen(NamedTuple):
    """A face as a close look sees it.

    Attributes:
        box: (x, y, width, height) in pixels of the picture, in YuNet's convention; turned about its middle by `roll`.
        score: YuNet's score of the face when it is upright, in [0, 1].
        roll: Degrees by which the face is turned clockwise, in [-180, 180).
    """

    box: tuple[float, float, float, float]
    score: float
    roll: float


def eye_roll(row: np.ndarray) -> float:
    """Return the degrees by which the lines through eyes and mouth corners of a row of YuNet's output are turned."""
    eye, other, _, corner, opposite = row[4:14].reshape(5, 2)
    across = other - eye + opposite - corner
    return math.degrees(math.atan2(across[1], across[0]))


class CloseLook:
    """Looks at single faces. Safe to use from threads.

    Args:
        cv2: The OpenCV module.
        network: What finds faces that are upright.
    """

    def __init__(self, cv2: Any, network: YuNet):
        self._cv2, self._network = cv2, network

    def __call__(self, rgb: np.ndarray, box: Any) -> Seen | None:
        """Look at a face.

        Args:
            rgb: (H, W, 3) uint8 picture.
            box: (x, y, width, height) about where the face is, in pixels.

        Returns:
            The face in the middle of the box, None where there is none.
        """
        if max(box[2:4]) > LARGEST_SHARE * max(rgb.shape[:2]):
            return None
        wide = _Surroundings(self._cv2, rgb, box)
        upright, reversed_ = self._look(wide, 0.0), self._look(wide, 180.0)
        if upright is not None and upright.score >= SURE and abs(upright.roll) <= LEVEL:
            # Some faces pass for upright when they stand on their heads, but not as well as on their feet.
            if reversed_ is None or reversed_.score < upright.score:
                return upright
        looks = [upright, reversed_, *(self._look(wide, turn) for turn in OTHER_TURNS)]
        seen = [look for look in looks if look is not None]
        if not seen:
            return None
        best = max(seen, key=lambda look: look.score)
        for _ in range(REFINEMENTS):
            # The box of a turned face is another one than that of the same face upright.
            better = self._look(_Surroundings(self._cv2, rgb, best.box), best.roll)
            best = better or best
        return best

    def _look(self, wide: "_Surroundings", turn: float) -> Seen | None:
        """Return the face in the middle when what surrounds it is turned back by `turn` degrees."""
        found = self._network(wide.turned_back(turn), LOWEST_SCORE, MOST_PROPOSALS)
        middles = found[:, :2] + found[:, 2:4] / 2
        found = found[(np.abs(middles / SIDE - 0.5) <= MIDDLE).all(1)]
        if not len(found):
            return None
        row = found[found[:, -1].argmax()]
        return Seen(wide.in_picture(row[:4], turn), min(1.0, float(row[-1])), wrapped(turn + eye_roll(row)))


class _Surroundings:
    """A face and what surrounds it, cut out of a picture once and turned as often as needed."""

    def __init__(self, cv2: Any, rgb: np.ndarray, box: Any):
        self._cv2 = cv2
        x, y, width, height = (float(value) for value in box)
        self.middle = np.array([x + width / 2, y + height / 2])
        side = max(SURROUNDINGS * max(width, height), 1.0)
        self.scale = side / SIDE
        # The square that holds the turned one, at the scale of what the network sees.
        self._pixels = math.ceil(SIDE * math.sqrt(2))
        reach = self._pixels * self.scale / 2
        first = np.floor(self.middle - reach).astype(int)
        stop = np.ceil(self.middle + reach).astype(int)
        self._cut = _padded(rgb, first, stop)
        shrink = max(1, int(self.scale))
        if shrink > 1:  # or bilinear sampling would alias
            size = [max(1, round(extent / shrink)) for extent in self._cut.shape[1::-1]]
            self._cut = cv2.resize(self._cut, size, interpolation=cv2.INTER_AREA)
        self._ratio = np.array(self._cut.shape[1::-1]) / (stop - first)
        self._first = first

    def turned_back(self, degrees: float) -> np.ndarray:
        """Return (SIDE, SIDE, 3) uint8, in which a face that is turned by `degrees` is upright."""
        matrix = _turn(degrees) * self.scale
        offset = self.middle - matrix @ np.array([SIDE / 2, SIDE / 2]) - self._first
        # OpenCV counts from pixel centers.
        matrix, offset = matrix * self._ratio[:, None], offset * self._ratio
        offset = offset + matrix @ np.array([0.5, 0.5]) - 0.5
        flags = self._cv2.INTER_LINEAR | self._cv2.WARP_INVERSE_MAP
        return self._cv2.warpAffine(self._cut, np.column_stack([matrix, offset]), (SIDE, SIDE), flags=flags)

    def in_picture(self, box: np.ndarray, degrees: float) -> tuple[float, float, float, float]:
        """Return where a box of what `turned_back` returned lies in the picture: its middle moved, its size scaled."""
        middle = self.middle + _turn(degrees) @ (box[:2] + box[2:] / 2 - SIDE / 2) * self.scale
        width, height = (float(extent) for extent in box[2:] * self.scale)
        return float(middle[0]) - width / 2, float(middle[1]) - height / 2, width, height


def tight_box(box: Any, roll: float = 0.0) -> tuple[float, float, float, float]:
    """Turn a box of YuNet's convention into the tight box of the landmarks.

    Args:
        box: (x, y, width, height) in pixels, edges.
        roll: Degrees by which both boxes are turned clockwise about their middles.

    Returns:
        (x, y, width, height) in pixels, edges.
    """
    x, y, width, height = (float(value) for value in box)
    center_x, center_y = x + width * (0.5 + CENTER_SHIFT[0]), y + height * (0.5 + CENTER_SHIFT[1])
    if roll:
        shift = _turn(roll) @ np.array([width * CENTER_SHIFT[0], height * CENTER_SHIFT[1]])
        center_x, center_y = x + width / 2 + float(shift[0]), y + height / 2 + float(shift[1])
    width, height = width * SIZE_RATIO[0], height * SIZE_RATIO[1]
    return (center_x - width / 2, center_y - height / 2, width, height)


def tight_box_in_picture(row: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the tight box of the landmarks of a face, part of which may lie beyond the picture's border.

    YuNet's box ends at the border, but its five points go on as if there were none. Where the box reaches the border,
    the points tell how far the face goes on.

    Args:
        row: (15,) of YuNet's output in pixels.
        size: (width, height) of the picture.

    Returns:
        (x, y, width, height) in pixels, edges.
    """
    box = tight_box(row[:4])
    low, extent, size_ = row[:2], row[2:4], np.asarray(size)
    at_border = np.concatenate([low < AT_BORDER * extent, low + extent > size_ - AT_BORDER * extent])
    if not at_border.any():
        return box
    x, y, width, height = box
    edges, by_points = np.array([x, y, x + width, y + height]), _edges_by_points(row[4:14].reshape(5, 2))
    outer = np.concatenate([np.minimum(edges[:2], by_points[:2]), np.maximum(edges[2:], by_points[2:])])
    edges = np.where(at_border, outer, edges)
    x, y, width, height = (float(value) for value in (*edges[:2], *(edges[2:] - edges[:2])))
    return x, y, width, height


def _edges_by_points(points: np.ndarray) -> np.ndarray:
    """Return the left, top, right and lower edge of a tight box by its five points, in the sense of least squares."""
    middle, center = FIVE_POINTS.mean(0), points.mean(0)
    width = ((FIVE_POINTS - middle) * (points - center)).sum() / ((FIVE_POINTS - middle) ** 2).sum()
    corner = center - middle * width
    return np.concatenate([corner, corner + width])


def _turn(degrees: float) -> np.ndarray:
    """Return the matrix that turns (x, y) clockwise on the screen."""
    angle = math.radians(degrees)
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _padded(rgb: np.ndarray, first: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Return the pixels (x, y) from `first` up to `stop`, black where there are none."""
    size = np.array(rgb.shape[1::-1])
    low, high = np.clip(first, 0, size), np.clip(stop, 0, size)
    cut = np.zeros((*(stop - first)[::-1], 3), dtype=np.uint8)
    (x, y), (right, bottom) = low - first, high - first
    cut[y:bottom, x:right] = rgb[low[1] : high[1], low[0] : high[0]]
    return cut


__all__ = ["CloseLook", "Seen", "eye_roll", "tight_box", "tight_box_in_picture"]
