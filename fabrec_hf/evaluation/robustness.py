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
from ..inference.dataset_prediction import FACES_PER_THREAD, checkpoint_scheme, lone_threads
from ..metrics import normalized_mean_error, normalizing_distance, summarize_errors
from ..model.image_inputs import Picture
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.known_schemes import Normalizer
from ..model.landmark_reading import read_landmarks
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
        errors = measurement.run(rows, settings.batch_size, settings.progress)
        points = [
            {"strength": strength, **summarize_errors(found, settings.threshold)}
            for (_, strength), found in zip(pairs, errors, strict=True)
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
        "perturbations": _curves(settings.perturbations, points),
    }


def _curves(perturbations: Sequence[Perturbation], points: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Sort the points by perturbation; they come in the order of all strengths of the first one, then the next."""
    remaining = iter(points)
    return {
        entry.name: {
            "title": entry.title,
            "unit": entry.unit,
            "description": entry.description,
            "curve": [next(remaining) for _ in entry.strengths],
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

    def run(self, rows: np.ndarray, batch_size: int, progress: bool) -> np.ndarray:
        """Return the errors of all rows in percent, (pairs, N)."""
        on_cpu = self.model.device.type == "cpu"
        size = min(batch_size, FACES_PER_THREAD) if on_cpu else batch_size
        threads = min(batch_size // size, torch.get_num_threads()) if on_cpu else 1
        pieces = [rows[start : start + size] for start in range(0, len(rows), size)]
        parts = []
        with (
            tqdm(total=len(rows), desc="Perturbing", unit="face", disable=not progress) as bar,
            lone_threads(threads) as pool,  # pictures are disturbed by one thread each: so no other has to wait
        ):
            for part in pool.map(self._errors_of, pieces):
                parts.append(part)
                bar.update(part.shape[1])
        return np.concatenate(parts, axis=1)

    def _errors_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the errors of a few rows, (pairs, n); the undisturbed faces are looked at once."""
        faces = [self._read(row) for row in rows]
        plain = self._score(faces, rows)
        errors = []
        for entry, strength in self.pairs:
            disturbed = [perturb(face, entry, strength, row, self.seed) for face, row in zip(faces, rows, strict=True)]
            errors.append(self._score(disturbed, rows) if strength else plain)
        return np.stack(errors)

    def _read(self, row: int) -> FaceInPicture:
        """Read a picture as the image processor does, and keep the surroundings of the face."""
        try:
            pixels = Picture(self.dataset[int(row)]["image"]).rgb
        except (OSError, ValueError) as error:
            raise DataError(f"The picture in row {row} cannot be read: {error}") from error
        return cut_region(FaceInPicture(pixels, self.targets[row], self.boxes[row]))

    def _score(self, faces: Sequence[FaceInPicture], rows: np.ndarray) -> np.ndarray:
        """Return each face's error in percent, (n,), over the length of the undisturbed face."""
        pictures, boxes = [face.pixels for face in faces], [[face.box] for face in faces]
        reading = read_landmarks(
            self.model, self.processor, pictures, boxes, second_look=False, faces_per_pass=len(faces)
        )
        truth = np.stack([face.points for face in faces])
        return normalized_mean_error(reading.points, truth, self.normalizer, self.boxes[rows])
