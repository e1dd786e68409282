"""What an error is made of: latent vectors that are searched for draw what they are asked to draw."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch


datasets = pytest.importorskip("datasets")

ROOT = Path(__file__).parents[2]

from landmark_limits import search_latents  # noqa: E402

from fabrec_hf import FabRecConfig, FabRecForLandmarkDetection, FabRecImageProcessor  # noqa: E402
from fabrec_hf.data import load_faces  # noqa: E402
from fabrec_hf.learning.labeled_faces import LabeledFaces  # noqa: E402
from fabrec_hf.learning.landmark_training import landmark_errors, predict_faces  # noqa: E402
from fabrec_hf.model.known_schemes import get_scheme  # noqa: E402
from fabrec_hf.model.landmark_decoding import Drawing  # noqa: E402
from support.scripts import run_script  # noqa: E402


def tiny_model() -> FabRecForLandmarkDetection:
    torch.manual_seed(0)
    sizes = {"image_size": 32, "latent_size": 8, "widths": [8, 8, 8, 8], "heatmap_size": 16, "heatmap_sigma": 2.0}
    config = FabRecConfig(num_landmarks=5, landmark_scheme=get_scheme("mtfl").to_dict(), decoding="subpixel", **sizes)
    model = FabRecForLandmarkDetection(config).eval()
    model.requires_grad_(False)
    return model


def test_latents_are_found_that_draw_the_picture_or_the_landmarks():
    model = tiny_model()
    autoencoder = model.autoencoder
    pictures = 0.3 * torch.randn(3, 3, 32, 32)
    labels = torch.rand(3, 5, 2)
    labels[1, 2] = torch.nan
    start = autoencoder.encode(pictures)

    def picture_error(latents):
        return (autoencoder.decode(latents) - pictures).abs().mean((1, 2, 3))

    def heatmap_error(latents):
        heatmaps = model.predict_heatmaps(autoencoder.decoder.first_stage(latents))
        faces = zip(heatmaps, labels, strict=True)
        return torch.stack([model.landmark_loss(Drawing(drawn[None]), points[None]) for drawn, points in faces])

    redraws = search_latents(model, pictures, None, 40, 0.05)
    draws = search_latents(model, pictures, labels, 40, 0.05)
    assert (picture_error(redraws) < picture_error(start)).all()
    assert (heatmap_error(draws) < heatmap_error(start)).all()
    # What is found for a face does not depend on the faces beside it. Adam amplifies rounding, hence the tolerance.
    alone = search_latents(model, pictures[1:2], None, 40, 0.05)
    torch.testing.assert_close(alone, redraws[1:2], atol=0.02, rtol=0.02)


def test_the_command_measures_three_latent_vectors_a_face(drawn_faces, tmp_path):
    model, processor = tiny_model(), FabRecImageProcessor(size={"height": 32, "width": 32})
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    words = ["--model", tmp_path / "model", "--data", drawn_faces, "--faces", 0, "--steps", 20]
    words += ["--output", tmp_path / "limits.json"]
    done = run_script("landmark_limits.py", *words)
    assert done.returncode == 0, done.stderr
    assert [line.split(" | ")[0] for line in done.stdout.splitlines()] == [
        "24 faces",
        "encoder",
        "redraws the picture",
        "draws the landmarks",
    ]
    results = json.loads((tmp_path / "limits.json").read_text())["results"]
    faces = LabeledFaces(load_faces(drawn_faces), processor)
    errors = landmark_errors(predict_faces(model, faces, model.device)[0], faces, get_scheme("mtfl"))
    np.testing.assert_allclose(results["encoder"]["nme"], errors, rtol=1e-4)
    assert np.mean(results["redraws the picture"]["l1"]) < np.mean(results["encoder"]["l1"])
    # With transfer layers that have learned nothing, other latent vectors find other points, but no better ones.
    assert np.isfinite(results["draws the landmarks"]["nme"]).all()
    assert (np.array(results["draws the landmarks"]["nme"]) != results["encoder"]["nme"]).all()

    done = run_script("landmark_limits.py", *words, "--steps", 0)
    assert done.returncode == 2 and "must be positive" in done.stderr.splitlines()[-1]
