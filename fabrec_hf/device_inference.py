"""The former place of `fabrec_hf.inference.device_detector`."""

import warnings

from .inference.device_detector import DeviceLandmarkDetector, DeviceLandmarks


__all__ = ["DeviceLandmarks", "DeviceLandmarkDetector"]

warnings.warn("fabrec_hf.device_inference moved to fabrec_hf.inference.device_detector", FutureWarning, stacklevel=2)
