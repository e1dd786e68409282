"""Few-shot face landmarks by reconstruction: 3FabRec as ordinary Hugging Face models.

Importing the package registers its configurations, models, image processors and pipeline with the Auto classes. It
also makes every `save_pretrained` and `push_to_hub` of a model or image processor put the few source files that they
need (about 140 kB) beside the weights: such a checkpoint loads with `trust_remote_code=True` where this package is not
installed. Where it is, the installed code is used and those files are never looked at.

The import itself takes no time: a name loads what it needs when it is first used, and the registration happens when
transformers loads its Auto classes, before or after this import.
"""

import importlib
from typing import TYPE_CHECKING, Any

from . import errors
from .registration import register_lazily


if TYPE_CHECKING:
    from .checkpoints.names import resolve_checkpoint, weights_path
    from .data.collator import LandmarkCollator
    from .inference.drawing import draw_landmarks
    from .metrics.trainer import LandmarkMetrics
    from .model.configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig
    from .model.image_processing_fabrec import FabRecImageProcessor
    from .model.image_processing_pil_fabrec import FabRecImageProcessorPil
    from .model.known_schemes import LandmarkScheme, get_scheme
    from .model.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection
    from .model.pipeline_fabrec import FaceLandmarkPipeline

__version__ = "0.1.0"

# Where each public name is.
_PLACES = {
    "FabRecAutoencoder": "model.modeling_fabrec",
    "FabRecAutoencoderConfig": "model.configuration_fabrec",
    "FabRecConfig": "model.configuration_fabrec",
    "FabRecForLandmarkDetection": "model.modeling_fabrec",
    "FabRecImageProcessor": "model.image_processing_fabrec",
    "FabRecImageProcessorPil": "model.image_processing_pil_fabrec",
    "FaceLandmarkPipeline": "model.pipeline_fabrec",
    "LandmarkCollator": "data.collator",
    "LandmarkMetrics": "metrics.trainer",
    "LandmarkScheme": "model.known_schemes",
    "draw_landmarks": "inference.drawing",
    "get_scheme": "model.known_schemes",
    "resolve_checkpoint": "checkpoints.names",
    "weights_path": "checkpoints.names",
}

__all__ = [
    "FabRecAutoencoder",
    "FabRecAutoencoderConfig",
    "FabRecConfig",
    "FabRecForLandmarkDetection",
    "FabRecImageProcessor",
    "FabRecImageProcessorPil",
    "FaceLandmarkPipeline",
    "LandmarkCollator",
    "LandmarkMetrics",
    "LandmarkScheme",
    "draw_landmarks",
    "errors",
    "get_scheme",
    "resolve_checkpoint",
    "weights_path",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = value  # found without this function from now on
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_lazily()
