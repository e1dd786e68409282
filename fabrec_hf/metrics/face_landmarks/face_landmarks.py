"""`evaluate` module: normalized mean error, failure rate and area under the curve of face landmarks.

A thin shell over `fabrec_hf.metrics`; README.md beside it is its card. `evaluate` finds out what a module needs from
its import lines with a pattern that understands one module a line.
"""

from typing import Any

import evaluate

from fabrec_hf.metrics.landmark_module import CITATION, FACE_ARGUMENTS, FACE_COUNTS, FaceModule, ScoredFaces


_DESCRIPTION = """
Scores predicted face landmarks against annotated ones. The normalized mean error (NME) of a face is the mean distance
of its points from the annotation, divided by a length of that face. The failure rate is the share of faces above a
threshold, the AUC is the area under the cumulative error distribution up to it.
"""

_KWARGS_DESCRIPTION = f"""
Args:{FACE_ARGUMENTS}
    threshold: The error above which a face is a failure, in percent (10 if none is given).
    per_image: Also return the error of each face.
    per_part: Also return the error of each part of the scheme.

Returns:
    nme: percent, over the faces with a prediction. failure_rate: percent. auc: a fraction of 1.
    per_image: a list of percentages, infinity for a face without a prediction, NaN for one that is not scored.
    per_part: a dictionary of percentages.{FACE_COUNTS}

Examples:
    >>> import evaluate
    >>> from fabrec_hf.metrics import module_path
    >>> metric = evaluate.load(str(module_path("face_landmarks")))
    >>> face = [[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]]
    >>> moved = [[1.0, 0.0], [11.0, 0.0], [6.0, 5.0], [3.0, 8.0], [9.0, 8.0]]
    >>> metric.compute(predictions=[face, moved], references=[face, face], scheme="mtfl")["nme"]
    5.0
"""


class FaceLandmarks(FaceModule):
    """NME, failure rate and AUC of face landmarks, see `fabrec_hf.metrics`."""

    def _info(self) -> evaluate.MetricInfo:
        return self.module_info(_DESCRIPTION, _KWARGS_DESCRIPTION, CITATION)

    def score(  # type: ignore[override]
        self, faces: ScoredFaces, threshold: float = 10.0, per_image: bool = False, per_part: bool = False
    ) -> dict[str, Any]:
        """Compute the results; see the description of the inputs."""
        results = faces.results(threshold=threshold)
        if per_image:
            results["per_image"] = faces.errors.tolist()
        if per_part:
            results["per_part"] = faces.part_errors()
        return results
