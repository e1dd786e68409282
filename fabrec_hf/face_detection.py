"""The former place of `fabrec_hf.model.face_detection`."""

import warnings

from .model.face_detection import (
    Detection,
    FaceDetector,
    YuNetFaceDetector,
    can_find_faces,
    default_face_detector,
    tight_box,
)


__all__ = [
    "Detection",
    "FaceDetector",
    "YuNetFaceDetector",
    "can_find_faces",
    "default_face_detector",
    "tight_box",
]

warnings.warn("fabrec_hf.face_detection moved to fabrec_hf.model.face_detection", FutureWarning, stacklevel=2)
