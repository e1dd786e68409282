"""Teach a pre-trained autoencoder to draw landmark heatmaps (paper sections 3.3 and 4.2.2).

    accelerate launch training/train_landmarks.py --config training/configs/landmarks-small.yaml \
        --data FOLDER_OF_PARQUET --autoencoder runs/autoencoder-small --output_dir runs/300w-small

First only the transfer layers and the heatmap head learn, then the encoder with them; the generator stays as it is.
Steps are counted in batches, not epochs: one annotated face trains as well as two thousand. The run continues after a
kill with `--resume_from_checkpoint latest`. `--max_minutes` stops it in time by itself.

    python training/train_landmarks.py --calibrate runs/300w-small --data FOLDER_OF_PARQUET \
        --validation_fraction 0.05 --output_dir runs/300w-small-calibrated

trains nothing: it calibrates the scores of a finished model, its own or another's, on the faces set aside.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from time_limit import Pause, TimeLimit
from tqdm.auto import tqdm
from training_utils import (
    RunArguments,
    check_batch_size,
    find_tracker,
    logger,
    open_hub_repository,
    parse_arguments,
    publish_model,
    resume_step,
    run_main,
    save_checkpoint,
    save_weights,
    use_all_cores,
)

from fabrec_hf.checkpoints.loading import load_landmark_model
from fabrec_hf.common.drafts import unfinished_folder
from fabrec_hf.common.output_folder import check_new_folder, make_readable, take_place
from fabrec_hf.data import first_shots, load_faces, random_shots, validation_split
from fabrec_hf.data.face_set import shared_face_set
from fabrec_hf.errors import DataError
from fabrec_hf.inference.dataset_prediction import checkpoint_scheme
from fabrec_hf.learning.anchors import begin_from_anchors
from fabrec_hf.learning.labeled_faces import LabeledFaces
from fabrec_hf.learning.landmark_training import (
    LandmarkRecipe,
    build_model,
    build_processor,
    calibrate,
    find_scheme,
    fit_shape_prior,
    landmark_errors,
    predict_faces,
)
from fabrec_hf.learning.linear_start import begin_readout
from fabrec_hf.learning.refinement import fit_refinement
from fabrec_hf.learning.training_stage import TrainingStage
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor
from fabrec_hf.model.known_schemes import LandmarkScheme


if TYPE_CHECKING:
    import datasets


@dataclass(kw_only=True)
class LandmarkTrainingArguments(LandmarkRecipe, RunArguments):
    """Everything a landmark training run depends on. The `paper` values are in `configs/landmarks-paper.yaml`."""

    data: list[str] = field(metadata={"help": "Parquet files or folders with image, landmarks and box."})
    output_dir: str = field(metadata={"help": "Folder for checkpoints, errors and the final model."})
    autoencoder: str = field(default="3fabrec-autoencoder", metadata={"help": "Autoencoder to start from."})
    split: str = field(default="train", metadata={"help": "Split of the data to train on."})
    scheme: str | None = field(default=None, metadata={"help": "300w, wflw, aflw, mtfl or a file; the data's own."})
    shots: int | None = field(default=None, metadata={"help": "Train on this many faces; all of them by default."})
    protocol: str = field(default="paper", metadata={"help": "Which shots: paper (the first ones) or random."})
    validation_fraction: float = field(default=0.0, metadata={"help": "Share of the pictures to tune on."})
    checkpoint_every: int = field(default=250, metadata={"help": "Steps between checkpoints."})
    evaluate_every: int = field(default=500, metadata={"help": "Steps between validation errors."})
    calibrate: str | None = field(default=None, metadata={"help": "Only calibrate the scores of this landmark model."})

    def __post_init__(self):
        """Refuse values that would fail later, in words."""
        LandmarkRecipe.__post_init__(self)
        RunArguments.__post_init__(self)
        if self.protocol not in ("paper", "random"):
            raise ValueError(f"--protocol must be paper or random, got {self.protocol!r}.")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"--validation_fraction must lie between 0 and 1, got {self.validation_fraction}.")
        if self.calibrate and not self.validation_fraction and self.split == "train":
            raise ValueError(
                "--calibrate takes faces that were not learned from: give the --validation_fraction of the training, "
                "or another --split."
            )
        if self.calibrate and self.max_minutes is not None:
            raise ValueError("--max_minutes is for trainings: leave it out with --calibrate.")
        if self.calibrate and self.push_to_hub:
            raise ValueError("--calibrate does not publish: look at the result, then use fabrec push.")

    @property
    def stages(self) -> tuple[int, int]:
        """Last step of each stage, counted over both."""
        return self.head_steps, self.head_steps + self.finetune_steps


class Trainer:
    """Trains one stage at a time: each has its own optimizer, so Adam's moments start anew as in the paper."""

    def __init__(
        self,
        arguments: LandmarkTrainingArguments,
        accelerator: Accelerator,
        model,
        faces,
        validation,
        limit: TimeLimit,
    ):
        self.arguments, self.accelerator, self.model, self.limit = arguments, accelerator, model, limit
        self.faces, self.validation = faces, validation
        self.scheme = LandmarkScheme.from_dict(model.config.landmark_scheme)

    def run_stage(self, first: int, start: int, last: int, finetune: bool, checkpoint: Path | None) -> Pause | None:
        """Train steps `start` to `last` of the stage that begins at `first`, going on from its checkpoint if any.

        Returns:
            Where the training stopped because its minutes were over; None at the end of the stage.
        """
        arguments, accelerator = self.arguments, self.accelerator
        output_dir = Path(arguments.output_dir)
        stage = TrainingStage(self.model, self.faces, self.scheme, arguments, finetune, last - first, accelerator)
        if checkpoint:
            accelerator.load_state(str(checkpoint))
        elif start > 0:
            save_checkpoint(accelerator, output_dir, start, arguments.stages)
        progress = tqdm(
            range(start, last),
            desc="fine-tuning" if finetune else "transfer layers",
            disable=not accelerator.is_main_process,
        )
        for step in progress:
            losses = {"loss": stage.step(step - first, step)}
            done = step + 1
            if self.validation and (done % arguments.evaluate_every == 0 or done == last):
                losses["validation_nme"] = self.evaluate(self.validation)
                logger.info("step %d: %s", done, losses)
            progress.set_postfix(losses, refresh=False)
            accelerator.log(losses, step=done)
            # Behind the last step of the first stage the second one saves a checkpoint, with its own optimizer.
            stop = done < last and self.limit.reached(accelerator, done)
            if done < last and (stop or done % arguments.checkpoint_every == 0):
                save_checkpoint(accelerator, output_dir, done, arguments.stages)
            if stop:
                progress.close()
                return self.limit.pause(done, arguments.stages[1])
        self.model = accelerator.unwrap_model(stage.model)
        accelerator.free_memory()
        return None

    def evaluate(self, faces: LabeledFaces) -> float:
        """NME in percent over faces never learned from; the scheme's normalizer, crops without augmentation."""
        landmarks = predict_faces(self.model, faces, self.accelerator.device).landmarks
        return float(np.nanmean(landmark_errors(landmarks, faces, self.scheme)))


