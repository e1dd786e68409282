"""How sure an error is that a few faces were measured on."""

import math
from collections.abc import Sequence

import numpy as np


__all__ = ["error_interval"]

COVERAGE = 0.9
"""How often the mean error on new faces lies between the two ends; `fabrec fit` says it in words."""

# By how much faces of one detector differ in the logarithm of their error, and how many faces that is worth: with few
# faces their own spread says little. The 68 points of 3fabrec-300w on 111 faces of 300-W's test set have a spread of
# 0.29, five of them one of 0.41; a detector of a few faces is less even.
TYPICAL_SPREAD = 0.45
TYPICAL_FACES = 3


def error_interval(errors: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """Return between which values the mean error on new faces lies, given the errors of a few.

    Errors of faces are skewed, a few are many times as large as most. Their logarithms are nearly normal: the interval
    is that of Student's t for the mean of these, around the mean of the errors. The spread of few faces is mixed with
    that of detectors in general.

    Args:
        errors: Errors of single faces, all in the same unit; those that are not finite or not positive are left out.

    Returns:
        The lower and the upper end, in that unit; None without any error.
    """
    from scipy import stats

    known = np.asarray(errors, dtype=np.float64)
    known = known[np.isfinite(known) & (known > 0)]
    if not len(known):
        return None
    own = len(known) - 1
    variance = float(np.var(np.log(known), ddof=1)) if own else 0.0
    freedom = TYPICAL_FACES + own
    spread = math.sqrt((TYPICAL_FACES * TYPICAL_SPREAD**2 + own * variance) / freedom)
    reach = math.exp(float(stats.t.ppf((1 + COVERAGE) / 2, freedom)) * spread / math.sqrt(len(known)))
    mean = float(known.mean())
    return mean / reach, mean * reach
