"""The shape prior: a posterior mean computed in a second way, and what it must leave alone."""

import math

import numpy as np
import pytest
import torch

from fabrec_hf import FabRecConfig, FabRecForLandmarkDetection
from fabrec_hf.inference.dataset_prediction import apply_protocol
from fabrec_hf.model.heatmaps import decode_heatmaps
from fabrec_hf.model.known_schemes import get_scheme
from fabrec_hf.model.shape_prior import ShapePrior


SCHEME = get_scheme("mtfl")
FACE = torch.tensor([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.75], [0.65, 0.75]])


def shapes(count=4, seed=0):
    return FACE + 0.03 * torch.randn(count, 5, 2, generator=torch.Generator().manual_seed(seed))


def ellipse():
    angles = torch.arange(30) * (2 * math.pi / 30)
    return 0.5 + torch.stack([0.3 * angles.cos(), 0.4 * angles.sin()], dim=1)


def fitted(landmarks, flip_index=None):
    prior = ShapePrior(landmarks.shape[1])
    prior.fit(landmarks, flip_index)
    return prior


def test_a_new_prior_changes_nothing():
    torch.testing.assert_close(ShapePrior(5)(shapes()), shapes(), atol=1e-7, rtol=0)


def test_the_correction_is_the_most_probable_shape():
    seen, found = shapes().double().numpy(), shapes(1, seed=1).double().numpy()[0]
    mean = seen.mean(axis=0)
    covariance = np.zeros((10, 10))
    for i in range(5):
        for j in range(5):
            place = 1 + (mean[i] - mean.mean(axis=0)) @ (mean[j] - mean.mean(axis=0))
            smooth = 0.01**2 * math.exp(-np.sum((mean[i] - mean[j]) ** 2) / (2 * 0.2**2)) + 3.0**2 * place
            for a in range(2):
                for b in range(2):
                    seen_together = np.mean((seen[:, i, a] - mean[i, a]) * (seen[:, j, b] - mean[j, b]))
                    covariance[2 * i + a, 2 * j + b] = seen_together + (smooth if a == b else 0)
    # Least squares: how improbable the shape is as a face, and how far it lies from what was found.
    whitener = np.linalg.inv(np.linalg.cholesky(covariance))
    system = np.vstack([whitener, np.eye(10) / 0.02])
    target = np.concatenate([np.zeros(10), (found - mean).ravel() / 0.02])
    expected = mean + np.linalg.lstsq(system, target, rcond=None)[0].reshape(5, 2)
    corrected = fitted(torch.tensor(seen))(torch.tensor(found)[None])[0]
    np.testing.assert_allclose(corrected.numpy(), expected, atol=2e-6)


def test_moved_and_turned_faces_stay_and_a_stray_point_comes_back():
    outline = ellipse()
    prior = fitted(outline[None])
    angle = math.radians(40)
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    turned = (outline - 0.5) @ (0.8 * turn) + 0.45
    torch.testing.assert_close(prior(turned[None])[0], turned, atol=1e-3, rtol=0)
    stray = outline.clone()
    stray[7, 0] += 0.1
    corrected = prior(stray[None])[0]
    assert abs(corrected[7, 0] - outline[7, 0]) < 0.04
    assert (corrected - outline).abs()[torch.arange(30) != 7].max() < 0.02


@pytest.mark.parametrize("count", [1, 2, 3])
def test_up_to_three_points_are_free(count):
    found = torch.rand(6, count, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fitted(shapes()[:, :count])(found), found, atol=5e-3, rtol=0)


def test_points_that_no_face_has_are_left_alone():
    seen = shapes()
    seen[:, 2] = math.nan
    seen[1, 4] = math.nan
    prior, found = fitted(seen), shapes(1, seed=1)
    other = found.clone()
    other[:, 2] += 0.3
    rest = [0, 1, 3, 4]
    assert prior.gain.isfinite().all() and torch.equal(prior.gain[4:6], torch.eye(10)[4:6])
    torch.testing.assert_close(prior(other)[:, 2], other[:, 2], atol=1e-6, rtol=0)
    torch.testing.assert_close(prior(other)[:, rest], prior(found)[:, rest], atol=1e-7, rtol=0)
    seen_by_others = seen[[0, 2, 3], 4].mean(dim=0)
    torch.testing.assert_close(prior.mean[4], seen_by_others, atol=1e-6, rtol=0)
    unknown = fitted(torch.full((2, 5, 2), math.nan))
    torch.testing.assert_close(unknown(found), found, atol=1e-7, rtol=0)


def test_a_face_and_its_mirror_image_teach_the_same():
    flip = SCHEME.flip_index
    mirrored = shapes()[:, flip] * torch.tensor([-1, 1]) + torch.tensor([1, 0])
    one, other = fitted(shapes(), flip), fitted(mirrored, flip)
    torch.testing.assert_close(one.gain, other.gain, atol=1e-5, rtol=0)
    torch.testing.assert_close(one.mean, other.mean, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.mean[0, 0] + one.mean[1, 0], torch.tensor(1.0), atol=1e-6, rtol=0)


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    settings = {"image_size": 32, "latent_size": 8, "widths": [8, 8, 8, 8], "heatmap_size": 16, "heatmap_sigma": 2.0}
    config = FabRecConfig(num_landmarks=5, landmark_scheme=SCHEME.to_dict(), shape_prior=True, **settings)
    model = FabRecForLandmarkDetection(config).eval()
    model.shape_prior.fit(shapes(), SCHEME.flip_index)
    return model


def test_a_detector_corrects_what_it_reads_off_its_heatmaps(detector, tmp_path):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        outputs = detector(images)
        raw, _ = decode_heatmaps(outputs.heatmaps, "subpixel", 2.0)
        assert (raw - outputs.landmarks).abs().max() > 0.01
        torch.testing.assert_close(detector.shape_prior(raw), outputs.landmarks)
        torch.testing.assert_close(detector.fuse()(images).landmarks, outputs.landmarks, atol=1e-4, rtol=0)
        detector.save_pretrained(tmp_path)
        loaded = FabRecForLandmarkDetection.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(loaded(images).landmarks, outputs.landmarks)


def test_the_papers_protocol_does_without(detector):
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) - 0.5
    twin = apply_protocol(detector, SCHEME, "paper", flip_average=False)
    with torch.no_grad():
        outputs = twin(images)
        raw, _ = decode_heatmaps(outputs.heatmaps, "argmax", 2.0)
        torch.testing.assert_close(outputs.landmarks, raw)
        torch.testing.assert_close(apply_protocol(detector, SCHEME, "default", None)(images), detector(images))
    assert detector.config.shape_prior and not twin.config.shape_prior


def test_a_head_for_another_scheme_starts_without_an_opinion(detector, tmp_path):
    detector.save_pretrained(tmp_path)
    other = FabRecForLandmarkDetection.from_pretrained(
        tmp_path, num_landmarks=4, landmark_scheme=None, ignore_mismatched_sizes=True
    )
    torch.testing.assert_close(other.shape_prior(shapes()[:, :4]), shapes()[:, :4], atol=1e-7, rtol=0)
