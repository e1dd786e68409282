"""The landmark error of a model on perturbed faces: one curve for every perturbation, one point for every strength."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.annotations import annotations
from ..errors import DataError
from ..inference.dataset_prediction import checkpoint_scheme
from ..metrics import normalized_mean_error, normalizing_distance, summarize_errors
from ..metrics.confidence import area_under_roc
from ..model.image_inputs import Picture
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.known_schemes import Normalizer
from ..model.landmark_reading import read_landmarks
from ..model.lone_threads import FACES_PER_THREAD, lone_threads
from ..model.modeling_fabrec import FabRecForLandmarkDetection
from .perturbations import PERTURBATIONS, FaceInPicture, Perturbation, cut_region, perturb


__all__ = ["RobustnessSettings", "measure_robustness"]


@dataclass(frozen=True)
class RobustnessSettings:
    """What is measured, and on which faces.

    Attributes:
        perturbations: What to do to the faces.
        rows: The rows to measure on, all by default; a row's perturbation does not depend on which others there are.
        seed: Which of the possible random draws.
        batch_size: Faces at a time; changes the speed only.
        threshold: The error above which a face is a failure, in percent.
        progress: Show a progress bar.
    """

    perturbations: Sequence[Perturbation] = tuple(PERTURBATIONS.values())
    rows: Sequence[int] | np.ndarray | None = None
    seed: int = 0
    batch_size: int = 32
    threshold: float = 10.0
    progress: bool = False


def measure_robustness(
    model: FabRecForLandmarkDetection,
    processor: FabRecImageProcessor,
    dataset: datasets.Dataset,
    settings: RobustnessSettings | None = None,
) -> dict[str, Any]:
    """Score a landmark model on annotated faces that are perturbed in several ways and strengths.

    The error is normalized by the length of the undisturbed face throughout: that does not change when a face is
    turned, and a jittered box is no better yardstick for being wrong.

    Args:
        model: The landmark model in eval mode, on the device to work on; it decodes as it is configured.
        processor: Its image processor.
        dataset: Rows with `image`, `landmarks` (L, 2) in pixels of the image, NaN where not annotated, and `box`.
        settings: What to measure; `RobustnessSettings()` by default.

    Returns:
        `count` faces, their `median_box_side` (the longer one) in pixels, the `scheme`, `normalizer`, `threshold`,
        `decoding` and `flip_average` that were scored by, and `perturbations`: by name `title`, `unit`, `description`
        and `curve`, a list with one entry a strength that holds `strength` and what `summarize_errors` returns.
        Where points were covered, their `scores` are compared with those of the same points of the undisturbed faces:
        `covered_points` and the `roc_auc` with which scores tell them apart, at each strength and over all of them.

    Raises:
        SchemeError: If the data's points differ from the model's, or the model carries no scheme.
        DataError: If a column is missing, a row has no usable box or landmarks, or a picture cannot be read.
    """
    settings = settings or RobustnessSettings()
    targets, boxes = annotations(dataset)
    scheme = checkpoint_scheme(model.config, targets.shape[1])
    rows = np.arange(len(dataset)) if settings.rows is None else np.asarray(settings.rows)
    pairs = [(entry, strength) for entry in settings.perturbations for strength in entry.strengths]
    try:
        normalizing_distance(targets, scheme.normalizer, boxes)
        measurement = _Measurement(model, processor, dataset, targets, boxes, scheme.normalizer, pairs, settings.seed)
        found = measurement.run(rows, settings.batch_size, settings.progress)
        points = [
            {"strength": strength, **summarize_errors(errors, settings.threshold), **_told_apart([scores])}
            for (_, strength), errors, scores in zip(pairs, found.errors, found.scores, strict=True)
        ]
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"The data cannot be scored by the scheme {scheme.name}: {error}") from error
    return {
        "count": len(rows),
        "median_box_side": float(np.median(boxes[rows, 2:].max(axis=1))),
        "scheme": scheme.name,
        "normalizer": scheme.normalizer.to_dict(),
        "threshold": settings.threshold,
        "decoding": model.config.decoding,
        "flip_average": model.config.flip_average,
        "perturbations": _curves(settings.perturbations, points, found.scores),
    }


@dataclass(frozen=True)
class _Found:
    """What was found in some faces.

    Attributes:
        errors: (pairs, N) in percent.
        scores: For each pair the scores (2, M) of all points that were covered: without the cover, and with it.
    """

    errors: np.ndarray
    scores: list[np.ndarray]


def _told_apart(scores: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return how well scores (2, M) tell covered points from the same points without a cover; nothing without any."""
    plain, covered = np.concatenate(scores, axis=1)
    return {"covered_points": len(covered), "roc_auc": area_under_roc(plain, covered)} if len(covered) else {}


