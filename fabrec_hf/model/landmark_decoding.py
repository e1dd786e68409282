"""From what a detector draws and reads out to its landmarks: shared by the model and its twin for inference."""

from typing import Any, NamedTuple

import torch

from .configuration_fabrec import FabRecConfig
from .error_model import gather_evidence, score_points
from .heatmaps import alignment_shift, calibrate_scores, decode_heatmaps
from .known_schemes import LandmarkScheme
from .local_refinement import LocalRefinement
from .point_regression import PointRegression, mirror
from .shape_prior import ShapePrior


# How much a point's readout has to say beside its heatmap: they err by as much, and differently.
READOUT_SHARE = 0.5


class Drawing(NamedTuple):
    """What a detector says of crops before landmarks are decoded.

    Attributes:
        heatmaps: (N, L or L + A, H, W), those of the A anchors last, if these are drawn.
        readout: (N, A, 2), or (N, L, 2) of a detector without anchors, as fractions of the crop; None of a detector
            without a readout.
        maps: The encoder's maps (N, C, S, S) of a detector that looks closer at its points, the finest first.
        mirrored_maps: The same of the mirrored crops, after `average`.
    """

    heatmaps: torch.Tensor
    readout: torch.Tensor | None = None
    maps: tuple[torch.Tensor, ...] = ()
    mirrored_maps: tuple[torch.Tensor, ...] = ()

    def average(self, mirrored: "Drawing", flip_index: torch.Tensor) -> "Drawing":
        """Average with the drawing of the mirrored crops; `flip_index` (L + A,) permutes all points."""
        # Points mirror among themselves, and anchors: without heatmaps of anchors the first places are enough.
        heatmaps = 0.5 * (self.heatmaps + mirrored.heatmaps.flip(-1)[:, flip_index[: self.heatmaps.shape[1]]])
        readout = self.readout
        if readout is not None and mirrored.readout is not None:
            # The points that are read out are the last ones, and mirror among themselves.
            first = len(flip_index) - readout.shape[1]
            readout = 0.5 * (readout + mirror(mirrored.readout, flip_index[first:] - first))
        return Drawing(heatmaps, readout, self.maps, mirrored.maps)


class DecodingSteps(NamedTuple):
    """What a detector has beside its heatmaps to find landmarks by; None is left out.

    Attributes:
        point_regression: Tells points from anchors.
        shape_prior: Corrects points by what faces look like.
        local_refinement: Looks closer at points, last of all.
    """

    point_regression: PointRegression | None = None
    shape_prior: ShapePrior | None = None
    local_refinement: LocalRefinement | None = None


def decoding_steps(detector: Any) -> DecodingSteps:
    """Return what a model, or its fused twin, has beside its heatmaps."""
    return DecodingSteps(detector.point_regression, detector.shape_prior, detector.local_refinement)


class Decoded(NamedTuple):
    """What a drawing comes to.

    Attributes:
        landmarks: (N, L, 2) as fractions of the crop.
        scores: (N, L) in [0, 1].
        drawn: (N, L, 2) the points of the heatmaps alone.
        moves: (N, L, 2) how far a closer look moved each point and would move it again, 0 without one.
    """

    landmarks: torch.Tensor
    scores: torch.Tensor
    drawn: torch.Tensor
    moves: torch.Tensor


# To torch.compile a number of the configuration: it cannot look into how a scheme is built.
@torch.compiler.assume_constant_result
def flip_permutation(config: FabRecConfig) -> list[int] | None:
    """Return how points and anchors change places in a mirrored crop, None if mirrored crops are not averaged."""
    if not config.flip_average or not config.landmark_scheme:
        return None
    flip_index = LandmarkScheme.from_dict(config.landmark_scheme).flip_index
    if config.anchors is None:
        return flip_index
    return flip_index + [config.num_landmarks + place for place in LandmarkScheme.from_dict(config.anchors).flip_index]


def decode_anchors(config: FabRecConfig, drawing: Drawing) -> torch.Tensor:
    """Read anchors (N, A, 2), fractions of the crop, off a drawing."""
    points = None
    if config.draws_anchors:
        points = _decode_heatmaps(config, drawing.heatmaps[:, config.num_landmarks :])[0]
    return _with_readout(points, drawing.readout)


def decode_drawing(config: FabRecConfig, steps: DecodingSteps, drawing: Drawing, blur: str = "products") -> Decoded:
    """Read landmarks off a drawing.

    Args:
        config: Of the detector.
        steps: What is done beside reading heatmaps.
        drawing: What the detector says of the crops.
        blur: As in `decode_heatmaps`.
    """
    points, heights = _decode_heatmaps(config, drawing.heatmaps, blur)
    count = config.num_landmarks
    landmarks = drawn = points[:, :count]
    heights = heights[:, :count]
    if config.anchors is None:
        landmarks = _with_readout(landmarks, drawing.readout)
    elif steps.point_regression is not None:
        drawn_anchors = points[:, count:] if config.draws_anchors else None
        landmarks = steps.point_regression.combine(landmarks, _with_readout(drawn_anchors, drawing.readout))
    if steps.shape_prior is not None:
        landmarks = steps.shape_prior(landmarks)
    moves = torch.zeros_like(landmarks)
    if steps.local_refinement is not None and drawing.maps:
        landmarks, moves = steps.local_refinement(landmarks, drawing.maps, drawing.mirrored_maps)
    return Decoded(landmarks, _scores(config, Decoded(landmarks, heights, drawn, moves)), drawn, moves)


def _scores(config: FabRecConfig, found: Decoded) -> torch.Tensor:
    heights = found.scores
    if config.error_model is not None:
        return score_points(gather_evidence(heights, found.drawn, found.landmarks, found.moves), config.error_model)
    if config.score_calibration is not None:
        return calibrate_scores(heights, config.score_calibration["heights"], config.score_calibration["scores"])
    return heights


def _with_readout(points: torch.Tensor | None, readout: torch.Tensor | None) -> torch.Tensor:
    if points is None:
        assert readout is not None  # the configuration sees to that
        return readout
    return points if readout is None else torch.lerp(points, readout.to(points.dtype), READOUT_SHARE)


def _decode_heatmaps(
    config: FabRecConfig, heatmaps: torch.Tensor, blur: str = "products"
) -> tuple[torch.Tensor, torch.Tensor]:
    shift = alignment_shift(config.heatmap_alignment, config.heatmap_size, config.image_size)
    return decode_heatmaps(heatmaps, config.decoding, config.heatmap_sigma, shift, blur)


__all__ = [
    "Decoded",
    "DecodingSteps",
    "Drawing",
    "decode_anchors",
    "decode_drawing",
    "decoding_steps",
    "flip_permutation",
]
