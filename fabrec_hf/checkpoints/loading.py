"""Load models, and say in one line why if that cannot be done."""

import json
import pickle
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub.errors import RepositoryNotFoundError, StrictDataclassError
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError, FabRecError
from ..model.configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig
from ..model.delta_fabrec import whole_weights
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.known_schemes import LandmarkScheme
from ..model.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection, FabRecPreTrainedModel
from .names import resolve_checkpoint
from .weight_files import is_export, weight_files


ModelT = TypeVar("ModelT", bound=torch.nn.Module)

PACKAGE = Path(__file__).parents[1]
# A JSON file whose values are of other types than they should be fails wherever a library first uses one. Raised by
# code of this package, these are its own mistakes, and are raised as they are.
PROGRAM_ERRORS = (TypeError, LookupError, AttributeError, ArithmeticError)
# Each layer has errors of its own: files and hub, JSON and processors, weights, configurations.
LOADING_ERRORS = (
    *PROGRAM_ERRORS,
    OSError,
    ValueError,
    RuntimeError,
    MemoryError,
    EOFError,
    pickle.UnpicklingError,
    SafetensorError,
    StrictDataclassError,
)


@contextmanager
def _loading(name: str | Path) -> Iterator[None]:
    """Say in one line of what is raised within the block that the checkpoint cannot be loaded."""
    try:
        yield
    except CheckpointError:
        raise
    except LOADING_ERRORS as error:
        if isinstance(error, PROGRAM_ERRORS) and _is_own(error):
            raise
        raise CheckpointError(f"The checkpoint {name} cannot be loaded: {_reason(error)}") from error


def _is_own(error: BaseException) -> bool:
    """Whether a line of this package raised an error."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return Path(frame.f_code.co_filename).is_relative_to(PACKAGE)


def load_landmark_model(name: str | Path) -> tuple[FabRecForLandmarkDetection, FabRecImageProcessor]:
    """Load a landmark model, complete or not at all.

    `from_pretrained` alone fills weights that a checkpoint lacks at random and goes on; this refuses them.

    Args:
        name: folder, name of a checkpoint that comes with the package such as `"3fabrec-300w"`, or repository
            `owner/name`.

    Returns:
        The model in eval mode on the CPU, and its image processor.

    Raises:
        CheckpointError: there is no such checkpoint, it is damaged or incomplete, or it holds another kind of model.
    """
    source = resolve_checkpoint(name)
    with _loading(name):
        _check_kind(name, source)
        _check_weights(name, *_compare_shapes(source, FabRecForLandmarkDetection))
        model, report = FabRecForLandmarkDetection.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True
        )
        processor = FabRecImageProcessor.from_pretrained(source)
        if model.config.landmark_scheme is not None:
            LandmarkScheme.from_dict(model.config.landmark_scheme)
    _check_weights(name, sorted(report["mismatched_keys"]), sorted(report["missing_keys"]))
    if processor.size.height != model.config.image_size:
        raise CheckpointError(
            f"The checkpoint {name} contradicts itself: its processor makes crops of {processor.size.height} px, its "
            f"model takes {model.config.image_size} px."
        )
    return model, processor


def load_autoencoder(name: str | Path) -> FabRecAutoencoder:
    """Load an autoencoder, complete or not at all; of a landmark model, the autoencoder within.

    Args:
        name: Folder, name of a checkpoint that comes with the package, or repository `owner/name`.

    Returns:
        The model in eval mode on the CPU, float32.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged or incomplete, or it holds another kind of model.
    """
    source = resolve_checkpoint(name)
    with _loading(name):
        _check_whole(name, *_compare_shapes(source, FabRecAutoencoder))
        model, report = FabRecAutoencoder.from_pretrained(
            source, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    _check_whole(name, report["mismatched_keys"], report["missing_keys"])
    return model


def checkpoint_kind(name: str | Path) -> str | None:
    """Return the `model_type` that a checkpoint says it holds.

    Raises:
        CheckpointError: There is no such checkpoint, or its configuration cannot be read.
    """
    source = resolve_checkpoint(name)
    with _loading(name):
        kind = _model_type(source)
    return kind


def load_checkpoint(
    name: str | Path,
) -> tuple[FabRecAutoencoder | FabRecForLandmarkDetection, FabRecImageProcessor]:
    """Load whichever of the two models a checkpoint holds, complete or not at all, with its image processor.

    Args:
        name: Folder, name of a checkpoint that comes with the package, or repository `owner/name`.

    Raises:
        CheckpointError: There is no such checkpoint, it is damaged or incomplete, or it holds another kind of model.
    """
    if checkpoint_kind(name) != FabRecAutoencoderConfig.model_type:
        return load_landmark_model(name)
    model = load_autoencoder(name)
    with _loading(name):
        processor = FabRecImageProcessor.from_pretrained(resolve_checkpoint(name))
    return model, processor


def move_to_device(model: ModelT, device: str | None) -> ModelT:
    """Move a model to a device, the GPU by default where there is one.

    Raises:
        FabRecError: The device is unknown, or not there.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise FabRecError(f"--device {device}: {str(error).splitlines()[0]}") from error


