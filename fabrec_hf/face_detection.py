"""The former place of `fabrec_hf.model.face_detection`."""

import warnings

from .model.face_detection import *  # noqa: F403  (the names of the present place, whatever they are)
from .model.face_detection import __all__ as __all__


warnings.warn("fabrec_hf.face_detection moved to fabrec_hf.model.face_detection", FutureWarning, stacklevel=2)
