"""The One-Euro filter against its formula in plain loops, and against what theory says of a low-pass filter."""

import math

import numpy as np
import pytest

from fabrec_hf.inference.smoothing import FaceSmoother, OneEuroFilter


def one_euro_by_hand(path, times, size, min_cutoff, beta, speed_cutoff):
    """The authors' formula for one point, number by number."""
    smoothed, velocity = [path[0]], (0.0, 0.0)
    for position, (x, y) in enumerate(path[1:], start=1):
        elapsed = times[position] - times[position - 1]
        last_x, last_y = smoothed[-1]
        weight = 1 / (1 + 1 / (2 * math.pi * speed_cutoff * elapsed))
        new = ((x - last_x) / elapsed, (y - last_y) / elapsed)
        velocity = tuple(weight * a + (1 - weight) * b for a, b in zip(new, velocity, strict=True))
        cutoff = min_cutoff + beta * math.hypot(*velocity) / size
        weight = 1 / (1 + 1 / (2 * math.pi * cutoff * elapsed))
        smoothed.append((weight * x + (1 - weight) * last_x, weight * y + (1 - weight) * last_y))
    return smoothed


def test_it_is_the_published_formula_at_uneven_times():
    random = np.random.default_rng(0)
    times = np.cumsum(random.uniform(0.01, 0.08, 40))
    points = random.normal(0, 3, (40, 4, 2)).cumsum(axis=0)
    smooth = OneEuroFilter(min_cutoff=1.3, beta=7.0, speed_cutoff=0.8)
    found = np.stack([smooth(frame, time, 90.0) for frame, time in zip(points, times, strict=True)])
    for point in range(4):
        expected = one_euro_by_hand([tuple(p) for p in points[:, point]], times, 90.0, 1.3, 7.0, 0.8)
        np.testing.assert_allclose(found[:, point], expected, rtol=1e-10)


def test_the_cutoff_is_where_half_of_the_power_is_left():
    """A sine at the cutoff frequency keeps 1 / sqrt(2) of its amplitude, one far below it all."""
    for frequency, seconds, step, expected in ((2.0, 5, 0.001, math.sqrt(0.5)), (0.02, 100, 0.01, 1.0)):
        smooth = OneEuroFilter(min_cutoff=2.0, beta=0.0)
        times = np.arange(0, seconds, step)
        path = np.sin(2 * math.pi * frequency * times)
        found = [smooth(np.array([[x, 0.0]]), time, 100.0)[0, 0] for x, time in zip(path, times, strict=True)]
        assert max(found[len(found) // 2 :]) == pytest.approx(expected, abs=0.01)


def test_the_delay_in_even_motion_shrinks_with_beta():
    """In even motion the filter trails by step * (1 - w) / w, w being the weight of a new value.

    The speed is measured from the last smoothed point, so it sees the delay too: the delay that fits itself is sought.
    """
    delays = []
    for beta in (0.0, 20.0):
        smooth = OneEuroFilter(min_cutoff=1.0, beta=beta)
        for frame in range(400):
            found = smooth(np.array([[4.0 * frame, 0.0]]), frame / 25, 100.0)
        delays.append(4.0 * 399 - found[0, 0])
        expected = 0.0
        for _ in range(100):
            cutoff = 1.0 + beta * (4.0 + expected) * 25 / 100
            weight = 1 / (1 + 25 / (2 * math.pi * cutoff))
            expected = 4.0 * (1 - weight) / weight
        assert delays[-1] == pytest.approx(expected, rel=1e-6)
    assert delays[1] < delays[0] / 10


def test_noise_around_a_still_face_shrinks():
    points = 100 + np.random.default_rng(1).normal(0, 0.5, (300, 68, 2))
    smooth = OneEuroFilter()
    found = np.stack([smooth(frame, index / 25, 100.0) for index, frame in enumerate(points)])
    assert np.diff(found, axis=0)[50:].std() < 0.5 * np.diff(points, axis=0).std()


def test_scale_changes_nothing_but_the_unit():
    points = np.random.default_rng(2).normal(0, 5, (30, 3, 2)).cumsum(axis=0)
    one, seven = OneEuroFilter(), OneEuroFilter()
    for index, frame in enumerate(points):
        found = one(frame, index / 25, 80.0)
        np.testing.assert_allclose(seven(7 * frame, index / 25, 560.0), 7 * found, rtol=1e-9, atol=1e-9)


def test_missing_points_stay_missing_and_come_back():
    smooth = OneEuroFilter(min_cutoff=1.0, beta=0.0)
    first = np.array([[0.0, 0.0], [5.0, 5.0], [np.nan, np.nan]])
    np.testing.assert_array_equal(smooth(first, 0.0, 10.0), first)
    second = np.array([[np.nan, 1.0], [5.0, 5.0], [9.0, 9.0]])
    found = smooth(second, 0.04, 10.0)
    assert np.isnan(found[0]).all()
    np.testing.assert_array_equal(found[1:], second[1:])  # one at rest, one seen for the first time
    # Away for 0.08 s: the weight is that of 0.08 s.
    weight = 1 / (1 + 1 / (2 * math.pi * 0.08))
    found = smooth(np.array([[1.0, 2.0], [5.0, 5.0], [9.0, 9.0]]), 0.08, 10.0)
    np.testing.assert_allclose(found[0], [weight, 2 * weight])
    smooth.reset()
    np.testing.assert_array_equal(smooth(np.ones((2, 2)), 0.0, 10.0), np.ones((2, 2)))


def test_misuse():
    smooth = OneEuroFilter()
    smooth(np.zeros((2, 2)), 1.0, 10.0)
    with pytest.raises(ValueError, match="does not lie after"):
        smooth(np.zeros((2, 2)), 1.0, 10.0)
    with pytest.raises(ValueError, match="reset the filter"):
        smooth(np.zeros((3, 2)), 2.0, 10.0)
    for wrong in ({"min_cutoff": 0}, {"beta": -1}, {"speed_cutoff": -1}):
        with pytest.raises(ValueError, match="must be positive"):
            OneEuroFilter(**wrong)


def test_the_shape_of_a_moving_face_is_as_steady_as_that_of_a_still_one():
    """Even motion changes nothing about the points against their mean, and the mean trails a little."""
    random = np.random.default_rng(3)
    shape = random.uniform(0, 100, (68, 2))
    noise = random.normal(0, 0.5, (200, 68, 2))
    noise -= noise.mean(axis=1, keepdims=True)
    still, moving = FaceSmoother(), FaceSmoother()
    for index in range(200):
        shift = np.array([6.0, -2.0]) * index
        at_rest = still(shape + noise[index], index / 25, 100.0)
        in_motion = moving(shape + noise[index] + shift, index / 25, 100.0)
        np.testing.assert_allclose(
            in_motion - in_motion.mean(axis=0), at_rest - at_rest.mean(axis=0), rtol=0, atol=1e-9
        )
    trail = np.linalg.norm(shape.mean(axis=0) + shift - in_motion.mean(axis=0))
    assert 0 < trail < 0.5  # of 6.3 px a frame


def test_a_smoother_without_any_point_and_after_a_reset():
    smooth = FaceSmoother()
    points = np.array([[0.0, 0.0], [10.0, 4.0]])
    np.testing.assert_allclose(smooth(points, 0.0, 10.0), points)
    assert np.isnan(smooth(np.full((2, 2), np.nan), 0.04, 10.0)).all()
    smooth.reset()
    np.testing.assert_allclose(smooth(points + 50, 0.0, 10.0), points + 50)
