"""Teach a pre-trained autoencoder to draw landmark heatmaps (paper sections 3.3 and 4.2.2).

    accelerate launch training/train_landmarks.py --config training/configs/landmarks-small.yaml \
        --data FOLDER_OF_PARQUET --autoencoder runs/autoencoder-small --output_dir runs/300w-small

First only the transfer layers and the heatmap head learn, then the encoder with them; the generator stays as it is.
Steps are counted in batches, not epochs: one annotated face trains as well as two thousand. The run continues after a
kill with `--resume_from_checkpoint latest`.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration
from tqdm.auto import tqdm
from training_utils import (
    batch_indices,
    check_batch_size,
    cosine_factor,
    logger,
    open_hub_repository,
    parse_arguments,
    publish_model,
    resume_step,
    run_main,
    save_checkpoint,
    seed_step,
    use_all_cores,
)

from fabrec_hf.augmentation import AugmentationConfig, augment, plain_crops
from fabrec_hf.checkpoints import resolve_checkpoint
from fabrec_hf.configuration_fabrec import FabRecAutoencoderConfig
from fabrec_hf.data import first_shots, load_faces, random_shots, validation_split
from fabrec_hf.data.decoding import CANVAS_RATIO, decode_canvases
from fabrec_hf.data.face_set import FaceSet, shared_face_set
from fabrec_hf.errors import CheckpointError, DataError, SchemeError
from fabrec_hf.evaluation import annotations
from fabrec_hf.geometry import crop_box_from_box, landmarks_to_crop
from fabrec_hf.image_processing_fabrec import FabRecImageProcessor
from fabrec_hf.landmarks import LandmarkScheme, get_scheme
from fabrec_hf.metrics import normalized_mean_error
from fabrec_hf.modeling_fabrec import FabRecForLandmarkDetection
from fabrec_hf.scheme_files import infer_scheme, load_scheme


@dataclass
class LandmarkTrainingArguments:
    """Everything a landmark training run depends on. The `paper` values are in `configs/landmarks-paper.yaml`."""

    data: list[str] = field(metadata={"help": "Parquet files or folders with image, landmarks and box."})
    output_dir: str = field(metadata={"help": "Folder for checkpoints, errors and the final model."})
    autoencoder: str = field(default="3fabrec-autoencoder", metadata={"help": "Autoencoder to start from."})
    split: str = field(default="train", metadata={"help": "Split of the data to train on."})
    scheme: str | None = field(default=None, metadata={"help": "300w, wflw, aflw, mtfl or a file; the data's own."})
    shots: int | None = field(default=None, metadata={"help": "Train on this many faces; all of them by default."})
    protocol: str = field(default="paper", metadata={"help": "Which shots: paper (the first ones) or random."})
    validation_fraction: float = field(default=0.0, metadata={"help": "Share of the pictures to tune on."})
    head_steps: int = field(default=1000, metadata={"help": "Steps of transfer layers and head alone."})
    finetune_steps: int = field(default=0, metadata={"help": "Steps with the encoder, after those."})
    batch_size: int = field(default=40, metadata={"help": "Faces a step, over all processes."})
    head_learning_rate: float = field(default=1e-3, metadata={"help": "Adam's rate of the head before fine-tuning."})
    finetune_head_learning_rate: float = field(default=1e-4, metadata={"help": "The same during fine-tuning."})
    encoder_learning_rate: float = field(default=2e-5, metadata={"help": "Adam's rate of the encoder."})
    warmup_steps: int = field(default=0, metadata={"help": "Steps of linear warm-up in each stage."})
    cosine_schedule: bool = field(default=False, metadata={"help": "Let the rates fall along a cosine in each stage."})
    heatmap_size: int = field(default=128, metadata={"help": "Side of the heatmaps."})
    heatmap_sigma: float = field(default=7.0, metadata={"help": "Standard deviation of the targets, heatmap pixels."})
    foreground_weight: float = field(default=0.0, metadata={"help": "Extra weight of errors near a landmark."})
    transfer_initialization: str = field(default="random", metadata={"help": "Start of the ITLs: random, identity."})
    transfer_layers: list[int] | None = field(default=None, metadata={"help": "Which ITLs exist; all by default."})
    decoding: str = field(default="argmax", metadata={"help": "argmax (the paper's) or subpixel."})
    flip_average: bool = field(default=False, metadata={"help": "Average with the mirrored crop when predicting."})
    flip: float = field(default=0.5, metadata={"help": "Probability of mirroring."})
    rotation: float = field(default=30.0, metadata={"help": "Largest random rotation in degrees."})
    translation: float = field(default=0.04, metadata={"help": "Largest random shift, fraction of the crop."})
    scale: list[float] = field(default_factory=lambda: [0.95, 1.05], metadata={"help": "Range of random sizes."})
    occlusion: float = field(default=0.5, metadata={"help": "Probability of a covered rectangle."})
    color: float = field(default=0.0, metadata={"help": "Largest random change of brightness, contrast, saturation."})
    grayscale: float = field(default=0.0, metadata={"help": "Probability of removing the colours."})
    blur: float = field(default=0.0, metadata={"help": "Probability of a blur."})
    seed: int = field(default=0, metadata={"help": "Seed of the head, the order, the augmentation and the shots."})
    checkpoint_every: int = field(default=250, metadata={"help": "Steps between checkpoints."})
    evaluate_every: int = field(default=500, metadata={"help": "Steps between validation errors."})
    resume_from_checkpoint: str | None = field(default=None, metadata={"help": "`latest` or a checkpoint folder."})
    report_to: str | None = field(default=None, metadata={"help": "Tracker: tensorboard, trackio or wandb."})
    push_to_hub: bool = field(default=False, metadata={"help": "Publish the finished model on the Hub."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository, owner/name; the output's name."})

    def __post_init__(self):
        """Refuse values that would fail later, in words."""
        if self.protocol not in ("paper", "random"):
            raise ValueError(f"--protocol must be paper or random, got {self.protocol!r}.")
        if self.head_steps + self.finetune_steps < 1:
            raise ValueError("--head_steps and --finetune_steps must not both be 0.")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"--scale takes the smallest and the largest size, got {self.scale}.")
        if not 0 <= self.validation_fraction < 1:
            raise ValueError(f"--validation_fraction must lie between 0 and 1, got {self.validation_fraction}.")

    @property
    def stages(self) -> tuple[int, int]:
        """Last step of each stage, counted over both."""
        return self.head_steps, self.head_steps + self.finetune_steps

    @property
    def augmentation(self) -> AugmentationConfig:
        """The random changes of the training crops."""
        names = ("flip", "rotation", "translation", "occlusion", "color", "grayscale", "blur")
        return AugmentationConfig(
            scale=(self.scale[0], self.scale[1]), **{name: getattr(self, name) for name in names}
        )


class LabelledFaces:
    """Faces held as uint8 canvases with their landmarks, which are fractions of the plain crop."""

    def __init__(self, dataset: datasets.Dataset, processor: FabRecImageProcessor):
        self.size = size = int(processor.size["height"])
        landmarks, boxes = annotations(dataset)
        crop_boxes = crop_box_from_box(boxes, processor.extend_top, processor.extend_bottom)
        self.landmarks = torch.as_tensor(landmarks_to_crop(landmarks, crop_boxes)).float()
        self.boxes = boxes / crop_boxes[:, 2:3]  # in units of the crop's side, for normalisers that measure the box
        self.canvases = decode_canvases(dataset, crop_boxes, round(size * CANVAS_RATIO))
        self.crop_fraction = 1 / CANVAS_RATIO

    def __len__(self) -> int:
        return len(self.canvases)


class Trainer:
    """Trains one stage at a time: each has its own optimizer, so Adam's moments start anew as in the paper."""

    def __init__(self, arguments: LandmarkTrainingArguments, accelerator: Accelerator, model, faces, validation):
        self.arguments, self.accelerator, self.model = arguments, accelerator, model
        self.faces, self.validation = faces, validation
        self.scheme = LandmarkScheme.from_dict(model.config.landmark_scheme)
        self.flip_index = self.scheme.flip_index if self.scheme.flip_pairs else None
        self.mean = torch.tensor(FabRecImageProcessor.image_mean, device=accelerator.device).view(1, 3, 1, 1)

    def run_stage(self, first: int, start: int, last: int, finetune: bool, checkpoint: Path | None) -> None:
        """Train steps `start` to `last` of the stage that begins at `first`, going on from its checkpoint if any."""
        arguments, accelerator = self.arguments, self.accelerator
        output_dir = Path(arguments.output_dir)
        if finetune:
            self.model.unfreeze_encoder()
        groups = self._parameter_groups(finetune)
        peaks = [group["lr"] for group in groups]
        # Frozen first, wrapped second: a wrapper that saw other parameters would leave gradients unsynchronised.
        model, optimizer = accelerator.prepare(self.model, torch.optim.Adam(groups))
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
            if arguments.cosine_schedule:
                factor = cosine_factor(step - first, last - first, arguments.warmup_steps)
                for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                    group["lr"] = peak * factor
            losses = {"loss": self._step(model, optimizer, step)}
            done = step + 1
            if self.validation and (done % arguments.evaluate_every == 0 or done == last):
                losses["validation_nme"] = self.evaluate(self.validation)
                logger.info("step %d: %s", done, losses)
            progress.set_postfix(losses, refresh=False)
            accelerator.log(losses, step=done)
            if done % arguments.checkpoint_every == 0 and done < last:
                save_checkpoint(accelerator, output_dir, done, arguments.stages)
        self.model = accelerator.unwrap_model(model)
        accelerator.free_memory()

    def _parameter_groups(self, finetune: bool) -> list[dict]:
        arguments, model = self.arguments, self.model
        head = [*model.transfer_layers.parameters(), *model.heatmap_head.parameters()]
        if not finetune:
            return [{"params": head, "lr": arguments.head_learning_rate}]
        encoder = list(model.autoencoder.encoder.parameters())
        return [
            {"params": head, "lr": arguments.finetune_head_learning_rate},
            {"params": encoder, "lr": arguments.encoder_learning_rate},
        ]

    def _step(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, step: int) -> float:
        arguments, faces, accelerator = self.arguments, self.faces, self.accelerator
        seed_step(arguments.seed, step, accelerator.process_index)
        rows = batch_indices(len(faces), arguments.batch_size, arguments.seed, step)
        rows = rows[accelerator.process_index :: accelerator.num_processes]
        canvases = faces.canvases[rows].to(accelerator.device)
        landmarks = faces.landmarks[rows].to(accelerator.device)
        crops, landmarks = augment(
            canvases, faces.size, faces.crop_fraction, arguments.augmentation, landmarks, self.flip_index
        )
        model.train()
        images = (crops - self.mean).contiguous(memory_format=torch.channels_last)
        loss = model(images, labels=landmarks).loss
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss is not finite at step {step}: resume from the last checkpoint.")
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def evaluate(self, faces: LabelledFaces) -> float:
        """NME in percent over faces never learned from; the scheme's normaliser, crops without augmentation."""
        model = self.model.eval()
        predictions = []
        for canvases in faces.canvases.split(64):
            crops = plain_crops(canvases.to(self.mean.device), faces.size, faces.crop_fraction)
            predictions.append(model(crops - self.mean).landmarks.cpu())
        errors = normalized_mean_error(
            torch.cat(predictions).numpy(), faces.landmarks.numpy(), self.scheme.normalizer, faces.boxes
        )
        return float(np.nanmean(errors))


