"""Fits that start from a detector of other points."""

import copy
from dataclasses import replace

import pytest
import torch

from fabrec_hf import FabRecConfig, FabRecForLandmarkDetection
from fabrec_hf.data import load_faces
from fabrec_hf.errors import CheckpointError, DataError
from fabrec_hf.learning.anchors import begin_from_anchors, load_start, predict_anchors
from fabrec_hf.learning.fewshot import FitOptions, fit_landmarks, fit_recipe
from fabrec_hf.learning.labeled_faces import LabeledFaces
from fabrec_hf.learning.landmark_training import LandmarkRecipe, build_model, build_processor, predict_faces
from fabrec_hf.model.known_schemes import LandmarkScheme, get_scheme
from support.tiny_checkpoints import TINY, save_autoencoder, save_landmarks


def tiny_detector(**kwargs) -> FabRecForLandmarkDetection:
    scheme = get_scheme("mtfl")
    return FabRecForLandmarkDetection(
        FabRecConfig(**TINY, num_landmarks=5, landmark_scheme=scheme.to_dict(), heatmap_size=16, **kwargs)
    )


SCHEME = LandmarkScheme("three", 3, flip_pairs=((0, 1),))
RECIPE = LandmarkRecipe(
    head_steps=0, finetune_steps=2, batch_size=2, heatmap_size=16, heatmap_sigma=1.5, decoding="subpixel", anchors=True
)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    return str(save_landmarks(tmp_path_factory.mktemp("start") / "five"))


@pytest.fixture(scope="module")
def faces(drawn_faces):
    dataset = load_faces(drawn_faces, "train", columns=("image", "landmarks", "box")).select(range(6))
    points = [row[:3] for row in dataset["landmarks"]]
    dataset = dataset.remove_columns("landmarks").add_column("landmarks", points)
    return LabeledFaces(dataset, build_processor(None, 32), progress=False)


def test_the_points_of_a_detector_become_anchors(start):
    model, detector = build_model(start, SCHEME, RECIPE), load_start(start)
    assert model.config.anchors["name"] == "mtfl" and model.config.num_anchors == 5
    assert torch.equal(model.heatmap_head.weight[:, 3:], detector.heatmap_head.weight)
    for layer, known in zip(model.transfer_layers, detector.transfer_layers, strict=True):
        assert torch.equal(layer.weight, known.weight)


def test_what_cannot_go_on_drawing_them_starts_anew(start, tmp_path):
    other = LandmarkRecipe(**{**RECIPE.__dict__, "heatmap_sigma": 2.0})
    assert build_model(start, SCHEME, other).config.anchors is None
    without = LandmarkRecipe(**{**RECIPE.__dict__, "anchors": False})
    assert build_model(start, SCHEME, without).config.anchors is None
    autoencoder = str(save_autoencoder(tmp_path / "autoencoder"))
    assert build_model(autoencoder, SCHEME, RECIPE).config.anchors is None


def test_anchors_are_those_of_the_detector_averaged_with_the_mirrored_crop(start, faces):
    model, detector = build_model(start, SCHEME, RECIPE), load_start(start).eval()
    flip = LandmarkScheme.from_dict(detector.config.landmark_scheme).flip_index
    plain = predict_faces(detector, faces, torch.device("cpu")).landmarks
    turned = copy.copy(faces)
    turned.canvases = replace(faces.canvases, pixels=faces.canvases.pixels.flip(-1))
    mirrored = predict_faces(detector, turned, torch.device("cpu")).landmarks
    back = mirrored[:, flip] * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
    torch.testing.assert_close(predict_anchors(model, faces, flip), 0.5 * (plain + back), atol=1e-4, rtol=0)
    torch.testing.assert_close(predict_anchors(model, faces, None), plain, atol=1e-5, rtol=0)


