"""The error to expect of each landmark, in pixels of its picture."""

from collections.abc import Iterable
from typing import Any

import torch

from ..errors import FabRecError
from ..metrics import normalizing_distance
from ..model.error_model import expected_errors
from ..model.known_schemes import LandmarkScheme


__all__ = ["add_expected_errors"]


def add_expected_errors(faces: Iterable[dict[str, Any]], config: Any) -> None:
    """Add `expected_errors` (L,), the mean error in pixels of points like these, to faces that were found.

    Args:
        faces: With `keypoints` (L, 2) in pixels, none of them left out, `scores` (L,) and `bbox`; changed in place. A
            face by which the normalizing length cannot be measured is left as it is.
        config: Of the detector. Without an error model or a scheme nothing is added.
    """
    if config.error_model is None or config.landmark_scheme is None:
        return
    normalizer = LandmarkScheme.from_dict(config.landmark_scheme).normalizer
    for face in faces:
        try:
            length = normalizing_distance(face["keypoints"][None].numpy(), normalizer, face["bbox"][None].numpy())[0]
        except FabRecError:
            continue
        percent = expected_errors(torch.as_tensor(face["scores"]), config.error_model)
        face["expected_errors"] = percent * float(length) / 100
