"""Put a trained checkpoint into the package: 16-bit weights, no source files, no optimizer state.

    python training/embed_checkpoint.py runs/300w-small 3fabrec-300w
    python training/embed_checkpoint.py runs/sweep/models/10-paper-0-600+600 3fabrec-300w-10shot --rank 32

With --rank only the difference from --autoencoder is kept, see `fabrec export --format delta`.
The configuration keeps asking for 32-bit arithmetic, so that users load it as any other model. What was written and
measured of the checkpoint before, `results.json`, is kept: bring it up to date with `fabrec card --add`, then write
the cards with `make cards`.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from training_utils import run_main
from transformers import AutoModel

from fabrec_hf.checkpoints.loading import load_landmark_model
from fabrec_hf.checkpoints.results import FILE_NAME as RESULTS_NAME
from fabrec_hf.checkpoints.weight_files import weight_files
from fabrec_hf.common.drafts import unfinished_folder
from fabrec_hf.common.output_folder import make_readable
from fabrec_hf.errors import CheckpointError
from fabrec_hf.export.delta import save_delta
from fabrec_hf.model.embedded_fabrec import WEIGHTS
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor


def main(arguments: argparse.Namespace) -> None:
    """Write the checkpoint under another name first and put it in place when it is whole."""
    if not weight_files(arguments.source):
        raise CheckpointError(f"{arguments.source} holds no model.safetensors: name the folder of a finished run.")
    target = WEIGHTS / arguments.name
    with unfinished_folder(arguments.source) as workplace:
        partial = workplace / "embedded"
        if arguments.rank is None:
            _save_whole(arguments.source, partial)
        else:
            save_delta(*load_landmark_model(arguments.source), partial, arguments.autoencoder, arguments.rank)
        if (target / RESULTS_NAME).is_file():
            shutil.copy(target / RESULTS_NAME, partial)
        make_readable(partial)
        shutil.rmtree(target, ignore_errors=True)
        shutil.move(partial, target)


def _save_whole(source: Path, partial: Path) -> None:
    model = AutoModel.from_pretrained(source).half()
    for name, value in model.state_dict().items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{name} does not fit into 16 bits: embed the checkpoint in another format.")
    model.save_pretrained(partial)
    FabRecImageProcessor.from_pretrained(source).save_pretrained(partial)
    for copied_source in partial.glob("*.py"):  # the package itself is the code
        copied_source.unlink()
    for file, changes in (("config.json", {"dtype": "float32"}), ("preprocessor_config.json", {})):
        values = json.loads((partial / file).read_text()) | changes
        values.pop("auto_map", None)
        (partial / file).write_text(json.dumps(values, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the finished run")
    parser.add_argument("name", help="name to embed it under, such as 3fabrec-300w")
    parser.add_argument("--rank", type=int, help="keep the difference from --autoencoder, of this rank")
    parser.add_argument(
        "--autoencoder", default="3fabrec-autoencoder", help="embedded checkpoint that it was taught on (%(default)s)"
    )
    run_main(main, parser.parse_args())