def load_labelled(arguments: LandmarkTrainingArguments) -> tuple[datasets.Dataset, datasets.Dataset | None]:
    """Read the annotated faces, take the validation pictures out, then choose the shots from what is left."""
    dataset = load_faces(arguments.data, arguments.split, columns=("image", "landmarks", "box"))
    validation = None
    if arguments.validation_fraction:
        dataset, validation = validation_split(dataset, arguments.validation_fraction)
    if arguments.shots is not None:
        choose = first_shots if arguments.protocol == "paper" else random_shots
        dataset = choose(dataset, arguments.shots, *([arguments.seed] if choose is random_shots else []))
    return dataset, validation


def find_scheme(name: str | None, face_set: FaceSet | None, num_landmarks: int) -> LandmarkScheme:
    """Return the named scheme, or that of the data, or the built-in one with that many points, or a bare one."""
    scheme = load_scheme(name) or (face_set.scheme if face_set else None)
    if scheme is None:
        built_in = map(get_scheme, ("300w", "wflw", "aflw", "mtfl"))
        matching = [scheme for scheme in built_in if scheme.num_landmarks == num_landmarks]
        return matching[0] if matching else infer_scheme("custom", num_landmarks=num_landmarks)
    if scheme.num_landmarks != num_landmarks:
        raise SchemeError(f"--scheme {scheme.name} has {scheme.num_landmarks} points but the data {num_landmarks}.")
    return scheme


