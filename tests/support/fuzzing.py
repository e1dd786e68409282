"""How many inputs are generated.

The environment variable FABREC_FUZZ_EXAMPLES sets their number, over all tests of a file. 10,000 or more are
for a thorough run.
"""

import os

from hypothesis import HealthCheck, settings


EXAMPLES = int(os.environ.get("FABREC_FUZZ_EXAMPLES", "600"))


def fuzz(share):
    """Settings for a test that takes this share of all examples: the same inputs in every run."""
    return settings(
        max_examples=max(10, round(EXAMPLES * share)),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
