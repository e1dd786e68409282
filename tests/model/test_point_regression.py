"""Points told from other points in closed form."""

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from fabrec_hf import FabRecForLandmarkDetection
from fabrec_hf.model.landmark_decoding import Drawing
from fabrec_hf.model.point_regression import RIDGE, SIZE_WEIGHT, PointRegression, mirror
from support.tiny_models import pictures, tiny_model


def faces(count=6, anchors=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = torch.rand(anchors, 2, generator=generator)
    return shape + 0.05 * torch.randn(count, anchors, 2, generator=generator)


def test_a_fixed_offset_from_an_anchor_is_found_from_one_face():
    anchors = faces(1)
    regression = PointRegression(2, 7)
    landmarks = anchors[:, [3, 5]].clone()
    regression.fit(anchors, landmarks)
    assert regression.nearest.tolist() == [3, 5]
    torch.testing.assert_close(regression(anchors), landmarks)
    # A face twice as large elsewhere has its points twice as far from its middle, there.
    moved = 2 * (anchors - 0.5) + 0.6
    torch.testing.assert_close(regression(moved), 2 * (landmarks - 0.5) + 0.6)


def test_the_regression_is_the_ridge_solution_in_features_as_well_as_in_faces():
    anchors, landmarks = faces(), faces(seed=1)[:, :3]
    regression = PointRegression(3, 7)
    regression.fit(anchors, landmarks)
    # A second way: numpy, one face at a time, and normal equations in the space of features.
    shapes, sizes, features = [], [], []
    for face in anchors.double().numpy():
        middle = face.mean(0)
        size = np.sqrt(((face - middle) ** 2).sum())
        shapes.append((face - middle) / size)
        sizes.append((middle, size))
        features.append([*shapes[-1].ravel(), *middle, SIZE_WEIGHT * size / np.sqrt(7)])
    shapes, features = np.array(shapes), np.array(features)
    targets = np.array([(p - m) / s for p, (m, s) in zip(landmarks.double().numpy(), sizes, strict=True)])
    centered = features - features.mean(0)
    for point in range(3):
        offsets = targets[:, point, None] - shapes
        spread = 6 * offsets.var(axis=0).sum(-1) + 2 * (offsets.mean(0) ** 2).sum(-1)
        nearest = spread.argmin()
        rest = offsets[:, nearest] - offsets[:, nearest].mean(0)
        gain = np.linalg.solve(centered.T @ centered + RIDGE * np.eye(17), centered.T @ rest)
        expected = shapes[:, nearest] + offsets[:, nearest].mean(0) + centered @ gain
        expected = [e * s + m for e, (m, s) in zip(expected, sizes, strict=True)]
        np.testing.assert_allclose(regression(anchors)[:, point].numpy(), expected, atol=1e-5)


def test_a_point_that_some_faces_lack_is_learned_from_the_others():
    anchors, landmarks = faces(), faces(seed=1)[:, :2]
    alone, both = PointRegression(1, 7), PointRegression(2, 7)
    alone.fit(anchors[2:], landmarks[2:, 1:])
    landmarks[:2, 1] = torch.nan
    both.fit(anchors, landmarks)
    torch.testing.assert_close(both(anchors)[:, 1:], alone(anchors), atol=1e-5, rtol=0)
    nobody = PointRegression(2, 7)
    landmarks[:, 1] = torch.nan
    nobody.fit(anchors, landmarks)
    assert torch.isfinite(nobody(anchors)).all()


def test_mirrored_faces_count_too():
    anchors, landmarks = faces(), faces(seed=1)[:, :2]
    flip, anchor_flip = [1, 0], [6, 5, 4, 3, 2, 1, 0]
    regression, doubled = PointRegression(2, 7), PointRegression(2, 7)
    regression.fit(anchors, landmarks, flip, anchor_flip)
    doubled.fit(torch.cat([anchors, mirror(anchors, anchor_flip)]), torch.cat([landmarks, mirror(landmarks, flip)]))
    torch.testing.assert_close(regression(anchors), doubled(anchors))
    assert mirror(torch.tensor([[[0.25, 0.5], [0.75, 0.125]]]), [1, 0]).tolist() == [[[0.25, 0.125], [0.75, 0.5]]]


@pytest.fixture
def detector():
    model = tiny_model(anchors={"name": "other", "num_landmarks": 7}, shape_prior=True)
    model.point_regression.fit(faces(), faces(seed=1)[:, :5])
    model.point_regression.share.fill_(0.25)
    return model


def test_a_detector_mixes_its_heatmaps_with_what_its_anchors_say(detector):
    drawing = Drawing(torch.rand(2, 12, 32, 32, generator=torch.Generator().manual_seed(3)))
    found, scores, drawn, _ = detector.decode(drawing)
    anchors, regression = detector.decode_anchors(drawing), detector.point_regression
    detector.point_regression = None
    own, own_scores, own_drawn, _ = detector.decode(drawing)
    torch.testing.assert_close(found, 0.75 * own + 0.25 * regression(anchors))
    # The shape prior of the fixture changes nothing, up to rounding.
    torch.testing.assert_close(drawn, own)
    assert torch.equal(drawn, own_drawn) and torch.equal(scores, own_scores) and scores.shape == (2, 5)


def test_a_detector_with_anchors_saves_fuses_and_learns_them(detector, tmp_path):
    outputs = detector(pictures())
    assert outputs.heatmaps.shape == (2, 5, 32, 32) and outputs.landmarks.shape == (2, 5, 2)
    torch.testing.assert_close(detector.fuse()(pictures()).landmarks, outputs.landmarks, atol=1e-5, rtol=0)
    detector.save_pretrained(tmp_path)
    loaded = FabRecForLandmarkDetection.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(pictures()).landmarks, outputs.landmarks)
    labels = torch.rand(2, 12, 2, generator=torch.Generator().manual_seed(0))
    alone = detector(pictures(), labels=labels[:, :5]).loss
    both = detector(pictures(), labels=labels).loss
    anchors_alone = labels.clone()
    anchors_alone[:, :5] = torch.nan
    rest = detector(pictures(), labels=anchors_alone).loss
    torch.testing.assert_close(both, (5 * alone + 7 * rest) / 12)
    with pytest.raises(ValueError, match="labels must be"):
        detector(pictures(), labels=labels[:, :6])


def test_mirrored_anchors_are_averaged_too():
    scheme = {"name": "five", "num_landmarks": 5, "flip_pairs": [[0, 1]]}
    model = tiny_model(landmark_scheme=scheme, anchors={"name": "o", "num_landmarks": 3, "flip_pairs": [[0, 2]]})
    model.config.flip_average = True
    flipped = type(model)(model.config).eval()
    flipped.load_state_dict(model.state_dict())
    first = model.autoencoder.decoder.first_stage(model.autoencoder.encode(pictures()))
    mirrored = model.autoencoder.decoder.first_stage(model.autoencoder.encode(pictures().flip(-1)))
    maps, other = model.predict_heatmaps(first), model.predict_heatmaps(mirrored).flip(-1)
    expected = 0.5 * (maps + other[:, [1, 0, 2, 3, 4, 7, 6, 5]])
    torch.testing.assert_close(flipped.fuse().draw(pictures())[0].heatmaps, expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(StrictDataclassError, match="anchors with flip_pairs"):
        tiny_model(landmark_scheme=scheme, anchors={"name": "o", "num_landmarks": 3}, flip_average=True)
