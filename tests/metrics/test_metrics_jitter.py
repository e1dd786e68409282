"""Jitter over a sequence: hand-computed cases, and the same numbers by plain loops over frames and points."""

import math

import numpy as np
import pytest

from fabrec_hf import metrics
from fabrec_hf.errors import DataError


NAN = float("nan")
SQUARE = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])  # spans 10 x 10 px


def random_sequence(frames=30, points=6, seed=0):
    """A wandering, growing face with noisy predictions; some points and two whole frames are missing."""
    rng = np.random.default_rng(seed)
    shape = rng.uniform(0, 50, (points, 2))
    targets = np.stack([shape * (1 + 0.02 * t) + [3 * t, -t] for t in range(frames)])
    predictions = targets + rng.normal(0, 1.5, targets.shape)
    predictions[rng.random((frames, points)) < 0.1] = NAN
    targets[rng.random((frames, points)) < 0.1] = NAN
    predictions[11] = NAN
    targets[20] = NAN
    return predictions, targets


def flicker_by_loops(predictions, targets):
    """The published formula, point by point: RMS over points, then RMS over pairs of frames."""
    squares = []
    for t in range(1, len(targets)):
        known = [(x, y) for x, y in targets[t] if not math.isnan(x)]
        if not known:
            continue
        width = max(x for x, _ in known) - min(x for x, _ in known)
        height = max(y for _, y in known) - min(y for _, y in known)
        scale = math.sqrt(width * height / 256**2)
        row = []
        for p, q, a, b in zip(predictions[t], predictions[t - 1], targets[t], targets[t - 1], strict=True):
            move = math.hypot((p[0] - a[0]) - (q[0] - b[0]), (p[1] - a[1]) - (q[1] - b[1]))
            if not math.isnan(move):
                row.append((100 * move / scale) ** 2)
        if row:
            squares.append(sum(row) / len(row))
    return math.sqrt(sum(squares) / len(squares))


def acceleration_by_loops(predictions, lengths):
    means = []
    for t in range(1, len(predictions) - 1):
        row = []
        for p, q, r in zip(predictions[t - 1], predictions[t], predictions[t + 1], strict=True):
            turn = math.hypot(p[0] - 2 * q[0] + r[0], p[1] - 2 * q[1] + r[1])
            if not math.isnan(turn):
                row.append(100 * turn / lengths[t])
        if row:
            means.append(sum(row) / len(row))
    return sum(means) / len(means)


def test_flicker_by_hand():
    # The error goes from nothing to (3, 4) and back: 5 px in both steps, of a face of 10 x 10 px, so 128 px of 256.
    predictions = [SQUARE, SQUARE + [3, 4], SQUARE]
    np.testing.assert_allclose(metrics.flicker(predictions, [SQUARE] * 3), np.full((2, 4), 12800))
    assert metrics.normalized_mean_flicker(predictions, [SQUARE] * 3) == pytest.approx(12800)
    # One point of four moves: the root of a quarter of the square. Then one pair of two: again the root of a half.
    once = np.array([SQUARE] * 3)
    once[2, 0] += [3, 4]
    assert metrics.normalized_mean_flicker(once[1:], [SQUARE] * 2) == pytest.approx(6400)
    assert metrics.normalized_mean_flicker(once, [SQUARE] * 3) == pytest.approx(6400 / math.sqrt(2))


def test_flicker_measures_by_the_later_frame_and_by_the_area():
    targets = [SQUARE, SQUARE * [4, 1]]  # 10 x 10, then 40 x 10: side of the area 20
    predictions = [targets[0], targets[1] + [5, 0]]
    assert metrics.normalized_mean_flicker(predictions, targets) == pytest.approx(100 * 256 * 5 / 20)


def test_motion_of_the_face_and_a_constant_offset_are_no_flicker():
    targets = np.stack([SQUARE * (1 + t) + [7 * t * t, -3 * t] for t in range(5)])
    assert metrics.normalized_mean_flicker(targets + [2, 3], targets) == pytest.approx(0, abs=1e-9)
    # a detector that stays where it is flickers as the face moves away from it
    assert metrics.normalized_mean_flicker([SQUARE] * 5, targets) > 1000


