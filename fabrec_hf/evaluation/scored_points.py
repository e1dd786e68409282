"""The points that a detector is scored on: its own, or fewer that its landmarks are converted to."""

import numpy as np

from ..errors import SchemeError
from ..inference.dataset_prediction import checkpoint_scheme
from ..model.configuration_fabrec import FabRecConfig
from ..model.known_schemes import LandmarkScheme, conversions_of, convert_landmarks, known_name, sources_of


__all__ = ["convert_scores", "scored_scheme"]


def scored_scheme(config: FabRecConfig, num_points: int) -> LandmarkScheme:
    """Return the scheme that a checkpoint is scored by on data with so many points.

    That is its own, or one of fewer points that `convert_landmarks` makes of them: a detector of the 98 points of
    WFLW is scored on the 68 of 300-W or on five.

    Args:
        config: The checkpoint's configuration.
        num_points: Points of a face of the data.

    Raises:
        SchemeError: If the checkpoint carries no scheme, or the data has another number of points.
    """
    if config.landmark_scheme is None:
        return checkpoint_scheme(config, num_points)  # which says so
    own = LandmarkScheme.from_dict(config.landmark_scheme)
    for scheme in conversions_of(own):
        if scheme.num_landmarks == num_points:
            return scheme
    if any(scheme.num_landmarks == num_points for scheme in sources_of(own)):
        raise SchemeError(
            f"The checkpoint finds the {own.num_landmarks} points of {own.name}, but the data has {num_points}; "
            f"convert the data by fabrec convert --to-scheme {known_name(own)} first."
        )
    return checkpoint_scheme(config, num_points)


def convert_scores(scores: np.ndarray, source: LandmarkScheme, target: LandmarkScheme) -> np.ndarray:
    """Return the scores (..., L of the target) of converted landmarks, given those (..., L) of the landmarks.

    The score of a point that is the mean of several is the mean of theirs.
    """
    return np.asarray(convert_landmarks(np.stack([scores, scores], axis=-1), source, target))[..., 0]
