"""Score a landmark model on annotated faces, in one pass and in memory that hardly grows with their number.

Only the errors of every face and of its parts are kept, and the landmarks of the few worst faces. `fabrec evaluate` is
`cli/evaluate.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.annotations import COLUMNS, annotation_pieces, count_points, to_arrays
from ..data.subsets import subset_masks
from ..errors import DataError, FabRecError
from ..inference.dataset_prediction import apply_protocol, iterate_predictions
from ..metrics import normalizing_distance, point_errors, summarize_errors
from ..metrics.confidence import summarize_confidence
from ..metrics.landmark_errors import NO_LENGTH, mean_of_known
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.known_schemes import LandmarkScheme, Normalizer, convert_landmarks
from ..model.modeling_fabrec import FabRecForLandmarkDetection
from .official_shares import weigh_part
from .scored_points import convert_scores, scored_scheme


if TYPE_CHECKING:
    import datasets


__all__ = [
    "FaceScores",
    "ScoredFace",
    "ScoringSettings",
    "evaluate_checkpoint",
    "find_subsets",
    "score_faces",
    "summarize_scores",
]

# The private test set of 300-W is scored as a whole (paper table 2), but comes in these parts.
PRIVATE_PARTS = ("indoor", "outdoor")


@dataclass(frozen=True)
class ScoredFace:
    """A face and what was found in it.

    Attributes:
        row: of the data set.
        error: its NME in percent; infinity without a prediction.
        landmarks: (L, 2) predicted points in pixels of its image.
    """

    row: int
    error: float
    landmarks: np.ndarray


@dataclass(frozen=True)
class FaceScores:
    """The errors of all faces of a data set, in its order, and how they were measured.

    Attributes:
        errors: (N,) NME of each face in percent: infinity without a prediction, NaN where it cannot be scored.
        part_errors: the same for every part of the face alone.
        point_errors: (N, L) error of each point in percent, NaN where it cannot be scored.
        point_scores: (N, L) what the model said about how sure it was of each point.
        worst: the faces with the largest errors, the worst first.
        scheme: the scheme of the points that were scored.
        normalizer: the length that errors are divided by.
        protocol: as in the `ScoringSettings`.
        decoding: how heatmaps were decoded.
        flip_average: whether heatmaps were averaged with the mirrored crop's.
        shape_prior: whether landmarks were corrected by the shapes of the annotated faces.
        score_tolerance: error in percent up to which a point counts as found by the calibration of the scores; None
            where they are not calibrated, errors are divided by another length than it was fitted with, or the points
            were converted.
        converted_from: the name of the model's own scheme, where its landmarks were converted to those of the data.
    """

    errors: np.ndarray
    part_errors: dict[str, np.ndarray]
    point_errors: np.ndarray
    point_scores: np.ndarray
    worst: tuple[ScoredFace, ...]
    scheme: LandmarkScheme
    normalizer: Normalizer
    protocol: str
    decoding: str
    flip_average: bool
    shape_prior: bool
    score_tolerance: float | None = None
    converted_from: str | None = None


@dataclass(frozen=True)
class ScoringSettings:
    """How faces are scored.

    Attributes:
        batch_size: Faces at a time; changes speed and memory only.
        protocol: `"default"` decodes as the checkpoint is configured; `"paper"` takes the authors' argmax of the
            plain, unmirrored heatmaps (paper section 4.2.2), and no shape prior.
        flip_average: Average heatmaps with the mirrored crop's; None leaves it to the protocol.
        normalizer: The length to divide errors by; None takes the own one of the scheme that is scored.
        keep_worst: How many of the worst faces to keep the landmarks of.
        distributed: Share the work among the processes of PyTorch's default group, each of which calls `score_faces`
            with the same arguments and gets the same result.
        progress: Show a progress bar over this process's share.
    """

    batch_size: int = 32
    protocol: str = "default"
    flip_average: bool | None = None
    normalizer: Normalizer | None = None
    keep_worst: int = 0
    distributed: bool = False
    progress: bool = False


def evaluate_checkpoint(
    model: FabRecForLandmarkDetection,
    processor: FabRecImageProcessor,
    dataset: "datasets.Dataset",
    settings: ScoringSettings | None = None,
    threshold: float = 10.0,
) -> dict[str, Any]:
    """Score a landmark model on annotated faces in their given boxes.

    The model itself is neither changed nor switched to another mode: a training loop may call this at any time.

    Args:
        model: The landmark model; its configuration carries the scheme that is scored by. A model of the 98 points of
            WFLW is also scored on the 68 of 300-W, and either of them on five, see `convert_landmarks`.
        processor: Its image processor.
        dataset: Rows with `image`, `landmarks` (L, 2) in pixels of the image, NaN where not annotated, and `box`. The
            columns that tell the subsets of published test sets are used where there are any.
        settings: How to score; `ScoringSettings()` by default.
        threshold: The error above which a face is a failure, in percent.

    Returns:
        What `summarize_errors` returns (`nme` and `failure_rate` in percent, `auc` in [0, 1], `count`, ...), `parts`
        (the NME of each part of the face), `subsets` (the same for every known subset in the data), `weighted` (from
        `weigh_part`, for a part of a published set), `confidence` (from
        `summarize_confidence`: what the scores say of the errors of the points), and how all of it was measured:
        `scheme`, `normalizer`, `threshold`, `protocol`, `decoding`, `flip_average`, `shape_prior`, and
        `converted_from`, the model's own scheme, where its landmarks were converted.

    Raises:
        SchemeError: If the data's points differ from the model's, or the model carries no scheme.
        DataError: If a column is missing, or a row has no usable box, landmarks or image.
        ValueError: If the protocol is unknown.
    """
    scores = score_faces(model, processor, dataset, settings)
    return summarize_scores(scores, find_subsets(dataset, scores.scheme), threshold)


def score_faces(
    model: FabRecForLandmarkDetection,
    processor: FabRecImageProcessor,
    dataset: "datasets.Dataset",
    settings: ScoringSettings | None = None,
) -> FaceScores:
    """Measure the error of every face, see `evaluate_checkpoint`.

    Args:
        model: The landmark model.
        processor: Its image processor.
        dataset: Rows with `image`, `landmarks` and `box`.
        settings: How to score; `ScoringSettings()` by default.

    Raises:
        SchemeError: If the data's points differ from the model's, or the model carries no scheme.
        DataError: If a column is missing, or a row has no usable box, landmarks or image. Every process raises it,
            whichever of them it struck.
        ValueError: If the protocol is unknown.
    """
    settings = settings or ScoringSettings()
    scheme, normalizer = _check_annotations(model, dataset, settings.normalizer)
    own = LandmarkScheme.from_dict(model.config.landmark_scheme)
    predictor = apply_protocol(model, own, settings.protocol, settings.flip_average)
    group = torch.distributed
    rank, world_size = (group.get_rank(), group.get_world_size()) if settings.distributed else (0, 1)
    share = _Share(own, scheme, normalizer, settings.keep_worst)
    try:
        faces = dataset.select_columns(list(COLUMNS))
        for piece in iterate_predictions(
            predictor, processor, faces, settings.batch_size, rank, world_size, settings.progress
        ):
            share.add(*piece)
    except FabRecError as error:
        share.failure = error
    shares = _gather(share, world_size)
    config = predictor.config
    # The calibration speaks of the model's own points, and of errors over the length that it was fitted with.
    calibration = config.calibration if own == scheme and normalizer == scheme.normalizer else None
    errors, parts = np.split(_join(shares, "errors", len(dataset), 1 + len(scheme.parts)), [1], axis=1)
    return FaceScores(
        errors=errors[:, 0],
        part_errors=dict(zip(scheme.parts, parts.T, strict=True)),
        point_errors=_join(shares, "point_errors", len(dataset), scheme.num_landmarks),
        point_scores=_join(shares, "point_scores", len(dataset), scheme.num_landmarks),
        worst=_worst([face for entry in shares for face in entry.worst], settings.keep_worst),
        scheme=scheme,
        normalizer=normalizer,
        protocol=settings.protocol,
        decoding=config.decoding,
        flip_average=config.flip_average,
        shape_prior=config.shape_prior,
        score_tolerance=calibration["tolerance"] if calibration else None,
        converted_from=None if own == scheme else own.name,
    )


class _Share:
    """The faces that one process has scored."""

    def __init__(self, own: LandmarkScheme, scheme: LandmarkScheme, normalizer: Normalizer, keep_worst: int):
        self.own, self.scheme = own, scheme
        self.parts = [list(points) for points in scheme.parts.values()]
        self.normalizer, self.keep_worst = normalizer, keep_worst
        self.failure: FabRecError | None = None
        self.rows: list[np.ndarray] = []
        self.errors: list[np.ndarray] = []  # (n, 1 + parts): the face and its parts
        self.point_errors: list[np.ndarray] = []  # (n, L)
        self.point_scores: list[np.ndarray] = []  # (n, L)
        self.worst: tuple[ScoredFace, ...] = ()

    def add(self, start: int, columns: dict[str, list], predictions: np.ndarray, scores: np.ndarray) -> None:
        """Score rows `start` and following, given landmarks and scores of the model's own points."""
        if self.own != self.scheme:
            predictions = convert_landmarks(predictions, self.own, self.scheme)
            scores = convert_scores(scores, self.own, self.scheme)
        targets, boxes = to_arrays(columns, start)
        errors = point_errors(predictions, targets, self.normalizer, boxes)
        groups = [errors, *(np.take(errors, points, axis=1) for points in self.parts)]
        means = np.stack([mean_of_known(group, axis=1) for group in groups], axis=1)
        rows = np.arange(start, start + len(means))
        self.rows.append(rows)
        self.errors.append(means)
        self.point_errors.append(errors)
        self.point_scores.append(scores)
        if self.keep_worst:
            scored = zip(rows.tolist(), means[:, 0].tolist(), predictions, strict=True)
            found = [ScoredFace(row, error, points) for row, error, points in scored if not np.isnan(error)]
            self.worst = _worst([*self.worst, *found], self.keep_worst)


