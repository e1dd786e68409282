"""Few-shot face landmarks by reconstruction: 3FabRec as ordinary Hugging Face models.

Importing the package registers its configurations, models, image processors and pipeline with the Auto classes.
"""

from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForKeypointDetection

from .configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig
from .image_processing_fabrec import FabRecImageProcessor
from .image_processing_pil_fabrec import FabRecImageProcessorPil
from .landmarks import LandmarkScheme, get_scheme
from .modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection


__version__ = "0.1.0"

for _config, _model in ((FabRecAutoencoderConfig, FabRecAutoencoder), (FabRecConfig, FabRecForLandmarkDetection)):
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)
    AutoImageProcessor.register(
        _config, image_processor_classes={"torchvision": FabRecImageProcessor, "pil": FabRecImageProcessorPil}
    )
AutoModelForKeypointDetection.register(FabRecConfig, FabRecForLandmarkDetection)


__all__ = [
    "FabRecAutoencoder",
    "FabRecAutoencoderConfig",
    "FabRecConfig",
    "FabRecForLandmarkDetection",
    "FabRecImageProcessor",
    "FabRecImageProcessorPil",
    "LandmarkScheme",
    "get_scheme",
]
