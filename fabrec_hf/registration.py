"""Tell transformers of the models at the moment when it could be asked for them, and not before.

The Auto classes and the pipelines live in modules of transformers that take seconds to load, and so do the models. To
register them where `fabrec_hf` is imported would load all of that to print a help text. Therefore each registration
waits until transformers' part and ours are both wanted: loading transformers' part loads ours, and only ours then
waits for transformers'. It makes no difference which of the two is imported first.
"""

import importlib
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

from .common.imports import when_imported


__all__ = ["register_lazily"]

_AUTO = "transformers.models.auto"
_MODEL = "fabrec_hf.model"


def register_lazily() -> None:
    """Set up all registrations; those whose modules are loaded already happen at once."""
    for module, mark in _MARKS.items():
        when_imported(mark, f"{_MODEL}.{module}")
    for theirs, ours, register in _REGISTRATIONS:
        _register_when_both(theirs, f"{_MODEL}.{ours}", register)


def _register_when_both(theirs: str, ours: str, register: Callable[[ModuleType], None]) -> None:
    missing = {theirs, ours}

    def has_come(name: str, _: ModuleType) -> None:
        missing.discard(name)
        if not missing:
            register(sys.modules[ours])
        elif (
            ours not in sys.modules
        ):  # one that is there and still missing is being loaded, and comes when it is whole
            importlib.import_module(ours)

    for name in (ours, theirs):
        when_imported(partial(has_come, name), name)


def _register_configurations(ours: ModuleType) -> None:
    from transformers import AutoConfig

    for config in (ours.FabRecAutoencoderConfig, ours.FabRecConfig):
        AutoConfig.register(config.model_type, config)


def _register_models(ours: ModuleType) -> None:
    from transformers import AutoModel, AutoModelForKeypointDetection

    for model in (ours.FabRecAutoencoder, ours.FabRecForLandmarkDetection):
        AutoModel.register(model.config_class, model)
    landmark_model = ours.FabRecForLandmarkDetection
    AutoModelForKeypointDetection.register(landmark_model.config_class, landmark_model)


def _register_processors(ours: ModuleType) -> None:
    from transformers import AutoImageProcessor

    from .model.configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig
    from .model.image_processing_fabrec import FabRecImageProcessor

    backends = {"torchvision": FabRecImageProcessor, "pil": ours.FabRecImageProcessorPil}
    for config in (FabRecAutoencoderConfig, FabRecConfig):
        AutoImageProcessor.register(config, image_processor_classes=backends)


def _register_pipeline(ours: ModuleType) -> None:
    from transformers import AutoModelForKeypointDetection
    from transformers.pipelines import PIPELINE_REGISTRY

    from .model.embedded_fabrec import WEIGHTS

    # transformers asks the Hub for every name that a pipeline is given, but not for the folder of the task's own
    # model.
    PIPELINE_REGISTRY.register_pipeline(
        "face-landmark-detection",
        ours.FaceLandmarkPipeline,
        pt_model=AutoModelForKeypointDetection,
        default={"model": (str(WEIGHTS / "3fabrec-300w"), None)},
        type="image",
    )
    # What a saved pipeline says of itself in its repository. The task has to be another one: transformers refuses to
    # run a task that both the repository and the registry define unless remote code is trusted. The default is a
    # folder here.
    task = PIPELINE_REGISTRY.supported_tasks["face-landmark-detection"]
    ours.FaceLandmarkPipeline._registered_impl = {
        "keypoint-detection": {name: value for name, value in task.items() if name != "default"}
    }


def _mark_configurations(ours: ModuleType) -> None:
    for config in (ours.FabRecAutoencoderConfig, ours.FabRecConfig):
        config.register_for_auto_class("AutoConfig")


def _mark_models(ours: ModuleType) -> None:
    for model in (ours.FabRecAutoencoder, ours.FabRecForLandmarkDetection):
        model.register_for_auto_class("AutoModel")


def _mark_processor(ours: ModuleType) -> None:
    ours.FabRecImageProcessor.register_for_auto_class("AutoImageProcessor")


# What lets `save_pretrained` put the source files beside the weights: it belongs to our classes alone.
_MARKS = {
    "configuration_fabrec": _mark_configurations,
    "modeling_fabrec": _mark_models,
    "image_processing_fabrec": _mark_processor,
}

# transformers' module, ours, and what to do once both are there.
_REGISTRATIONS = (
    (f"{_AUTO}.configuration_auto", "configuration_fabrec", _register_configurations),
    (f"{_AUTO}.modeling_auto", "modeling_fabrec", _register_models),
    (f"{_AUTO}.image_processing_auto", "image_processing_pil_fabrec", _register_processors),
    ("transformers.pipelines", "pipeline_fabrec", _register_pipeline),
)