def test_a_beginning_is_made_once(start, faces):
    model = build_model(start, SCHEME, RECIPE)
    begun = begin_from_anchors(model, faces, SCHEME)
    regression, own = model.point_regression, model.heatmap_head.weight[:, :3]
    assert torch.equal(own, model.heatmap_head.weight[:, 3 + regression.nearest])
    assert begun.anchors.shape == (6, 5, 2) and faces.anchors is None
    assert begun.flip_index(SCHEME) == [1, 0, 2, 4, 3, 5, 7, 6]
    with torch.no_grad():
        model.heatmap_head.weight.add_(1)
    before = copy.deepcopy(model.state_dict())
    begin_from_anchors(model, faces, SCHEME)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_instant_fit_takes_no_step_and_answers_by_regression(start, faces):
    model = build_model(start, SCHEME, RECIPE)
    encoder = copy.deepcopy(model.autoencoder.state_dict())
    result = fit_landmarks(model, faces, SCHEME, RECIPE, FitOptions(folds=6, instant=True))
    assert result.losses == [] and not result.stopped
    assert all(torch.equal(value, encoder[name]) for name, value in model.autoencoder.state_dict().items())
    assert model.point_regression.share.tolist() == [1.0, 1.0, 1.0]
    # Left-out faces are predicted by a regression that has not seen them.
    first = build_model(start, SCHEME, RECIPE)
    places = torch.tensor([row for row in range(6) if row != 0])
    first_result = fit_landmarks(
        first, faces.subset(places.numpy()), SCHEME, RECIPE, FitOptions(folds=0, instant=True)
    )
    predicted = predict_faces(first, faces.subset(torch.tensor([0]).numpy()), torch.device("cpu")).landmarks
    torch.testing.assert_close(torch.tensor(result.held_out.landmarks[0]).float(), predicted[0], atol=1e-5, rtol=0)
    assert first_result.training_errors.shape == (5,)


def test_a_fit_learns_points_and_remembers_anchors(start, faces):
    model = build_model(start, SCHEME, RECIPE)
    result = fit_landmarks(model, faces, SCHEME, RECIPE, FitOptions(folds=0))
    assert len(result.losses) == 2 and all(loss > 0 for loss in result.losses)
    assert model.point_regression.share.tolist() == [0.5, 0.5, 0.5]


def test_only_a_detector_starts_an_instant_fit(faces, tmp_path):
    model = build_model(str(save_autoencoder(tmp_path / "autoencoder")), SCHEME, RECIPE)
    with pytest.raises(DataError, match="3fabrec-mesh"):
        fit_landmarks(model, faces, SCHEME, RECIPE, FitOptions(instant=True))


def test_a_start_whose_points_become_anchors_takes_fewer_and_smaller_steps(tmp_path):
    save_autoencoder(tmp_path / "autoencoder")
    autoencoder = load_start(tmp_path / "autoencoder")
    # Heatmaps of half the side of 32 px and the paper's sigma for that size, as a fit asks for; and another sigma.
    detector, other = tiny_detector(heatmap_sigma=0.875), tiny_detector(heatmap_sigma=1.5)
    from_points, anew, apart = (fit_recipe(start, 10) for start in (detector, autoencoder, other))
    assert (from_points.finetune_steps, from_points.encoder_learning_rate, from_points.anchors) == (300, 1e-4, True)
    assert (from_points.shape_prior, from_points.heatmap_size, from_points.heatmap_sigma) == (False, 16, 0.875)
    assert (anew.finetune_steps, anew.encoder_learning_rate, anew.anchors, anew.shape_prior) == (
        600,
        5e-4,
        False,
        True,
    )
    assert apart == anew
    # One face teaches less than ten; steps are thirty for each, or twice as many with twice the effort.
    steps = [fit_recipe(detector, faces, effort=effort).finetune_steps for faces, effort in ((1, 1), (4, 2), (50, 1))]
    assert steps == [30, 240, 300] and fit_recipe(autoencoder, 1).finetune_steps == 600


def test_a_detector_without_its_processor_is_not_taken_for_an_autoencoder(tmp_path):
    folder = save_landmarks(tmp_path / "five")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(CheckpointError, match="preprocessor_config"):
        load_start(folder)
    with pytest.raises(CheckpointError, match="no-such-checkpoint"):
        load_start(tmp_path / "no-such-checkpoint")
