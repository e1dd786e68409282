"""Pre-train the adversarial autoencoder on unlabelled faces (paper section 3.2, equation 4).

    accelerate launch training/pretrain.py --config training/configs/autoencoder-small.yaml \
        --data FOLDER_OF_PARQUET --output_dir runs/autoencoder-small

The run continues after a kill with `--resume_from_checkpoint latest`.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration
from torchvision.utils import make_grid, save_image
from tqdm.auto import tqdm
from training_utils import (
    batch_indices,
    check_batch_size,
    cosine_factor,
    logger,
    parse_arguments,
    resume_step,
    run_main,
    save_checkpoint,
    seed_step,
    use_all_cores,
)

from fabrec_hf.augmentation import AugmentationConfig, augment, plain_crops
from fabrec_hf.checkpoints import resolve_checkpoint
from fabrec_hf.configuration_fabrec import FabRecAutoencoderConfig
from fabrec_hf.data import held_out_faces, load_faces
from fabrec_hf.data.decoding import decode_pictures
from fabrec_hf.discriminators_fabrec import FabRecDiscriminators
from fabrec_hf.errors import CheckpointError, DataError
from fabrec_hf.image_processing_fabrec import FabRecImageProcessor
from fabrec_hf.losses import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    reconstruction_loss,
    structural_loss,
)
from fabrec_hf.modeling_fabrec import FabRecAutoencoder
from fabrec_hf.reconstruction_errors import canvas_size, reconstruction_errors


@dataclass
class PretrainingArguments:
    """Everything a pre-training run depends on. The `paper` values are in `configs/autoencoder-paper.yaml`."""

    data: list[str] = field(metadata={"help": "Parquet files or folders of faces with an `image` column."})
    output_dir: str = field(metadata={"help": "Folder for checkpoints, pictures and the final model."})
    preset: str = field(default="base", metadata={"help": "Width: base (the paper's) or small (half)."})
    image_size: int = field(default=128, metadata={"help": "Side of input and reconstruction in pixels."})
    widths: list[int] | None = field(default=None, metadata={"help": "Four channel counts instead of the preset's."})
    initial_model: str | None = field(default=None, metadata={"help": "Folder of a finished run to continue."})
    max_steps: int = field(default=100_000, metadata={"help": "Training steps of one batch each."})
    batch_size: int = field(default=100, metadata={"help": "Faces a step, over all processes."})
    learning_rate: float = field(default=2e-5, metadata={"help": "Adam's rate for encoder and decoder."})
    image_discriminator_learning_rate: float = field(default=1e-5, metadata={"help": "Of the image discriminator."})
    latent_discriminator_learning_rate: float = field(default=2e-5, metadata={"help": "Of the latent discriminator."})
    beta1: float = field(default=0.0, metadata={"help": "Adam's beta1 for encoder and decoder."})
    warmup_steps: int = field(default=0, metadata={"help": "Steps of linear warm-up."})
    cosine_schedule: bool = field(default=False, metadata={"help": "Let the learning rates fall along a cosine."})
    coarse_steps: int = field(default=0, metadata={"help": "First steps, which reconstruct at half the size only."})
    reconstruction_weight: float = field(default=1.0, metadata={"help": "Lambda_rec, of an L1 error in grey levels."})
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
    resume_from_checkpoint: str | None = field(default=None, metadata={"help": "`latest` or a checkpoint folder."})
    report_to: str | None = field(default=None, metadata={"help": "Tracker: tensorboard, trackio or wandb."})

    def __post_init__(self):
        """Refuse values that would fail later, in words."""
        if self.preset not in ("base", "small"):
            raise ValueError(f"--preset must be base or small, got {self.preset!r}.")
        if self.adversarial_weight and self.image_size < 128 and self.adversarial_start < self.max_steps:
            raise ValueError("the image discriminator needs --image_size 128 or more (or --adversarial_weight 0).")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"--scale takes the smallest and the largest size, got {self.scale}.")
        if self.coarse_steps and self.image_size < 128:
            raise ValueError("--coarse_steps needs --image_size 128 or more.")
        if not 0 < self.held_out_fraction < 1:
            raise ValueError(f"--held_out_fraction must lie between 0 and 1, got {self.held_out_fraction}.")
        if self.adversarial_weight and self.adversarial_start < self.coarse_steps:
            raise ValueError("--adversarial_start must not lie before the end of --coarse_steps.")


class Trainer:
    """The four losses of equation 4, one step at a time."""

    def __init__(self, arguments: PretrainingArguments, accelerator: Accelerator):
        self.arguments, self.accelerator = arguments, accelerator
        torch.manual_seed(arguments.seed)
        self.mean = torch.tensor(FabRecImageProcessor.image_mean, device=accelerator.device).view(1, 3, 1, 1)
        self.augmentation = AugmentationConfig(
            rotation=arguments.rotation,
            translation=arguments.translation,
            scale=(arguments.scale[0], arguments.scale[1]),
        )
        model, critics = build_models(arguments)
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

    def step(self, canvases: torch.Tensor, step: int) -> dict[str, float]:
        """Update all networks on one batch of uint8 pictures (N, 3, C, C); returns the losses by name."""
        arguments = self.arguments
        if arguments.cosine_schedule:
            self._set_rates(cosine_factor(step, arguments.max_steps, arguments.warmup_steps))
        crops, _ = augment(canvases, arguments.image_size, 1.0, self.augmentation)
        images = (crops - self.mean).contiguous(memory_format=torch.channels_last)
        self.model.train()
        latent, reconstruction, targets = self._reconstruct(self.model, images, step)
        losses = self._update_autoencoder(latent, reconstruction, targets, step)
        losses |= self._update_critics(latent.detach(), reconstruction.detach(), targets, step)
        return {name: float(value.detach()) for name, value in losses.items()}

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
        total = torch.stack(list(losses.values())).sum()
        if not torch.isfinite(total):
            raise FloatingPointError(f"the loss is not finite at step {step}: resume from the last checkpoint.")
        self.optimizers[0].zero_grad()
        self.accelerator.backward(total)
        self.optimizers[0].step()
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

    def evaluate(self, canvases: torch.Tensor, step: int) -> dict[str, float]:
        """Reconstruction error of pictures never trained on: L1 in grey levels of 255, and one minus SSIM's cs."""
        model = self.accelerator.unwrap_model(self.model).eval()
        stages = self._num_stages(step)
        l1, structural = reconstruction_errors(model, canvases, self.arguments.batch_size, stages)
        return {"held_out_l1": float(l1.mean()), "held_out_structural": float(structural.mean())}

    @torch.no_grad()
    def draw(self, canvases: torch.Tensor, step: int, path: Path) -> None:
        """Write pictures above their reconstructions, and below them faces decoded from draws of the prior, as PNG."""
        model = self.accelerator.unwrap_model(self.model).eval()
        images = plain_crops(canvases.to(self.mean.device), self.arguments.image_size, 1.0) - self.mean
        latent, reconstruction, targets = self._reconstruct(model, images, step)
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(0)).to(latent.device)
        faces = model.decoder(noise, num_stages=self._num_stages(step))
        rows = [rows + self.mean for rows in (targets, reconstruction, faces)]
        partial = path.with_name("partial.png")
        save_image(make_grid(torch.cat(rows).clamp(0, 1), nrow=len(images)), partial)
        partial.rename(path)


