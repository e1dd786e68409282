"""Landmark errors: hand-computed cases, and the same numbers by plain loops and numeric integration."""

import math
from fractions import Fraction

import numpy as np
import pytest

from fabrec_hf import metrics
from fabrec_hf.errors import BoxError, DataError
from fabrec_hf.model.known_schemes import Normalizer, get_scheme


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
    with pytest.raises(BoxError, match="needs the face boxes"):
        metrics.normalized_mean_error([FACE], [FACE], Normalizer("box"))
    with pytest.raises(BoxError, match=r"Boxes must have shape \(1, 4\)"):
        metrics.normalized_mean_error([FACE], [FACE], Normalizer("box"), [[1, 2, 3]])
    with pytest.raises(DataError, match="Face 1 has a normalizing length of zero"):
        metrics.normalized_mean_error([FACE, FACE], [FACE, [[1, 1]] * 5], EYES)
    with pytest.raises(ValueError, match=r"not \(1, 5, 2\) and \(2, 5, 2\)"):
        metrics.normalized_mean_error([FACE], [FACE, FACE], EYES)
    with pytest.raises(DataError, match="no face to score"):
        metrics.summarize_errors([NAN])
    for score in (metrics.failure_rate, metrics.area_under_curve, metrics.cumulative_error_distribution):
        for threshold in (0, -1, math.inf, NAN):
            with pytest.raises(ValueError, match="must be positive and finite, not"):
                score([1.0], threshold)
    with pytest.raises(ValueError, match="at least 2 points, not 1"):
        metrics.cumulative_error_distribution([1.0], num=1)
    for predictions, targets in (([], []), ([FACE], [FACE, FACE]), (FACE, FACE)):
        with pytest.raises(DataError, match="must both have shape"):
            metrics.count_missing(predictions, targets)


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


def test_an_error_of_exactly_the_threshold_is_no_failure():
    # 3-4-5: every point 5 px away; eyes 50 px apart make that 10 %, and 49 px a little more
    for eyes, rate in ((50, 0), (49, 100)):
        face = [[0, 0], [eyes, 0], [5, 5], [2, 8], [8, 8]]
        errors = metrics.normalized_mean_error([np.add(face, [3, 4])], [face], EYES)
        assert metrics.failure_rate(errors, 10) == rate
        assert metrics.area_under_curve(errors, 10) == 0
        thresholds, fractions = metrics.cumulative_error_distribution(errors, 10)
        assert (thresholds.tolist(), fractions.tolist()) == ([0, 10], [0, 1 - rate / 100])


def test_cumulative_error_distribution_by_hand():
    errors = [6, 2, NAN, 2, 10, 12, math.inf, 0]
    thresholds, fractions = metrics.cumulative_error_distribution(errors)
    assert thresholds.tolist() == [0, 2, 6, 10]
    assert fractions.tolist() == [1 / 7, 3 / 7, 4 / 7, 5 / 7]
    thresholds, fractions = metrics.cumulative_error_distribution(errors, threshold=9, num=4)
    assert thresholds.tolist() == [0, 3, 6, 9]
    assert fractions.tolist() == [1 / 7, 3 / 7, 4 / 7, 4 / 7]
    thresholds, fractions = metrics.cumulative_error_distribution([math.inf, 30], threshold=5)
    assert (thresholds.tolist(), fractions.tolist()) == ([0, 5], [0, 0])


