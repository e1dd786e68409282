"""The few-shot sweep: which faces a cell learns from, resuming, and the table beside the paper's numbers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch


datasets = pytest.importorskip("datasets")

ROOT = Path(__file__).parents[2]

from landmark_sweep import Cell, paper_curve, parse_shots, table  # noqa: E402

from fabrec_hf import FabRecAutoencoder, FabRecAutoencoderConfig, FabRecImageProcessor  # noqa: E402
from fabrec_hf.data import load_faces, random_shots, validation_split  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from fabrec_hf.learning.augmentation import plain_crops  # noqa: E402
from fabrec_hf.learning.fewshot import FitOptions, choose_faces, fit_landmarks  # noqa: E402
from fabrec_hf.learning.labeled_faces import LabeledFaces  # noqa: E402
from fabrec_hf.learning.landmark_training import (  # noqa: E402
    LandmarkRecipe,
    build_model,
    image_mean,
    landmark_errors,
    predict_faces,
)
from fabrec_hf.model.known_schemes import get_scheme  # noqa: E402
from support.scripts import run_script  # noqa: E402


ALONE = FitOptions(folds=0)  # no estimate of the error beside it


def sweep(*arguments, expect=0):
    done = run_script("fewshot_sweep.py", *arguments)
    assert done.returncode == expect, done.stderr
    return done.stderr


def test_shots_say_how_many_faces_and_steps():
    assert parse_shots("all", 2012, 5, 6) == (2012, 5, 6)
    assert parse_shots("10:300:600", 2012, 5, 6) == (10, 300, 600)
    for text, error in (("ten", ValueError), ("10:3", ValueError), ("3:0:0", ValueError), ("2013", DataError)):
        with pytest.raises(error, match=text):
            parse_shots(text, 2012, 5, 6)


def test_the_table_stands_beside_the_papers_numbers():
    """Table 4 of the paper, column 300-W common: 4.96 at ten shots, 8.45 at one."""
    assert paper_curve() == {1: 8.45, 10: 4.96, 50: 4.55, 157: 4.22, 315: 3.88, 630: 3.76, 3148: 3.36}
    cells = [
        {"shots": 10, "protocol": "random", "before": 6.0, "after": 4.0, "peer": 4.5},
        {"shots": 10, "protocol": "random", "before": 8.0, "after": 5.0, "peer": 4.5},
        {"shots": 10, "protocol": "paper", "after": 4.25},
    ]
    text = table([cell | {"transfer_layers": None, "faces_scored": 554} for cell in cells], beside_paper=True)
    assert "| 10 | random | all | 2 | 7.00 ± 1.41 | 4.50 ± 0.71 | 4.50 ± 0.00 | - |" in text
    assert "| 10 | paper | all | 1 | - | 4.25 | - | 4.96 |" in text and "over 554 faces" in text
    fewer = table([cells[2] | {"transfer_layers": [2, 3], "faces_scored": 554}], beside_paper=True)
    assert "| 10 | paper | 2, 3 | 1 | - | 4.25 | - | - |" in fewer, "the paper's number is of all ITLs"
    assert Cell(10, "paper", 0, 5, 6, [2, 3]).name == "10-paper-0-5+6-itl23"


def test_a_sweep_trains_on_the_faces_it_names_and_resumes(drawn_faces, tmp_path, monkeypatch):
    torch.manual_seed(0)
    autoencoder = FabRecAutoencoder(FabRecAutoencoderConfig(image_size=32, latent_size=8, widths=[8, 8, 8, 8]))
    autoencoder.save_pretrained(tmp_path / "autoencoder")
    recipe = {"batch_size": 4, "heatmap_size": 16, "heatmap_sigma": 2.0, "decoding": "subpixel"}
    arguments = [f"--{name}={value}" for name, value in recipe.items()]
    arguments += ["--data", drawn_faces, "--autoencoder", tmp_path / "autoencoder", "--validation_fraction", 0.3]
    arguments += ["--output_dir", tmp_path / "sweep", "--draws", 2]
    sweep(*arguments, "--shots", "1:1:0", "3:2:2", "all:0:1")
    cells = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "sweep" / "cells").iterdir()}
    training, validation = validation_split(load_faces(drawn_faces), 0.3)
    names = {"1-paper-0-1+0", "1-random-0-1+0", "1-random-1-1+0", "3-paper-0-2+2", "3-random-0-2+2", "3-random-1-2+2"}
    assert set(cells) == names | {f"{len(training)}-paper-0-0+1"}
    assert "after" not in cells["1-paper-0-1+0"] and "before" not in cells[f"{len(training)}-paper-0-0+1"]

    # The second draw of three faces, trained by hand.
    scheme, processor = get_scheme("mtfl"), FabRecImageProcessor(size={"height": 32, "width": 32})
    faces, scored = LabeledFaces(random_shots(training, 3, 1), processor), LabeledFaces(validation, processor)
    everyone = LabeledFaces(training, processor)
    first = LandmarkRecipe(**recipe, seed=1, head_steps=2)
    model = build_model(str(tmp_path / "autoencoder"), scheme, first)
    for key, stage in (("before", first), ("after", LandmarkRecipe(**recipe, seed=1, head_steps=0, finetune_steps=2))):
        fit_landmarks(model, faces, scheme, stage, ALONE)
        errors = landmark_errors(predict_faces(model, scored, model.device)[0], scored, scheme)
        assert cells["3-random-1-2+2"][key] == pytest.approx(np.mean(errors), rel=1e-4)

    text = (tmp_path / "sweep" / "table.md").read_text()
    assert text.count("\n| ") == 5 and f"over {len(validation)} faces" in text
    assert (tmp_path / "sweep" / "curve.png").stat().st_size > 10_000
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "sweep" / "cells").iterdir()}
    sweep(*arguments, "--shots", "1:1:0", "3:2:2", "--protocols", "paper", "--ablate_transfer_layers", True)
    for path, stamp in stamps.items():
        assert path.stat().st_mtime_ns == stamp, "a finished cell is not run again"
    ablated = {path.stem for path in (tmp_path / "sweep" / "cells").iterdir()} - set(cells)
    assert ablated == {f"{cell}-itl{layers}" for cell in ("1-paper-0-1+0", "3-paper-0-2+2") for layers in ("1",)}
    sweep(*arguments, "--shots", "3:1:0", "--protocols", "selected")
    # The medoids of the training faces' latent vectors, the nearest and farthest left out, found by trying all
    # triples; then trained by hand.
    with torch.no_grad():
        crops = plain_crops(everyone.canvases, 32)
        latents = autoencoder.eval().encode(crops - image_mean(torch.device("cpu")))
    lengths = (latents - latents.median(dim=0).values).norm(dim=1)
    ordinary = torch.nonzero((lengths / lengths.median() - 1.05).abs() <= 0.2)[:, 0]
    ordinary = ordinary if len(ordinary) >= 3 else torch.arange(len(training))
    distances = torch.cdist(latents, latents[ordinary])
    triples = torch.combinations(ordinary, 3)
    best = triples[distances[triples].amin(dim=1).sum(dim=1).argmin()]
    model = build_model(str(tmp_path / "autoencoder"), scheme, replace(first, head_steps=1))
    chosen = choose_faces(latents, 3)
    assert sorted(chosen) == best.tolist()  # theirs is the order of the batch
    taught = LandmarkRecipe(**recipe, seed=1, head_steps=1)
    fit_landmarks(model, everyone.subset(np.array(chosen)), scheme, taught, ALONE)
    errors = landmark_errors(predict_faces(model, scored, model.device)[0], scored, scheme)
    found = json.loads((tmp_path / "sweep" / "cells" / "3-selected-1-1+0.json").read_text())
    assert found["before"] == pytest.approx(np.mean(errors), rel=1e-4)
    errors = sweep(*arguments, "--rotation", 5, expect=2)
    assert "holds cells of other settings" in errors.splitlines()[-1]
