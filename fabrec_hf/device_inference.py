"""The former place of `fabrec_hf.inference.device_detector`."""

import warnings

from .inference.device_detector import *  # noqa: F403  (the names of the present place, whatever they are)
from .inference.device_detector import __all__ as __all__


warnings.warn("fabrec_hf.device_inference moved to fabrec_hf.inference.device_detector", FutureWarning, stacklevel=2)
