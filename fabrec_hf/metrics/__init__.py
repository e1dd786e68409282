"""Scores for landmark detectors: plain functions here, `evaluate` modules in the folders beside them."""

from .landmark_errors import (
    area_under_curve,
    failure_rate,
    normalized_mean_error,
    normalizing_distance,
    part_errors,
    point_errors,
    summarize_errors,
)


__all__ = [
    "area_under_curve",
    "failure_rate",
    "normalized_mean_error",
    "normalizing_distance",
    "part_errors",
    "point_errors",
    "summarize_errors",
]
