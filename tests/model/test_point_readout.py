"""Points that are read straight off the encoder's features, beside the heatmaps."""

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from fabrec_hf import FabRecForLandmarkDetection, get_scheme
from fabrec_hf.export.runtime_files import export_model
from fabrec_hf.export.runtimes import load_exported
from fabrec_hf.inference.dataset_prediction import apply_protocol
from fabrec_hf.learning.landmark_training import LandmarkRecipe, build_model, build_processor, parameter_groups
from fabrec_hf.model.heatmap_loss import readout_loss
from support.tiny_models import pictures, random_statistics, tiny_model


SCHEME = get_scheme("mtfl")
ANCHORS = {"name": "o", "num_landmarks": 3, "flip_pairs": [[0, 2]]}


def teach(model):
    """Give a readout weights of its own."""
    torch.manual_seed(5)
    torch.nn.init.normal_(model.point_readout.weight, std=0.05)
    return model


def read_out(model, images):
    """The readout in NumPy, from the encoder's last layer's input."""
    seen = []
    handle = model.autoencoder.encoder.fc.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model.autoencoder.encode(images)
    handle.remove()
    weight, bias = (value.detach().numpy() for value in (model.point_readout.weight, model.point_readout.bias))
    return (seen[0].detach().numpy() @ weight.T + bias).reshape(len(images), -1, 2)


def test_a_new_readout_puts_every_point_in_the_middle():
    model = tiny_model(point_readout=True)
    assert np.allclose(read_out(model, pictures()), 0.5) and model.point_readout.out_features == 10


def test_landmarks_are_the_mean_of_heatmaps_and_readout():
    model = teach(tiny_model(point_readout=True))
    outputs, points = model(pictures()), read_out(model, pictures())
    model.point_readout = None
    alone = model(pictures())
    expected = (alone.landmarks.detach().numpy() + points) / 2
    np.testing.assert_allclose(outputs.landmarks.detach().numpy(), expected, atol=1e-6)
    assert torch.equal(outputs.scores, alone.scores) and np.abs(points - 0.5).max() > 0.01


def test_anchors_are_the_mean_of_heatmaps_and_readout():
    model = teach(tiny_model(point_readout=True, anchors=ANCHORS))
    assert model.point_readout.out_features == 6  # the anchors', not its own points'
    drawing = model.draw(pictures())[0]
    found, points = model.decode_anchors(drawing), read_out(model, pictures())
    drawn = model.decode_anchors(drawing._replace(readout=None))
    np.testing.assert_allclose(found.detach().numpy(), (drawn.detach().numpy() + points) / 2, atol=1e-6)


def test_anchors_without_heatmaps_are_what_is_read_out():
    model = teach(tiny_model(point_readout=True, anchors=ANCHORS, draws_anchors=False))
    generator = torch.Generator().manual_seed(1)
    model.point_regression.fit(torch.rand(4, 3, 2, generator=generator), torch.rand(4, 5, 2, generator=generator))
    model.point_regression.share.fill_(0.25)
    drawing, points = model.draw(pictures())[0], read_out(model, pictures())
    assert drawing.heatmaps.shape[1] == model.heatmap_head.out_channels == model.config.num_heatmaps == 5
    np.testing.assert_allclose(model.decode_anchors(drawing).detach().numpy(), points, atol=1e-6)
    told = model.point_regression(torch.tensor(points).float())
    outputs = model(pictures(), labels=torch.rand(2, 8, 2, generator=generator))
    torch.testing.assert_close(outputs.landmarks, 0.75 * outputs.drawn + 0.25 * told, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.fuse()(pictures()).landmarks, outputs.landmarks, atol=1e-5, rtol=0)
    with pytest.raises(StrictDataclassError, match="draws_anchors may be False only with point_readout"):
        tiny_model(anchors=ANCHORS, draws_anchors=False)


@pytest.mark.parametrize(
    ("settings", "swapped"),
    [
        ({}, [1, 0, 2, 4, 3]),
        ({"anchors": ANCHORS}, [2, 1, 0]),
        ({"anchors": ANCHORS, "draws_anchors": False}, [2, 1, 0]),
    ],
    ids=["own points", "anchors", "anchors without heatmaps"],
)
def test_the_mirrored_crop_is_read_out_too(settings, swapped):
    settings = {"landmark_scheme": SCHEME.to_dict(), "point_readout": True, "flip_average": True} | settings
    model = teach(tiny_model(**settings))
    points, mirrored = read_out(model, pictures()), read_out(model, pictures().flip(-1))
    mirrored = mirrored[:, swapped] * [-1, 1] + [1, 0]
    drawing = model.fuse().draw(pictures())[0]
    np.testing.assert_allclose(drawing.readout.numpy(), (points + mirrored) / 2, atol=1e-5)
    outputs = model(pictures())
    torch.testing.assert_close(model.fuse()(pictures()).landmarks, outputs.landmarks, atol=1e-5, rtol=0)


def test_the_loss_counts_annotated_points_in_heatmap_pixels():
    readout = torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.1, 0.1]]])
    labels = torch.tensor([[[0.6, 0.5], [0.25, 0.5], [float("nan"), 0.1]]])
    # Mean of |0.1|, 0 and 0, |0.25| is 0.0875 of a crop; 16 pixels wide; weight 2.
    assert float(readout_loss(readout, labels, 16)) == pytest.approx(0.0875 * 16 * 2)
    assert float(readout_loss(readout, torch.full_like(labels, torch.nan), 16)) == 0


