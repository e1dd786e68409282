"""`compute_metrics` of `transformers.Trainer`, by the `evaluate` module of this package."""

from typing import Any

import numpy as np

from . import module_path
from .normalizers import NormalizerLike, SchemeLike, as_scheme


__all__ = ["LandmarkMetrics"]


class LandmarkMetrics:
    """Scores the predictions of a Trainer: NME, failure rate and area under the curve.

    Predictions and labels are fractions of square crops. A normalized error is the same there as in the picture.

    Args:
        scheme: The mark-up: a name, a scheme, or what `LandmarkScheme.to_dict` writes, such as
            `model.config.landmark_scheme`.
        normalizer: The length to divide by; the scheme's own if None. One that measures the box needs
            `label_names=["labels", "boxes"]` in the training arguments.
        threshold: The error of a failure in percent.

    Raises:
        SchemeError: If there is no such scheme.

    Example:
        >>> from fabrec_hf import LandmarkMetrics
        >>> compute_metrics = LandmarkMetrics("300w")
    """

    def __init__(self, scheme: SchemeLike = "300w", normalizer: NormalizerLike = None, threshold: float = 10.0):
        import evaluate

        self.scheme = as_scheme(scheme).to_dict()
        self.normalizer, self.threshold = normalizer, threshold
        self._module = evaluate.load(str(module_path("face_landmarks")))

    def __call__(self, prediction: Any) -> dict[str, float]:
        """Score an `EvalPrediction`.

        Args:
            prediction: Its `predictions` begin with the landmarks (N, L, 2), its `label_ids` are the labels, or
                labels and boxes.

        Returns:
            `nme` and `failure_rate` in percent, and `auc`.

        Raises:
            BoxError: If boxes are to be measured and there are none.
        """
        landmarks, labels, boxes = prediction.predictions, prediction.label_ids, None
        if isinstance(landmarks, tuple):
            landmarks = landmarks[0]
        if isinstance(labels, tuple):
            labels, boxes = labels
        landmarks, labels = np.asarray(landmarks), np.asarray(labels)
        # A model with anchors learns from their labels too; they are no landmarks.
        scores = self._module.compute(
            predictions=landmarks,
            references=labels[:, : landmarks.shape[1]],
            boxes=boxes,
            scheme=self.scheme,
            normalizer=self.normalizer,
            threshold=self.threshold,
        )
        return {name: scores[name] for name in ("nme", "failure_rate", "auc")}
