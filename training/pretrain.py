"""Pre-train the adversarial autoencoder on unlabeled faces (paper section 3.2, equation 4).

    accelerate launch training/pretrain.py --config training/configs/autoencoder-small.yaml \
        --data FOLDER_OF_PARQUET --output_dir runs/autoencoder-small

The run continues after a kill with `--resume_from_checkpoint latest`. `--max_minutes` stops it in time by itself.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration
from autoencoder_networks import build_models, save_model
from face_feed import FEEDS, Schedule, load_training_faces, open_feed
from global_batch_norm import share_batch_norm
from growth import set_blend
from pictures import draw_sheet
from time_limit import Pause, TimeLimit
from torch.distributed.nn.functional import all_gather
from tqdm.auto import tqdm
from training_utils import (
    RunArguments,
    check_batch_size,
    find_tracker,
    list_checkpoints,
    logger,
    open_hub_repository,
    parse_arguments,
    publish_model,
    resume_step,
    run_main,
    save_checkpoint,
    use_all_cores,
)
from weight_average import WeightAverage

from fabrec_hf.data.canvases import Canvases
from fabrec_hf.data.decoding import decode_faces
from fabrec_hf.evaluation.reconstruction_errors import reconstruction_errors
from fabrec_hf.learning.augmentation import AugmentationConfig, augment, check_scale, plain_crops
from fabrec_hf.learning.autoencoder_losses import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    reconstruction_loss,
    structural_loss,
)
from fabrec_hf.learning.schedules import cosine_factor, seed_step
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor
from fabrec_hf.model.modeling_fabrec import FabRecAutoencoder


@dataclass(kw_only=True)
class PretrainingArguments(RunArguments):
    """Everything a pre-training run depends on. The `paper` values are in `configs/autoencoder-paper.yaml`."""

    data: list[str] = field(metadata={"help": "Parquet files or folders of faces with an `image` column."})
    output_dir: str = field(metadata={"help": "Folder for checkpoints, pictures and the final model."})
    preset: str = field(default="base", metadata={"help": "Width: base (the paper's) or small (half)."})
    image_size: int = field(default=128, metadata={"help": "Side of input and reconstruction in pixels."})
    widths: list[int] | None = field(default=None, metadata={"help": "Four channel counts instead of the preset's."})
    initial_model: str | None = field(default=None, metadata={"help": "Finished run to continue or to grow."})
    fade_steps: int = field(default=0, metadata={"help": "Steps in which a grown network leaves the smaller behind."})
    max_steps: int = field(default=100_000, metadata={"help": "Training steps of one batch each."})
    batch_size: int = field(default=100, metadata={"help": "Faces a step, over all processes."})
    learning_rate: float = field(default=2e-5, metadata={"help": "Adam's rate for encoder and decoder."})
    image_discriminator_learning_rate: float = field(default=1e-5, metadata={"help": "Of the image discriminator."})
    latent_discriminator_learning_rate: float = field(default=2e-5, metadata={"help": "Of the latent discriminator."})
    beta1: float = field(default=0.0, metadata={"help": "Adam's beta1 for encoder and decoder."})
    warmup_steps: int = field(default=0, metadata={"help": "Steps of linear warm-up."})
    cosine_schedule: bool = field(default=False, metadata={"help": "Let the learning rates fall along a cosine."})
    ema_decay: float = field(default=0.0, metadata={"help": "Of the averaged weights, which are then the result."})
    coarse_steps: int = field(default=0, metadata={"help": "First steps, which reconstruct at half the size only."})
    reconstruction_weight: float = field(default=1.0, metadata={"help": "Lambda_rec, of an L1 error in gray levels."})
    structural_weight: float = field(default=60.0, metadata={"help": "Lambda_cs."})
    latent_weight: float = field(default=1.0, metadata={"help": "Lambda_enc of the adversarial latent loss."})
    adversarial_weight: float = field(default=1.0, metadata={"help": "Lambda_adv of the adversarial image loss."})
    structural_start: int = field(default=0, metadata={"help": "First step with the structural loss."})
    adversarial_start: int = field(default=0, metadata={"help": "First step with the image discriminator."})
    gradient_penalty: float = field(default=0.0, metadata={"help": "R1 penalty on the latent discriminator."})
    held_out_fraction: float = field(default=0.02, metadata={"help": "Share of the faces never trained on."})
    rotation: float = field(default=45.0, metadata={"help": "Largest random rotation in degrees."})
    translation: float = field(default=0.04, metadata={"help": "Largest random shift, fraction of the crop."})
    scale: list[float] = field(default_factory=lambda: [0.94, 1.03], metadata={"help": "Range of random sizes."})
    seed: int = field(default=0, metadata={"help": "Seed of weights, order, augmentation and noise."})
    checkpoint_every: int = field(default=500, metadata={"help": "Steps between checkpoints."})
    picture_every: int = field(default=500, metadata={"help": "Steps between pictures and held-out errors."})
    log_every: int = field(default=10, metadata={"help": "Steps between the losses that are shown and tracked."})
    feed: str = field(default="auto", metadata={"help": "Where faces come from: auto, memory, workers or stream."})
    workers: int = field(default=4, metadata={"help": "Loading processes, when faces come from workers."})

    def __post_init__(self):
        """Refuse values that would fail later, in words."""
        super().__post_init__()
        if self.preset not in ("base", "small"):
            raise ValueError(f"--preset must be base or small, got {self.preset!r}.")
        if self.adversarial_weight and self.image_size < 128 and self.adversarial_start < self.max_steps:
            raise ValueError("the image discriminator needs --image_size 128 or more (or --adversarial_weight 0).")
        check_scale(self.scale)
        if self.coarse_steps and self.image_size < 128:
            raise ValueError("--coarse_steps needs --image_size 128 or more.")
        if self.fade_steps and (self.initial_model is None or self.image_size != 256 or self.coarse_steps):
            raise ValueError("--fade_steps grow an --initial_model to --image_size 256, without coarse steps.")
        if self.fade_steps >= self.max_steps:
            raise ValueError("--fade_steps must end before --max_steps: the smaller network is dropped then.")
        if self.feed not in FEEDS:
            raise ValueError(f"--feed must be one of {', '.join(FEEDS)}, got {self.feed!r}.")
        if min(self.log_every, self.checkpoint_every, self.picture_every) < 1:
            raise ValueError("--log_every, --checkpoint_every and --picture_every must be at least 1.")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"--ema_decay must be at least 0 and less than 1, got {self.ema_decay}.")
        if not 0 < self.held_out_fraction < 1:
            raise ValueError(f"--held_out_fraction must lie between 0 and 1, got {self.held_out_fraction}.")
        if self.adversarial_weight and self.adversarial_start < self.coarse_steps:
            raise ValueError("--adversarial_start must not lie before the end of --coarse_steps.")


class Trainer:
    """The four losses of equation 4, one step at a time."""

    def __init__(self, arguments: PretrainingArguments, accelerator: Accelerator):
        self.arguments, self.accelerator = arguments, accelerator
        self.share = (accelerator.process_index, accelerator.num_processes)
        self.all_finite = torch.ones((), dtype=torch.bool, device=accelerator.device)
        torch.manual_seed(arguments.seed)
        self.mean = torch.tensor(FabRecImageProcessor.image_mean, device=accelerator.device).view(1, 3, 1, 1)
        self.augmentation = AugmentationConfig(
            rotation=arguments.rotation,
            translation=arguments.translation,
            scale=(arguments.scale[0], arguments.scale[1]),
        )
        model, critics = build_models(arguments)
        if accelerator.num_processes > 1:
            share_batch_norm(model, accelerator.device)
            share_batch_norm(critics.image, accelerator.device)
        self.rates = (
            arguments.learning_rate,
            arguments.image_discriminator_learning_rate,
            arguments.latent_discriminator_learning_rate,
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rates[0], betas=(arguments.beta1, 0.999))
        image_optimizer = torch.optim.Adam(critics.image.parameters(), lr=self.rates[1], betas=(0.0, 0.999))
        latent_optimizer = torch.optim.Adam(critics.latent.parameters(), lr=self.rates[2], betas=(0.0, 0.999))
        self.model, self.image_critic, self.latent_critic = accelerator.prepare(model, critics.image, critics.latent)
        self.optimizers = accelerator.prepare(optimizer, image_optimizer, latent_optimizer)
        self.average = None
        if arguments.ema_decay:
            self.average = WeightAverage(accelerator.unwrap_model(self.model), arguments.ema_decay)
            accelerator.register_for_checkpointing(self.average)

    @property
    def result(self) -> FabRecAutoencoder:
        """The network that is measured, drawn and saved: the average over the last steps where there is one."""
        average: FabRecAutoencoder | None = None if self.average is None else self.average.module  # type: ignore
        return average or self.accelerator.unwrap_model(self.model)

    def step(self, canvases: Canvases, step: int) -> dict[str, torch.Tensor]:
        """Update all networks on this process's share of the faces; returns the losses by name.

        Processes that share a batch draw the same random numbers, normalize by the same statistics and judge all
        latents together: their losses are those of one process with the whole batch.
        """
        arguments = self.arguments
        if arguments.cosine_schedule:
            self._set_rates(cosine_factor(step, arguments.max_steps, arguments.warmup_steps))
        if arguments.fade_steps:
            for network in (self.accelerator.unwrap_model(self.model), self.result):
                set_blend(network, max(0.0, 1 - step / arguments.fade_steps))
        seed_step(arguments.seed, step)
        crops, _ = augment(canvases, arguments.image_size, self.augmentation, share=self.share)
        images = (crops - self.mean).contiguous(memory_format=torch.channels_last)
        self.model.train()
        latent, reconstruction, targets = self._reconstruct(self.model, images, step)
        latents = self._gather(latent)
        losses = self._update_autoencoder(latents, reconstruction, targets, step)
        losses |= self._update_critics(latents.detach(), reconstruction.detach(), targets, step)
        values = self.accelerator.reduce(torch.stack([loss.detach() for loss in losses.values()]), "mean")
        self.all_finite &= values.isfinite().all()
        return dict(zip(losses, values.unbind(), strict=True))

    def _gather(self, latent: torch.Tensor) -> torch.Tensor:
        """Put the latents of all processes into the order of the batch."""
        if self.share[1] == 1:
            return latent
        return torch.stack(all_gather(latent), dim=1).flatten(0, 1)

    def _reconstruct(
        self, model: torch.nn.Module, images: torch.Tensor, step: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        outputs = model(images, num_stages=self._num_stages(step))
        size = outputs.reconstruction.shape[-1]
        return outputs.latent, outputs.reconstruction, F.adaptive_avg_pool2d(images, size)

    def _num_stages(self, step: int) -> int:
        """Decoder stages in use: the last one rests during the coarse steps."""
        stages = len(self.accelerator.unwrap_model(self.model).decoder.stages)
        return stages - 1 if step < self.arguments.coarse_steps else stages

    def _update_autoencoder(
        self, latent: torch.Tensor, reconstruction: torch.Tensor, targets: torch.Tensor, step: int
    ) -> dict[str, torch.Tensor]:
        arguments = self.arguments
        losses = {"reconstruction": arguments.reconstruction_weight * reconstruction_loss(reconstruction, targets)}
        if step >= arguments.structural_start:
            losses["structural"] = arguments.structural_weight * structural_loss(reconstruction, targets)
        if arguments.latent_weight:
            losses["latent"] = arguments.latent_weight * generator_loss(self._judge(self.latent_critic, latent))
        if self._adversarial(step):
            judged = self._judge(self.image_critic, reconstruction)
            losses["adversarial"] = arguments.adversarial_weight * generator_loss(judged)
        self.optimizers[0].zero_grad()
        self.accelerator.backward(torch.stack(list(losses.values())).sum())
        self.optimizers[0].step()
        if self.average is not None:
            if step == arguments.coarse_steps:  # the last decoder stage begins to learn here: its start is no result
                self.average.restart()
            self.average.update_parameters(self.accelerator.unwrap_model(self.model))
        return losses

    def _update_critics(
        self, latent: torch.Tensor, reconstruction: torch.Tensor, targets: torch.Tensor, step: int
    ) -> dict[str, torch.Tensor]:
        """Update the discriminators at the reference's pace: images every 2nd step, latents every 4th."""
        losses = {}
        if self._adversarial(step) and step % 2 == 0:
            loss = discriminator_loss(self.image_critic(targets), self.image_critic(reconstruction))
            self._apply(self.optimizers[1], loss)
            losses["image_discriminator"] = loss
        if self.arguments.latent_weight and step % 4 == 0:
            latent = latent.requires_grad_(self.arguments.gradient_penalty > 0)
            fake = self.latent_critic(latent)
            loss = discriminator_loss(self.latent_critic(torch.randn_like(latent)), fake)
            losses["latent_discriminator"] = loss
            if self.arguments.gradient_penalty:
                loss = loss + self.arguments.gradient_penalty * gradient_penalty(fake, latent)
            self._apply(self.optimizers[2], loss)
        return losses

    def _adversarial(self, step: int) -> bool:
        return self.arguments.adversarial_weight > 0 and step >= self.arguments.adversarial_start

    def _judge(self, critic: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
        """Run a critic without collecting gradients for its own weights, so there are none to share either."""
        critic = self.accelerator.unwrap_model(critic)
        critic.requires_grad_(False)
        logits = critic(inputs)
        critic.requires_grad_(True)
        return logits

    def _apply(self, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        optimizer.step()

    def _set_rates(self, factor: float) -> None:
        for optimizer, peak in zip(self.optimizers, self.rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor

    def check(self, step: int) -> None:
        """Stop a run whose losses were not finite in some step so far.

        Raises:
            FloatingPointError: They were not; the message names the checkpoint to go on from.
        """
        if not self.all_finite:
            good = list_checkpoints(Path(self.arguments.output_dir))
            advice = f"the last good checkpoint is {good[-1]}" if good else "there is no checkpoint yet"
            raise FloatingPointError(
                f"a loss was not finite by step {step}; {advice}: go on from it with lower learning rates."
            )

    def evaluate(self, canvases: Canvases, step: int) -> dict[str, float]:
        """Reconstruction error of pictures never trained on: L1 in gray levels of 255, and one minus SSIM's cs."""
        stages = self._num_stages(step)
        l1, structural = reconstruction_errors(self.result.eval(), canvases, self.arguments.batch_size, stages)
        return {"held_out_l1": float(l1.mean()), "held_out_structural": float(structural.mean())}

    def draw(self, canvases: Canvases, step: int, path: Path) -> None:
        """Write reconstructions, random faces and interpolations as PNG."""
        crops = plain_crops(canvases.to(self.mean.device), self.arguments.image_size)
        draw_sheet(self.result.eval(), crops - self.mean, self.mean, path, self._num_stages(step))


def main(arguments: PretrainingArguments) -> Pause | None:
    """Train, with a checkpoint every now and then, and save the model with its discriminators.

    Returns:
        Where the training stopped because its minutes were over; None at its end.
    """
    limit = TimeLimit(arguments.max_minutes)
    output_dir = Path(arguments.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    project = ProjectConfiguration(project_dir=str(output_dir), logging_dir=str(output_dir / "logs"))
    # The last decoder stage rests during the coarse steps. Buffers stay with their process: broadcasting them in every
    # forward would change what the discriminator's first of two forwards has saved for the backward.
    parallel = DistributedDataParallelKwargs(
        find_unused_parameters=arguments.coarse_steps > 0, broadcast_buffers=False
    )
    accelerator = Accelerator(
        log_with=find_tracker(arguments.report_to), project_config=project, kwargs_handlers=[parallel]
    )
    check_batch_size(accelerator, arguments.batch_size)
    checkpoint, start = resume_step(output_dir, arguments.resume_from_checkpoint, arguments.max_steps)
    use_all_cores(accelerator)
    stream = arguments.feed == "stream"
    faces, held_out_rows, decoder = load_training_faces(
        arguments.data, arguments.image_size, arguments.held_out_fraction, stream
    )
    logger.info("%s faces to train on, %d held out.", "Streamed" if stream else len(faces), len(held_out_rows))
    held_out = decode_faces(held_out_rows, decoder)
    repository = open_hub_repository(arguments.push_to_hub, arguments.hub_model_id, output_dir)
    trainer = Trainer(arguments, accelerator)
    if accelerator.log_with:
        settings = {name: str(value) for name, value in asdict(arguments).items()}
        accelerator.init_trackers("fabrec-pretraining", config=settings)
    if checkpoint:
        accelerator.load_state(str(checkpoint))
    schedule = Schedule(arguments.batch_size, arguments.seed, start, arguments.max_steps, *trainer.share)
    batches = open_feed(arguments.feed, faces, decoder, schedule, accelerator.device, arguments.workers)
    pause = train(trainer, batches, start, held_out, limit)
    if pause:
        logger.info("%s. Go on with --resume_from_checkpoint latest.", pause)
    else:
        save_model(trainer, output_dir)
        publish_model(accelerator, output_dir, repository)
    accelerator.end_training()
    return pause


def train(
    trainer: Trainer, batches: Iterator[Canvases], start: int, held_out: Canvases, limit: TimeLimit
) -> Pause | None:
    """Take a step a batch, from step `start` to the last one or until the time is over.

    Returns:
        Where the training stopped in time, with a checkpoint there; None at its end.
    """
    arguments, accelerator = trainer.arguments, trainer.accelerator
    output_dir = Path(arguments.output_dir)
    progress = tqdm(
        batches,
        desc="pre-training",
        initial=start,
        total=arguments.max_steps,
        unit="face",
        unit_scale=arguments.batch_size,
        disable=not accelerator.is_main_process,
    )
    for step, canvases in enumerate(progress, start=start):
        losses = trainer.step(canvases, step)
        done = step + 1
        last = done == arguments.max_steps
        # Asking other processes for the time would make GPUs wait, too: they are asked where losses are read.
        asked = accelerator.num_processes == 1 or done % arguments.log_every == 0
        stop = asked and not last and limit.reached(accelerator, done)
        pauses = (arguments.log_every, arguments.checkpoint_every, arguments.picture_every)
        if not last and not stop and all(done % pause for pause in pauses):
            continue  # reading the losses would make a GPU wait
        trainer.check(step)
        values = {name: float(value) for name, value in losses.items()}
        progress.set_postfix({name: f"{value:.2f}" for name, value in values.items()}, refresh=False)
        if done % arguments.picture_every == 0 or last:
            values |= trainer.evaluate(held_out, step)
            logger.info("step %d: %s", done, values)
            if accelerator.is_main_process:
                trainer.draw(held_out.subset(slice(12)), step, output_dir / f"reconstructions-{done}.png")
        accelerator.log(values, step=done)
        if done % arguments.checkpoint_every == 0 or last or stop:
            save_checkpoint(accelerator, output_dir, done)
        if stop:
            progress.close()
            return limit.pause(done, arguments.max_steps)
    return None


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    run_main(main, parse_arguments(PretrainingArguments, __doc__))
