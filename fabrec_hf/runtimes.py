"""The former place of `fabrec_hf.export.runtimes`."""

import warnings

from .export.runtimes import ExportedLandmarkDetector, load_exported


__all__ = ["ExportedLandmarkDetector", "load_exported"]

warnings.warn("fabrec_hf.runtimes moved to fabrec_hf.export.runtimes", FutureWarning, stacklevel=2)
