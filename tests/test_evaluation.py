"""Scoring a checkpoint: the same numbers face by face, for any batch size, and clear errors."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps


datasets = pytest.importorskip("datasets")

from fabrec_hf.cli import main  # noqa: E402
from fabrec_hf.configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig  # noqa: E402
from fabrec_hf.errors import CheckpointError, DataError, SchemeError  # noqa: E402
from fabrec_hf.evaluation import evaluate_checkpoint, predict_landmarks  # noqa: E402
from fabrec_hf.image_processing_fabrec import FabRecImageProcessor  # noqa: E402
from fabrec_hf.landmarks import get_scheme  # noqa: E402
from fabrec_hf.loading import load_landmark_model  # noqa: E402
from fabrec_hf.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection  # noqa: E402


TINY = {"image_size": 32, "widths": [4, 8, 8, 8], "encoder_depth": 1, "heatmap_size": 32}
SCHEME = get_scheme("mtfl")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = FabRecConfig(**TINY, num_landmarks=5, heatmap_sigma=2.0, landmark_scheme=SCHEME.to_dict())
    return FabRecForLandmarkDetection(config).eval()


@pytest.fixture(scope="module")
def processor():
    return FabRecImageProcessor(size=32)


def make_dataset(images, landmarks, boxes):
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "landmarks": datasets.List(datasets.List(datasets.Value("float64"))),
            "box": datasets.List(datasets.Value("float64"), length=4),
        }
    )
    rows = {"image": images, "landmarks": np.asarray(landmarks).tolist(), "box": np.asarray(boxes).tolist()}
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture(scope="module")
def faces():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (7, 6, 8, 3), dtype=np.uint8)
    images = [Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC) for pixels in small]
    landmarks = rng.uniform(10, 50, (7, 5, 2))
    landmarks[2, 3] = np.nan
    boxes = np.concatenate([rng.uniform(-5, 20, (7, 2)), rng.uniform(20, 50, (7, 2))], axis=1)
    return make_dataset(images, landmarks, boxes)


def scores_by_loops(model, processor, dataset):
    """Score face by face by way of the public post-processing, in plain Python."""
    errors = []
    for row in dataset:
        inputs = processor(row["image"], boxes=[row["box"]])
        with torch.no_grad():
            outputs = model(inputs["pixel_values"])
        face = processor.post_process_keypoint_detection(outputs, inputs["crop_boxes"], num_images=1)[0][0]
        distances = [
            math.dist(found, true)
            for found, true in zip(face["keypoints"].tolist(), row["landmarks"], strict=True)
            if not math.isnan(true[0])
        ]
        errors.append(100 * sum(distances) / len(distances) / math.dist(row["landmarks"][0], row["landmarks"][1]))
    return errors


@pytest.mark.parametrize("batch_size", [1, 3, 7, 32])
def test_scores_are_those_of_single_faces_for_any_batch_size(model, processor, faces, batch_size):
    errors = scores_by_loops(model, processor, faces)
    threshold = sorted(errors)[3]  # four faces are no failures
    result = evaluate_checkpoint(model, processor, faces, batch_size, threshold=threshold * 1.001)
    assert result["nme"] == pytest.approx(sum(errors) / 7, rel=1e-4)
    assert result["failure_rate"] == pytest.approx(100 * 3 / 7)
    assert result["count"] == 7
    assert set(result["parts"]) == {"eyes", "nose", "mouth"}
    assert result["normalizer"] == {"kind": "points", "points": [0, 1]}


def test_its_own_predictions_are_without_error(model, processor, faces):
    points = predict_landmarks(model, processor, faces, batch_size=2)
    labelled = make_dataset(faces["image"], points, faces["box"])
    result = evaluate_checkpoint(model, processor, labelled)
    assert result["nme"] == pytest.approx(0, abs=1e-3)
    assert result["auc"] == pytest.approx(1, abs=1e-4)
    assert result["failure_rate"] == 0


def test_paper_protocol_is_the_model_configured_for_argmax(model, processor, faces):
    config = FabRecConfig.from_dict(model.config.to_dict() | {"decoding": "argmax"})
    argmax = FabRecForLandmarkDetection(config).eval()
    argmax.load_state_dict(model.state_dict())
    errors = scores_by_loops(argmax, processor, faces)
    result = evaluate_checkpoint(model, processor, faces, protocol="paper")
    assert result["nme"] == pytest.approx(sum(errors) / 7, rel=1e-4)
    assert result["nme"] != pytest.approx(evaluate_checkpoint(model, processor, faces)["nme"], rel=1e-4)
    assert (result["protocol"], result["decoding"], result["flip_average"]) == ("paper", "argmax", False)
    with pytest.raises(ValueError, match="one of default, paper"):
        evaluate_checkpoint(model, processor, faces, protocol="best")


def test_flip_average_treats_a_face_and_its_mirror_image_alike(model, processor, faces):
    """Mirrored faces with mirrored labels get the same score exactly when both views are averaged."""
    width = faces[0]["image"].width
    points = np.array(faces["landmarks"])[:, SCHEME.flip_index]
    points[..., 0] = width - 1 - points[..., 0]
    boxes = np.array(faces["box"])
    boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
    mirrored = make_dataset([ImageOps.mirror(image) for image in faces["image"]], points, boxes)
    scores = {}
    for flip in (True, False):
        here = evaluate_checkpoint(model, processor, faces, flip_average=flip)
        there = evaluate_checkpoint(model, processor, mirrored, flip_average=flip)
        scores[flip] = abs(here["nme"] - there["nme"]) / here["nme"]
    assert scores[True] < 1e-3 < scores[False]


def test_evaluation_leaves_the_model_and_the_random_numbers_alone(model, processor, faces):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    evaluate_checkpoint(model, processor, faces, protocol="paper", flip_average=True)
    assert model.training and model.transfer_layers.training
    assert (model.config.decoding, model.config.flip_average) == ("subpixel", False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.device.type == "cpu" for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()


def test_data_that_cannot_be_scored(model, processor, faces):
    with pytest.raises(DataError, match="no column box"):
        evaluate_checkpoint(model, processor, faces.remove_columns("box"))
    with pytest.raises(SchemeError, match="finds the 5 points of mtfl, but the data has 68"):
        evaluate_checkpoint(model, processor, make_dataset(faces["image"], np.ones((7, 68, 2)), faces["box"]))
    boxes = np.array(faces["box"])
    boxes[4, 3] = 0
    with pytest.raises(DataError, match="Row 4 has a box without area"):
        evaluate_checkpoint(model, processor, make_dataset(faces["image"], faces["landmarks"], boxes))
    with pytest.raises(DataError, match="Face 0 has a normalising length of zero"):
        evaluate_checkpoint(model, processor, make_dataset(faces["image"], np.ones((7, 5, 2)), faces["box"]))
    with pytest.raises(DataError, match="holds no face"):
        evaluate_checkpoint(model, processor, faces.select([]))
    broken = faces.cast_column("image", datasets.Image(decode=False)).to_dict()
    broken["image"][5]["bytes"] = broken["image"][5]["bytes"][:100]
    broken = datasets.Dataset.from_dict(broken, features=faces.features)
    with pytest.raises(DataError, match="rows 4 to 7 cannot be read"):
        evaluate_checkpoint(model, processor, broken, batch_size=4)


def test_models_that_cannot_be_scored(processor, faces):
    bare = FabRecForLandmarkDetection(FabRecConfig(**TINY, num_landmarks=5))
    with pytest.raises(SchemeError, match="carries no landmark scheme"):
        evaluate_checkpoint(bare, processor, faces)
    scheme = {"name": "dots", "num_landmarks": 5}
    unpaired = FabRecForLandmarkDetection(FabRecConfig(**TINY, num_landmarks=5, landmark_scheme=scheme))
    assert evaluate_checkpoint(unpaired, processor, faces)["normalizer"] == {"kind": "box"}
    with pytest.raises(SchemeError, match="dots has no flip pairs"):
        evaluate_checkpoint(unpaired, processor, faces, flip_average=True)


@pytest.fixture
def checkpoint(tmp_path, model, processor):
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_command_prints_what_the_function_returns(checkpoint, tmp_path, model, processor, faces, capsys):
    faces.to_parquet(tmp_path / "test-0.parquet")
    faces.select(range(2)).to_parquet(tmp_path / "train-0.parquet")
    arguments = ["--model", str(checkpoint), "--data", str(tmp_path), "--batch-size", "3"]
    assert main(["evaluate", *arguments, "--json", "--protocol", "paper"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = evaluate_checkpoint(model, processor, faces, protocol="paper")
    assert printed["count"] == 7  # of several splits the test set is the default
    assert {key: printed[key] for key in ("failure_rate", "auc", "scheme")} == {
        key: pytest.approx(expected[key]) if key == "auc" else expected[key]
        for key in ("failure_rate", "auc", "scheme")
    }
    assert printed["nme"] == pytest.approx(expected["nme"], rel=1e-4)
    assert main(["evaluate", *arguments, "--split", "train"]) == 0
    header, _, row = capsys.readouterr().out.splitlines()[:3]
    assert header.startswith("| faces | NME %") and row.startswith("| 2 | ")


def test_command_answers_mistakes_in_one_line(checkpoint, tmp_path, faces, capsys):
    data = tmp_path / "faces.parquet"
    faces.to_parquet(data)
    FabRecAutoencoder(
        FabRecAutoencoderConfig(**{key: TINY[key] for key in TINY if key != "heatmap_size"})
    ).save_pretrained(tmp_path / "autoencoder")
    (tmp_path / "empty").mkdir()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in checkpoint.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes()[: 2000 if file.suffix == ".safetensors" else None])
    cases = [
        ((checkpoint, tmp_path / "nowhere"), "no file or folder"),
        ((tmp_path / "nowhere", data), "No checkpoint"),
        (("nowhere", data), "No checkpoint 'nowhere'"),
        ((tmp_path / "empty", data), "no config.json"),
        ((tmp_path / "autoencoder", data), "finds no landmarks"),
        ((damaged, data), "cannot be loaded"),
        ((checkpoint, data, "--batch-size", "0"), "must be positive"),
        ((checkpoint, data, "--device", "abacus"), "--device abacus"),
    ]
    for (name, path, *more), message in cases:
        capsys.readouterr()
        assert main(["evaluate", "--model", str(name), "--data", str(path), *more]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert message in captured.err.strip().splitlines()[-1]
        assert "Traceback" not in captured.err


def test_a_checkpoint_that_lacks_weights_is_refused(checkpoint):
    from safetensors.torch import load_file, save_file

    weights = load_file(checkpoint / "model.safetensors")
    del weights["heatmap_head.weight"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks heatmap_head.weight"):
        load_landmark_model(str(checkpoint))
