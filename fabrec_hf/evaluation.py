"""Scores a landmark checkpoint on an annotated data set: `fabrec evaluate` and `training/evaluate_landmarks.py`."""

import argparse
import copy
import json
import sys
from typing import Any

import datasets
import numpy as np
import torch
from tqdm.auto import tqdm

from .configuration_fabrec import FabRecConfig
from .data import load_faces
from .errors import DataError, FabRecError, SchemeError
from .image_processing_fabrec import FabRecImageProcessor
from .landmarks import LandmarkScheme
from .loading import load_landmark_model
from .metrics import normalized_mean_error, part_errors, point_errors, summarize_errors
from .modeling_fabrec import FabRecForLandmarkDetection


__all__ = ["add_arguments", "annotations", "evaluate_checkpoint", "predict_landmarks", "run"]

COLUMNS = ("image", "landmarks", "box")
PROTOCOLS = ("default", "paper")


def predict_landmarks(
    model: FabRecForLandmarkDetection,
    processor: FabRecImageProcessor,
    dataset: datasets.Dataset,
    batch_size: int = 32,
    progress: bool = False,
) -> np.ndarray:
    """Predict the landmarks of every row, each in the face box that comes with it.

    Args:
        model: The landmark model, on the device to work on, in the mode to predict in.
        processor: Its image processor.
        dataset: Rows with `image` and `box` (x, y, width, height).
        batch_size: Faces at a time; changes the speed only.
        progress: Show a progress bar.

    Returns:
        (N, L, 2) points in pixels of the rows' images, float64, pixel centres at integers.

    Raises:
        DataError: If an image cannot be read.
    """
    predictions = []
    faces = dataset.select_columns(["image", "box"])
    bar = tqdm(total=len(faces), desc="Evaluating", unit="face", disable=not progress)
    try:
        with bar, torch.inference_mode():
            for batch in faces.iter(batch_size):
                inputs = processor(batch["image"], boxes=[[box] for box in batch["box"]])
                outputs = model(inputs["pixel_values"].to(model.device, model.dtype))
                landmarks = outputs.landmarks.cpu().double().numpy()
                predictions.append(processor.landmarks_from_crop(landmarks, inputs["crop_boxes"]))
                bar.update(len(landmarks))
    except (OSError, ValueError) as error:
        done = len(predictions) * batch_size
        raise DataError(f"A picture in rows {done} to {done + batch_size - 1} cannot be read: {error}") from error
    return np.concatenate(predictions)


def evaluate_checkpoint(
    model: FabRecForLandmarkDetection,
    processor: FabRecImageProcessor,
    dataset: datasets.Dataset,
    batch_size: int = 32,
    protocol: str = "default",
    flip_average: bool | None = None,
    threshold: float = 10.0,
    progress: bool = False,
) -> dict[str, Any]:
    """Score a landmark model on annotated faces in their given boxes.

    The model itself is neither changed nor switched to another mode: a training loop may call this at any time.

    Args:
        model: The landmark model; its configuration carries the scheme that is scored by.
        processor: Its image processor.
        dataset: Rows with `image`, `landmarks` (L, 2) in pixels of the image, NaN where not annotated, and `box`.
        batch_size: Faces at a time; changes the speed only.
        protocol: `"default"` decodes as the checkpoint is configured; `"paper"` takes the authors' argmax of the
            plain, unmirrored heatmaps (paper section 4.2.2).
        flip_average: Average heatmaps with those of the mirrored crop; None leaves it to the protocol.
        threshold: The error above which a face is a failure, in percent.
        progress: Show a progress bar.

    Returns:
        What `summarize_errors` returns (`nme` and `failure_rate` in percent, `auc` in [0, 1], `count`, ...), `parts`
        (the NME of each part of the face), and how all of it was measured: `scheme`, `normalizer`, `threshold`,
        `protocol`, `decoding`, `flip_average`.

    Raises:
        SchemeError: If the data's points are not those of the model, or the model carries no scheme.
        DataError: If a column is missing, or a row has no usable box or landmarks.
        ValueError: If the protocol is unknown.
    """
    targets, boxes = annotations(dataset)
    scheme = _scheme_for(model.config, targets.shape[1])
    predictor = _apply_protocol(model, scheme, protocol, flip_average)
    predictions = predict_landmarks(predictor, processor, dataset, batch_size, progress)
    try:
        errors = normalized_mean_error(predictions, targets, scheme.normalizer, boxes)
        parts = part_errors(point_errors(predictions, targets, scheme.normalizer, boxes), scheme.parts)
        summary = summarize_errors(errors, threshold)
    except ValueError as error:
        raise DataError(f"The data cannot be scored by the scheme {scheme.name}: {error}") from error
    return {
        **summary,
        "parts": parts,
        "scheme": scheme.name,
        "normalizer": scheme.normalizer.to_dict(),
        "threshold": threshold,
        "protocol": protocol,
        "decoding": predictor.config.decoding,
        "flip_average": predictor.config.flip_average,
    }


