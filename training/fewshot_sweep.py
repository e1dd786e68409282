"""Errors against the number of annotated faces, with and without fine-tuning (paper tables 4 to 8).

    python training/fewshot_sweep.py --config training/configs/landmarks-small.yaml --data FOLDER_OF_PARQUET \
        --output_dir runs/sweep --shots 1:300:600 10:300:600 50:300:1000 all:300:3200

A cell of the sweep is one training from scratch. Each is written to `cells/` when it is done and not run again, so a
sweep goes on where it was killed. Give `--validation_fraction` while anything is being chosen: the test split is for
reporting, once.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from landmark_sweep import Cell, draw_curve, parse_shots, table
from mediapipe_teacher import MediaPipeTeacher
from mesh_regression import MeshedFaces, mesh_regression_error
from time_limit import Pause, TimeLimit, check_minutes
from tqdm.auto import tqdm
from training_utils import parse_arguments, run_main

from fabrec_hf.checkpoints.loading import load_autoencoder
from fabrec_hf.common.figures import has_matplotlib
from fabrec_hf.common.output_folder import write_files
from fabrec_hf.data import load_faces, validation_split
from fabrec_hf.data.face_set import shared_face_set
from fabrec_hf.data.splits import random_rows
from fabrec_hf.errors import FabRecError
from fabrec_hf.learning.fewshot import FitOptions, FitProgress, choose_faces, fit_landmarks
from fabrec_hf.learning.labeled_faces import LabeledFaces
from fabrec_hf.learning.landmark_training import (
    LandmarkRecipe,
    build_model,
    build_processor,
    find_scheme,
    landmark_errors,
    predict_faces,
)
from fabrec_hf.model.known_schemes import LandmarkScheme


@dataclass(kw_only=True)
class SweepArguments(LandmarkRecipe):
    """What is trained, on how many faces, and how often."""

    data: list[str] = field(metadata={"help": "Parquet files or folders with image, landmarks and box."})
    output_dir: str = field(metadata={"help": "Folder for the cells, the table and the plot."})
    autoencoder: str = field(default="3fabrec-autoencoder", metadata={"help": "Autoencoder to start from."})
    shots: list[str] = field(
        default_factory=lambda: ["1", "10", "50", "157", "315", "all"],
        metadata={"help": "Numbers of faces; `10:300:600` also sets the steps without and with the encoder."},
    )
    protocols: list[str] = field(
        default_factory=lambda: ["paper", "random"],
        metadata={"help": "paper: the first faces; random: draws; selected: those that `fabrec select` would choose."},
    )
    draws: int = field(default=5, metadata={"help": "Random draws of each number of faces; for selected ones, seeds."})
    ablate_transfer_layers: bool = field(default=False, metadata={"help": "Table 7: ITLs from each place upwards."})
    validation_fraction: float = field(default=0.0, metadata={"help": "Score on this share of the training pictures."})
    scheme: str | None = field(default=None, metadata={"help": "300w, wflw, aflw, mtfl or a file; the data's own."})
    folds: int = field(default=0, metadata={"help": "Further trainings that leave faces out, to calibrate scores by."})
    max_minutes: float | None = field(default=None, metadata={"help": "Begin no cell after so many minutes."})
    teacher_python: str | None = field(default=None, metadata={"help": "Interpreter that has MediaPipe; this one."})
    save_models: bool = field(default=False, metadata={"help": "Keep every detector in `models/`."})

    def __post_init__(self):
        """Refuse values that would fail later, in words."""
        super().__post_init__()
        check_minutes(self.max_minutes)
        if not set(self.protocols) <= {"paper", "random", "selected"}:
            raise ValueError(f"--protocols must be paper, random or selected, got {', '.join(self.protocols)}.")
        if not 0 <= self.validation_fraction < 1 or self.draws < 1:
            raise ValueError("--validation_fraction must lie between 0 and 1, and --draws be at least 1.")


class Sweep:
    """The faces, decoded once, and what is trained on parts of them."""

    def __init__(self, arguments: SweepArguments):
        self.arguments = arguments
        columns = ("image", "landmarks", "box")
        face_set = shared_face_set(arguments.data)
        training = load_faces(arguments.data, "train", columns=columns)
        if arguments.validation_fraction:
            training, scored = validation_split(training, arguments.validation_fraction)
        else:
            scored = load_faces(arguments.data, "test", columns=columns)
        processor = build_processor(face_set, load_autoencoder(arguments.autoencoder).config.image_size)
        self.scheme: LandmarkScheme = find_scheme(arguments.scheme, face_set, len(training[0]["landmarks"]))
        self.processor = processor
        self.training, self.scored = LabeledFaces(training, processor), LabeledFaces(scored, processor)
        self.datasets = training, scored

    def cells(self) -> list[Cell]:
        """All cells, the cheap ones first."""
        arguments, found = self.arguments, []
        places = range(1, 1 + len(build_model(arguments.autoencoder, self.scheme, arguments).transfer_layers))
        layers = [list(places)[first:] for first in range(len(places))] if arguments.ablate_transfer_layers else [None]
        for shots, head_steps, finetune_steps in (
            parse_shots(text, len(self.training), arguments.head_steps, arguments.finetune_steps)
            for text in arguments.shots
        ):
            for protocol in arguments.protocols:
                # All faces are the same faces however they are drawn.
                draws = 1 if protocol == "paper" or shots == len(self.training) else arguments.draws
                if shots == len(self.training) and protocol != arguments.protocols[0]:
                    continue
                found += [
                    Cell(shots, protocol, draw, head_steps, finetune_steps, present)
                    for draw in range(draws)
                    for present in layers
                ]
        return sorted(found, key=lambda cell: cell.shots)

    def rows(self, cell: Cell) -> np.ndarray:
        """Return the rows of the training faces that a cell learns from."""
        if cell.protocol == "selected":
            return np.array(choose_faces(self.latents, cell.shots))
        if cell.protocol == "random":
            return random_rows(len(self.training), cell.shots, cell.draw)
        return np.arange(cell.shots)

    @cached_property
    @torch.no_grad()
    def latents(self) -> torch.Tensor:
        """Latent vectors (N, D) of the training faces, by the autoencoder as it is before anything is annotated."""
        autoencoder, faces = load_autoencoder(self.arguments.autoencoder).eval(), self.training
        batches = tqdm(faces.plain_inputs(torch.device("cpu")), desc="encoding", unit="batch")
        return torch.cat([autoencoder.encode(pixel_values) for pixel_values in batches])

    def run(self, cell: Cell, bar: tqdm) -> dict:
        """Train a cell and score it before and after the encoder learns."""
        arguments = self.arguments
        faces = self.training.subset(self.rows(cell))
        recipe = replace(self._recipe(), seed=arguments.seed + cell.draw, transfer_layers=cell.transfer_layers)
        model = build_model(arguments.autoencoder, self.scheme, recipe)
        model.to("cuda" if torch.cuda.is_available() else "cpu")

        def report(progress: FitProgress) -> None:
            bar.set_postfix(cell=cell.name, step=progress.step, of=progress.steps, loss=f"{progress.loss:.2f}")

        result: dict = asdict(cell) | {"faces_scored": len(self.scored)}
        for name, steps in (
            ("before", {"head_steps": cell.head_steps, "finetune_steps": 0}),
            ("after", {"head_steps": 0, "finetune_steps": cell.finetune_steps}),
        ):
            if sum(steps.values()):
                stage = replace(recipe, **steps)
                folds = arguments.folds if name == "after" else 0
                options = FitOptions(folds=folds, on_step=report)
                fitted = fit_landmarks(model, faces, self.scheme, stage, options)
                landmarks = predict_faces(model, self.scored, model.device).landmarks
                errors = landmark_errors(landmarks, self.scored, self.scheme)
                result |= {name: float(np.nanmean(errors)), f"seconds_{name}": round(fitted.seconds, 1)}
        if arguments.save_models:
            folder = Path(arguments.output_dir) / "models" / cell.name
            model.cpu().save_pretrained(folder)
            self.processor.save_pretrained(folder)
        return result

    def peer_errors(self, cells: Sequence[Cell], file: Path) -> dict[str, float]:
        """Return NME in percent of MediaPipe's mesh and a regression from the faces of each cell, by its name.

        Args:
            cells: All of them.
            file: Keeps the errors for when the sweep is run again.

        Raises:
            FabRecError: MediaPipe is not there.
        """
        known: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        missing = [cell for cell in cells if cell.name not in known]
        if missing:
            teacher = MediaPipeTeacher(self.arguments.teacher_python)
            chosen = {cell.name: self.rows(cell) for cell in missing}
            needed = np.unique(np.concatenate(list(chosen.values())))
            training, scored = self.datasets
            learned, faces = MeshedFaces(training.select(needed), teacher), MeshedFaces(scored, teacher)
            for name, rows in chosen.items():
                known[name] = mesh_regression_error(learned, np.searchsorted(needed, rows), faces, self.scheme)
            write_files(file.parent, {file.name: as_json(known)})
        return known

    def _recipe(self) -> LandmarkRecipe:
        names = LandmarkRecipe.__dataclass_fields__
        return LandmarkRecipe(**{name: getattr(self.arguments, name) for name in names})


def main(arguments: SweepArguments) -> Pause | None:
    """Run the cells that are missing, then write the table and the plot of all of them.

    Returns:
        Where the sweep stopped because its minutes were over; None at its end.
    """
    limit = TimeLimit(arguments.max_minutes)
    output_dir = Path(arguments.output_dir)
    folder = output_dir / "cells"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {name: value for name, value in asdict(arguments).items() if name in _DECISIVE}
    kept = output_dir / "settings.json"
    if kept.exists() and json.loads(kept.read_text()) != settings:
        raise FabRecError(f"{output_dir} holds cells of other settings (see {kept.name}): name another --output_dir.")
    kept.write_text(json.dumps(settings, indent=2) + "\n")
    sweep = Sweep(arguments)
    results = []
    cells, trained = sweep.cells(), 0
    todo = sum(cell.steps for cell in cells if not (folder / f"{cell.name}.json").exists())
    with tqdm(cells, desc="cells", unit="cell") as bar:
        for cell in bar:
            file = folder / f"{cell.name}.json"
            if not file.exists():
                if trained and limit.reached(None, trained):
                    pause = limit.pause(trained, todo)
                    bar.write(f"{pause}. Go on with the same command.", file=sys.stderr)
                    return pause
                result = sweep.run(cell, bar)
                write_files(folder, {file.name: as_json(result)})
                trained += cell.steps
            results.append(json.loads(file.read_text()))
    note = ""
    try:
        peers = sweep.peer_errors(cells, output_dir / "peer.json")
        results = [result | {"peer": peers[cell.name]} for cell, result in zip(cells, results, strict=True)]
    except FabRecError as error:
        note = f"MediaPipe was not measured: {error}"
    write_files(output_dir, {"results.json": as_json({"settings": settings, "cells": results})})
    text = table(results, _beside_paper(arguments, sweep), note)
    if has_matplotlib():
        write_files(output_dir, {"curve.png": draw_curve(results, _beside_paper(arguments, sweep))})
    else:
        print("matplotlib is not installed, so curve.png is left out.", file=sys.stderr)
    write_files(output_dir, {"table.md": text.encode()})
    print(text)
    return None


def as_json(values: dict) -> bytes:
    """Return what a file of the sweep holds."""
    return (json.dumps(values, indent=2) + "\n").encode()


def _beside_paper(arguments: SweepArguments, sweep: Sweep) -> bool:
    """Whether these numbers are of the test set that the paper's numbers are of."""
    return not arguments.validation_fraction and sweep.scheme.name == "300w" and len(sweep.scored) == 554


_IN_A_NAME = {
    "head_steps",
    "finetune_steps",
    "ablate_transfer_layers",
    "transfer_layers",
    "shots",
    "protocols",
    "draws",
}
_NOT_OF_A_CELL = {"output_dir", "save_models", "max_minutes", "teacher_python"}
_DECISIVE = {*SweepArguments.__dataclass_fields__} - _IN_A_NAME - _NOT_OF_A_CELL
"""Arguments that all cells of a folder must share; the others are in a cell's name or change no cell."""


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    run_main(main, parse_arguments(SweepArguments, __doc__))
