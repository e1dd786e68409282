"""Layers that begin by ridge regression, and steps that draw a part of their faces."""

import numpy as np
import pytest
import torch

from fabrec_hf import get_scheme
from fabrec_hf.data.canvases import Canvases
from fabrec_hf.learning.augmentation import AugmentationConfig
from fabrec_hf.learning.labeled_faces import LabeledFaces
from fabrec_hf.learning.landmark_training import LandmarkRecipe
from fabrec_hf.learning.linear_start import begin_readout, solve_linear
from fabrec_hf.model.heatmap_loss import readout_loss
from support.tiny_models import pictures, tiny_model


SCHEME = get_scheme("mtfl")


def test_a_linear_layer_is_solved_as_numpy_solves_it():
    generator = np.random.default_rng(0)
    inputs, targets = generator.normal(size=(40, 6)) + 3, generator.normal(size=(40, 2))
    layer = torch.nn.Linear(6, 2)
    explained = solve_linear(layer, torch.tensor(inputs), torch.tensor(targets), penalty=0.1)
    # Ridge as least squares with rows for the penalty, 0.1 of the mean of the inputs' sums of squares.
    centered, middle = inputs - inputs.mean(0), targets - targets.mean(0)
    rows = np.sqrt(0.1 * (centered**2).sum(0).mean()) * np.eye(6)
    gain = np.linalg.lstsq(np.vstack([centered, rows]), np.vstack([middle, np.zeros((6, 2))]), rcond=None)[0]
    np.testing.assert_allclose(layer.weight.detach().numpy(), gain.T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.bias.detach().numpy(), targets.mean(0) - inputs.mean(0) @ gain, rtol=1e-4)
    rest = middle - centered @ gain
    assert explained == pytest.approx(1 - (rest**2).sum() / (middle**2).sum(), rel=1e-6)


def test_inputs_that_tell_nothing_leave_the_mean():
    layer, targets = torch.nn.Linear(3, 2), torch.tensor([[1.0, 4.0], [3.0, 4.0]])
    solve_linear(layer, torch.ones(2, 3), targets)
    assert not layer.weight.any() and layer.bias.tolist() == [2.0, 4.0]


class Faces(LabeledFaces):
    """As many faces as asked for; one of them lacks a point."""

    size = 32

    def __init__(self, landmarks):
        self.landmarks = landmarks
        generator = torch.Generator().manual_seed(1)
        shape = len(landmarks), 3, 32, 32
        self.canvases = Canvases(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))


def test_a_readout_begins_with_what_the_features_tell():
    model = tiny_model(point_readout=True, landmark_scheme=SCHEME.to_dict())
    faces = Faces(torch.full((30, 5, 2), 0.5))
    images = faces.canvases.pixels / 255 - torch.tensor(model_mean()).view(1, 3, 1, 1)
    true = torch.nn.Linear(model.point_readout.in_features, 10)
    with torch.no_grad():
        faces.landmarks = true(model.autoencoder.encoder.features(images)).view(30, 5, 2)
    faces.landmarks[3, 1] = torch.nan
    still = AugmentationConfig(flip=0, rotation=0, translation=0, scale=(1, 1), occlusion=0)
    begin_readout(model, faces, SCHEME, still)
    with torch.no_grad():
        found = model.point_readout(model.autoencoder.encoder.features(images)).view(30, 5, 2)
    known = torch.arange(30) != 3
    spread = (faces.landmarks[known] - faces.landmarks[known].mean(0)).abs().mean()
    assert (found - faces.landmarks)[known].abs().mean() < 0.25 * spread


def model_mean():
    from fabrec_hf.model.image_inputs import IMAGE_MEAN

    return IMAGE_MEAN


def test_a_readout_of_anchors_is_left_as_it_is():
    model = tiny_model(point_readout=True, anchors={"name": "o", "num_landmarks": 3, "flip_pairs": [[0, 2]]})
    before = model.point_readout.weight.clone()
    begin_readout(model, Faces(torch.rand(8, 5, 2)), SCHEME, AugmentationConfig())
    assert torch.equal(model.point_readout.weight, before)


def test_faces_that_are_not_drawn_teach_the_readout_alone():
    model = tiny_model(point_readout=True).train()
    torch.manual_seed(2)
    images, labels = pictures(3), torch.rand(3, 5, 2)
    loss = model(images, labels=labels, output_landmarks=False, drawn_faces=1).loss
    drawing = model.draw(images)[0]
    plain = model(images[:1], labels=labels[:1], output_landmarks=False).loss
    size = model.config.heatmap_size
    drawn = plain - readout_loss(drawing.readout[:1], labels[:1], size)
    torch.testing.assert_close(loss, drawn + readout_loss(drawing.readout, labels, size))


@pytest.mark.parametrize("values", [{"drawn_faces": 2}, {"drawn_faces": 0, "point_readout": True}])
def test_a_recipe_refuses_faces_that_nothing_would_learn_from(values):
    with pytest.raises(ValueError, match="--drawn_faces must be at least 1, and needs --point_readout"):
        LandmarkRecipe(**values)
