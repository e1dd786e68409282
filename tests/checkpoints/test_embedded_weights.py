"""The checkpoints that come with the package, on real photographs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, pipeline

import fabrec_hf
from fabrec_hf.checkpoints.loading import load_landmark_model
from fabrec_hf.checkpoints.names import embedded_names
from fabrec_hf.checkpoints.results import read_results
from fabrec_hf.cli import main
from fabrec_hf.data import load_faces
from fabrec_hf.evaluation.scoring import evaluate_checkpoint
from support.faces import SHARED


EXAMPLES = Path(__file__).parents[2] / "examples"

# Points of the astronaut's face, annotated by hand on an enlargement with a grid: index of the 68-point mark-up,
# x and y in pixels. Eye corners from left to right, tip of the nose, corners of the mouth, chin.
ASTRONAUT = {
    36: (192, 101),
    39: (211, 102),
    42: (236, 103),
    45: (259, 104),
    30: (224, 127),
    48: (202, 139),
    54: (247, 138),
    8: (223, 178),
}


@pytest.fixture(scope="module")
def detected(tmp_path_factory) -> dict:
    output = tmp_path_factory.mktemp("detected")
    assert main(["detect", str(EXAMPLES / "astronaut.jpg"), "--output", str(output)]) == 0
    assert (output / "astronaut.landmarks.png").stat().st_size > 10_000
    return json.loads((output / "astronaut.json").read_text())


def test_detect_finds_the_astronauts_features(detected):
    (face,) = detected["faces"]
    keypoints = np.array(face["keypoints"])
    assert keypoints.shape == (68, 2)
    errors = np.linalg.norm(keypoints[list(ASTRONAUT)] - np.array(list(ASTRONAUT.values())), axis=1)
    between_eyes = np.hypot(259 - 192, 104 - 101)
    assert errors.mean() / between_eyes < 0.06 and errors.max() / between_eyes < 0.12
    assert all(0 <= score <= 1 for score in face["scores"]) and np.mean(face["scores"]) > 0.3


def test_embedded_checkpoints_are_kept_in_16_bit_and_compute_in_32(tmp_path):
    from safetensors import safe_open

    for name in embedded_names():
        folder = fabrec_hf.weights_path(name)
        (file,) = (folder / name for name in ("model.safetensors", "delta.safetensors") if (folder / name).is_file())
        with safe_open(file, "pt") as weights:
            integers = ("num_batches_tracked", ".nearest", ".flip_index")  # counters and places of points
            keys = [key for key in weights.keys() if not key.endswith(integers)]
            kinds = {weights.get_slice(key).get_dtype() for key in keys}
        assert kinds == {"F16"}
        assert AutoModel.from_pretrained(folder).dtype == torch.float32
        assert (folder / "results.json").is_file() and not list(folder.glob("*.py"))


@pytest.mark.parametrize("shots", [1, 10, 50, 157, 315])
def test_detectors_from_few_faces_take_two_megabytes_and_find_the_astronauts_features(shots):
    folder = fabrec_hf.weights_path(f"3fabrec-300w-{shots}shot")
    (file,) = folder.glob("*.safetensors")
    assert file.stat().st_size < 2_500_000
    assert {entry["shots"] for entry in read_results(folder)["evaluations"]} == {shots}
    find = pipeline("face-landmark-detection", model=folder)
    (face,) = find(str(EXAMPLES / "astronaut.jpg"))
    errors = np.linalg.norm(np.array(face["keypoints"])[list(ASTRONAUT)] - np.array(list(ASTRONAUT.values())), axis=1)
    assert errors.mean() / np.hypot(259 - 192, 104 - 101) < 0.07


@pytest.mark.parametrize("name", ["3fabrec-300w", "3fabrec-300w-10shot"])
def test_landmark_checkpoints_hold_the_embedded_autoencoders_generator(name):
    detector = AutoModel.from_pretrained(fabrec_hf.weights_path(name))
    autoencoder = AutoModel.from_pretrained(fabrec_hf.weights_path("3fabrec-autoencoder"))
    expected, found = autoencoder.decoder.state_dict(), detector.autoencoder.decoder.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason="needs the 300-W test pictures")
def test_the_error_on_300w_is_the_one_the_card_states():
    model, processor = load_landmark_model("3fabrec-300w")
    faces = load_faces(SHARED / "data" / "300w", "test", columns=("image", "landmarks", "box"))
    results = evaluate_checkpoint(model, processor, faces)
    stated = read_results(fabrec_hf.weights_path("3fabrec-300w"))["evaluations"][0]
    assert results["count"] == 554
    assert results["nme"] == pytest.approx(stated["nme"], abs=0.01)
    assert results["failure_rate"] == pytest.approx(stated["failure_rate"], abs=0.4)
