"""Measure where the latent vectors of photographs lie, for the random faces of `fabrec demo`.

    python training/latent_distribution.py --autoencoder runs/autoencoder --data faces/fairface-*.parquet

The data are Parquet files with a column `image` of face crops, as for `pretrain.py`. The result, mean and covariance
in 20 kB, is written beside the weights. It tells nothing of a single photograph.
"""

import argparse
import glob
from pathlib import Path

import datasets
import torch
from training_utils import run_main

from fabrec_hf.checkpoints.loading import load_autoencoder
from fabrec_hf.checkpoints.names import resolve_checkpoint
from fabrec_hf.common.console import say
from fabrec_hf.demo.latent_distribution import FILE_NAME, LatentDistribution
from fabrec_hf.errors import CheckpointError, DataError
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor


BATCH = 32
SEED = 0


@torch.inference_mode()
def main(arguments: argparse.Namespace) -> None:
    """Encode the faces and keep the distribution of their vectors."""
    folder = Path(resolve_checkpoint(arguments.autoencoder))
    if not folder.is_dir():
        raise CheckpointError(f"{arguments.autoencoder} is no folder: the result is written beside the weights.")
    files = sorted(file for pattern in arguments.data for file in glob.glob(pattern))
    if not files:
        raise DataError(f"There is no file {arguments.data[0]}.")
    model, processor = load_autoencoder(folder), FabRecImageProcessor.from_pretrained(folder)
    faces = datasets.load_dataset("parquet", data_files=files, split="train", columns=["image"])
    faces = faces.shuffle(seed=SEED).select(range(min(arguments.faces, len(faces))))
    latents = [
        model.encode(processor([image.convert("RGB") for image in batch["image"]])["pixel_values"])
        for batch in faces.iter(BATCH)
    ]
    found = LatentDistribution.measure(torch.cat(latents))
    found.save(folder)
    say(f"{len(faces)} faces, of which {len(faces) - found.faces} were left out -> {folder / FILE_NAME}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoencoder", default="3fabrec-autoencoder", help="folder or embedded name (%(default)s)")
    parser.add_argument("--data", nargs="+", required=True, help="Parquet files, or patterns for them")
    parser.add_argument("--faces", type=int, default=3000, help="how many to encode, drawn at random (%(default)s)")
    run_main(main, parser.parse_args())
