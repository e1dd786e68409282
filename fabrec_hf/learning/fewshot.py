"""Few-shot landmarks: choose the faces to annotate, and fit a detector to them in minutes on a laptop."""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..errors import DataError
from ..model.known_schemes import LandmarkScheme
from ..model.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection
from .anchors import REGRESSION_SHARE, anchors_of, begin_from_anchors
from .fit_result import FitResult, rounded_mean
from .labeled_faces import LabeledFaces
from .landmark_training import (
    LandmarkRecipe,
    calibrate,
    fit_shape_prior,
    landmark_errors,
    no_predictions,
    predict_faces,
)
from .refinement import fit_refinement
from .training_stage import TrainingStage


__all__ = ["FitOptions", "FitProgress", "assign_faces", "choose_faces", "fit_landmarks", "fit_recipe"]

# A detector that tells the error learns for this share of the steps: with a quarter of them it errs twice as much.
ESTIMATE_SHARE = 0.75
# Transfer layers that begin as the identity err less at ten faces and, on the average of a few draws, at twenty; at
# fifty they err more: see docs/experiments.md.
FEW_FACES = 20
# How far from the middle a latent vector that is chosen may be, in units of the median distance. Measured at ten faces
# of 300-W only, see docs/experiments.md.
NEAREST, FARTHEST = 0.85, 1.25
# From an autoencoder, and from a detector of other points. One face errs by 5.12 % after no step, 5.06 after 30, 5.18
# after 100: means of three draws on validation faces of 300-W.
AUTOENCODER_STEPS, MESH_STEPS, STEPS_A_FACE = 600, 300, 30
# One hold-out leaves out every third face.
HOLD_OUT_PARTS = 3
# Predicting so many faces takes four tenths of a step with ten: all measurements together cost less than 2 %.
MEASURE_EVERY, MEASURED_FACES = 25, 10


def choose_faces(latents: torch.Tensor, count: int) -> list[int]:
    """Choose the faces that stand for all others best: the k-medoids of their latent vectors (FasterPAM).

    Only faces whose vectors are about as far from the middle as most are chosen, if there are enough of them. Medoids
    of all lie near the middle, where blurred and plain faces are; and the few faces that are many times as far away,
    very dark ones for example, stand for none but themselves and are hard to learn from.

    Args:
        latents: (N, D), from `FabRecAutoencoder.encode`. The distances of all pairs are held in memory: 400 MB for
            ten thousand faces.
        count: Number of faces to choose, from 1 to N.

    Returns:
        Their rows; those that stand for the most faces come first, so that a person who stops early has the best part.

    Raises:
        DataError: There are fewer faces than asked for.
    """
    if not 1 <= count <= len(latents):
        raise DataError(f"{count} faces were asked for, but there are {len(latents)}.")
    import kmedoids

    latents = latents.detach().float().cpu()
    lengths = (latents - latents.median(dim=0).values).norm(dim=1)
    ordinary = (lengths >= NEAREST * lengths.median()) & (lengths <= FARTHEST * lengths.median())
    rows = torch.nonzero(ordinary)[:, 0] if int(ordinary.sum()) >= count else torch.arange(len(latents))
    distances = torch.cdist(latents[rows], latents[rows]).numpy()
    found = kmedoids.fasterpam(distances, count, init="build", random_state=0)
    chosen = rows[np.asarray(found.medoids, dtype=int)]
    sizes = np.bincount(assign_faces(latents, chosen.tolist()), minlength=count)
    return chosen[np.argsort(-sizes, kind="stable")].tolist()


def assign_faces(latents: torch.Tensor, chosen: list[int]) -> np.ndarray:
    """Say which of the chosen faces is nearest to each face: (N,) places in `chosen`; `latents` are (N, D)."""
    latents = latents.detach().float().cpu()
    return torch.cdist(latents, latents[chosen]).argmin(dim=1).numpy()


