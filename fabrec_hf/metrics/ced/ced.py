"""`evaluate` module: cumulative error distribution of face landmarks.

A thin shell over `fabrec_hf.metrics`; README.md beside it is its card. `evaluate` finds out what a module needs from
its import lines with a pattern that understands one module a line.
"""

from typing import Any

import evaluate

from fabrec_hf.metrics import cumulative_error_distribution
from fabrec_hf.metrics.landmark_module import CITATION, FACE_ARGUMENTS, FACE_COUNTS, FaceModule, ScoredFaces


_DESCRIPTION = """
Cumulative error distribution (CED) of face landmarks: for every error up to a threshold the fraction of faces whose
normalized mean error is at most that, as the points of a curve to draw.
"""

_KWARGS_DESCRIPTION = f"""
Args:{FACE_ARGUMENTS}
    threshold: Where the curve ends, in percent (10 if none is given).
    num: How many evenly spaced samples to take, instead of every corner of the staircase.

Returns:
    thresholds: a list of percentages, rising from 0 to the threshold.
    fractions: a list as long, of 1.{FACE_COUNTS}

Examples:
    >>> import evaluate
    >>> from fabrec_hf.metrics import module_path
    >>> metric = evaluate.load(str(module_path("ced")))
    >>> face = [[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]]
    >>> moved = [[1.0, 0.0], [11.0, 0.0], [6.0, 5.0], [3.0, 8.0], [9.0, 8.0]]
    >>> curve = metric.compute(predictions=[face, moved], references=[face, face], scheme="mtfl", threshold=20)
    >>> curve["thresholds"], curve["fractions"]
    ([0.0, 10.0, 20.0], [0.5, 1.0, 1.0])
"""


class Ced(FaceModule):
    """Points of the curve of errors, see `fabrec_hf.metrics.cumulative_error_distribution`."""

    def _info(self) -> evaluate.MetricInfo:
        return self.module_info(_DESCRIPTION, _KWARGS_DESCRIPTION, CITATION)

    def score(  # type: ignore[override]
        self, faces: ScoredFaces, threshold: float = 10.0, num: int | None = None
    ) -> dict[str, Any]:
        """Compute the results; see the description of the inputs."""
        thresholds, fractions = cumulative_error_distribution(faces.errors, threshold, num)
        counts = faces.results("nme", "failure_rate", "auc", threshold=threshold)
        return {"thresholds": thresholds.tolist(), "fractions": fractions.tolist(), **counts}
