"""What the error of a landmark detector is made of: encoder, latent space, or generator with its transfer layers.

    python training/landmark_limits.py --model 3fabrec-300w --data LABELED --split train --faces 200

The same faces are scored with three latent vectors each. The encoder's own is what `fabrec detect` uses. The one
that redraws the picture best (found by gradient descent, knowing no landmark) shows what a better encoder would give.
The one that draws the true landmarks best is the limit of generator and transfer layers: what they cannot draw at all.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm
from training_utils import parse_arguments, run_main

from fabrec_hf.checkpoints.loading import load_landmark_model
from fabrec_hf.data import load_faces
from fabrec_hf.data.face_set import shared_face_set
from fabrec_hf.errors import DataError
from fabrec_hf.learning.augmentation import plain_crops
from fabrec_hf.learning.labeled_faces import LabeledFaces, image_mean
from fabrec_hf.learning.landmark_training import (
    build_processor,
    find_scheme,
    landmark_errors,
)
from fabrec_hf.model.landmark_decoding import Drawing
from fabrec_hf.model.modeling_fabrec import FabRecForLandmarkDetection


@dataclass(kw_only=True)
class LimitsArguments:
    """What is measured, and how hard the latent vectors are searched for."""

    data: list[str] = field(metadata={"help": "Parquet files or folders with image, landmarks and box."})
    model: str = field(default="3fabrec-300w", metadata={"help": "Landmark checkpoint."})
    split: str = field(default="train", metadata={"help": "Split of the data."})
    faces: int = field(default=200, metadata={"help": "Faces to measure, drawn at random; 0 takes all."})
    steps: int = field(default=200, metadata={"help": "Steps of Adam for each latent vector."})
    learning_rate: float = field(default=0.05, metadata={"help": "Adam's rate at the start; it falls along a cosine."})
    batch_size: int = field(default=50, metadata={"help": "Faces searched for at a time."})
    seed: int = field(default=0, metadata={"help": "Seed of the draw of the faces."})
    output: str | None = field(default=None, metadata={"help": "JSON file for the errors of every face."})

    def __post_init__(self):
        """Refuse values that would fail later, in words."""
        if self.faces < 0 or min(self.steps, self.batch_size) < 1 or self.learning_rate <= 0:
            raise ValueError("--steps, --batch_size and --learning_rate must be positive, --faces not negative.")


def search_latents(
    model: FabRecForLandmarkDetection,
    pixel_values: torch.Tensor,
    labels: torch.Tensor | None,
    steps: int,
    learning_rate: float,
) -> torch.Tensor:
    """Find the latent vectors that draw a batch best; gradient descent from those of the encoder.

    Args:
        model: In evaluation mode, its weights frozen.
        pixel_values: (N, 3, S, S) as the processor makes them.
        labels: (N, L, 2) landmarks as fractions of the crop: what to draw. None draws the pictures themselves (L1).
        steps: Steps of Adam.
        learning_rate: Its rate at the start.

    Returns:
        Latent vectors (N, D).
    """
    autoencoder = model.autoencoder
    with torch.no_grad():
        latents = autoencoder.encode(pixel_values)
    latents.requires_grad_(True)
    optimizer = torch.optim.Adam([latents], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        if labels is None:
            # A sum over the faces: what one face needs must not depend on how many others are in the batch.
            loss = (autoencoder.decode(latents) - pixel_values).abs().mean((1, 2, 3)).sum()
        else:
            heatmaps = model.predict_heatmaps(autoencoder.decoder.first_stage(latents))
            loss = model.landmark_loss(Drawing(heatmaps), labels) * len(labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return latents.detach()


def measure(model: FabRecForLandmarkDetection, faces: LabeledFaces, scheme, arguments: LimitsArguments) -> dict:
    """Return NME (N,) in percent and L1 (N,) in gray levels of every face for each of the three latent vectors."""
    model.eval().requires_grad_(False)
    autoencoder = model.autoencoder
    kinds = {"encoder": None, "redraws the picture": False, "draws the landmarks": True}
    landmarks: dict[str, list] = {kind: [] for kind in kinds}
    differences: dict[str, list] = {kind: [] for kind in kinds}
    for rows in tqdm(torch.arange(len(faces)).split(arguments.batch_size), desc="searching", unit="batch"):
        crops = plain_crops(faces.canvases.subset(rows).to(model.device), faces.size)
        pixel_values, labels = crops - image_mean(model.device), faces.landmarks[rows].to(model.device)
        for kind, knows in kinds.items():
            if knows is None:
                with torch.no_grad():
                    latents = autoencoder.encode(pixel_values)
            else:
                search = arguments.steps, arguments.learning_rate
                latents = search_latents(model, pixel_values, labels if knows else None, *search)
            with torch.no_grad():
                heatmaps = model.predict_heatmaps(autoencoder.decoder.first_stage(latents))
                landmarks[kind].append(model.decode(Drawing(heatmaps))[0].cpu())
                difference = (autoencoder.decode(latents) - pixel_values).abs().mean((1, 2, 3))
                differences[kind].append(255 * difference.cpu())
    return {
        kind: {
            "nme": landmark_errors(torch.cat(landmarks[kind]), faces, scheme).tolist(),
            "l1": torch.cat(differences[kind]).tolist(),
        }
        for kind in kinds
    }


def main(arguments: LimitsArguments) -> None:
    """Measure and print."""
    model, processor = load_landmark_model(arguments.model)
    face_set = shared_face_set(arguments.data)
    rows = load_faces(arguments.data, arguments.split, columns=("image", "landmarks", "box"))
    if not len(rows):
        raise DataError("There is no face to measure.")
    if 0 < arguments.faces < len(rows):
        draw = np.random.default_rng(arguments.seed).choice(len(rows), arguments.faces, replace=False)
        rows = rows.select(np.sort(draw))
    faces = LabeledFaces(rows, processor or build_processor(face_set, model.config.image_size))
    scheme = find_scheme(None, face_set, faces.landmarks.shape[1])
    results = measure(model, faces, scheme, arguments)
    print(f"{len(faces)} faces | NME, % | L1, gray levels")
    for kind, errors in results.items():
        print(f"{kind} | {np.nanmean(errors['nme']):.2f} | {np.mean(errors['l1']):.1f}")
    if arguments.output:
        Path(arguments.output).write_text(json.dumps({"arguments": vars(arguments), "results": results}))


if __name__ == "__main__":
    run_main(main, parse_arguments(LimitsArguments, __doc__))