def _curves(
    perturbations: Sequence[Perturbation], points: Iterable[dict[str, Any]], scores: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Sort what was found by perturbation; it comes in the order of all strengths of the first one, then the next."""
    remaining, compared = iter(points), iter(scores)
    return {
        entry.name: {
            "title": entry.title,
            "unit": entry.unit,
            "description": entry.description,
            "curve": [next(remaining) for _ in entry.strengths],
            **_told_apart([next(compared) for _ in entry.strengths]),
        }
        for entry in perturbations
    }


@dataclass(frozen=True)
class _Measurement:
    """Everything that the errors of a face depend on, beside its row."""

    model: FabRecForLandmarkDetection
    processor: FabRecImageProcessor
    dataset: datasets.Dataset
    targets: np.ndarray
    boxes: np.ndarray
    normalizer: Normalizer
    pairs: list[tuple[Perturbation, float]]
    seed: int

    def run(self, rows: np.ndarray, batch_size: int, progress: bool) -> _Found:
        """Return what is found in all rows."""
        on_cpu = self.model.device.type == "cpu"
        size = min(batch_size, FACES_PER_THREAD) if on_cpu else batch_size
        threads = min(batch_size // size, torch.get_num_threads()) if on_cpu else 1
        pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
        parts = []
        with (
            tqdm(total=len(rows), desc="Perturbing", unit="face", disable=not progress) as bar,
            lone_threads(threads) as pool,  # pictures are disturbed by one thread each: so no other has to wait
        ):
            for part in pool.map(self._find, pieces):
                parts.append(part)
                bar.update(part.errors.shape[1])
        scores = [np.concatenate(one, axis=1) for one in zip(*(part.scores for part in parts), strict=True)]
        return _Found(np.concatenate([part.errors for part in parts], axis=1), scores)

    def _find(self, rows: np.ndarray) -> _Found:
        """Return what is found in a few rows; the undisturbed faces are looked at once."""
        faces = [self._read(row) for row in rows]
        plain_errors, plain_scores = self._score(faces, rows)
        errors, scores = [], []
        for entry, strength in self.pairs:
            disturbed = [perturb(face, entry, strength, row, self.seed) for face, row in zip(faces, rows, strict=True)]
            found, sureness = self._score(disturbed, rows) if strength else (plain_errors, plain_scores)
            nothing = np.zeros(plain_scores.shape[1:], bool)
            covered = np.stack([nothing if face.covered is None else face.covered for face in disturbed])
            errors.append(found)
            scores.append(np.stack([plain_scores[covered], sureness[covered]]))
        return _Found(np.stack(errors), scores)

    def _read(self, row: int) -> FaceInPicture:
        """Read a picture as the image processor does, and keep the surroundings of the face."""
        try:
            pixels = Picture(self.dataset[int(row)]["image"]).rgb
        except (OSError, ValueError) as error:
            raise DataError(f"The picture in row {row} cannot be read: {error}") from error
        return cut_region(FaceInPicture(pixels, self.targets[row], self.boxes[row]))

    def _score(self, faces: Sequence[FaceInPicture], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each face's error in percent of the undisturbed face's length, (n,), and scores (n, L)."""
        pictures, boxes = [face.pixels for face in faces], [[face.box] for face in faces]
        reading = read_landmarks(
            self.model, self.processor, pictures, boxes, second_look=False, faces_per_pass=len(faces)
        )
        truth = np.stack([face.points for face in faces])
        errors = normalized_mean_error(reading.points, truth, self.normalizer, self.boxes[rows])
        return errors, np.asarray(reading.scores)
