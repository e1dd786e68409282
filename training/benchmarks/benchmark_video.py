"""Measure the tremor of landmarks before and after smoothing, and the speed of each stage, on videos of known motion.

    python training/benchmarks/benchmark_video.py --output_dir runs/video

A photographed face is moved on a known path, to fractions of a pixel, with fresh noise in every frame. The true motion
of every landmark is then that path, so that the normalized mean flicker (NMF) needs no annotation: the landmarks' mean
over the video, taken along the path, stands in for their true places, and only what moves against it counts.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm


sys.path.insert(0, str(Path(__file__).parents[1]))  # the training scripts

from training_utils import parse_arguments, run_main  # noqa: E402

from fabrec_hf.inference.landmark_finder import LandmarkFinder  # noqa: E402
from fabrec_hf.inference.smoothing import FaceSmoother, OneEuroFilter  # noqa: E402
from fabrec_hf.inference.video_files import VideoWriter  # noqa: E402
from fabrec_hf.inference.videos import VideoSettings, landmark_video  # noqa: E402
from fabrec_hf.metrics import summarize_jitter  # noqa: E402


RATE = 25.0


@dataclass
class BenchmarkArguments:
    """What to measure."""

    output_dir: str = field(metadata={"help": "Folder for the videos, their landmarks and results.json."})
    model: str = field(default="3fabrec-300w", metadata={"help": "Landmark checkpoint."})
    picture: str = field(default="examples/astronaut.jpg", metadata={"help": "A photograph with one face."})
    frames: int = field(default=150, metadata={"help": "Frames of each video."})
    noise: float = field(default=6.0, metadata={"help": "Standard deviation of the gray noise of a frame, of 255."})
    width: int = field(default=640, metadata={"help": "Width of the frames; the height is three quarters of it."})


def main(arguments: BenchmarkArguments) -> None:
    """Make the videos, find the landmarks, and print and write the results."""
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    finder = LandmarkFinder(arguments.model)
    results = {}
    for name, reach in (("still", 0.0), ("moving", 1.0)):
        path = _path(arguments.frames, reach * arguments.width / 10)
        _write_video(folder / f"{name}.mp4", arguments, path)
        settings = VideoSettings(smoothing=False)
        summary = landmark_video(folder / f"{name}.mp4", finder, folder, name, settings, progress=True)
        results[name] = {
            "frames_per_second": {stage: summary.frames / seconds for stage, seconds in summary.seconds.items()},
            "faces": len(summary.tracks),
            "jitter": _measure(folder / f"{name}.json", path),
        }
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def _path(frames: int, reach: float) -> np.ndarray:
    """Return the (T, 2) shifts of the face in pixels: two slow sines, of 4 and 3 seconds."""
    times = np.arange(frames) / RATE
    return reach * np.stack([np.sin(2 * np.pi * times / 4), 0.5 * np.cos(2 * np.pi * times / 3)], axis=1)


def _write_video(file: Path, arguments: BenchmarkArguments, path: np.ndarray) -> None:
    """Write the moved photograph; the true shift is `path` to the precision of a bicubic filter and of H.264."""
    random = np.random.default_rng(0)
    size = (arguments.width, arguments.width * 3 // 4)
    picture = Image.open(arguments.picture).convert("RGB")
    margin = (np.array(picture.size) - size) / 2
    writer = VideoWriter(file, RATE)
    for index, shift in enumerate(tqdm(path, desc=file.stem, unit="frame")):
        left, top = margin - shift
        matrix = (1, 0, left, 0, 1, top)
        moved = picture.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
        noise = random.normal(0, arguments.noise, (size[1], size[0], 1))
        writer.write((np.asarray(moved) + noise).clip(0, 255).astype(np.uint8), index / RATE)
    writer.close()


def _measure(file: Path, path: np.ndarray) -> dict[str, dict]:
    """Measure the landmarks of the first face as they were found, and smoothed by one filter a point or by ours."""
    content = json.loads(file.read_text())
    rows = [frame["faces"][0] for frame in content["frames"]]
    points = np.array([row["keypoints"] for row in rows], dtype=float)
    sizes = [float(np.sqrt(row["bbox"][2] * row["bbox"][3])) for row in rows]
    targets = (points - path[:, None]).mean(axis=0) + path[:, None]
    variants = {"before": points}
    for name, smooth in (("one filter a point", OneEuroFilter()), ("face smoother", FaceSmoother())):
        frames = zip(points, content["frames"], sizes, strict=True)
        variants[name] = np.stack([smooth(found, frame["time"], size) for found, frame, size in frames])
    lengths = np.linalg.norm(targets[:, 36] - targets[:, 45], axis=-1) if points.shape[1] == 68 else np.array(sizes)
    offsets = {
        name: 100 * np.linalg.norm(found - targets, axis=-1).mean(1) / lengths for name, found in variants.items()
    }
    return {
        name: summarize_jitter(found, lengths, targets) | {"offset": float(offsets[name].mean())}
        for name, found in variants.items()
    }


if __name__ == "__main__":
    run_main(main, parse_arguments(BenchmarkArguments, __doc__ or ""))
