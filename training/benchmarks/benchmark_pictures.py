"""Time the way from a picture's file to its landmarks, and say where the milliseconds go.

    python training/benchmarks/benchmark_pictures.py --output_dir runs/pictures

It takes one photograph with one face at a size. Its stages and the pipeline are timed in this process, on one thread
and on as many as there are cores. A folder of copies is timed by the difference of two runs of the command, so that
its start is left out: what N more pictures take, by the clock and in CPU time of all cores. Exports are named to be
timed beside the checkpoint (`--exports exported exported-int8`).
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from PIL import Image


sys.path.insert(0, str(Path(__file__).parents[1]))  # the training scripts

from training_utils import parse_arguments, run_main  # noqa: E402

from fabrec_hf import FaceLandmarkPipeline  # noqa: E402
from fabrec_hf.checkpoints.names import resolve_checkpoint  # noqa: E402
from fabrec_hf.common.output_folder import write_files  # noqa: E402
from fabrec_hf.export.runtimes import load_exported  # noqa: E402
from fabrec_hf.inference.input_files import load_picture  # noqa: E402
from fabrec_hf.inference.landmark_finder import LandmarkFinder  # noqa: E402
from fabrec_hf.model.lone_threads import computing_threads  # noqa: E402


@dataclass
class BenchmarkArguments:
    """What to time."""

    output_dir: str = field(metadata={"help": "Folder for results.json."})
    model: str = field(default="3fabrec-300w", metadata={"help": "Landmark checkpoint."})
    exports: list[str] = field(default_factory=list, metadata={"help": "Exports of it, to be timed beside it."})
    picture: str = field(default="examples/astronaut.jpg", metadata={"help": "A photograph with one face."})
    side: int = field(default=640, metadata={"help": "The side that the photograph is cut and resized to, in pixels."})
    rounds: int = field(default=40, metadata={"help": "Timed calls of each stage; medians are given."})
    pictures: int = field(default=200, metadata={"help": "How many pictures the larger folder has more."})
    runs: int = field(default=3, metadata={"help": "Runs of each folder; medians are given."})


def main(arguments: BenchmarkArguments) -> None:
    """Time, print and write the results."""
    cores = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "face.jpg"
        _square(Path(arguments.picture), arguments.side).save(path, quality=92)
        results: dict = {"cores": cores, "side": arguments.side, "stages": {}, "pipeline": {}, "folder": {}}
        for threads in sorted({1, cores}):
            with computing_threads(threads):
                results["stages"][threads] = _time_stages(arguments, path, threads)
        results["pipeline"] = _time_pipeline(arguments, path, cores)
        for model in [arguments.model, *arguments.exports]:
            results["folder"][model] = _time_folder(arguments, model, path, Path(scratch))
    print(json.dumps(results, indent=2))
    write_files(Path(arguments.output_dir), {"results.json": json.dumps(results, indent=2).encode()})


def _square(path: Path, side: int) -> Image.Image:
    """Return the middle of a photograph as a square."""
    image = Image.open(path).convert("RGB")
    left, top = ((length - min(image.size)) // 2 for length in image.size)
    return image.crop((left, top, left + min(image.size), top + min(image.size))).resize((side, side))


def _median(function: Callable[[], object], rounds: int) -> float:
    """Return the milliseconds of a call."""
    for _ in range(5):
        function()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return round(statistics.median(times), 2)


def _time_stages(arguments: BenchmarkArguments, path: Path, threads: int) -> dict:
    """Return the milliseconds of every stage, with a number of threads."""
    finder = LandmarkFinder(arguments.model, device="cpu")
    image, _ = load_picture(path)
    boxes = finder.detect(image)
    if len(boxes) != 1:
        raise SystemExit(f"{arguments.picture} shows {len(boxes)} faces at this size, and one is wanted.")
    crops = finder.processor([image], boxes=[boxes])["pixel_values"]
    twin = finder.model.fuse()
    stages = {
        "read": lambda: load_picture(path)[0].rgb,
        "search": lambda: finder.detect(image),
        "crop": lambda: finder.processor([image], boxes=[boxes]),
        "network": lambda: twin(crops),
        "landmarks, crop and network included": lambda: finder.find([image], [boxes]),
    }
    with torch.inference_mode():
        found = {name: _median(function, arguments.rounds) for name, function in stages.items()}
        for export in arguments.exports:
            detector, _ = load_exported(export, threads=threads)
            found[f"network, {export}"] = _median(partial(detector, crops), arguments.rounds)
    return found


def _time_pipeline(arguments: BenchmarkArguments, path: Path, cores: int) -> dict:
    """Return the milliseconds a picture of the pipeline: one by one, and several side by side."""
    from transformers import pipeline

    detect = pipeline("face-landmark-detection", model=resolve_checkpoint(arguments.model), device="cpu")
    assert isinstance(detect, FaceLandmarkPipeline)
    many = [str(path)] * arguments.pictures
    ways = {"one by one": {}, "side by side": {"num_workers": cores, "batch_size": 4}}
    found = {}
    for name, options in ways.items():
        detect(many[:8], **options)
        start = time.perf_counter()
        detect(many, **options)
        found[name] = round(1e3 * (time.perf_counter() - start) / len(many), 2)
    return found


def _time_folder(arguments: BenchmarkArguments, model: str, path: Path, scratch: Path) -> dict:
    """Return what a picture more in a folder costs `fabrec detect`."""
    few = 40
    seconds: dict[str, list[float]] = {"clock": [], "processor": []}
    folders = {count: scratch / str(count) for count in (few, few + arguments.pictures)}
    for count, folder in folders.items():
        folder.mkdir(exist_ok=True)
        for index in range(count):
            shutil.copy(path, folder / f"{index}.jpg")
    for _ in range(arguments.runs):
        spent = []
        for folder in folders.values():
            words = [sys.executable, "-m", "fabrec_hf", "detect", str(folder), "--model", model, "--device", "cpu"]
            before, start = os.times(), time.perf_counter()
            subprocess.run(words, check=True, capture_output=True)
            after = os.times()
            processor = after.children_user + after.children_system - before.children_user - before.children_system
            spent.append((time.perf_counter() - start, processor))
        for place, name in enumerate(seconds):
            seconds[name].append(1e3 * (spent[1][place] - spent[0][place]) / arguments.pictures)
    return {f"{name}, ms a picture": round(statistics.median(values), 2) for name, values in seconds.items()}


if __name__ == "__main__":
    run_main(main, parse_arguments(BenchmarkArguments, __doc__ or ""))
