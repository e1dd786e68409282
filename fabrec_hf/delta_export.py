"""Save a landmark detector as its small difference from the autoencoder that it was taught on."""

import json
from pathlib import Path

from .delta_fabrec import DELTA_NAME, delta_bytes, make_delta
from .errors import CheckpointError
from .image_processing_fabrec import FabRecImageProcessor
from .loading import load_autoencoder
from .modeling_fabrec import FabRecForLandmarkDetection
from .output_folder import check_output_folder, write_files


__all__ = ["DEFAULT_RANK", "save_delta"]

# At ten faces rank 8 costs 0.3 % of the error, at 1,913 faces rank 32 costs 4 %: see training/README.md.
DEFAULT_RANK = 32


def save_delta(
    model: FabRecForLandmarkDetection,
    processor: FabRecImageProcessor,
    output: str | Path,
    autoencoder: str = "3fabrec-autoencoder",
    rank: int = DEFAULT_RANK,
) -> Path:
    """Save a detector in one or two megabytes; `from_pretrained` and every command load it as any other checkpoint.

    Args:
        model: The detector, which is not changed.
        processor: Its image processor, which is saved beside it.
        output: Folder for `delta.safetensors`, `config.json` and `preprocessor_config.json`; all are written, or none.
        autoencoder: What the detector was taught on, by the name that it is going to be loaded by: one that comes with
            the package, a folder, or a repository `owner/name`.
        rank: The most directions that are kept of the change of each convolution of the encoder, see `make_delta`.

    Returns:
        The folder.

    Raises:
        CheckpointError: The detector was taught on another autoencoder, holds values beyond 16 bits, or the
            folder already holds a whole checkpoint.
        FabRecError: The folder cannot be written to.
        ValueError: The rank is not positive.
    """
    if rank < 1:
        raise ValueError(f"rank must be at least 1, got {rank}.")
    output = Path(output)
    check_output_folder(output)
    if (output / "model.safetensors").exists():
        raise CheckpointError(
            f"{output} holds a whole checkpoint, which goes first when loading: name another folder."
        )
    base = load_autoencoder(autoencoder).state_dict()
    try:
        delta = make_delta({name: value.cpu() for name, value in model.state_dict().items()}, base, rank)
    except ValueError as error:
        raise CheckpointError(f"The detector cannot be kept beside {autoencoder}: {error}") from error
    config = json.loads(model.config.to_json_string()) | {"dtype": "float32"}
    crops = json.loads(processor.to_json_string())
    for values in (config, crops):
        values.pop("auto_map", None)  # no source files lie beside a delta
    write_files(
        output,
        {
            DELTA_NAME: delta_bytes(delta, autoencoder, base),
            "config.json": (json.dumps(config, indent=2) + "\n").encode(),
            "preprocessor_config.json": (json.dumps(crops, indent=2) + "\n").encode(),
        },
    )
    return output
