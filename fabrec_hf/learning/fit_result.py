"""What a quick fit has come to."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..metrics.error_interval import error_interval
from ..model.known_schemes import LandmarkScheme
from ..model.landmark_decoding import Decoded
from .labeled_faces import LabeledFaces
from .landmark_training import LandmarkRecipe


__all__ = ["FitResult", "describe_fit", "rounded_mean"]


@dataclass
class FitResult:
    """What a fit has come to; the model itself was changed in place.

    Attributes:
        training_errors: (N,) NME of the faces that were learned from, in percent.
        held_out_errors: (N,) NME in percent of each face by a detector that learned from others only, NaN where that
            was not measured.
        held_out: Those predictions, fractions of the crop; NaN likewise. Their scores are heights of heatmaps.
        held_out_faces: All faces in the crops that these are fractions of; None before anything was predicted.
        calibrated: Whether these were enough to calibrate the model's scores by.
        losses: Heatmap loss of every step of the final training.
        seconds: Wall time.
        stopped: Whether it was stopped before its last step.
    """

    training_errors: np.ndarray
    held_out_errors: np.ndarray
    held_out: Decoded
    held_out_faces: LabeledFaces | None = None
    calibrated: bool = False
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stopped: bool = False


def describe_fit(
    result: FitResult, scheme: LandmarkScheme, recipe: LandmarkRecipe, autoencoder: str, folds: int
) -> dict[str, Any]:
    """Return what a fit has come to as plain data, which is kept beside the detector as `fit.json`.

    Args:
        result: From `fit_landmarks`.
        scheme: As `fit_landmarks` took it, like the next and the last one.
        recipe: How it was taught.
        autoencoder: What it started from.
        folds: As `fit_landmarks` took it.
    """
    faces = len(result.training_errors)
    interval = error_interval(result.held_out_errors)
    predicted, crops = np.isfinite(result.held_out_errors), result.held_out_faces
    not_found = predicted if crops is None else predicted & ~crops.detected
    return {
        "faces": faces,
        "points": scheme.num_landmarks,
        "scheme": scheme.name,
        "normalizer": scheme.normalizer.to_dict(),
        "autoencoder": autoencoder,
        "training_error": rounded_mean(result.training_errors),
        "held_out_error": rounded_mean(result.held_out_errors),
        "held_out_interval": None if interval is None else [round(end, 3) for end in interval],
        "held_out_faces": int(predicted.sum()),
        "held_out_not_found": int(not_found.sum()),
        "folds": min(folds, faces),
        "scores_calibrated": result.calibrated,
        "steps": len(result.losses),
        "instant": not result.losses and not result.stopped,
        "stopped": result.stopped,
        "seconds": round(result.seconds, 1),
        "recipe": asdict(recipe),
    }


def rounded_mean(errors: np.ndarray) -> float | None:
    """Return the mean of the errors that are known, those that are not NaN; None if there is none."""
    known = errors[np.isfinite(errors)]
    return round(float(known.mean()), 3) if len(known) else None
