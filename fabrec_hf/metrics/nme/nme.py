"""`evaluate` module: normalized mean error of face landmarks.

A thin shell over `fabrec_hf.metrics`; README.md beside it is its card. `evaluate` finds out what a module needs from
its import lines with a pattern that understands one module a line.
"""

from typing import Any

import evaluate

from fabrec_hf.metrics.landmark_module import CITATION, FACE_ARGUMENTS, FACE_COUNTS, FaceModule, ScoredFaces


_DESCRIPTION = """
Normalized mean error (NME) of face landmarks: the mean distance of a face's points from the annotation, in percent of
a length of that face, averaged over the faces.
"""

_KWARGS_DESCRIPTION = f"""
Args:{FACE_ARGUMENTS}
    per_image: Also return the error of each face.
    per_part: Also return the error of each part of the scheme.

Returns:
    nme: percent, over the faces with a prediction.
    per_image: a list of percentages, infinity for a face without a prediction, NaN for one that is not scored.
    per_part: a dictionary of percentages.{FACE_COUNTS}

Examples:
    >>> import evaluate
    >>> from fabrec_hf.metrics import module_path
    >>> metric = evaluate.load(str(module_path("nme")))
    >>> face = [[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]]
    >>> moved = [[1.0, 0.0], [11.0, 0.0], [6.0, 5.0], [3.0, 8.0], [9.0, 8.0]]
    >>> metric.compute(predictions=[face, moved], references=[face, face], scheme="mtfl")["nme"]
    5.0
"""


class Nme(FaceModule):
    """Normalized mean error of face landmarks, see `fabrec_hf.metrics.normalized_mean_error`."""

    def _info(self) -> evaluate.MetricInfo:
        return self.module_info(_DESCRIPTION, _KWARGS_DESCRIPTION, CITATION)

    def score(  # type: ignore[override]
        self, faces: ScoredFaces, per_image: bool = False, per_part: bool = False
    ) -> dict[str, Any]:
        """Compute the results; see the description of the inputs."""
        results = faces.results("failure_rate", "auc")
        if per_image:
            results["per_image"] = faces.errors.tolist()
        if per_part:
            results["per_part"] = faces.part_errors()
        return results
