"""Find out in a minute whether everything here computes on this machine's GPU what it computes on a CPU, and how fast.

    python training/gpu_check.py            # `make gpu-check`
    python training/gpu_check.py --tiny     # the same with tiny networks, also on a machine without a GPU

It checks every network forward and backward (32 bits, channels_last, bfloat16, compiled) against the CPU in 32 bits,
20 steps of pre-training and of landmark training, and `DeviceLandmarkDetector` (with its CUDA graph on a GPU) against
the ordinary path. Then it measures. Without a GPU the networks are tiny, and compiling stops short of machine code.
The exit code is 1 if a check fails.
"""

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from pretrain import PretrainingArguments, Trainer
from torch import nn

from fabrec_hf.checkpoints.loading import load_landmark_model
from fabrec_hf.data.canvases import Canvases
from fabrec_hf.data.decoding import FaceDecoder, decode_faces
from fabrec_hf.evaluation.reconstruction_errors import canvas_size
from fabrec_hf.inference.device_detector import DeviceLandmarkDetector
from fabrec_hf.learning.augmentation import augment
from fabrec_hf.learning.discriminators import FabRecDiscriminators
from fabrec_hf.learning.labeled_faces import LabeledFaces
from fabrec_hf.learning.landmark_training import LandmarkRecipe, build_model
from fabrec_hf.learning.training_stage import TrainingStage
from fabrec_hf.model.configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor
from fabrec_hf.model.known_schemes import get_scheme
from fabrec_hf.model.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection


PHOTOGRAPH = Path(__file__).parents[1] / "examples" / "astronaut.jpg"
BOX = (175.0, 75.0, 105.0, 125.0)
STEPS = 20
# Distance from the CPU in 32 bits, relative to the length of what is compared: of outputs and of all gradients. A
# gradient through many normalizations of four pictures keeps little of its length in bfloat16 (on a CPU the distance
# is 0.42); without a part of the network it would be about 1, and with a wrong sign 2.
TOLERANCES = {"32 bits": (1e-3, 1e-2), "bfloat16": (0.05, 0.6)}
# Pixels of the photograph between a point of the device's path and of the ordinary one.
PIXELS = {torch.float32: 0.05, torch.bfloat16: 2.0}


@dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
        widths: Channels; those of `base` if None.
        image_sizes: Of the pre-training that is timed.
        batch_size: Faces a step.
        timed: Repetitions that are timed.
        compiler: Backend of `torch.compile`.
        faces: Pictures to decode.
    """

    widths: list[int] | None
    image_sizes: tuple[int, ...]
    batch_size: int
    timed: int
    compiler: str
    faces: int


LARGE = Sizes(None, (128, 256), 64, 20, "inductor", 2048)
TINY = Sizes([16, 16, 16, 16], (128,), 4, 2, "aot_eager", 16)


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        what: Name.
        value: What was found.
        passed: Whether it is as it should be; None for a measurement.
    """

    what: str
    value: str
    passed: bool | None = None


def wait(device: torch.device) -> None:
    """Let a GPU finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, times: int, function: Callable[..., object], *arguments: Any) -> float:
    """Return the mean duration of a call, after two that do not count."""
    for _ in range(2):
        function(*arguments)
    wait(device)
    start = time.perf_counter()
    for _ in range(times):
        function(*arguments)
    wait(device)
    return (time.perf_counter() - start) / times


def networks(sizes: Sizes) -> Iterator[tuple[str, nn.Module, torch.Tensor, Callable[..., torch.Tensor]]]:
    """Yield every network on the CPU with an input and what is compared of its output."""
    settings = {"image_size": 128} | ({"widths": sizes.widths} if sizes.widths else {})
    torch.manual_seed(0)
    config = FabRecAutoencoderConfig(**settings)
    critics = FabRecDiscriminators(config)
    pictures = torch.rand(4, 3, 128, 128) - 0.45
    yield "autoencoder", FabRecAutoencoder(config).train(), pictures, lambda outputs: outputs.reconstruction
    yield "image discriminator", critics.image.train(), pictures, lambda logits: logits
    # Its dropout draws other numbers on another device.
    yield "latent discriminator", critics.latent.eval(), torch.randn(4, config.latent_size), lambda logits: logits
    scheme = get_scheme("300w")
    marks = {"num_landmarks": scheme.num_landmarks, "heatmap_size": 64, "heatmap_sigma": 3.5}
    detector = FabRecForLandmarkDetection(FabRecConfig(**settings, **marks))
    yield "detector", detector.train(), pictures, lambda outputs: outputs.heatmaps


def compute(
    network: nn.Module, inputs: torch.Tensor, read: Callable[..., torch.Tensor], half: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an output and the gradients of its weighted sum, as float64 vectors on the CPU."""
    network.zero_grad()
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
        output = read(network(inputs)).float()
    weights = torch.linspace(-1, 1, output.numel(), device=output.device).view_as(output)
    (output * weights).sum().backward()
    gradients = [value.grad.flatten() for value in network.parameters() if value.grad is not None]
    return output.detach().flatten().double().cpu(), torch.cat(gradients).double().cpu()


