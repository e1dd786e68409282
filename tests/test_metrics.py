"""Landmark errors: hand-computed cases, and the same numbers by plain loops and numeric integration."""

import math
from pathlib import Path

import numpy as np
import pytest

from fabrec_hf import metrics
from fabrec_hf.landmarks import Normalizer, get_scheme


NAN = float("nan")
EYES = get_scheme("mtfl").normalizer
FACE = [[0, 0], [10, 0], [5, 5], [2, 8], [8, 8]]  # eyes 10 px apart


def random_faces(count=50, points=68, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.uniform(0, 200, (count, points, 2))
    targets[rng.random((count, points)) < 0.1] = np.nan
    predictions = targets + rng.normal(0, 8, targets.shape)
    predictions[rng.random((count, points)) < 0.05] = np.nan
    predictions[3] = np.nan  # a face that the detector missed
    targets[7] = np.nan  # a face without annotation
    return predictions, targets


def nme_by_loops(predictions, targets, first, second):
    errors = []
    for prediction, target in zip(predictions, targets, strict=True):
        length = math.dist(target[first], target[second])
        distances = []
        for p, t in zip(prediction, target, strict=True):
            distance = math.hypot(p[0] - t[0], p[1] - t[1])
            if not math.isnan(distance):
                distances.append(distance)
        annotated = not all(math.isnan(t[0]) for t in target) and not math.isnan(length)
        if not annotated:
            errors.append(NAN)
        elif not distances:
            errors.append(math.inf)
        else:
            errors.append(100 * sum(distances) / len(distances) / length)
    return errors


def test_nme_by_hand():
    # every point 3-4-5 away from its place: 5 px of 10 px; then only the nose, 1 px: a fifth of 10 %
    far = np.add(FACE, [3, 4])
    nose = np.array(FACE, float)
    nose[2] += [0, 1]
    errors = metrics.normalized_mean_error([FACE, far, nose], [FACE] * 3, EYES)
    np.testing.assert_allclose(errors, [0, 50, 2])
    np.testing.assert_allclose(metrics.point_errors([nose], [FACE], EYES), [[0, 0, 10, 0, 0]])


def test_nme_is_what_plain_loops_give():
    predictions, targets = random_faces()
    errors = metrics.normalized_mean_error(predictions, targets, get_scheme("300w").normalizer)
    expected = nme_by_loops(predictions, targets, 36, 45)
    np.testing.assert_allclose(errors, expected, rtol=1e-12)
    assert math.isinf(errors[3]) and math.isnan(errors[7])
    assert 0.1 < np.isnan(errors).mean() < 0.5  # one face in five lacks an eye corner


def test_missing_annotations_leave_only_their_point_out():
    target = np.array(FACE, float)
    target[3] = NAN
    prediction = np.add(FACE, [1, 0])
    prediction[3] += 1000
    assert metrics.normalized_mean_error([prediction], [target], EYES) == pytest.approx([10])


def test_a_partial_prediction_is_scored_on_what_it_has():
    prediction = np.add(FACE, [2.0, 0.0])
    prediction[:4] = NAN
    assert metrics.normalized_mean_error([prediction], [FACE], EYES) == pytest.approx([20])
    prediction[4] = NAN
    assert math.isinf(metrics.normalized_mean_error([prediction], [FACE], EYES)[0])


def test_normalizing_lengths_by_hand():
    targets = np.array([[[0, 0], [4, 0], [3, 4], [30, 40], [1, 1]]], float)
    boxes = [[5, 5, 30, 40]]
    lengths = {
        Normalizer("points", (0, 2)): 5,
        Normalizer("points", ((0, 1), 3)): math.hypot(28, 40),
        Normalizer("box"): 40,
        Normalizer("box_diagonal"): 50,
    }
    for normalizer, length in lengths.items():
        assert metrics.normalizing_distance(targets, normalizer, boxes) == pytest.approx([length])


def test_inputs_that_cannot_be_scored():
    with pytest.raises(ValueError, match="needs the face boxes"):
        metrics.normalized_mean_error([FACE], [FACE], Normalizer("box"))
    with pytest.raises(ValueError, match=r"Boxes must have shape \(1, 4\)"):
        metrics.normalized_mean_error([FACE], [FACE], Normalizer("box"), [[1, 2, 3]])
    with pytest.raises(ValueError, match="Face 1 has a normalising length of zero"):
        metrics.normalized_mean_error([FACE, FACE], [FACE, [[1, 1]] * 5], EYES)
    with pytest.raises(ValueError, match=r"not \(1, 5, 2\) and \(2, 5, 2\)"):
        metrics.normalized_mean_error([FACE], [FACE, FACE], EYES)
    with pytest.raises(ValueError, match="no face to score"):
        metrics.summarize_errors([NAN])
    with pytest.raises(ValueError, match="must be positive"):
        metrics.area_under_curve([1.0], 0)


def test_failure_rate_counts_missed_faces_and_not_the_threshold_itself():
    errors = [2, 10, 10.001, 30, math.inf, NAN]
    assert metrics.failure_rate(errors) == pytest.approx(60)
    assert metrics.failure_rate(errors, 1) == 100
    assert metrics.failure_rate(errors, 30) == pytest.approx(20)


def test_area_under_curve_by_hand():
    # two faces of 2 and 6 %, one over 10 %, one missed: stretches 8 and 4 of 10, over 4 faces
    assert metrics.area_under_curve([2, 6, 12, math.inf, NAN]) == pytest.approx(0.3)
    assert metrics.area_under_curve([0, 0]) == 1
    assert metrics.area_under_curve([11, math.inf]) == 0


@pytest.mark.parametrize("threshold", [5, 8, 10])
def test_area_under_curve_is_the_integral_of_the_distribution(threshold):
    errors = np.random.default_rng(1).gamma(4, 1.2, 300)
    samples = (np.arange(200_000) + 0.5) * threshold / 200_000
    curve = np.searchsorted(np.sort(errors), samples, side="right") / len(errors)
    assert metrics.area_under_curve(errors, threshold) == pytest.approx(curve.mean(), abs=1e-5)


def test_summary_counts_everything():
    summary = metrics.summarize_errors([2, 6, 13, math.inf, NAN])
    assert summary == {
        "nme": pytest.approx(7),
        "failure_rate": pytest.approx(50),
        "auc": pytest.approx(0.3),
        "count": 4,
        "without_prediction": 1,
        "not_scored": 1,
    }
    assert math.isnan(metrics.summarize_errors([math.inf])["nme"])


def test_parts_are_averaged_face_by_face():
    errors = np.array([[1, 2, 3, NAN], [5, 6, NAN, NAN], [np.inf] * 4])
    parts = metrics.part_errors(errors, {"all": (0, 1, 2, 3), "last": (2, 3), "none": (3,)})
    assert parts["all"] == pytest.approx((2 + 5.5) / 2)
    assert parts["last"] == pytest.approx(3)
    assert math.isnan(parts["none"])


@pytest.fixture(scope="module")
def module():
    evaluate = pytest.importorskip("evaluate")
    return evaluate.load(str(Path(metrics.__file__).parent / "face_landmarks"))


def test_evaluate_module_gives_the_same_numbers(module):
    predictions, targets = random_faces(20)
    errors = metrics.normalized_mean_error(predictions, targets, get_scheme("300w").normalizer)
    result = module.compute(predictions=predictions, references=targets, threshold=12)
    assert result == metrics.summarize_errors(errors, 12)
    module.add_batch(predictions=predictions[:7], references=targets[:7])
    module.add_batch(predictions=predictions[7:], references=targets[7:])
    assert module.compute(threshold=12) == result


def test_evaluate_module_takes_boxes_and_custom_schemes(module):
    moved = np.add(FACE, [3, 4]).tolist()
    boxes = [[0, 0, 50, 20]]
    inputs = {"predictions": [moved], "references": [FACE]}
    assert module.compute(**inputs, boxes=boxes, scheme="mtfl", normalizer={"kind": "box"})["nme"] == pytest.approx(10)
    scheme = {"name": "mine", "num_landmarks": 5, "normalizer": {"kind": "points", "points": [0, 2]}}
    assert module.compute(**inputs, scheme=scheme)["nme"] == pytest.approx(100 * 5 / math.hypot(5, 5))
    with pytest.raises(ValueError, match="300w has 68 points"):
        module.compute(**inputs)
    with pytest.raises(ValueError, match="predictions is empty"):
        module.compute(predictions=[], references=[])