def _gather(share: _Share, world_size: int) -> list[_Share]:
    """Exchange the shares; if one of them has failed, raise its error in every process: none is left waiting."""
    shares = [share] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(shares, share)
    for entry in shares:
        if entry.failure is not None:
            raise entry.failure
    return shares


def _worst(faces: list[ScoredFace], count: int) -> tuple[ScoredFace, ...]:
    return tuple(sorted(faces, key=lambda face: (-face.error, face.row))[:count])


def _join(shares: list[_Share], name: str, count: int, width: int) -> np.ndarray:
    """Put what the shares measured into the order of the rows, (N, width)."""
    table = np.full((count, width), np.nan)
    for share in shares:
        for rows, values in zip(share.rows, getattr(share, name), strict=True):
            table[rows] = values
    return table


def find_subsets(dataset: "datasets.Dataset", scheme: LandmarkScheme) -> dict[str, np.ndarray]:
    """Find the rows of every published subset that the data holds, by the name of its scheme.

    Returns:
        (N,) booleans by name, as `subset_masks` gives them, and `private` where both parts of the private test set of
        300-W are there.
    """
    masks = subset_masks(dataset, scheme.name)
    if all(part in masks for part in PRIVATE_PARTS):
        masks["private"] = np.logical_or(*(masks[part] for part in PRIVATE_PARTS))
    return masks