def fit_recipe(
    start: FabRecAutoencoder | FabRecForLandmarkDetection, faces: int, seed: int = 0, effort: float = 1.0
) -> LandmarkRecipe:
    """What `fabrec fit` trains with: minutes on two CPU cores.

    Unlike in the paper, the encoder learns from the first step: at ten shots that is better in fewer steps. What
    starts from a detector whose points can become anchors, such as `3fabrec-mesh`, has less to learn, in fewer and
    smaller steps.

    Args:
        start: From `load_start`; heatmaps have half the side of its pictures.
        faces: Annotated faces there are to learn from.
        seed: Of the new layers, the order and the augmentation.
        effort: Multiplies the number of steps.
    """
    heatmap_size, heatmap_sigma = start.config.image_size // 2, 3.5 * start.config.image_size / 128
    knows_points = anchors_of(start, heatmap_size, heatmap_sigma) is not None
    steps = min(MESH_STEPS, STEPS_A_FACE * faces) if knows_points else AUTOENCODER_STEPS
    return LandmarkRecipe(
        head_steps=0,
        finetune_steps=max(1, round(steps * effort)),
        batch_size=10,
        finetune_head_learning_rate=1e-3 if knows_points else 3e-3,
        encoder_learning_rate=1e-4 if knows_points else 5e-4,
        warmup_steps=20,
        cosine_schedule=True,
        max_grad_norm=1.0,
        heatmap_size=heatmap_size,
        heatmap_sigma=heatmap_sigma,
        foreground_weight=10.0,
        transfer_initialization="identity" if faces <= FEW_FACES else "random",
        anchors=knows_points,
        decoding="subpixel",
        local_refinement=True,
        shape_prior=not knows_points,  # a detector of other points knows more of shapes than the annotated faces show
        rotation=25,
        translation=0.05,
        scale=[0.9, 1.1],
        elastic=0.03,
        occlusion=0.3,
        color=0.3,
        grayscale=0.1,
        blur=0.1,
        bfloat16=True,
        seed=seed,
    )


@dataclass(frozen=True)
class FitProgress:
    """Where a fit is.

    Attributes:
        phase: `"learning"` or `"estimating"`.
        step: Steps done in this phase.
        steps: Steps that the phase has.
        loss: Heatmap loss of the last step.
        error: NME in percent as it was last measured, None before: while learning, of annotated faces (plain crops,
            `MEASURED_FACES` of them); while estimating, of the faces that were left out and predicted so far.
    """

    phase: str
    step: int
    steps: int
    loss: float
    error: float | None = None


@dataclass(frozen=True)
class FitOptions:
    """What else a fit does, beside learning by its recipe.

    Attributes:
        folds: The error on new faces is estimated by training this many times more, for `ESTIMATE_SHARE` of the steps,
            without a part of the faces, which are then predicted. 1 holds a third of the faces out; 2 or more are the
            parts of a cross-validation, at most the number of faces, which is leaving one out; 0 estimates nothing.
        as_detected: Gives left-out faces by their rows (M,), in the crops to predict them in; else in their own.
        instant: Take no step at all: a regression from the model's anchors and a closer look alone.
        on_step: Called after every step.
        should_stop: Asked before every step; True ends the fit with the best so far, by the error on annotated faces
            as measured every `MEASURE_EVERY` steps and at the end.
    """

    folds: int = 1
    as_detected: Callable[[np.ndarray], LabeledFaces] | None = None
    instant: bool = False
    on_step: Callable[[FitProgress], None] | None = None
    should_stop: Callable[[], bool] | None = None


class _Stopped(Exception):
    """Somebody asked the fit to stop."""


@dataclass
class _Fit:
    """What the parts of one fit share."""

    model: FabRecForLandmarkDetection
    scheme: LandmarkScheme
    recipe: LandmarkRecipe
    options: FitOptions
    error: float | None = None

    @property
    def steps(self) -> tuple[int, int]:
        """Steps of the transfer layers alone, and with the encoder."""
        return (0, 0) if self.options.instant else (self.recipe.head_steps, self.recipe.finetune_steps)

    def learn(self, faces: LabeledFaces, progress: tuple[str, int, int], steps: tuple[int, int]) -> Iterator[float]:
        """Take the steps of both stages on some faces, one at a time; yields their losses.

        Args:
            faces: What to learn from.
            progress: Name of what goes on, steps of it that were done before, and steps that it has in all.
            steps: Steps of the transfer layers alone, and with the encoder.
        """
        name, before, total = progress
        done = 0
        fit_shape_prior(self.model, faces, self.scheme)
        faces = begin_from_anchors(self.model, faces, self.scheme, 1.0 if self.options.instant else REGRESSION_SHARE)
        for finetune, count in zip((False, True), steps, strict=True):
            if not count:
                continue
            stage = TrainingStage(self.model, faces, self.scheme, self.recipe, finetune, count)
            for place in range(count):
                if self.options.should_stop and self.options.should_stop():
                    raise _Stopped
                loss = stage.step(place, done)
                done += 1
                if done == sum(steps):
                    self.refine(faces)  # who hears of the last step may save the model
                if self.options.on_step:
                    self.options.on_step(FitProgress(name, before + done, total, loss, self.error))
                yield loss
        if not done:
            self.refine(faces)

    def refine(self, faces: LabeledFaces) -> None:
        """Let the model look closer, when its encoder has learned what it will."""
        fit_refinement(self.model, faces, self.scheme, self.recipe.augmentation, self.recipe.seed)