def build_processor(face_set: FaceSet | None, size: int) -> FabRecImageProcessor:
    """Crop as the paper does for this kind of data, or as for 300-W where the data does not say what it is."""
    margins = {"extend_top": face_set.extend_top, "extend_bottom": face_set.extend_bottom} if face_set else {}
    return FabRecImageProcessor(size={"height": size, "width": size}, **margins)


def build_model(arguments: LandmarkTrainingArguments, scheme: LandmarkScheme) -> FabRecForLandmarkDetection:
    """Put fresh transfer layers and a head on the autoencoder."""
    torch.manual_seed(arguments.seed)
    names = ("heatmap_size", "heatmap_sigma", "foreground_weight", "transfer_initialization", "transfer_layers")
    settings = {name: getattr(arguments, name) for name in (*names, "decoding", "flip_average")}
    folder = resolve_checkpoint(arguments.autoencoder)
    autoencoder = FabRecAutoencoderConfig.from_pretrained(folder)
    if arguments.heatmap_size > autoencoder.image_size:
        raise DataError(f"--heatmap_size {arguments.heatmap_size} exceeds the autoencoder's {autoencoder.image_size}.")
    settings |= {"num_landmarks": scheme.num_landmarks, "landmark_scheme": scheme.to_dict()}
    model, report = FabRecForLandmarkDetection.from_pretrained(folder, output_loading_info=True, **settings)
    missing = sorted(key for key in report["missing_keys"] if key.startswith("autoencoder."))
    if missing:
        raise CheckpointError(f"{folder} is no whole autoencoder: it lacks {missing[0]}.")
    return model.float().to(memory_format=torch.channels_last)