def annotations(dataset: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the landmarks (N, L, 2) and boxes (N, 4) of a data set.

    Raises:
        DataError: If a column is missing, there is no face, or a row has no usable box or landmarks.
    """
    missing = [name for name in COLUMNS if name not in dataset.column_names]
    if missing:
        raise DataError(f"The data has no column {', '.join(missing)}; it takes {', '.join(COLUMNS)} to evaluate.")
    if not len(dataset):
        raise DataError("The data holds no face.")
    columns = dataset.select_columns(["landmarks", "box"])[:]
    try:
        targets = np.array(columns["landmarks"], dtype=np.float64)
        boxes = np.array(columns["box"], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            "Every row must have the same number of landmarks, and a box (x, y, width, height)."
        ) from error
    if targets.ndim != 3 or targets.shape[-1] != 2 or boxes.ndim != 2 or boxes.shape[-1] != 4:
        raise DataError(f"Landmarks must be (L, 2) and boxes (4,), not {targets.shape[1:]} and {boxes.shape[1:]}.")
    bad = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= 0).any(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise DataError(f"Row {row} has a box without area: {boxes[row].tolist()} as (x, y, width, height).")
    return targets, boxes


def _scheme_for(config: FabRecConfig, num_points: int) -> LandmarkScheme:
    """Return the scheme that a checkpoint carries, if the data has its points."""
    if config.landmark_scheme is None:
        raise SchemeError("The checkpoint carries no landmark scheme; save it with landmark_scheme in its config.")
    scheme = LandmarkScheme.from_dict(config.landmark_scheme)
    if scheme.num_landmarks != num_points:
        raise SchemeError(
            f"The checkpoint finds the {scheme.num_landmarks} points of {scheme.name}, but the data has {num_points}; "
            "evaluate it on data of its own scheme."
        )
    return scheme


def _apply_protocol(
    model: FabRecForLandmarkDetection, scheme: LandmarkScheme, protocol: str, flip_average: bool | None
) -> FabRecForLandmarkDetection:
    """Return a twin of the model in eval mode that shares its weights and decodes as the protocol says."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"The protocol is one of {', '.join(PROTOCOLS)}, not {protocol!r}.")
    config = copy.deepcopy(model.config)
    if protocol == "paper":
        config.decoding, config.flip_average = "argmax", False
    if flip_average is not None:
        config.flip_average = flip_average
    if config.flip_average and not scheme.flip_pairs:
        raise SchemeError(f"The scheme {scheme.name} has no flip pairs, so mirrored heatmaps cannot be averaged.")
    # Built without memory and without drawing random numbers, which a resumable training must not notice.
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        twin = type(model)(config)
    twin.load_state_dict(model.state_dict(), assign=True)
    return twin.eval()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an evaluation to a parser."""
    parser.add_argument("--model", default="3fabrec-300w", help="folder, embedded name or Hub name (%(default)s)")
    parser.add_argument(
        "--data", required=True, nargs="+", help="Parquet file, folder or glob with the columns image, landmarks, box"
    )
    parser.add_argument("--split", help="train, validation or test, where the data has several (test)")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="default",
        help="how heatmaps are decoded; paper: argmax (%(default)s)",
    )
    parser.add_argument(
        "--flip-average",
        action="store_true",
        default=None,
        help="average the heatmaps with those of the mirrored face",
    )
    parser.add_argument("--no-flip-average", dest="flip_average", action="store_false", help="do not average them")
    parser.add_argument("--threshold", type=float, default=10.0, help="error of a failure in percent (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="faces at a time; changes the speed only")
    parser.add_argument("--device", help="cpu, cuda, ... (cuda where there is one)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Evaluate as the arguments say and print the result.

    Args:
        args: Parsed arguments of `add_arguments`.

    Returns:
        The exit code, 0.

    Raises:
        FabRecError: For whatever the user can put right; one line.
    """
    if args.batch_size < 1 or not args.threshold > 0:
        raise FabRecError("--batch-size and --threshold must be positive.")
    dataset = load_faces(args.data, args.split, COLUMNS, default_split="test")
    model, processor = load_landmark_model(args.model)
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise FabRecError(f"--device {device}: {str(error).splitlines()[0]}") from error
    result = evaluate_checkpoint(
        model,
        processor,
        dataset,
        batch_size=args.batch_size,
        protocol=args.protocol,
        flip_average=args.flip_average,
        threshold=args.threshold,
        progress=sys.stderr.isatty(),
    )
    result = {"model": args.model, "data": args.data, "split": args.split, **result}
    print(json.dumps(result, indent=2) if args.json else _markdown(result))
    return 0


def _markdown(result: dict[str, Any]) -> str:
    """Write a result as a table, with a line below it that says how it was measured."""
    limit = f"{result['threshold']:g} %"
    cells = {
        "faces": str(result["count"]),
        "NME %": f"{result['nme']:.3f}",
        f"failures over {limit}": f"{result['failure_rate']:.2f} %",
        f"AUC to {limit}": f"{result['auc']:.4f}",
        **{f"{part} NME %": f"{error:.3f}" for part, error in result["parts"].items()},
    }
    length = result["normalizer"]
    over = f"the distance of points {length['points']}" if length["kind"] == "points" else f"the {length['kind']}"
    notes = [
        f"{result['model']}, scheme {result['scheme']}, errors over {over.replace('_', ' ')}",
        f"{result['protocol']} protocol ({result['decoding']}{', flip average' if result['flip_average'] else ''})",
    ]
    if result["without_prediction"] or result["not_scored"]:
        notes.append(f"{result['without_prediction']} faces without prediction, {result['not_scored']} not scored")
    rows = [list(cells), ["---:"] * len(cells), list(cells.values())]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n\n" + "; ".join(notes) + "."
