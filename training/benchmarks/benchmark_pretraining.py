"""Time the pre-training loop, and the choices of the paper's authors, in one run on the same generated faces.

    python training/benchmarks/benchmark_pretraining.py --preset small --steps 10

Both train all four networks with all four losses (paper equation 4) at 128 px. Ours: faces held as uint8, augmented as
one batch on the device, structural similarity of the whole batch by two one-dimensional windows, channels_last. The
authors' (their released code): every face warped on its own on the CPU, a window of 31 x 31 pixels over one picture
after the other, contiguous tensors, float32. The rounds alternate, so that both see the same machine. "ours,
coarse" are our recipe's first steps, at half the size and without the image discriminator.

`accelerate launch --mixed_precision bf16` lets ours compute in 16 bits, which pays on GPUs and on CPUs that have
instructions for it; on a GPU `--dynamo_backend inductor` adds compilation.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from PIL import Image


sys.path.insert(0, str(Path(__file__).parents[1]))  # the training scripts

from pretrain import PretrainingArguments, Trainer  # noqa: E402
from training_utils import use_all_cores  # noqa: E402

from fabrec_hf.data.canvases import Canvases  # noqa: E402
from fabrec_hf.evaluation.reconstruction_errors import canvas_size  # noqa: E402
from fabrec_hf.learning.augmentation import augment  # noqa: E402
from fabrec_hf.learning.autoencoder_losses import discriminator_loss, generator_loss, reconstruction_loss  # noqa: E402
from fabrec_hf.learning.schedules import seed_step  # noqa: E402


def authors_window() -> torch.Tensor:
    """Their Gaussian window, (3, 1, 31, 31), of standard deviation 1.5."""
    positions = torch.arange(31.0) - 15
    line = torch.exp(-(positions**2) / (2 * 1.5**2))
    return (line[:, None] * line / line.sum() ** 2).expand(3, 1, 31, 31).contiguous()


def authors_structural_loss(reconstruction: torch.Tensor, images: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """One minus the structural similarity, picture by picture, times 60."""
    losses = []
    for first, second in zip(reconstruction.split(1), images.split(1), strict=True):
        constant = (0.03 * (2 if float(second.min()) < -0.5 else 1)) ** 2
        mean_a, mean_b = (F.conv2d(values, window, groups=3) for values in (first, second))
        var_a = F.conv2d(first**2, window, groups=3) - mean_a**2
        var_b = F.conv2d(second**2, window, groups=3) - mean_b**2
        covariance = F.conv2d(first * second, window, groups=3) - mean_a * mean_b
        losses.append(60 * (1 - ((2 * covariance + constant) / (var_a + var_b + constant)).mean()))
    return torch.stack(losses).mean()


def authors_crop(canvas: np.ndarray, size: int, random: np.random.Generator) -> torch.Tensor:
    """Flip, turn, move, scale and shear one picture, then cut its middle out: (3, size, size), mean subtracted."""
    angle = np.deg2rad(random.uniform(-45, 45))
    shear = np.deg2rad(random.uniform(-5, 5))
    scale = random.uniform(0.94, 1.03, 2)
    turn = np.array([[np.cos(angle), -np.sin(angle + shear)], [np.sin(angle), np.cos(angle + shear)]]) / scale
    center = np.array(canvas.shape[:2]) / 2
    offset = center - turn @ (center + random.uniform(-0.035, 0.035, 2) * canvas.shape[0])
    image = Image.fromarray(canvas[:, ::-1] if random.random() < 0.5 else canvas)
    matrix = (*turn[0], offset[0], *turn[1], offset[1])
    image = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    start = (canvas.shape[0] - size) // 2
    pixels = np.asarray(image.crop((start, start, start + size, start + size)))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() / 255


class Authors:
    """A step as the authors' code makes it, on the networks of a trainer of ours."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.window = trainer, authors_window().to(trainer.accelerator.device)
        # Theirs compute in float32, whatever Accelerate was told.
        for name in ("model", "image_critic", "latent_critic"):
            network = getattr(trainer, name)
            setattr(trainer, name, trainer.accelerator.unwrap_model(network, keep_fp32_wrapper=False))
        trainer.model.to(memory_format=torch.contiguous_format)
        self.random = np.random.default_rng(0)

    def data(self, canvases: np.ndarray) -> torch.Tensor:
        """Augment picture by picture."""
        size = self.trainer.arguments.image_size
        crops = torch.stack([authors_crop(canvas, size, self.random) for canvas in canvases])
        return crops.to(self.trainer.accelerator.device) - self.trainer.mean

    def step(self, canvases: np.ndarray, step: int) -> None:
        """Update all networks, each at its pace."""
        trainer = self.trainer
        images = self.data(canvases)
        trainer.model.train()
        outputs = trainer.model(images)
        loss = 0.5 * reconstruction_loss(outputs.reconstruction, images)
        loss = loss + 0.5 * authors_structural_loss(outputs.reconstruction, images, self.window)
        loss = loss + generator_loss(trainer._judge(trainer.image_critic, outputs.reconstruction))
        if step % 2 == 0:
            loss = loss + generator_loss(trainer._judge(trainer.latent_critic, outputs.latent))
        trainer._apply(trainer.optimizers[0], loss)
        fake, latent = outputs.reconstruction.detach(), outputs.latent.detach()
        if step % 2 == 0:
            verdicts = trainer.image_critic(images), trainer.image_critic(fake)
            trainer._apply(trainer.optimizers[1], discriminator_loss(*verdicts))
        if step % 4 == 0:
            verdicts = trainer.latent_critic(torch.randn_like(latent)), trainer.latent_critic(latent)
            trainer._apply(trainer.optimizers[2], discriminator_loss(*verdicts))


