"""MediaPipe's face mesh as a teacher: it labels pictures with the 128 points of the scheme `mesh`.

MediaPipe below 0.10.30, whose wheels carry the network (Apache-2.0), cannot be installed beside this package: it asks
for NumPy 1. It runs in an environment of its own, made by

    python -m venv .mediapipe && .mediapipe/bin/pip install 'mediapipe<0.10.30'
"""

import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fabrec_hf.errors import FabRecError
from fabrec_hf.inference.landmark_finder import Box, Face
from fabrec_hf.model.image_inputs import as_picture
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor
from fabrec_hf.model.mesh_scheme import FOREHEAD, MESH_VERTICES, mesh_scheme


WORKER = Path(__file__).with_name("mediapipe_worker.py")
VERTICES = 478
# MediaPipe's detector wants to see what is around a face: the box grows by this share of its longer side on each side.
MARGIN = 0.375


class MediaPipeTeacher:
    """Labels faces as a `LandmarkFinder` does. Safe to use from threads, which wait for each other.

    Args:
        python: The interpreter of an environment with MediaPipe; that of this process if None.

    Attributes:
        name: What the labels are said to be of.
        scheme: The scheme `mesh`.
        processor: Says how faces are cropped.
        on_cpu: True.
        num_landmarks: 128.

    Raises:
        FabRecError: MediaPipe does not start there.
    """

    name = "MediaPipe face mesh"
    on_cpu = True

    def __init__(self, python: str | None = None):
        self.scheme, self.processor = mesh_scheme(), FabRecImageProcessor()
        self.num_landmarks = self.scheme.num_landmarks
        self.vertices = [vertex for part in MESH_VERTICES.values() for vertex in part]
        framing = set(MESH_VERTICES["contour"] + MESH_VERTICES["brows"]) - set(FOREHEAD)
        self._framing = [place for place, vertex in enumerate(self.vertices) if vertex in framing]
        self._lock = threading.Lock()
        command = [python or sys.executable, str(WORKER)]
        try:
            self._worker = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            weakref.finalize(self, self._worker.kill)
            self._ask(np.zeros((64, 64, 3), np.uint8))
        except (OSError, FabRecError) as error:
            raise FabRecError(
                f"MediaPipe does not start in {command[0]}: make an environment with pip install 'mediapipe<0.10.30' "
                "and name its interpreter by --teacher_python."
            ) from error

    def fingerprint(self) -> str:
        """Say what the labels are of."""
        return f"{self.name} {self.vertices} {MARGIN}"

    def detect(self, image: Any) -> list[Box]:
        """Take a picture without a box for a face crop: (0, 0, width, height)."""
        return [(0.0, 0.0, *map(float, as_picture(image).size))]

    def find(
        self, images: Sequence[Any], boxes: Sequence[Sequence[Any]], min_score: float | None = None
    ) -> list[list[Face]]:
        """Find the mesh in and around boxes; a box without a face gives none.

        Args:
            images: Upright pictures, in any form that the image processor takes.
            boxes: The faces of each of them, (x, y, width, height) in pixels.
            min_score: MediaPipe gives no scores; all are 1.

        Returns:
            For each picture its faces: `keypoints` (128, 2) in pixels with centers at integers, `scores`, and the
            `bbox` of brows and contour, which is the box that face alignment data comes with.
        """
        return [
            [face for box in entry if (face := self._face(image, box)) is not None]
            for image, entry in zip(images, boxes, strict=True)
        ]

    def find_vertices(self, image: Any, box: Any) -> np.ndarray:
        """Find all vertices of the face in and around a box (x, y, width, height) of an upright picture.

        Returns:
            (478, 2) pixels of the picture with centers at integers, NaN where MediaPipe finds no face.
        """
        pixels = as_picture(image).rgb
        x, y, width, height = (float(value) for value in box)
        margin = MARGIN * max(width, height)
        left, top = round(x - margin), round(y - margin)
        canvas = np.zeros((round(height + 2 * margin), round(width + 2 * margin), 3), np.uint8)
        x0, y0 = max(0, left), max(0, top)
        part = pixels[y0 : max(0, top + canvas.shape[0]), x0 : max(0, left + canvas.shape[1])]
        canvas[y0 - top : y0 - top + part.shape[0], x0 - left : x0 - left + part.shape[1]] = part
        return self._ask(canvas) + (left - 0.5, top - 0.5)

    def _face(self, image: Any, box: Any) -> Face | None:
        points = self.find_vertices(image, box)[self.vertices]
        if not np.isfinite(points).all():
            return None
        # Boxes are edges, points are centers.
        low, high = points[self._framing].min(0) + 0.5, points[self._framing].max(0) + 0.5
        return {
            "keypoints": torch.from_numpy(points).float(),
            "scores": torch.ones(len(points)),
            "bbox": torch.from_numpy(np.concatenate([low, high - low])).float(),
        }

    def _ask(self, pixels: np.ndarray) -> np.ndarray:
        """Return the (478, 2) vertices in a picture (H, W, 3), edges at 0."""
        size = VERTICES * 2 * 4
        with self._lock:
            try:
                assert self._worker.stdin is not None and self._worker.stdout is not None
                self._worker.stdin.write(struct.pack("<ii", *pixels.shape[:2]) + pixels.tobytes())
                self._worker.stdin.flush()
                answer = self._worker.stdout.read(size)
            except OSError as error:
                raise FabRecError(f"MediaPipe stopped: {error}") from error
        if len(answer) != size:
            raise FabRecError("MediaPipe stopped.")
        return np.frombuffer(answer, np.float32).reshape(VERTICES, 2).astype(float)