@pytest.mark.parametrize("threshold", [3, 8, 10])
def test_the_staircase_holds_the_area_and_the_failures_exactly(threshold):
    # Errors in eighths are exact in binary, so fractions can check the sums without any tolerance of their own.
    eighths = np.random.default_rng(5).integers(0, 120, 200)
    errors = [*(eighths / 8), math.inf, math.inf, NAN]
    thresholds, fractions = metrics.cumulative_error_distribution(errors, threshold)
    steps = zip(thresholds, thresholds[1:], fractions, strict=False)
    area = sum((Fraction(b) - Fraction(a)) * round(height * 202) / 202 for a, b, height in steps) / threshold
    by_counting = sum(max(Fraction(0), 1 - Fraction(int(e), 8) / threshold) for e in eighths) / 202
    assert area == by_counting
    assert metrics.area_under_curve(errors, threshold) == pytest.approx(float(area), rel=1e-13)
    failures = sum(Fraction(int(e), 8) > threshold for e in eighths) + 2
    assert metrics.failure_rate(errors, threshold) == pytest.approx(100 * failures / 202, rel=1e-13)
    assert fractions[-1] == (202 - failures) / 202
    for error, fraction in zip(thresholds, fractions, strict=True):
        assert round(fraction * 202) == sum(Fraction(int(e), 8) <= Fraction(error) for e in eighths)


def test_samples_of_the_curve_are_the_staircase_at_their_place():
    errors = np.random.default_rng(6).gamma(4, 1.2, 50)
    thresholds, fractions = metrics.cumulative_error_distribution(errors, 10, num=33)
    assert thresholds.tolist() == pytest.approx([10 * i / 32 for i in range(33)])
    assert fractions.tolist() == [sum(error <= at for error in errors) / 50 for at in thresholds]


def test_scores_do_not_depend_on_the_order_of_the_faces():
    errors = np.append(np.random.default_rng(2).gamma(4, 1.2, 99), [math.inf, NAN])
    shuffled = np.random.default_rng(3).permutation(errors)
    for threshold in (4, 10):
        assert metrics.summarize_errors(shuffled, threshold) == pytest.approx(
            metrics.summarize_errors(errors, threshold), rel=1e-12
        )
        for one, other in zip(
            metrics.cumulative_error_distribution(shuffled, threshold),
            metrics.cumulative_error_distribution(errors, threshold),
            strict=True,
        ):
            assert one.tolist() == other.tolist()


@pytest.mark.parametrize("kind", ["points", "box", "box_diagonal"])
def test_moving_and_scaling_points_and_boxes_together_changes_no_error(kind):
    predictions, targets = random_faces(20)
    boxes = np.random.default_rng(4).uniform(50, 200, (20, 4))
    normalizer = Normalizer(kind, ((36,), (45,)) if kind == "points" else ())
    errors = metrics.normalized_mean_error(predictions, targets, normalizer, boxes)
    shift = np.array([-310.5, 77.25])
    moved = np.concatenate([boxes[:, :2] * 3.5 + shift, boxes[:, 2:] * 3.5], axis=1)
    again = metrics.normalized_mean_error(predictions * 3.5 + shift, targets * 3.5 + shift, normalizer, moved)
    np.testing.assert_allclose(again, errors, rtol=1e-11)
    assert np.isfinite(errors).sum() >= 12
    scaled_alone = metrics.normalized_mean_error(predictions * 3.5, targets, normalizer, boxes)
    assert not np.allclose(scaled_alone[np.isfinite(errors)], errors[np.isfinite(errors)])


def test_missing_points_are_counted_by_where_they_are_missing():
    target = np.array(FACE, float)
    target[3, 0] = NAN  # half a point is none
    prediction = np.array(FACE, float)
    prediction[2:4] = NAN
    prediction[4, 1] = NAN
    assert metrics.count_missing([prediction, FACE], [target, FACE]) == {
        "points": 10,
        "points_not_annotated": 1,
        "points_without_prediction": 2,
    }


def test_counts_are_what_plain_loops_give():
    predictions, targets = random_faces()
    counted = {"points": 0, "points_not_annotated": 0, "points_without_prediction": 0}
    for prediction, target in zip(predictions.tolist(), targets.tolist(), strict=True):
        for p, t in zip(prediction, target, strict=True):
            counted["points"] += 1
            if math.isnan(t[0] + t[1]):
                counted["points_not_annotated"] += 1
            elif math.isnan(p[0] + p[1]):
                counted["points_without_prediction"] += 1
    assert metrics.count_missing(predictions, targets) == counted
    assert min(counted.values()) > 68


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