def summarize_scores(scores: FaceScores, masks: Mapping[str, np.ndarray], threshold: float = 10.0) -> dict[str, Any]:
    """Summarize errors over all faces and over subsets of them, see `evaluate_checkpoint`.

    Args:
        scores: From `score_faces`.
        masks: (N,) booleans for every subset, from `find_subsets`.
        threshold: The error above which a face is a failure, in percent.

    Raises:
        DataError: If no face can be scored. A subset of which none can has None for its scores.
    """
    try:
        whole = _summary(scores, np.ones(len(scores.errors), dtype=bool), threshold)
    except ValueError as error:
        raise DataError(f"The data cannot be scored by the scheme {scores.scheme.name}: {error}") from error
    subsets: dict[str, dict[str, Any]] = {}
    for name, mask in masks.items():
        if np.isnan(scores.errors[mask]).all():
            empty = dict.fromkeys(("nme", "failure_rate", "auc"))
            subsets[name] = {**empty, "count": 0, "without_prediction": 0, "not_scored": int(mask.sum()), "parts": {}}
        else:
            subsets[name] = _summary(scores, mask, threshold)
    return {
        **whole,
        "subsets": subsets,
        "weighted": weigh_part(scores.errors, masks, scores.scheme.name),
        "confidence": summarize_confidence(scores.point_scores, scores.point_errors, scores.score_tolerance),
        "scheme": scores.scheme.name,
        "normalizer": scores.normalizer.to_dict(),
        "threshold": threshold,
        "protocol": scores.protocol,
        "decoding": scores.decoding,
        "flip_average": scores.flip_average,
        "shape_prior": scores.shape_prior,
        **({"converted_from": scores.converted_from} if scores.converted_from else {}),
    }


def _summary(scores: FaceScores, mask: np.ndarray, threshold: float) -> dict[str, Any]:
    parts = {}
    for part, errors in scores.part_errors.items():
        known = errors[mask & np.isfinite(errors)]
        parts[part] = float(known.mean()) if len(known) else float("nan")
    return {**summarize_errors(scores.errors[mask], threshold), "parts": parts}


def _check_annotations(
    model: FabRecForLandmarkDetection, dataset: "datasets.Dataset", normalizer: Normalizer | None
) -> tuple[LandmarkScheme, Normalizer]:
    """Read all annotations once, so that a wrong one shows before hours of prediction and not after them."""
    scheme = scored_scheme(model.config, count_points(dataset))
    normalizer = normalizer or scheme.normalizer
    for start, targets, boxes in annotation_pieces(dataset, scheme.num_landmarks):
        for row, (target, box) in enumerate(zip(targets, boxes, strict=True), start=start):
            try:
                normalizing_distance(target[None], normalizer, box[None])
            except ValueError as error:
                raise DataError(f"Row {row} {NO_LENGTH}") from error
    return scheme, normalizer