def _model_type(source: str) -> str | None:
    """Return what a configuration says that it is of."""
    values, _ = FabRecConfig.get_config_dict(source)
    if not isinstance(values, dict):
        raise ValueError("its config.json holds no configuration.")
    return values.get("model_type")


def _check_kind(name: str | Path, source: str) -> None:
    if is_export(source):
        raise CheckpointError(
            f"{name} is an export, which `fabrec detect` and `load_exported` run: name the checkpoint it is of."
        )
    kind = _model_type(source)
    if kind == FabRecAutoencoderConfig.model_type:
        raise CheckpointError(f"{name} is an autoencoder, which finds no landmarks: name a model trained from it.")
    if Path(source).is_dir() and not (Path(source) / "preprocessor_config.json").is_file():
        raise CheckpointError(f"{name} has no preprocessor_config.json: save its image processor beside the model.")
    if kind != FabRecConfig.model_type:
        raise CheckpointError(
            f"{name} holds a model of type {kind!r}, not a landmark model {FabRecConfig.model_type!r}."
        )


def _compare_shapes(source: str, kind: type[FabRecPreTrainedModel]) -> tuple[list[tuple], list[str]]:
    """Compare a folder's weights with its configuration before memory is taken for what the configuration says.

    Returns:
        (key, shape found, shape expected) of every weight that does not fit, and the keys that are missing.
    """
    shapes = _stored_shapes(source)
    if shapes is None:
        return [], []
    with torch.device("meta"):
        model = kind(kind.config_class.from_pretrained(source))
    prefix = "autoencoder." if kind is FabRecAutoencoder else ""
    found = {key.removeprefix(prefix): shape for key, shape in shapes.items()}
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    mismatched = [(key, found[key], shape) for key, shape in expected.items() if found.get(key, shape) != shape]
    return sorted(mismatched), sorted(expected.keys() - found.keys())


def _stored_shapes(source: str) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of a folder's weights, None if there are none in files of their own."""
    shapes: dict[str, tuple[int, ...]] = {}
    files = weight_files(source)
    for file in files:
        with safe_open(file, "pt") as weights:
            shapes |= {key: tuple(weights.get_slice(key).get_shape()) for key in weights.keys()}
    if files:
        return shapes
    whole = whole_weights(source, lambda name: load_autoencoder(name).state_dict())
    return None if whole is None else {key: tuple(value.shape) for key, value in whole.items()}


def _check_whole(name: str | Path, mismatched: Iterable[tuple], missing: Iterable[str]) -> None:
    unusable = sorted({*missing, *(key for key, *_ in mismatched)})
    if unusable:
        raise CheckpointError(f"{name} is no whole autoencoder: its {unusable[0]} is missing or of another shape.")


def _check_weights(name: str | Path, mismatched: list[tuple], missing: list[str]) -> None:
    if mismatched:
        key, found, expected = mismatched[0]
        raise CheckpointError(
            f"The checkpoint {name} contradicts itself: {key} has the shape {tuple(found)}, but its config.json, with "
            f"its number of landmarks, asks for {tuple(expected)}."
        )
    if missing:
        more = f" and {len(missing) - 1} more weights" if len(missing) > 1 else ""
        raise CheckpointError(f"The checkpoint {name} is incomplete: it lacks {missing[0]}{more}.")


def _reason(error: Exception) -> str:
    """Return the first line of what went wrong; a configuration error wraps the one that says it."""
    if isinstance(error, StrictDataclassError) and error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]
    if isinstance(error, json.JSONDecodeError):
        return f"broken JSON ({error})"
    if isinstance(error.__cause__, RepositoryNotFoundError):
        return "there is no such repository, or it is private: log in with `hf auth login`, or set HF_TOKEN."
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()


__all__ = ["checkpoint_kind", "load_autoencoder", "load_checkpoint", "load_landmark_model", "move_to_device"]