def check_networks(sizes: Sizes, device: torch.device) -> Iterator[Line]:
    """Compare each network with the CPU in 32 bits, forward and backward, in four ways of computing."""
    for name, network, inputs, read in networks(sizes):
        start = {key: value.clone() for key, value in network.state_dict().items()}
        expected = compute(network, inputs, read)
        compiled = torch.compile(network, backend=sizes.compiler)
        channels_last = {"memory_format": torch.channels_last} if inputs.ndim == 4 else {}
        ways: list[tuple[str, Callable[..., object], dict, bool]] = [
            ("eager", network, {}, False),
            ("channels_last", network, channels_last, False),
            ("compiled", compiled, channels_last, False),
            ("bfloat16", network, channels_last, True),
        ]
        for way, callable_network, layout, half in ways:
            network.load_state_dict(start)
            network.to(device, **layout)
            found = compute(callable_network, inputs.to(device, **layout), read, half)  # type: ignore[arg-type]
            limits = TOLERANCES["bfloat16" if half else "32 bits"]
            distances = [float((a - b).norm() / b.norm()) for a, b in zip(found, expected, strict=True)]
            passed = all(distance <= limit for distance, limit in zip(distances, limits, strict=True))
            told = zip(("output", "gradients"), distances, limits, strict=True)
            value = ", ".join(f"{part} {distance:.1e} (up to {limit:.0e})" for part, distance, limit in told)
            yield Line(f"{name}, {way}, off the CPU by", value, passed)


def pretrainer(sizes: Sizes, image_size: int, accelerator: Accelerator) -> tuple[Trainer, Canvases]:
    """Return a trainer of all four networks and a batch of canvases on the device."""
    settings = {"data": [], "output_dir": "", "widths": sizes.widths, "batch_size": sizes.batch_size}
    rates = {"learning_rate": 1e-3, "beta1": 0.9, "ema_decay": 0.99, "max_steps": 10**6}
    trainer = Trainer(PretrainingArguments(image_size=image_size, **settings, **rates), accelerator)
    pictures = smooth_pictures(sizes.batch_size, canvas_size(image_size))
    return trainer, Canvases(pictures).to(accelerator.device)


