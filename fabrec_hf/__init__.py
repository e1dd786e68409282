"""Few-shot face landmarks by reconstruction: 3FabRec as ordinary Hugging Face models.

Importing the package registers its configurations, models, image processors and pipeline with the Auto classes. It
also makes every `save_pretrained` and `push_to_hub` of a model or image processor put the few source files that they
need (about 140 kB) beside the weights: such a checkpoint loads with `trust_remote_code=True` where this package is not
installed. Where it is, the installed code is used and those files are never looked at.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForKeypointDetection
from transformers.pipelines import PIPELINE_REGISTRY

from .checkpoints.names import resolve_checkpoint, weights_path
from .inference.drawing import draw_landmarks
from .model.configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig
from .model.embedded_fabrec import WEIGHTS as _WEIGHTS
from .model.image_processing_fabrec import FabRecImageProcessor
from .model.image_processing_pil_fabrec import FabRecImageProcessorPil
from .model.known_schemes import LandmarkScheme, get_scheme
from .model.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection
from .model.pipeline_fabrec import FaceLandmarkPipeline


__version__ = "0.1.0"

for _config, _model in ((FabRecAutoencoderConfig, FabRecAutoencoder), (FabRecConfig, FabRecForLandmarkDetection)):
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
    AutoImageProcessor.register(
        _config, image_processor_classes={"torchvision": FabRecImageProcessor, "pil": FabRecImageProcessorPil}
    )
    _config.register_for_auto_class("AutoConfig")
    _model.register_for_auto_class("AutoModel")
AutoModelForKeypointDetection.register(FabRecConfig, FabRecForLandmarkDetection)
FabRecImageProcessor.register_for_auto_class("AutoImageProcessor")

# transformers asks the Hub for every name that a pipeline is given, but not for the folder of the task's own model.
PIPELINE_REGISTRY.register_pipeline(
    "face-landmark-detection",
    FaceLandmarkPipeline,
    pt_model=AutoModelForKeypointDetection,
    default={"model": (str(_WEIGHTS / "3fabrec-300w"), None)},
    type="image",
)
# What a saved pipeline says of itself in its repository. The task has to be another one: transformers refuses to run
# a task that both the repository and the registry define unless remote code is trusted. The default is a folder here.
_task = PIPELINE_REGISTRY.supported_tasks["face-landmark-detection"]
FaceLandmarkPipeline._registered_impl = {
    "keypoint-detection": {name: value for name, value in _task.items() if name != "default"}
}


__all__ = [
    "FabRecAutoencoder",
    "FabRecAutoencoderConfig",
    "FabRecConfig",
    "FabRecForLandmarkDetection",
    "FabRecImageProcessor",
    "FabRecImageProcessorPil",
    "FaceLandmarkPipeline",
    "LandmarkScheme",
    "draw_landmarks",
    "get_scheme",
    "resolve_checkpoint",
    "weights_path",
]
