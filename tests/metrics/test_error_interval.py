"""Between which values an error lies that few faces were measured on."""

import numpy as np
import pytest


pytest.importorskip("scipy")

from fabrec_hf.metrics.error_interval import error_interval  # noqa: E402


def test_few_faces_leave_a_wide_interval():
    # One face: 3 degrees of freedom, whose 95 % quantile is 2.3534, so a factor of exp(2.3534 * 0.45).
    assert error_interval([2.32, np.nan]) == pytest.approx((2.32 / 2.8836, 2.32 * 2.8836), rel=1e-4)
    # Two: the logarithms 0 and 1 have the variance 0.5; (3 * 0.45^2 + 0.5) / 4 = 0.276875, quantile 2.1318.
    reach = np.exp(2.1318 * np.sqrt(0.276875 / 2))
    assert error_interval([1, np.e]) == pytest.approx(((1 + np.e) / 2 / reach, (1 + np.e) / 2 * reach), rel=1e-4)
    assert error_interval([]) is None and error_interval([np.nan, 0]) is None


def test_the_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    for count in (1, 4, 10):
        truth, hits = np.exp(0.45**2 / 2), 0  # the mean of a log-normal error
        for errors in np.exp(0.45 * random.standard_normal((2000, count))):
            low, high = error_interval(errors)
            hits += low <= truth <= high
        assert 0.88 < hits / 2000 < 0.99, count