def clock(device: torch.device, function: Callable[[], object]) -> float:
    """Seconds that a call takes, GPU work included."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(preset: str, batch_size: int, steps: int, widths: list[int] | None) -> dict:
    """Alternate steps of ours and of theirs; medians of images a second, and the share of time spent on data."""
    accelerator = Accelerator()
    use_all_cores(accelerator)
    device = accelerator.device
    settings = {"data": [], "output_dir": "", "preset": preset, "batch_size": batch_size, "widths": widths}
    arguments = PretrainingArguments(**settings, max_steps=10**6)
    ours, theirs = Trainer(arguments, accelerator), Authors(Trainer(arguments, accelerator))
    coarse_settings = {"max_steps": 10**6, "coarse_steps": 10**6, "adversarial_weight": 0.0}
    coarse = Trainer(PretrainingArguments(**settings, **coarse_settings), accelerator)
    generator = torch.Generator().manual_seed(0)
    side = canvas_size(arguments.image_size)
    noise = torch.randint(0, 256, (batch_size, 3, side, side), dtype=torch.uint8, generator=generator)
    held = Canvases(noise).to(device)
    pictures = np.random.default_rng(0).integers(0, 256, (batch_size, 181, 181, 3), dtype=np.uint8)

    def our_data() -> torch.Tensor:
        crops, _ = augment(held, arguments.image_size, ours.augmentation)
        return (crops - ours.mean).contiguous(memory_format=torch.channels_last)

    jobs: dict[str, Callable[[int], object]] = {
        "ours": lambda step: ours.step(held, step),
        "ours, data": lambda step: our_data(),
        "ours, coarse": lambda step: coarse.step(held, step),
        "authors": lambda step: theirs.step(pictures, step),
        "authors, data": lambda step: theirs.data(pictures),
    }
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for step in range(-4, steps):  # four rounds to warm up, a whole cycle of the discriminators
        seed_step(0, max(step, 0))
        for name, job in jobs.items():
            seconds = clock(device, partial(job, step))
            if step >= 0:
                times[name].append(seconds)
    seconds = {name: statistics.mean(values) for name, values in times.items()}  # steps differ by turns
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "preset": preset,
        "batch_size": batch_size,
        "steps": steps,
        "images_per_second": {name: round(batch_size / seconds[name], 1) for name in seconds if "data" not in name},
        "times_faster": {name: round(seconds["authors"] / seconds[name], 2) for name in ("ours", "ours, coarse")},
        "data_share": {name: round(seconds[f"{name}, data"] / seconds[name], 3) for name in ("ours", "authors")},
    }


def main() -> None:
    """Parse the arguments, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=("base", "small"), default="base", help="width (%(default)s)")
    parser.add_argument("--widths", type=int, nargs=4, help="four channel counts instead")
    parser.add_argument("--batch_size", type=int, default=50, help="faces a step (%(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="measured steps (%(default)s)")
    options = parser.parse_args()
    print(json.dumps(measure(options.preset, options.batch_size, options.steps, options.widths), indent=2))


if __name__ == "__main__":
    main()
