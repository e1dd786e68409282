"""`fabrec export`: a landmark detector for ONNX Runtime, OpenVINO or `torch.export`, in 32 or 8 bits."""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .data import load_faces
from .errors import CheckpointError, FabRecError
from .evaluation import COLUMNS, annotations
from .export import FORMATS, export_model
from .image_processing_fabrec import FabRecImageProcessor
from .loading import load_landmark_model
from .metrics import normalized_mean_error
from .output_folder import check_output_folder, write_files
from .prediction import checkpoint_scheme, predict_landmarks


__all__ = ["add_arguments", "run"]

CALIBRATION_BATCH = 32

NOTES = """The graph takes crops from the image processor, any number at a time, and returns landmarks as fractions of
the crop and scores; config.json and preprocessor_config.json are written beside it. With --int8 the network computes
in 8 bits: it is calibrated on faces of the training split of --data and then scored, in its own runtime, on the test
split; if the error has grown by --max-growth percent of itself or more, nothing is written."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an export to a parser."""
    parser.description = f"{parser.description or ''} {NOTES}".strip()
    parser.add_argument("--model", default="3fabrec-300w", help="folder, embedded name or hub name (%(default)s)")
    parser.add_argument("--format", choices=tuple(FORMATS), default="onnx", help="(%(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--int8", action="store_true", help="quantise to 8 bits; needs --data")
    parser.add_argument(
        "--data", nargs="+", help="annotated faces for --int8: Parquet, folder or glob, with train and test splits"
    )
    parser.add_argument("--calibration-faces", type=int, default=300, metavar="N", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of calibration faces (%(default)s)")
    parser.add_argument(
        "--max-growth", type=float, default=1.0, metavar="PERCENT", help="of the error by --int8 (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of one line")


def run(arguments: argparse.Namespace) -> int:
    """Export as the arguments say and print what was written.

    Args:
        arguments: Parsed arguments of `add_arguments`.

    Returns:
        The exit code, 0.

    Raises:
        FabRecError: For whatever the user can put right; one line. Nothing is written then.
    """
    if arguments.int8 != bool(arguments.data):
        raise FabRecError("--int8 and --data go together: 8 bits are calibrated and checked on annotated faces.")
    if arguments.calibration_faces < 1:
        raise FabRecError(f"--calibration-faces must be at least 1, not {arguments.calibration_faces}.")
    check_output_folder(arguments.output)
    model, processor = load_landmark_model(arguments.model)
    report: dict[str, Any] = {"model": arguments.model, "format": arguments.format, "int8": arguments.int8}
    if arguments.int8:
        report |= _export_int8(model, processor, arguments)
    else:
        export_model(model, processor, arguments.output, arguments.format)
    report["files"] = [str(arguments.output / name) for name in FORMATS[arguments.format]]
    print(json.dumps(report, indent=2) if arguments.json else _describe(report))
    return 0


def calibration_crops(
    processor: FabRecImageProcessor, faces: Any, count: int, seed: int = 0, batch_size: int = CALIBRATION_BATCH
) -> Iterator[np.ndarray]:
    """Cut a seeded draw of `count` faces out of rows with `image` and `box`; yields (n, 3, S, S) batches."""
    from tqdm import tqdm

    rows = np.sort(np.random.default_rng(seed).permutation(len(faces))[:count])
    for start in tqdm(range(0, len(rows), batch_size), desc="Calibration faces", unit="batch", disable=None):
        batch = faces[rows[start : start + batch_size]]
        inputs = processor(batch["image"], boxes=[[box] for box in batch["box"]])
        yield inputs["pixel_values"].numpy()


def _export_int8(model: Any, processor: FabRecImageProcessor, arguments: argparse.Namespace) -> dict[str, float]:
    """Quantise into a folder of its own, score it there, and move it to its place if it is good enough."""
    from .runtimes import load_exported

    train = load_faces(arguments.data, "train", ("image", "box"))
    test = load_faces(arguments.data, "test", COLUMNS)
    targets, boxes = annotations(test)
    scheme = checkpoint_scheme(model.config, targets.shape[1])
    crops = calibration_crops(processor, train, arguments.calibration_faces, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        export_model(model, processor, folder, arguments.format, calibration=crops)
        quantized, _ = load_exported(folder)
        errors = []
        detectors: tuple[Any, ...] = (model.fuse(), quantized)
        for detector in detectors:
            points = predict_landmarks(detector, processor, test, progress=True)
            errors.append(float(np.mean(normalized_mean_error(points, targets, scheme.normalizer, boxes))))
        growth = 100 * (errors[1] / errors[0] - 1)
        if not growth < arguments.max_growth:
            raise CheckpointError(
                f"INT8 raises the error from {errors[0]:.3f} to {errors[1]:.3f} % ({growth:+.2f} % of itself), and "
                f"{arguments.max_growth:g} % are allowed: give more --calibration-faces, or export without --int8."
            )
        write_files(arguments.output, {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())})
    return {"nme": errors[0], "nme_int8": errors[1], "growth_percent": growth, "faces": len(test)}


def _describe(report: dict[str, Any]) -> str:
    line = f"{report['model']} -> {', '.join(report['files'])}"
    if report["int8"]:
        line += f" (NME {report['nme']:.3f} % in 32 bits, {report['nme_int8']:.3f} % in 8, {report['faces']} faces)"
    return line