def load_labeled(arguments: LandmarkTrainingArguments) -> "tuple[datasets.Dataset, datasets.Dataset | None]":
    """Read the annotated faces, take the validation pictures out, then choose the shots from what is left."""
    dataset = load_faces(arguments.data, arguments.split, columns=("image", "landmarks", "box"))
    validation = None
    if arguments.validation_fraction:
        dataset, validation = validation_split(dataset, arguments.validation_fraction)
    if arguments.shots is not None:
        choose = first_shots if arguments.protocol == "paper" else random_shots
        dataset = choose(dataset, arguments.shots, *([arguments.seed] if choose is random_shots else []))
    return dataset, validation


def calibrate_finished(checkpoint: str, arguments: LandmarkTrainingArguments) -> None:
    """Calibrate the scores of a finished model on faces that it has not learned from; its weights stay as they are.

    Raises:
        DataError: The output folder is in use, or there are too few points.
        SchemeError: The data has other points than the model.
    """
    output_dir = Path(arguments.output_dir)
    check_new_folder(output_dir)
    accelerator = Accelerator()
    use_all_cores(accelerator)
    if not accelerator.is_main_process:
        return
    model, processor = load_landmark_model(checkpoint)
    dataset, held_out = load_labeled(arguments)
    faces = LabeledFaces(dataset if held_out is None else held_out, processor)
    scheme = checkpoint_scheme(model.config, faces.landmarks.shape[1])
    model.to(accelerator.device)
    model.config.score_calibration = model.config.error_model = None  # earlier ones: heights are wanted
    if not calibrate(model, predict_faces(model, faces, accelerator.device), faces, scheme):
        raise DataError(f"{len(faces)} faces have too few annotated points to calibrate scores by.")
    # A kill leaves no half of a model under the name that was asked for.
    with unfinished_folder(output_dir.absolute().parent) as workplace:
        finished = workplace / "model"
        model.to("cpu").save_pretrained(finished)
        processor.save_pretrained(finished)
        make_readable(finished)
        take_place(finished, output_dir)
    logger.info("Calibrated on %d points of %d faces.", model.config.error_model["count"], len(faces))


