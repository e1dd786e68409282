"""Reconstruction errors by face and by group, against values worked out by hand."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file


datasets = pytest.importorskip("datasets")

from fabrec_hf.checkpoints.loading import load_autoencoder  # noqa: E402
from fabrec_hf.data.canvases import Canvases  # noqa: E402
from fabrec_hf.data.decoding import decode_pictures  # noqa: E402
from fabrec_hf.errors import CheckpointError, DataError  # noqa: E402
from fabrec_hf.evaluation.reconstruction_errors import (  # noqa: E402
    age_band,
    bootstrap_interval,
    canvas_size,
    find_groups,
    measure_reconstruction,
    reconstruction_errors,
)
from fabrec_hf.model.configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig  # noqa: E402
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor  # noqa: E402
from fabrec_hf.model.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection  # noqa: E402
from support.tiny_checkpoints import TINY  # noqa: E402


MEAN = np.array(FabRecImageProcessor.image_mean)


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return FabRecAutoencoder(FabRecAutoencoderConfig(**TINY)).eval()


def stub(reconstruct, size=32):
    """A model that reconstructs as it is told."""

    def call(images, num_stages=None):
        return SimpleNamespace(reconstruction=reconstruct(images))

    call.config, call.device = SimpleNamespace(image_size=size), torch.device("cpu")
    return call


def make_faces(count, **columns):
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (24, 20, 3), dtype=np.uint8)) for _ in range(count)]
    features = {"image": datasets.Image()} | {name: datasets.Value("string") for name in columns}
    return datasets.Dataset.from_dict({"image": images, **columns}, features=datasets.Features(features))


def test_errors_of_known_reconstructions():
    random = np.random.default_rng(0)
    canvases = Canvases(torch.from_numpy(random.integers(0, 256, (5, 3, 40, 40), dtype=np.uint8)))
    levels, structural = reconstruction_errors(stub(lambda images: images + 10 / 255), canvases, batch_size=2)
    assert levels == pytest.approx([10] * 5, rel=1e-4)
    assert structural == pytest.approx([0] * 5, abs=1e-3)  # brighter, but the same structure
    # One flat color a face, which any resampling leaves as it is, against black.
    colors = random.integers(0, 256, (4, 3), dtype=np.uint8)
    flat = torch.from_numpy(colors)[:, :, None, None].expand(4, 3, 40, 40)
    mean = torch.tensor(MEAN, dtype=torch.float32).view(1, 3, 1, 1)
    levels, structural = reconstruction_errors(stub(lambda images: 0 * images - mean), Canvases(flat))
    assert levels == pytest.approx(colors.astype(float).mean(axis=1), rel=1e-4)
    assert structural == pytest.approx([0] * 4, abs=1e-4)


def test_errors_are_those_of_a_loop_over_faces(autoencoder):
    """The definitions written out face by face: pictures at the model's size, no shift, and SSIM's windows by hand."""
    dataset = make_faces(5)
    assert canvas_size(32) == 40
    canvases = Canvases(decode_pictures(dataset, 40, progress=False))
    levels, structural = reconstruction_errors(autoencoder, canvases, batch_size=3)
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(window, window) / window.sum() ** 2
    for index, canvas in enumerate(canvases.pixels):
        crop = torch.nn.functional.interpolate(canvas[None].float() / 255, size=32, mode="bilinear")
        image = crop[0].numpy().transpose(1, 2, 0) - MEAN
        with torch.no_grad():
            output = autoencoder(torch.tensor(image.transpose(2, 0, 1)[None], dtype=torch.float32)).reconstruction
        other = output[0].numpy().transpose(1, 2, 0).astype(float)
        assert levels[index] == pytest.approx(255 * np.abs(image - other).mean(), rel=1e-4)
        similarities = []
        for y in range(22):
            for x in range(22):
                first, second = (values[y : y + 11, x : x + 11] for values in (image, other))
                means = [(window[..., None] * values).sum(axis=(0, 1)) for values in (first, second)]
                deviations = [values - mean for values, mean in zip((first, second), means, strict=True)]
                variances = [(window[..., None] * values**2).sum(axis=(0, 1)) for values in deviations]
                covariance = (window[..., None] * deviations[0] * deviations[1]).sum(axis=(0, 1))
                similarities.append((2 * covariance + 0.06**2) / (sum(variances) + 0.06**2))
        assert structural[index] == pytest.approx(1 - np.mean(similarities), abs=2e-4)


def test_batches_and_chunks_change_nothing(autoencoder, monkeypatch):
    dataset = make_faces(7)
    canvases = Canvases(decode_pictures(dataset, 40, progress=False))
    expected = reconstruction_errors(autoencoder, canvases, batch_size=1)
    for found in (reconstruction_errors(autoencoder, canvases, batch_size=3), expected):
        assert found[0] == pytest.approx(expected[0], rel=1e-4) and found[1] == pytest.approx(expected[1], rel=1e-4)
    monkeypatch.setattr("fabrec_hf.evaluation.reconstruction_errors.MINIMUM_FACES", 5)
    monkeypatch.setattr("fabrec_hf.evaluation.reconstruction_errors.CHUNK", 3)
    measured = measure_reconstruction(autoencoder, dataset)
    assert measured["groups"][0]["l1"]["mean"] == pytest.approx(expected[0].mean(), rel=1e-4)
    assert measured["groups"][0]["structural"]["mean"] == pytest.approx(expected[1].mean(), rel=1e-4)


def test_fewer_stages_are_compared_at_the_size_they_draw():
    torch.manual_seed(0)
    model = FabRecAutoencoder(FabRecAutoencoderConfig(**TINY | {"image_size": 64, "widths": [4, 4, 4, 8]})).eval()
    canvases = Canvases(torch.full((2, 3, 80, 80), 128, dtype=torch.uint8))
    stages = len(model.decoder.stages)
    with torch.no_grad():
        images = torch.full((1, 3, 64, 64), 128 / 255) - torch.tensor(MEAN, dtype=torch.float32).view(1, 3, 1, 1)
        small = model(images, num_stages=stages - 1).reconstruction
    assert small.shape[-1] == 32
    levels, _ = reconstruction_errors(model, canvases, num_stages=stages - 1)
    assert levels == pytest.approx([255 * float((small - images[..., :32, :32]).abs().mean())] * 2, rel=1e-3)


@pytest.mark.parametrize(
    ("label", "band"),
    [
        ("0", "0-2"), ("2", "0-2"), ("2.5", "0-2"), ("3", "3-9"), ("9", "3-9"), ("10", "10-19"), ("26", "20-29"),
        ("69", "60-69"), ("70", "70+"), ("116", "70+"), ("20-29", "20-29"), ("more than 70", "more than 70"),
        ("-1", None), ("999", None), ("nan", None),
    ],
)  # fmt: skip
def test_ages(label, band):
    assert age_band(label) == band


def test_groups_stay_within_their_source():
    rows = [
        ("b", "26", "Male", "Asian"),
        ("a", "more than 70", "Male", "East Asian"),
        ("b", "4", "Female", "Asian"),
        ("a", "3-9", "Female", None),
        ("b", "29", " ", "Others"),
        ("a", "20-29", "Male", "Black"),
        ("c", None, None, None),
        ("b", "101", "Male", "Asian"),
    ]
    columns = dict(zip(("source", "age", "gender", "race"), map(list, zip(*rows, strict=True)), strict=True))
    found = [
        (group.source, group.attribute, group.value, group.rows.tolist())
        for group in find_groups(make_faces(8, **columns))
    ]
    assert found == [
        (None, None, None, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("a", None, None, [1, 3, 5]),
        ("a", "age", "3-9", [3]),
        ("a", "age", "20-29", [5]),
        ("a", "age", "more than 70", [1]),
        ("a", "gender", "Female", [3]),
        ("a", "gender", "Male", [1, 5]),
        ("a", "race", "Black", [5]),
        ("a", "race", "East Asian", [1]),
        ("b", None, None, [0, 2, 4, 7]),
        ("b", "age", "3-9", [2]),
        ("b", "age", "20-29", [0, 4]),
        ("b", "age", "70+", [7]),
        ("b", "gender", "Female", [2]),
        ("b", "gender", "Male", [0, 7]),
        ("b", "race", "Asian", [0, 2, 7]),
        ("b", "race", "Others", [4]),
        ("c", None, None, [6]),
    ]


def test_faces_without_a_source_are_grouped_all_the_same():
    groups = find_groups(make_faces(3, gender=["Male", None, "Female"]))
    assert [(group.source, group.value, group.rows.tolist()) for group in groups] == [
        (None, None, [0, 1, 2]),
        (None, "Female", [2]),
        (None, "Male", [0]),
    ]
    assert len(find_groups(make_faces(2))) == 1


def test_small_groups_are_counted_and_have_no_mean(autoencoder):
    genders = ["Female"] * 20 + ["Male"] * 19 + [None]
    dataset = make_faces(40, source=["somewhere"] * 40, gender=genders)
    measured = measure_reconstruction(autoencoder, dataset, batch_size=16)
    levels, structural = reconstruction_errors(autoencoder, Canvases(decode_pictures(dataset, 40, progress=False)))
    everyone, source, women, men = measured["groups"]
    assert [entry["count"] for entry in measured["groups"]] == [40, 40, 20, 19]
    assert men["l1"] is None and men["structural"] is None
    assert women["l1"]["mean"] == pytest.approx(levels[:20].mean(), rel=1e-4)
    assert everyone["structural"]["mean"] == pytest.approx(structural.mean(), rel=1e-4)
    for entry in (everyone, source, women):
        assert entry["l1"]["low"] < entry["l1"]["mean"] < entry["l1"]["high"]
    assert measured["unlabelled"] == [{"source": "somewhere", "attribute": "gender", "count": 1}]
    json.dumps(measured, allow_nan=False)
    assert measure_reconstruction(autoencoder, dataset, batch_size=16) == measured
    # A group's interval is its own affair: other faces in the data do not move it.
    alone = measure_reconstruction(autoencoder, dataset.select(range(20)), batch_size=16)["groups"][-1]
    assert alone["l1"] == pytest.approx(women["l1"], rel=1e-4)
    other = measure_reconstruction(autoencoder, dataset, seed=1, batch_size=16)["groups"]
    assert other[2]["l1"]["low"] != women["l1"]["low"] and other[2]["l1"]["mean"] == women["l1"]["mean"]


@pytest.mark.parametrize("count", [30, 3000])
def test_the_bootstrap_agrees_with_the_normal_theory(count):
    values = np.random.default_rng(0).normal(18, 4, count)
    low, high = bootstrap_interval(values, "a")
    margin = 1.96 * values.std() / np.sqrt(count)
    assert low == pytest.approx(values.mean() - margin, abs=0.12 * margin)
    assert high == pytest.approx(values.mean() + margin, abs=0.12 * margin)
    assert bootstrap_interval(values, "a") == (low, high) != bootstrap_interval(values, "b")


def test_faces_that_cannot_be_measured(autoencoder):
    with pytest.raises(DataError, match="no face"):
        measure_reconstruction(autoencoder, make_faces(2).select([]))
    broken = make_faces(3).cast_column("image", datasets.Image(decode=False)).to_dict()
    broken["image"][1]["bytes"] = broken["image"][1]["bytes"][:60]
    features = datasets.Features({"image": datasets.Image()})
    with pytest.raises(DataError, match="from number 0: The picture in row 1 cannot be read"):
        measure_reconstruction(autoencoder, datasets.Dataset.from_dict(broken, features=features))


def test_autoencoders_alone_and_within_landmark_models(autoencoder, tmp_path):
    autoencoder.save_pretrained(tmp_path / "alone")
    loaded = load_autoencoder(tmp_path / "alone")
    assert not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in autoencoder.state_dict().items())
    torch.manual_seed(1)
    model = FabRecForLandmarkDetection(FabRecConfig(**TINY, num_landmarks=5, heatmap_size=16))
    model.save_pretrained(tmp_path / "within")
    within = load_autoencoder(str(tmp_path / "within")).state_dict()
    assert all(torch.equal(value, within[name]) for name, value in model.autoencoder.state_dict().items())


def test_checkpoints_that_are_no_whole_autoencoder(autoencoder, tmp_path):
    autoencoder.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["decoder.fc.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="no whole autoencoder: its decoder.fc.weight"):
        load_autoencoder(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_autoencoder(tmp_path)
    with pytest.raises(CheckpointError, match="No checkpoint"):
        load_autoencoder("nowhere")
