"""`evaluate` module: jitter of face landmarks over a video.

A thin shell over `fabrec_hf.metrics`; README.md beside it is its card. `evaluate` finds out what a module needs from
its import lines with a pattern that understands one module a line.
"""

import math
from typing import Any

import evaluate
import numpy as np

from fabrec_hf.errors import DataError
from fabrec_hf.metrics import normalizing_distance, summarize_jitter
from fabrec_hf.metrics.landmark_module import LandmarkModule, check_points
from fabrec_hf.metrics.normalizers import NormalizerLike, SchemeLike, as_scheme, named_normalizer


_DESCRIPTION = """
Jitter of face landmarks over videos. With annotated frames the normalized mean flicker (NMF): how much the error
changes from a frame to the next. With or without them the mean acceleration of the points, in percent of a length of
the face per frame squared.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: (T, L, 2) points in pixels, one row a frame, in the order of the video. A frame without a face is a
        row of NaNs, which nothing is measured across.
    references: (T, L, 2) annotated points in pixels, for the NMF. May be left out.
    boxes: (T, 4) face boxes (x, y, width, height) in pixels, for schemes and normalizers that measure the box.
    sequences: (T,) which video each frame belongs to, a name or number. Left out, all are of one, called "0".
    scheme: "300w" (if none is given), "wflw", "aflw", "mtfl", or a scheme as `LandmarkScheme.to_dict` writes it.
    normalizer: The length to divide accelerations by, instead of the scheme's own: "inter_ocular", "inter_pupil",
        "box", "box_diagonal", two points by name or index such as [36, 45], or a mapping with its kind. It is measured
        on the references, or without them on the predictions. The NMF has a length of its own.
    per_sequence: Also return the results of each video.

Returns:
    acceleration: percent of the length per frame squared, the mean of the videos that have one, NaN if none has.
    nmf: in hundredths of a pixel of a face of 256 x 256 pixels, likewise; only with references.
    sequences: videos. frames: all of them. frames_without_prediction: those without any point. triples_left_out: three
    consecutive frames without an acceleration. pairs_left_out: two without a flicker; only with references.
    per_sequence: a dictionary of such dictionaries.

Examples:
    >>> import evaluate
    >>> from fabrec_hf.metrics import module_path
    >>> metric = evaluate.load(str(module_path("jitter")))
    >>> face = [[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]]
    >>> moved = [[1.0, 0.0], [11.0, 0.0], [6.0, 5.0], [3.0, 8.0], [9.0, 8.0]]
    >>> metric.compute(predictions=[face, moved, face], scheme="mtfl")["acceleration"]
    20.0
"""

_CITATION = """
@inproceedings{micaelli2023recurrence,
    title = {Recurrence Without Recurrence: Stable Video Landmark Detection With Deep Equilibrium Models},
    author = {Micaelli, Paul and Vahdat, Arash and Yin, Hongxu and Kautz, Jan and Molchanov, Pavlo},
    booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
    year = {2023}
}
"""

_MEANS = ("acceleration", "nmf")


class Jitter(LandmarkModule):
    """Jitter of face landmarks over videos, see `fabrec_hf.metrics.summarize_jitter`."""

    columns = ("predictions", "references", "boxes", "sequences")
    required = ("predictions",)

    def _info(self) -> evaluate.MetricInfo:
        return self.module_info(_DESCRIPTION, _KWARGS_DESCRIPTION, _CITATION)

    def score_rows(  # type: ignore[override]
        self,
        predictions: np.ndarray,
        references: np.ndarray | None,
        boxes: np.ndarray | None,
        sequences: list[str] | None,
        scheme: SchemeLike = "300w",
        normalizer: NormalizerLike = None,
        per_sequence: bool = False,
    ) -> dict[str, Any]:
        """Compute the results; see the description of the inputs."""
        scheme = as_scheme(scheme)
        check_points(predictions, "predictions", scheme)
        measured = predictions if references is None else references
        lengths = normalizing_distance(measured, named_normalizer(normalizer, scheme), boxes)
        names = np.array(sequences if sequences is not None else ["0"] * len(predictions))
        summaries = {}
        for name in dict.fromkeys(names.tolist()):
            rows = names == name
            targets = None if references is None else references[rows]
            summaries[name] = summarize_jitter(predictions[rows], lengths[rows], targets)
        results = _join(list(summaries.values()))
        return {**results, "per_sequence": summaries} if per_sequence else results


def _join(summaries: list[dict[str, float | int]]) -> dict[str, Any]:
    """Average the scores of the videos that have them, and add up the counts."""
    results: dict[str, Any] = {}
    for key in summaries[0]:
        values = [summary[key] for summary in summaries if not math.isnan(summary[key])]
        results[key] = sum(values) if key not in _MEANS else sum(values) / len(values) if values else math.nan
    if all(math.isnan(results.get(key, math.nan)) for key in _MEANS):
        raise DataError("There is no jitter to measure: no video has enough consecutive frames with a face.")
    return {**results, "sequences": len(summaries)}
