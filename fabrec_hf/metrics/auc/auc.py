"""`evaluate` module: area under the cumulative error distribution of face landmarks.

A thin shell over `fabrec_hf.metrics`; README.md beside it is its card. `evaluate` finds out what a module needs from
its import lines with a pattern that understands one module a line.
"""

from typing import Any

import evaluate

from fabrec_hf.metrics.landmark_module import CITATION, FACE_ARGUMENTS, FACE_COUNTS, FaceModule, ScoredFaces


_DESCRIPTION = """
Area under the curve (AUC) of face landmarks: the area under the cumulative distribution of the normalized mean errors
of faces, from 0 to a threshold, as a fraction of the most that it could be.
"""

_KWARGS_DESCRIPTION = f"""
Args:{FACE_ARGUMENTS}
    threshold: Where the curve ends, in percent (10 if none is given).

Returns:
    auc: a fraction of 1.{FACE_COUNTS}

Examples:
    >>> import evaluate
    >>> from fabrec_hf.metrics import module_path
    >>> metric = evaluate.load(str(module_path("auc")))
    >>> face = [[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]]
    >>> moved = [[1.0, 0.0], [11.0, 0.0], [6.0, 5.0], [3.0, 8.0], [9.0, 8.0]]
    >>> metric.compute(predictions=[face, moved], references=[face, face], scheme="mtfl", threshold=20)["auc"]
    0.75
"""


class Auc(FaceModule):
    """Area under the cumulative error distribution, see `fabrec_hf.metrics.area_under_curve`."""

    def _info(self) -> evaluate.MetricInfo:
        return self.module_info(_DESCRIPTION, _KWARGS_DESCRIPTION, CITATION)

    def score(  # type: ignore[override]
        self, faces: ScoredFaces, threshold: float = 10.0
    ) -> dict[str, Any]:
        """Compute the results; see the description of the inputs."""
        return faces.results("nme", "failure_rate", threshold=threshold)
