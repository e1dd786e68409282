"""How a detector learns to look closer at its points."""

import copy

import numpy as np
import pytest
import torch

from fabrec_hf.data import load_faces
from fabrec_hf.learning import refinement as module
from fabrec_hf.learning.augmentation import AugmentationConfig, augment
from fabrec_hf.learning.fewshot import FitOptions, fit_landmarks
from fabrec_hf.learning.labeled_faces import LabeledFaces, image_mean
from fabrec_hf.learning.landmark_training import LandmarkRecipe, build_model, build_processor
from fabrec_hf.learning.refinement import _Moments, fit_refinement
from fabrec_hf.model.known_schemes import get_scheme
from fabrec_hf.model.local_refinement import look_around
from support.tiny_checkpoints import save_autoencoder


SCHEME = get_scheme("mtfl")
RECIPE = LandmarkRecipe(
    head_steps=1, finetune_steps=1, batch_size=2, heatmap_size=16, heatmap_sigma=1.5, local_refinement=True
)
STILL = AugmentationConfig(flip=0, rotation=0, translation=0, scale=(1, 1), elastic=0, occlusion=0)


@pytest.fixture(scope="module")
def faces(drawn_faces):
    dataset = load_faces(drawn_faces, "train", columns=("image", "landmarks", "box")).select(range(6))
    return LabeledFaces(dataset, build_processor(None, 32), progress=False)


@pytest.fixture
def model(tmp_path):
    return build_model(str(save_autoencoder(tmp_path / "autoencoder")), SCHEME, RECIPE)


def test_moments_solve_a_ridge_regression_of_standardized_features():
    generator = np.random.default_rng(0)
    seen = generator.normal(3, [1, 5, 0.2], size=(40, 2, 3)).astype(np.float32)
    moves = (seen[..., :2] * 0.1 + generator.normal(0, 0.1, (40, 2, 2))).astype(np.float32)
    moves[:7, 1] = np.nan  # seven faces do not have the second point
    moments = _Moments(torch.from_numpy(seen[:16]))
    for rows in (slice(0, 16), slice(16, 40)):
        moments.add(torch.from_numpy(seen[rows]), torch.from_numpy(moves[rows]))
    for point, known in ((0, slice(None)), (1, slice(7, None))):
        x, y = seen[known, point].astype(float), moves[known, point].astype(float)
        deviation = x.std(0) + 1e-3
        # The same as ordinary least squares with one more row for each feature, which asks it to be zero.
        rows = np.concatenate([(x - x.mean(0)) / deviation, np.sqrt(0.7 * len(x)) * np.eye(3)])
        weights = np.linalg.lstsq(rows, np.concatenate([y - y.mean(0), np.zeros((3, 2))]), rcond=None)[0]
        gain, bias = moments.solve(point, ridge=0.7)
        np.testing.assert_allclose(gain, weights / deviation[:, None], atol=1e-5)
        np.testing.assert_allclose(bias, y.mean(0) - x.mean(0) @ (weights / deviation[:, None]), atol=1e-5)


def test_points_that_are_displaced_move_back(faces, model, monkeypatch):
    monkeypatch.setattr(module, "LEAST_RIDGE", 0.001)
    monkeypatch.setattr(module, "RIDGE", 0.001)
    fit_refinement(model, faces, SCHEME, STILL)
    canvas = faces.size * 2**0.5
    assert faces.canvases.pixels.shape[-1] == round(canvas)
    crops = augment(faces.canvases, faces.size, STILL, faces.landmarks, None)[0]
    maps = model.local_maps(crops - image_mean(torch.device("cpu")))
    torch.manual_seed(9)
    displaced = faces.landmarks + module.DEVIATION * torch.randn_like(faces.landmarks)
    before = (displaced - faces.landmarks).norm(dim=-1).mean()
    after = (model.local_refinement(displaced, maps)[0] - faces.landmarks).norm(dim=-1).mean()
    assert after < 0.7 * before
    assert model.local_refinement.flip_index.tolist() == SCHEME.flip_index


def test_a_point_that_no_face_has_stays(faces, model):
    some = copy.copy(faces)
    some.landmarks = faces.landmarks.clone()
    some.landmarks[:, 2] = torch.nan
    fit_refinement(model, some, SCHEME, STILL)
    gain, bias = model.local_refinement.gain, model.local_refinement.bias
    assert not gain[2].any() and not bias[2].any() and gain[1].any() and gain.isfinite().all()


def test_a_fit_ends_with_it_and_a_model_without_stays_as_it_is(faces, model, tmp_path):
    fit_landmarks(model, faces, SCHEME, RECIPE, FitOptions(folds=0))
    learned = copy.deepcopy(model.local_refinement)
    assert learned.gain.any()
    fit_refinement(model, faces, SCHEME, RECIPE.augmentation, RECIPE.seed)  # the encoder is what it was in the end
    torch.testing.assert_close(model.local_refinement.gain, learned.gain)
    plain = build_model(
        str(save_autoencoder(tmp_path / "other")), SCHEME, LandmarkRecipe(heatmap_size=16, heatmap_sigma=1.5)
    )
    fit_refinement(plain, faces, SCHEME, STILL)
    assert plain.local_refinement is None


def test_a_fit_that_is_stopped_looks_closer_too(faces, model):
    learned = []
    options = FitOptions(folds=0, on_step=learned.append, should_stop=lambda: len(learned) == 1)
    result = fit_landmarks(model, faces, SCHEME, RECIPE, options)
    assert result.stopped and len(result.losses) == 1 and model.local_refinement.gain.any()


def test_what_is_seen_does_not_depend_on_the_batch(faces, model):
    maps = model.local_maps(torch.rand(4, 3, 32, 32))
    points = torch.rand(4, 5, 2)
    alone = look_around(points[2:3], [values[2:3] for values in maps])
    torch.testing.assert_close(look_around(points, maps)[2:3], alone)
