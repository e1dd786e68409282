"""`evaluate` module: failure rate of face landmarks.

A thin shell over `fabrec_hf.metrics`; README.md beside it is its card. `evaluate` finds out what a module needs from
its import lines with a pattern that understands one module a line.
"""

import math
from typing import Any

import evaluate

from fabrec_hf.metrics.landmark_module import CITATION, FACE_ARGUMENTS, FACE_COUNTS, FaceModule, ScoredFaces


_DESCRIPTION = """
Failure rate of face landmarks: the percentage of faces whose normalized mean error is above a threshold. A face
without a prediction is a failure.
"""

_KWARGS_DESCRIPTION = f"""
Args:{FACE_ARGUMENTS}
    threshold: The largest error that is no failure, in percent (10 if none is given).
    per_image: Also return which faces fail.

Returns:
    failure_rate: percent.
    per_image: a list, True for a failure, False for none, None for a face that is not scored.{FACE_COUNTS}

Examples:
    >>> import evaluate
    >>> from fabrec_hf.metrics import module_path
    >>> metric = evaluate.load(str(module_path("failure_rate")))
    >>> face = [[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]]
    >>> moved = [[1.0, 0.0], [11.0, 0.0], [6.0, 5.0], [3.0, 8.0], [9.0, 8.0]]
    >>> metric.compute(predictions=[face, moved], references=[face, face], scheme="mtfl", threshold=8)["failure_rate"]
    50.0
"""


class FailureRate(FaceModule):
    """Percentage of faces above an error, see `fabrec_hf.metrics.failure_rate`."""

    def _info(self) -> evaluate.MetricInfo:
        return self.module_info(_DESCRIPTION, _KWARGS_DESCRIPTION, CITATION)

    def score(  # type: ignore[override]
        self, faces: ScoredFaces, threshold: float = 10.0, per_image: bool = False
    ) -> dict[str, Any]:
        """Compute the results; see the description of the inputs."""
        results = faces.results("nme", "auc", threshold=threshold)
        if per_image:
            results["per_image"] = [
                None if math.isnan(error) else error > threshold for error in faces.errors.tolist()
            ]
        return results