class _BestSoFar:
    """The weights that were best whenever the error on annotated faces was measured: what a stopped fit keeps.

    With rates still high, the last step before a stop may be a bad one.
    """

    def __init__(self, model: FabRecForLandmarkDetection, faces: LabeledFaces, scheme: LandmarkScheme):
        self.model, self.scheme = model, scheme
        self.faces = faces.subset(np.arange(min(len(faces), MEASURED_FACES)))
        self.error = float("inf")
        self.weights: dict[str, torch.Tensor] = {}

    def measure(self) -> float | None:
        """Return the NME in percent, None if no face can be scored."""
        landmarks = predict_faces(self.model, self.faces, self.model.device).landmarks
        error = rounded_mean(landmark_errors(landmarks, self.faces, self.scheme))
        if error is not None and error < self.error:
            self.error, self.weights = error, copy.deepcopy(self.model.state_dict())
        return error

    def restore(self) -> None:
        """Go back to the best weights, if the present ones are not the best."""
        self.measure()
        if self.weights:
            self.model.load_state_dict(self.weights)


def fit_landmarks(
    model: FabRecForLandmarkDetection,
    faces: LabeledFaces,
    scheme: LandmarkScheme,
    recipe: LandmarkRecipe,
    options: FitOptions | None = None,
) -> FitResult:
    """Teach a model with fresh transfer layers the landmarks of a few faces (paper section 3.3).

    Args:
        model: From `build_model`; changed in place.
        faces: All that is annotated.
        scheme: What the points are.
        recipe: From `fit_recipe`, or any other.
        options: What else is done, and who hears of it; by default the error is estimated from a third of the faces.

    Raises:
        DataError: No face has a point; or the model has no anchors, and is to be fitted in an instant.
        FloatingPointError: The loss is not finite.
    """
    if not bool(faces.landmarks.isfinite().all(-1).any()):
        raise DataError("None of the faces has an annotated point.")
    options = options or FitOptions()
    if options.instant and model.point_regression is None:
        raise DataError("Only what starts from a detector of other points, such as 3fabrec-mesh, is fitted instantly.")
    start = time.perf_counter()
    fit = _Fit(model, scheme, recipe, options)
    unknown = np.full(len(faces), np.nan)
    result = FitResult(unknown, unknown.copy(), no_predictions(*faces.landmarks.shape[:2]))
    steps = fit.steps
    estimated = options.folds > 0 and len(faces) > 1
    initial = copy.deepcopy(model.state_dict()) if estimated else {}
    best = _BestSoFar(model, faces, scheme)
    try:
        for loss in fit.learn(faces, ("learning", 0, sum(steps)), steps):
            result.losses.append(loss)
            if len(result.losses) % MEASURE_EVERY == 1:
                fit.error = best.measure()
        if estimated:
            _predict_left_out(fit, faces, initial, result)
    except _Stopped:
        result.stopped = True
        if len(result.losses) < sum(steps):
            best.restore()
            fit.refine(faces)
    landmarks = predict_faces(model, faces, model.device).landmarks
    result.training_errors = landmark_errors(landmarks, faces, scheme)
    result.calibrated = calibrate(model, result.held_out, result.held_out_faces or faces, scheme)
    result.seconds = time.perf_counter() - start
    return result


def _predict_left_out(fit: _Fit, faces: LabeledFaces, initial: dict[str, torch.Tensor], result: FitResult) -> None:
    """Predict faces by detectors that have not seen them and start from `initial`; the model stays as it is."""
    model = fit.model
    learned = copy.deepcopy(model.state_dict())
    fit.error = None
    folds, left_out_faces = fit.options.folds, fit.options.as_detected or faces.subset
    parts = min(folds if folds > 1 else HOLD_OUT_PARTS, len(faces))
    folds = min(folds, parts)
    # A fixed shuffle: faces often come in an order, and those that are alike should not all be left out together.
    places = np.random.default_rng(0).permutation(len(faces)) % parts
    head_steps, finetune_steps = (math.ceil(ESTIMATE_SHARE * count) for count in fit.steps)
    steps = head_steps, finetune_steps
    try:
        for fold in range(folds):
            model.load_state_dict(initial)
            progress = "estimating", fold * sum(steps), folds * sum(steps)
            for _ in fit.learn(faces.subset(np.flatnonzero(places != fold)), progress, steps):
                pass
            rows = np.flatnonzero(places == fold)
            left_out = left_out_faces(rows)
            result.held_out_faces = (result.held_out_faces or faces).replaced(rows, left_out)
            found = predict_faces(model, left_out, model.device)
            for whole, part in zip(result.held_out, found, strict=True):
                whole[rows] = part
            result.held_out_errors[rows] = landmark_errors(found.landmarks, left_out, fit.scheme)
            fit.error = rounded_mean(result.held_out_errors)
    finally:
        model.load_state_dict(learned)
