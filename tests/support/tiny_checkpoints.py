"""Checkpoints of a few kilobytes, as a finished training leaves them."""

import json
from pathlib import Path

import torch

from fabrec_hf import (
    FabRecAutoencoder,
    FabRecAutoencoderConfig,
    FabRecConfig,
    FabRecForLandmarkDetection,
    FabRecImageProcessor,
    get_scheme,
)


# Eight channels at least: with four, oneDNN's kernels for CPUs without AVX-512 write beyond the gradient of a strided
# 1 x 1 convolution in channels-last layout (torch 2.15), and tests of training fail or crash at random.
TINY = {"image_size": 32, "latent_size": 8, "widths": [8, 8, 8, 8], "encoder_depth": 1}


def save_autoencoder(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    FabRecAutoencoder(FabRecAutoencoderConfig(**TINY)).save_pretrained(folder)
    FabRecImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_landmarks(folder: Path, seed: int = 0, scheme: str = "mtfl") -> Path:
    torch.manual_seed(seed)
    marks = get_scheme(scheme)
    config = FabRecConfig(
        **TINY, num_landmarks=marks.num_landmarks, landmark_scheme=marks.to_dict(), heatmap_size=16, heatmap_sigma=1.5
    )
    FabRecForLandmarkDetection(config).save_pretrained(folder)
    FabRecImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def evaluation(nme: float, shots: int | None = None, **changes) -> dict:
    """A result of `fabrec evaluate` on the faces of the mtfl scheme."""
    summary = {"nme": nme, "failure_rate": 1.5, "auc": 0.5, "count": 40, "without_prediction": 0, "not_scored": 0}
    return {
        "name": "tiny",
        "model": "tiny",
        "data": ["faces"],
        "split": "test",
        **summary,
        "parts": {"eyes": nme / 2},
        "subsets": {},
        "scheme": "mtfl",
        "normalizer": get_scheme("mtfl").normalizer.to_dict(),
        "threshold": 10.0,
        "protocol": "default",
        "decoding": "subpixel",
        "flip_average": False,
        "shots": shots,
        **changes,
    }


def write_results(folder: Path, **fields) -> Path:
    (folder / "results.json").write_text(json.dumps(fields))
    return folder