def main(arguments: LandmarkTrainingArguments) -> None:
    """Train both stages, then save the model with its processor and the validation error."""
    output_dir = Path(arguments.output_dir)
    dataset, held_out = load_labelled(arguments)
    face_set = shared_face_set(arguments.data)
    model = build_model(arguments, find_scheme(arguments.scheme, face_set, len(dataset[0]["landmarks"])))
    processor = build_processor(face_set, model.config.image_size)
    repository = open_hub_repository(arguments.push_to_hub, arguments.hub_model_id, output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    project = ProjectConfiguration(project_dir=str(output_dir), logging_dir=str(output_dir / "logs"))
    accelerator = Accelerator(log_with=arguments.report_to, project_config=project)
    use_all_cores(accelerator)
    check_batch_size(accelerator, arguments.batch_size)
    checkpoint, start = resume_step(
        output_dir, arguments.resume_from_checkpoint, arguments.stages[1], arguments.stages
    )
    if arguments.report_to:
        settings = {name: str(value) for name, value in asdict(arguments).items()}
        accelerator.init_trackers("fabrec-landmarks", config=settings)
    faces = LabelledFaces(dataset, processor)
    validation = LabelledFaces(held_out, processor) if held_out is not None else None
    logger.info("%d faces to train on, %d to validate.", len(faces), len(validation or []))
    trainer = Trainer(arguments, accelerator, model, faces, validation)
    boundary, end = arguments.stages
    for first, last, finetune in ((0, boundary, False), (boundary, end, True)):
        if start < last:
            trainer.run_stage(first, start, last, finetune, checkpoint)
            checkpoint, start = None, last
    if accelerator.is_main_process:
        trainer.model.save_pretrained(output_dir)
        processor.save_pretrained(output_dir)
        results: dict[str, float] = {"steps": end, "faces": len(faces)}
        if validation:
            results |= {"validation_faces": len(validation), "validation_nme": trainer.evaluate(validation)}
        (output_dir / "training_results.json").write_text(json.dumps(results, indent=2) + "\n")
    publish_model(accelerator, output_dir, repository)
    accelerator.end_training()


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    run_main(main, parse_arguments(LandmarkTrainingArguments, __doc__))
