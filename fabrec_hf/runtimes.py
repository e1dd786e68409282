"""The former place of `fabrec_hf.export.runtimes`."""

import warnings

from .export.runtimes import *  # noqa: F403  (the names of the present place, whatever they are)
from .export.runtimes import __all__ as __all__


warnings.warn("fabrec_hf.runtimes moved to fabrec_hf.export.runtimes", FutureWarning, stacklevel=2)