def build_models(arguments: PretrainingArguments) -> tuple[FabRecAutoencoder, FabRecDiscriminators]:
    """Build the networks anew, or load those of a finished run: autoencoder and, if they are there, discriminators."""
    if arguments.initial_model is None:
        config = _model_config(arguments)
        return FabRecAutoencoder(config).to(memory_format=torch.channels_last), FabRecDiscriminators(config)
    folder = resolve_checkpoint(arguments.initial_model)
    model = FabRecAutoencoder.from_pretrained(folder, dtype=torch.float32)
    if model.config.image_size != arguments.image_size:
        raise CheckpointError(
            f"{folder} is for {model.config.image_size} px, not --image_size {arguments.image_size}."
        )
    discriminators = Path(folder) / "discriminators"
    if discriminators.is_dir():
        return model.to(memory_format=torch.channels_last), FabRecDiscriminators.from_pretrained(discriminators)
    return model.to(memory_format=torch.channels_last), FabRecDiscriminators(model.config)


def _model_config(arguments: PretrainingArguments) -> FabRecAutoencoderConfig:
    sizes = {"image_size": arguments.image_size} | ({"widths": arguments.widths} if arguments.widths else {})
    if arguments.preset == "small":
        return FabRecAutoencoderConfig.small(**sizes)
    return FabRecAutoencoderConfig(**sizes)