def main(arguments: LandmarkTrainingArguments) -> Pause | None:
    """Train both stages, then save the model with its processor and the validation error.

    Returns:
        Where the training stopped because its minutes were over; None at its end.
    """
    limit = TimeLimit(arguments.max_minutes)
    if arguments.calibrate:
        calibrate_finished(arguments.calibrate, arguments)
        return None
    output_dir = Path(arguments.output_dir)
    dataset, held_out = load_labeled(arguments)
    face_set = shared_face_set(arguments.data)
    scheme = find_scheme(arguments.scheme, face_set, len(dataset[0]["landmarks"]))
    model = build_model(arguments.autoencoder, scheme, arguments)
    processor = build_processor(face_set, model.config.image_size)
    repository = open_hub_repository(arguments.push_to_hub, arguments.hub_model_id, output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    project = ProjectConfiguration(project_dir=str(output_dir), logging_dir=str(output_dir / "logs"))
    accelerator = Accelerator(log_with=find_tracker(arguments.report_to), project_config=project)
    use_all_cores(accelerator)
    check_batch_size(accelerator, arguments.batch_size)
    checkpoint, start = resume_step(
        output_dir, arguments.resume_from_checkpoint, arguments.stages[1], arguments.stages
    )
    if accelerator.log_with:
        settings = {name: str(value) for name, value in asdict(arguments).items()}
        accelerator.init_trackers("fabrec-landmarks", config=settings)
    faces = LabeledFaces(dataset, processor)
    validation = LabeledFaces(held_out, processor) if held_out is not None else None
    fit_shape_prior(model, faces, scheme)
    faces = begin_from_anchors(model, faces, scheme)
    if start == 0:
        begin_readout(model, faces, scheme, arguments.augmentation, arguments.seed)
    logger.info("%d faces to train on, %d to validate.", len(faces), len(validation or []))
    trainer = Trainer(arguments, accelerator, model, faces, validation, limit)
    boundary, end = arguments.stages
    for first, last, finetune in ((0, boundary, False), (boundary, end, True)):
        if start < last:
            pause = trainer.run_stage(first, start, last, finetune, checkpoint)
            if pause:
                logger.info("%s. Go on with --resume_from_checkpoint latest.", pause)
                accelerator.end_training()
                return pause
            checkpoint, start = None, last
    if accelerator.is_main_process:
        fit_refinement(trainer.model, faces, scheme, arguments.augmentation, arguments.seed)
        save_detector(trainer, processor)
    publish_model(accelerator, output_dir, repository)
    accelerator.end_training()
    return None


def save_detector(trainer: Trainer, processor: FabRecImageProcessor) -> None:
    """Write the trained model, its scores calibrated where there are faces for that, and what it achieved."""
    arguments, output_dir = trainer.arguments, Path(trainer.arguments.output_dir)
    model, validation = trainer.model, trainer.validation
    results: dict[str, float] = {"steps": arguments.stages[1], "faces": len(trainer.faces)}
    if validation:
        found = predict_faces(model, validation, trainer.accelerator.device)
        error = float(np.nanmean(landmark_errors(found.landmarks, validation, trainer.scheme)))
        results |= {"validation_faces": len(validation), "validation_nme": error}
        calibrate(model, found, validation, trainer.scheme)
    save_weights(model, output_dir, arguments.shard_size)
    processor.save_pretrained(output_dir)
    (output_dir / "training_results.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    run_main(main, parse_arguments(LandmarkTrainingArguments, __doc__))