def smooth_pictures(count: int, size: int) -> torch.Tensor:
    """Return uint8 pictures (N, 3, S, S) of soft spots, which a network can learn."""
    coarse = torch.rand((count, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    large = nn.functional.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
    return (255 * large.clamp(0, 1)).to(torch.uint8)


def falling(losses: list[float]) -> tuple[str, bool]:
    """Say from what to what losses fell, the means of the first and the last five, and whether they did."""
    first, last = np.mean(losses[:5]), np.mean(losses[-5:])
    return f"{first:.3g} to {last:.3g}", bool(np.isfinite(losses).all() and last < first)


def check_steps(sizes: Sizes, accelerator: Accelerator) -> Iterator[Line]:
    """Take 20 steps of each training on the same few faces."""
    trainer, canvases = pretrainer(sizes, 128, accelerator)
    losses = [float(trainer.step(canvases, step)["reconstruction"]) for step in range(STEPS)]
    value, passed = falling(losses)
    yield Line(f"pretrain.py, {STEPS} steps: reconstruction loss", value, passed and bool(trainer.all_finite))
    settings: dict[str, Any] = {"heatmap_size": 64, "heatmap_sigma": 3.5, "transfer_initialization": "random"}
    settings |= {"finetune_head_learning_rate": 3e-3, "encoder_learning_rate": 5e-4, "foreground_weight": 10.0}
    recipe = LandmarkRecipe(head_steps=0, finetune_steps=STEPS, batch_size=8, **settings)
    faces, scheme = marked_faces(8), get_scheme("mtfl")
    model = build_model(trainer.result.cpu(), scheme, recipe).to(accelerator.device)
    stage = TrainingStage(model, faces, scheme, recipe, True, STEPS, accelerator)
    value, passed = falling([stage.step(step, step) for step in range(STEPS)])
    yield Line(f"train_landmarks.py, {STEPS} steps: loss", value, passed)


def marked_faces(count: int) -> LabeledFaces:
    """Return pictures with five bright spots where their points are."""
    random = np.random.default_rng(0)
    rows: dict[str, list] = {"image": [], "landmarks": [], "box": []}
    places = np.array([[45, 50], [83, 50], [64, 70], [50, 88], [78, 88]])
    for _ in range(count):
        points = places + random.uniform(-6, 6, (5, 2))
        pixels = random.integers(0, 60, (128, 128, 3)).astype(np.uint8)
        for x, y in points.round().astype(int):
            pixels[y - 3 : y + 4, x - 3 : x + 4] = 255
        low, high = points.min(0), points.max(0)
        rows["image"].append(encode(Image.fromarray(pixels), "PNG"))
        rows["landmarks"].append(points.tolist())
        rows["box"].append([*low.tolist(), *(high - low).tolist()])
    dataset = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    return LabeledFaces(dataset, FabRecImageProcessor(size={"height": 128, "width": 128}), progress=False)


def encode(image: Image.Image, kind: str) -> dict:
    """Return a picture as data sets hold it."""
    content = io.BytesIO()
    image.save(content, kind)
    return {"bytes": content.getvalue(), "path": None}


def check_detector(sizes: Sizes, device: torch.device) -> Iterator[Line]:
    """Compare the device's path with processor and model on the CPU, then time it alone and in batches."""
    model, processor = load_landmark_model("3fabrec-300w")
    picture = Image.open(PHOTOGRAPH).convert("RGB")
    with torch.inference_mode():
        inputs = processor(picture, boxes=[[BOX]])
        outputs = model(inputs["pixel_values"])
        expected = processor.post_process_keypoint_detection(outputs, inputs["crop_boxes"])[0][0]["keypoints"]
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().to(device)
    kinds = {torch.float32, torch.bfloat16 if device.type == "cuda" else torch.float32}
    batch = 32 if sizes is LARGE else 4
    for dtype in sorted(kinds, key=str):
        detect = DeviceLandmarkDetector(model, processor, device, dtype, batch_size=batch)
        found = detect([pixels], [[BOX]]).keypoints[0].float().cpu()
        distance = float((found - torch.as_tensor(expected)).norm(dim=1).max())
        passed = distance <= PIXELS[dtype]
        name = str(dtype).removeprefix("torch.")
        yield Line(f"DeviceLandmarkDetector, {name}: largest difference", f"{distance:.3f} px", passed)
    for count in (1, batch):
        detect = DeviceLandmarkDetector(model, processor, device, batch_size=count)
        took = seconds(device, sizes.timed, detect, [pixels] * count, [[BOX]] * count)
        yield Line(f"inference of 3fabrec-300w, batch {count}", f"{count / took:.0f} faces/s")


def measure_pretraining(sizes: Sizes, accelerator: Accelerator) -> Iterator[Line]:
    """Time steps with all losses, and what of them is making the crops."""
    device = accelerator.device
    for image_size in sizes.image_sizes:
        trainer, canvases = pretrainer(sizes, image_size, accelerator)
        took = seconds(device, sizes.timed, trainer.step, canvases, 0)
        data = seconds(device, sizes.timed, augment, canvases, image_size, trainer.augmentation)
        yield Line(f"pre-training at {image_size} px, eager", f"{sizes.batch_size / took:.0f} images/s")
        yield Line(f"pre-training at {image_size} px, share of augmentation", f"{100 * data / took:.1f} %")
        trainer.model = torch.compile(trainer.model, backend=sizes.compiler)
        took = seconds(device, sizes.timed, trainer.step, canvases, 0)
        yield Line(f"pre-training at {image_size} px, compiled", f"{sizes.batch_size / took:.0f} images/s")


def measure_decoding(sizes: Sizes) -> Iterator[Line]:
    """Time the decoding of faces as data sets hold them, with all cores."""
    pictures = smooth_pictures(8, 160).permute(0, 2, 3, 1).numpy()
    noise = np.random.default_rng(0).integers(0, 24, pictures.shape).astype(np.uint8)  # photographs have some
    encoded = [
        encode(Image.fromarray(pixels // 2 + grain), "WEBP") for pixels, grain in zip(pictures, noise, strict=True)
    ]
    rows = {"image": [encoded[index % len(encoded)] for index in range(sizes.faces)]}
    faces = datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())
    start = time.perf_counter()
    decode_faces(faces, FaceDecoder(canvas_size(128)), progress=False)
    rate = sizes.faces / (time.perf_counter() - start)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Line(
        f"decoding WebP of 160 px on {cores} cores", f"{rate:.0f} faces/s, 75,000 faces in {75000 / rate:.0f} s"
    )


def run(sizes: Sizes) -> Iterator[Line]:
    """Yield the lines of the table as they are found; what cannot be computed at all is a failed check."""
    half = "bf16" if torch.cuda.is_available() else "no"
    accelerator = Accelerator(mixed_precision=half)
    device = accelerator.device
    rounds = torch.backends.cudnn.allow_tf32
    try:
        # Convolutions of a GPU round to 19 bits by default, which is no mistake, but hides others.
        torch.backends.cudnn.allow_tf32 = False
        yield from run_parts(
            {
                "networks": lambda: check_networks(sizes, device),
                "training": lambda: check_steps(sizes, accelerator),
                "detector": lambda: check_detector(sizes, device),
            }
        )
    finally:
        torch.backends.cudnn.allow_tf32 = rounds
    yield from run_parts(
        {
            "pre-training": lambda: measure_pretraining(sizes, accelerator),
            "decoding": lambda: measure_decoding(sizes),
        }
    )


def run_parts(parts: Mapping[str, Callable[[], Iterator[Line]]]) -> Iterator[Line]:
    """Yield the lines of all parts; one that fails is a failed line, and the others go on."""
    for name, part in parts.items():
        try:
            yield from part()
        except (RuntimeError, ValueError, FloatingPointError) as error:
            yield Line(name, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", False)


def main(arguments: argparse.Namespace) -> int:
    """Print the table and return the exit code."""
    on_gpu = torch.cuda.is_available()
    sizes = TINY if arguments.tiny or not on_gpu else LARGE
    name = torch.cuda.get_device_name() if on_gpu else "no CUDA: tiny networks on the CPU"
    start, lines = time.perf_counter(), []
    if not arguments.json:
        print(f"torch {torch.__version__}, {name}")
    for line in run(sizes):
        lines.append(line)
        if not arguments.json:
            mark = {None: "    ", True: "ok  ", False: "FAIL"}[line.passed]
            print(f"{mark}  {line.what:<60}  {line.value}", flush=True)
    failed = sum(line.passed is False for line in lines)
    took = time.perf_counter() - start
    if arguments.json:
        report = {"device": name, "torch": torch.__version__, "seconds": took, "failed": failed}
        print(json.dumps(report | {"lines": [asdict(line) for line in lines]}, indent=2))
    else:
        print(f"{failed} of {sum(line.passed is not None for line in lines)} checks failed; {took:.0f} s")
    return 1 if failed else 0


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny networks on a GPU, too")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(parse()))