def load_canvases(arguments: PretrainingArguments) -> tuple[torch.Tensor, torch.Tensor]:
    """Decode the faces to train on and those held out, uint8, with a quarter more pixels than the crops."""
    training, held_out = held_out_faces(load_faces(arguments.data), arguments.held_out_fraction)
    if not len(training) or not len(held_out):
        raise DataError(f"{len(training) + len(held_out)} faces are too few: raise --held_out_fraction or add data.")
    size = canvas_size(arguments.image_size)
    logger.info("%d faces to train on, %d held out.", len(training), len(held_out))
    return decode_pictures(training, size), decode_pictures(held_out, size)


def main(arguments: PretrainingArguments) -> None:
    """Train, with a checkpoint every now and then, and save the model with its discriminators."""
    output_dir = Path(arguments.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    project = ProjectConfiguration(project_dir=str(output_dir), logging_dir=str(output_dir / "logs"))
    # The last decoder stage rests during the coarse steps. Buffers stay with their process: broadcasting them in every
    # forward would change what the discriminator's first of two forwards has saved for the backward.
    parallel = DistributedDataParallelKwargs(
        find_unused_parameters=arguments.coarse_steps > 0, broadcast_buffers=False
    )
    accelerator = Accelerator(log_with=arguments.report_to, project_config=project, kwargs_handlers=[parallel])
    check_batch_size(accelerator, arguments.batch_size)
    checkpoint, start = resume_step(output_dir, arguments.resume_from_checkpoint, arguments.max_steps)
    use_all_cores(accelerator)
    canvases, held_out = load_canvases(arguments)
    trainer = Trainer(arguments, accelerator)
    if arguments.report_to:
        settings = {name: str(value) for name, value in asdict(arguments).items()}
        accelerator.init_trackers("fabrec-pretraining", config=settings)
    if checkpoint:
        accelerator.load_state(str(checkpoint))
    rank, world = accelerator.process_index, accelerator.num_processes
    progress = tqdm(range(start, arguments.max_steps), disable=not accelerator.is_main_process, desc="pre-training")
    for step in progress:
        seed_step(arguments.seed, step, rank)
        rows = batch_indices(len(canvases), arguments.batch_size, arguments.seed, step)[rank::world]
        losses = trainer.step(canvases[rows].to(accelerator.device), step)
        done = step + 1
        progress.set_postfix({name: f"{value:.2f}" for name, value in losses.items()}, refresh=False)
        if done % arguments.picture_every == 0 or done == arguments.max_steps:
            losses |= trainer.evaluate(held_out, step)
            logger.info("step %d: %s", done, losses)
            if accelerator.is_main_process:
                trainer.draw(held_out[:12], step, output_dir / f"reconstructions-{done}.png")
        accelerator.log(losses, step=done)
        if done % arguments.checkpoint_every == 0 or done == arguments.max_steps:
            save_checkpoint(accelerator, output_dir, done)
    save_model(trainer, output_dir)
    accelerator.end_training()


def save_model(trainer: Trainer, output_dir: Path) -> None:
    """Write the autoencoder and its processor, and the discriminators in a folder of their own."""
    accelerator = trainer.accelerator
    if not accelerator.is_main_process:
        return
    model = accelerator.unwrap_model(trainer.model)
    model.save_pretrained(output_dir)
    critics = FabRecDiscriminators(FabRecAutoencoderConfig.from_dict(model.config.to_dict()))
    critics.config.auto_map = {}  # they are no model of an Auto class
    critics.image.load_state_dict(accelerator.unwrap_model(trainer.image_critic).state_dict())
    critics.latent.load_state_dict(accelerator.unwrap_model(trainer.latent_critic).state_dict())
    critics.save_pretrained(output_dir / "discriminators")
    size = {"height": model.config.image_size, "width": model.config.image_size}
    FabRecImageProcessor(size=size).save_pretrained(output_dir)


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    run_main(main, parse_arguments(PretrainingArguments, __doc__))
