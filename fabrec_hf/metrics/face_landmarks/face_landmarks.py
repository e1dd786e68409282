"""`evaluate` module: normalised mean error, failure rate and area under the curve of face landmarks.

A thin shell over `fabrec_hf.metrics`. `evaluate` finds out what a module needs from its import lines with a pattern
that understands one module a line.
"""

from collections.abc import Mapping

import datasets
import evaluate
import numpy as np

from fabrec_hf.landmarks import LandmarkScheme, Normalizer, get_scheme
from fabrec_hf.metrics import normalized_mean_error, summarize_errors


_DESCRIPTION = """
Scores predicted face landmarks against annotated ones. The normalised mean error (NME) of a face is the mean distance
of its points from the annotation, divided by a length of that face. The failure rate is the share of faces above a
threshold, the AUC is the area under the cumulative error distribution up to it.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (N, L, 2) points in pixels; a face of NaNs is one without a prediction, which counts as a failure.
    references: (N, L, 2) annotated points in pixels; NaN points are left out.
    boxes: (N, 4) face boxes (x, y, width, height), for schemes and normalizers that measure the box.
    scheme: "300w", "wflw", "aflw", "mtfl", or a scheme as `LandmarkScheme.to_dict` writes it.
    normalizer: Replaces the scheme's normaliser, for example {"kind": "points", "points": [36, 45]}.
    threshold: The error above which a face is a failure, in percent (10).

Returns:
    nme (percent), failure_rate (percent), auc (fraction of 1), count, without_prediction, not_scored.

Examples:
    >>> metric = evaluate.load("fabrec_hf/metrics/face_landmarks")
    >>> face = [[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]]
    >>> moved = [[1.0, 0.0], [11.0, 0.0], [6.0, 5.0], [3.0, 8.0], [9.0, 8.0]]
    >>> metric.compute(predictions=[face, moved], references=[face, face], scheme="mtfl")["nme"]
    5.0
"""

_CITATION = """
@inproceedings{browatzki2020fabrec,
    title = {3FabRec: Fast Few-shot Face alignment by Reconstruction},
    author = {Browatzki, Bjoern and Wallraven, Christian},
    booktitle = {CVPR},
    year = {2020}
}
"""


def _features(*names: str) -> datasets.Features:
    rows = {name: datasets.List(datasets.List(datasets.Value("float64"))) for name in ("predictions", "references")}
    return datasets.Features(rows | {name: datasets.List(datasets.Value("float64")) for name in names})


class FaceLandmarks(evaluate.Metric):
    """NME, failure rate and AUC of face landmarks, see `fabrec_hf.metrics`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=[_features(), _features("boxes")],
        )

    def compute(self, *, predictions=None, references=None, **kwargs) -> dict[str, float | int] | None:
        """Score everything that was added, and these; see the description of the inputs.

        Raises:
            ValueError: If the lists are empty, or do not fit the scheme.
        """
        if predictions is not None and not len(predictions):  # evaluate itself stumbles over an empty list
            raise ValueError("There is no face to score: predictions is empty.")
        return super().compute(predictions=predictions, references=references, **kwargs)

    def _compute(
        self,
        predictions: list,
        references: list,
        boxes: list | None = None,
        scheme: str | Mapping = "300w",
        normalizer: Mapping | None = None,
        threshold: float = 10.0,
    ) -> dict[str, float | int]:
        scheme = get_scheme(scheme) if isinstance(scheme, str) else LandmarkScheme.from_dict(scheme)
        references = np.asarray(references, dtype=np.float64)
        if references.shape[1:] != (scheme.num_landmarks, 2):
            raise ValueError(
                f"The scheme {scheme.name} has {scheme.num_landmarks} points, but the references have shape "
                f"{references.shape}; name their scheme."
            )
        length = scheme.normalizer if normalizer is None else Normalizer.from_dict(normalizer)
        return summarize_errors(normalized_mean_error(predictions, references, length, boxes), threshold)
