"""What the scores of a detector stand for, in words."""

from typing import Any


__all__ = ["UNCALIBRATED", "score_note"]

UNCALIBRATED = (
    "The scores of this detector are not calibrated: they are heights of heatmaps, which order its points from unsure "
    "to sure but are no probabilities, and a limit for them does not carry over to another detector."
)


def score_note(config: Any) -> str | None:
    """Return what has to be said of the scores of a detector, None where they are calibrated.

    Args:
        config: The configuration of the landmark model.
    """
    return None if config.calibration else UNCALIBRATED
