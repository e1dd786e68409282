"""Save a landmark detector as its small difference from the autoencoder that it was taught on."""

import json
from pathlib import Path

from ..checkpoints.loading import load_autoencoder
from ..checkpoints.names import embedded_names, resolve_checkpoint
from ..checkpoints.weight_files import INDEX_NAME, WEIGHTS_NAME
from ..common.choices import DEFAULT_RANK
from ..common.output_folder import check_output_folder, write_files
from ..errors import CheckpointError
from ..model.delta_fabrec import DELTA_NAME, delta_bytes, holds_delta, make_delta
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.modeling_fabrec import FabRecForLandmarkDetection


__all__ = ["check_delta_folder", "save_delta"]


def save_delta(
    model: FabRecForLandmarkDetection,
    processor: FabRecImageProcessor,
    output: str | Path,
    autoencoder: str = "3fabrec-mesh",
    rank: int = DEFAULT_RANK,
) -> Path:
    """Save a detector in about two megabytes; `from_pretrained` and every command load it as any other checkpoint.

    Args:
        model: The detector, which is not changed.
        processor: Its image processor, which is saved beside it.
        output: Folder for `delta.safetensors`, `config.json` and `preprocessor_config.json`; all are written, or none.
        autoencoder: What the detector was taught on: one that comes with the package, a folder, which has to stay
            where it is, or a repository `owner/name`. Loading fetches it, and refuses it if its weights have changed.
        rank: The most directions that are kept of the change of each convolution of the encoder, see `make_delta`.

    Returns:
        The folder.

    Raises:
        CheckpointError: The detector was taught on another autoencoder or holds values beyond 16 bits, the autoencoder
            is itself kept as a delta, or the folder already holds a whole checkpoint.
        FabRecError: The folder cannot be written to.
        ValueError: The rank is not positive.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}.")
    output = Path(output)
    check_delta_folder(output)
    source = resolve_checkpoint(autoencoder)
    if holds_delta(source):
        raise CheckpointError(f"{autoencoder} is itself kept as a delta: name the autoencoder that it was taught on.")
    base = load_autoencoder(source).state_dict()
    try:
        delta = make_delta({name: value.cpu() for name, value in model.state_dict().items()}, base, rank)
    except ValueError as error:
        raise CheckpointError(f"This detector is no delta of the autoencoder {autoencoder}: {error}") from error
    folder = Path(source)
    kept_name = autoencoder if autoencoder in embedded_names() or not folder.is_dir() else str(folder.resolve())
    config = json.loads(model.config.to_json_string()) | {"dtype": "float32"}
    crops = json.loads(processor.to_json_string())
    for values in (config, crops):
        values.pop("auto_map", None)  # no source files lie beside a delta
    write_files(
        output,
        {
            DELTA_NAME: delta_bytes(delta, kept_name, base),
            "config.json": (json.dumps(config, indent=2) + "\n").encode(),
            "preprocessor_config.json": (json.dumps(crops, indent=2) + "\n").encode(),
        },
    )
    return output


def check_delta_folder(folder: Path) -> None:
    """Refuse early what cannot become the folder of a delta, or of shards.

    Raises:
        CheckpointError: It holds whole weights, which would go first when loading.
        FabRecError: A file is in the way, or there is no permission to write.
    """
    check_output_folder(folder)
    if (folder / WEIGHTS_NAME).exists() or (folder / INDEX_NAME).exists():
        raise CheckpointError(
            f"{folder} holds a whole checkpoint, which goes first when loading: name another folder."
        )