@pytest.mark.parametrize("draws_anchors", [True, False])
def test_a_detector_with_anchors_learns_by_heatmaps_readout_and_regression(draws_anchors):
    model = teach(tiny_model(point_readout=True, anchors=ANCHORS, draws_anchors=draws_anchors))
    generator = torch.Generator().manual_seed(1)
    model.point_regression.fit(torch.rand(4, 3, 2, generator=generator), torch.rand(4, 5, 2, generator=generator))
    labels = torch.rand(2, 8, 2, generator=torch.Generator().manual_seed(0))
    readout, size = model.draw(pictures())[0].readout, model.config.heatmap_size
    told = readout_loss(model.point_regression(readout), labels[:, :5], size) / 2
    remembered = readout_loss(readout, labels[:, 5:], size)
    both = labels[:, :5], labels
    found = [model(pictures(), labels=given, output_landmarks=False).loss for given in both]
    model.point_readout = None
    drawn = [model(pictures(), labels=given, output_landmarks=False).loss for given in both]
    torch.testing.assert_close(found[0], drawn[0] + told)  # labels without anchors say nothing of the readout itself
    torch.testing.assert_close(found[1], drawn[1] + told + remembered)


def test_it_is_saved_and_the_papers_protocol_does_without(tmp_path):
    model = teach(tiny_model(landmark_scheme=SCHEME.to_dict(), point_readout=True, shape_prior=True)).train()
    model.save_pretrained(tmp_path)
    loaded = FabRecForLandmarkDetection.from_pretrained(tmp_path)
    model.eval()
    torch.testing.assert_close(loaded(pictures()).landmarks, model(pictures()).landmarks)
    told = {"weights": [0.0] * 4, "offsets": [0.0] * 5, "spread": 1.0}
    model.config.error_model = told | {"tolerance": 5.0, "count": 9}
    twin = apply_protocol(model, SCHEME, "paper", flip_average=None)
    assert twin.config.calibration is None and apply_protocol(model, SCHEME, "default", None).config.calibration
    assert twin.point_readout is None and twin.shape_prior is None and twin.config.decoding == "argmax"
    assert model.point_readout is not None and model.shape_prior is not None and model.config.decoding == "subpixel"
    plain = apply_protocol(model, SCHEME, "default", flip_average=True)
    assert plain.config.flip_average and not model.config.flip_average
    assert plain.point_readout.weight.data_ptr() == model.point_readout.weight.data_ptr()


def test_a_fit_takes_it_over_and_lets_it_learn_at_the_encoders_pace(tmp_path):
    start = teach(tiny_model(landmark_scheme=SCHEME.to_dict(), point_readout=True))
    recipe = LandmarkRecipe(heatmap_size=32, heatmap_sigma=start.config.heatmap_sigma, anchors=True)
    model = build_model(start, get_scheme("300w"), recipe)
    assert torch.equal(model.point_readout.weight, start.point_readout.weight)
    # What is read out needs no heatmaps; those of the new points begin as the start's, and nothing else is saved.
    assert not model.config.draws_anchors and model.heatmap_head.out_channels == 68
    assert torch.equal(model.known_heads, start.heatmap_head.weight) and "known_heads" not in model.state_dict()
    head, slow = parameter_groups(model, recipe, finetune=True)
    assert slow["lr"] == recipe.encoder_learning_rate and any(p is model.point_readout.weight for p in slow["params"])
    (frozen,) = parameter_groups(model, recipe, finetune=False)
    assert any(parameter is model.point_readout.weight for parameter in frozen["params"])
    anew = build_model(start, get_scheme("300w"), LandmarkRecipe(heatmap_size=32, point_readout=True))
    assert anew.config.anchors is None and anew.point_readout.out_features == 136


@pytest.mark.parametrize("format", ["onnx", "torch", "openvino"])
def test_an_export_reads_out_anchors_and_looks_closer(format, tmp_path):
    for package in {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino"), "torch": ()}[format]:
        pytest.importorskip(package)
    settings = {"point_readout": True, "anchors": ANCHORS, "flip_average": True, "local_refinement": True}
    model = random_statistics(teach(tiny_model(landmark_scheme=SCHEME.to_dict(), **settings))).eval()
    generator = torch.Generator().manual_seed(1)
    model.local_refinement.gain.copy_(0.02 * torch.randn(model.local_refinement.gain.shape, generator=generator))
    model.local_refinement.flip_index.copy_(torch.tensor(SCHEME.flip_index))
    told = {"weights": [-0.5, 0.3, 0.1, 0.2, 0.1, -0.1, 0.05, 0.2], "offsets": [0.1, 0.5, 0.9, 1.3, 1.7]}
    model.config.error_model = told | {"spread": 0.6, "tolerance": 5.0, "count": 50}
    model.point_regression.fit(torch.rand(4, 3, 2, generator=generator), torch.rand(4, 5, 2, generator=generator))
    model.point_regression.share.fill_(0.5)
    export_model(model, build_processor(None, model.config.image_size), tmp_path / "out", format)
    detector, _ = load_exported(tmp_path / "out")
    with torch.no_grad():
        expected = model(pictures())
    found = detector(pictures())
    torch.testing.assert_close(found.landmarks, expected.landmarks, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=0)