def test_acceleration_by_hand():
    still = np.array([SQUARE] * 4)
    even = still + np.arange(4)[:, None, None] * [2.0, 1.0]
    assert metrics.mean_acceleration(even, [10] * 4) == 0
    jump = still.copy()
    jump[2] += [3, 4]  # second differences: 5 px with frame 2 at the end, 10 px with it in the middle
    np.testing.assert_allclose(metrics.accelerations(jump, [50, 20, 40, 50]), [[25] * 4, [25] * 4])
    assert metrics.mean_acceleration(jump, [50, 20, 40, 50]) == pytest.approx(25)
    assert metrics.mean_acceleration(jump, [50, 20, 20, 50]) == pytest.approx((25 + 50) / 2)


@pytest.mark.parametrize("seed", [0, 1])
def test_both_are_what_plain_loops_give(seed):
    predictions, targets = random_sequence(seed=seed)
    lengths = np.linspace(40, 60, len(predictions))
    expected = flicker_by_loops(predictions.tolist(), targets.tolist())
    assert metrics.normalized_mean_flicker(predictions, targets) == pytest.approx(expected, rel=1e-12)
    expected = acceleration_by_loops(predictions.tolist(), lengths.tolist())
    assert metrics.mean_acceleration(predictions, lengths) == pytest.approx(expected, rel=1e-12)


def test_jitter_does_not_change_with_place_and_scale():
    predictions, targets = random_sequence()
    lengths = np.full(len(predictions), 50.0)
    for score in (
        lambda scale, shift: metrics.normalized_mean_flicker(predictions * scale + shift, targets * scale + shift),
        lambda scale, shift: metrics.mean_acceleration(predictions * scale + shift, lengths * scale),
    ):
        assert score(7.5, [100, -40]) == pytest.approx(score(1, 0), rel=1e-9)


def test_a_frame_without_a_face_breaks_the_chain_and_is_counted():
    predictions = np.array([SQUARE] * 9)
    predictions[5:] += 1000  # a jump that only a measurement across the gap would see
    predictions[4] = NAN
    summary = metrics.summarize_jitter(predictions, [10] * 9, [SQUARE] * 9)
    assert summary == {
        "acceleration": 0,
        "nmf": 0,
        "frames": 9,
        "frames_without_prediction": 1,
        "triples_left_out": 3,  # those with frame 4 in the first, middle and last place
        "pairs_left_out": 2,
    }
    assert "nmf" not in metrics.summarize_jitter(predictions, [10] * 9)


def test_a_missing_point_leaves_out_only_itself():
    predictions = np.array([SQUARE, SQUARE + [0, 2], SQUARE])
    predictions[1, 3] = NAN
    predictions[2, 0, 1] = NAN
    summary = metrics.summarize_jitter(predictions, [10] * 3, [SQUARE] * 3)
    assert summary["acceleration"] == pytest.approx(40)
    assert summary["nmf"] == pytest.approx(100 * 256 * 2 / 10)
    assert (summary["triples_left_out"], summary["pairs_left_out"], summary["frames_without_prediction"]) == (0, 0, 0)


def test_a_frame_that_is_not_annotated_has_no_length():
    predictions = np.array([SQUARE] * 4)
    targets = np.array([SQUARE] * 4)
    targets[1] = NAN
    moved = metrics.flicker(predictions, targets)
    assert np.isnan(moved).tolist() == [[True] * 4, [True] * 4, [False] * 4]
    assert metrics.summarize_jitter(predictions, [10, NAN, 10, 10])["triples_left_out"] == 1


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
def test_sequences_too_short_to_tremble(frames):
    points = np.array([SQUARE] * frames).reshape(frames, 4, 2)
    summary = metrics.summarize_jitter(points, np.full(frames, 10.0), points)
    assert math.isnan(summary["nmf"]) == (frames < 2)
    assert math.isnan(summary["acceleration"]) == (frames < 3)
    assert (summary["triples_left_out"], summary["pairs_left_out"]) == (0, 0)


def test_inputs_that_cannot_be_measured():
    with pytest.raises(DataError, match=r"shape \(T, L, 2\), not \(4, 2\)"):
        metrics.flicker(SQUARE, SQUARE)
    with pytest.raises(DataError, match=r"same shape .* not \(2, 4, 2\) and \(3, 4, 2\)"):
        metrics.flicker([SQUARE] * 2, [SQUARE] * 3)
    with pytest.raises(DataError, match=r"one length a frame, 2, not \(3,\)"):
        metrics.accelerations([SQUARE] * 2, [1, 2, 3])
    with pytest.raises(DataError, match="frame 1 span no area"):
        metrics.flicker([SQUARE] * 2, [SQUARE, SQUARE * [1, 0]])
