"""`fabrec export`: a landmark detector for other runtimes, in 32 or 8 bits, or as a small checkpoint."""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.choices import DEFAULT_RANK, FORMATS
from ..common.console import say
from ..common.output_folder import write_files
from ..errors import CheckpointError, FabRecError
from .columns import add_columns_option, column_names
from .device_option import add_device_option


if TYPE_CHECKING:
    import numpy as np

    from ..model.image_processing_fabrec import FabRecImageProcessor


__all__ = ["add_arguments", "run"]

CROPS_AT_A_TIME = 32
DELTA = "delta"
CHECKPOINT = "checkpoint"
SHARD_SIZE = "14MB"

# What was measured of an export, by its names in the report, and its files.
_Written = tuple[dict[str, float], list[Path]]

NOTES = """The graph takes crops from the image processor, any number at a time, and returns landmarks as fractions of
the crop and scores; config.json and preprocessor_config.json are written beside it. With --int8 the network computes
in 8 bits: faces of the training split of --data tell their ranges, and those of the test split what is lost. --format
delta is no graph: it is a checkpoint like any other, kept as its difference from the autoencoder that it was taught
on, in about 2 MB for a small model; it is scored if there is --data. --format checkpoint is the whole checkpoint in 16
bits, in files of at most --shard-size with an index, which every command and from_pretrained read. If the error has
grown by --max-growth percent of itself or more, nothing is written."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an export to a parser."""
    parser.description = f"{parser.description or ''} {NOTES}".strip()
    parser.add_argument("--model", default="3fabrec-300w", help="folder, embedded name or hub name (%(default)s)")
    parser.add_argument("--format", choices=(*FORMATS, DELTA, CHECKPOINT), default="onnx", help="(%(default)s)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write to")
    parser.add_argument("--int8", action="store_true", help="quantize to 8 bits; needs --data")
    parser.add_argument(
        "--data",
        nargs="+",
        help="annotated faces: Parquet, folder or glob, with a test split and, for --int8, a train split",
    )
    add_columns_option(parser)
    parser.add_argument(
        "--int8-faces", type=int, default=300, metavar="N", help="faces that tell the ranges of 8 bits (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draw of these faces (%(default)s)")
    parser.add_argument(
        "--max-growth", type=float, default=1.0, metavar="PERCENT", help="of the error on --data (%(default)s)"
    )
    parser.add_argument(
        "--rank",
        type=int,
        default=DEFAULT_RANK,
        help="of a delta: directions kept of each convolution; after more than a hundred faces more are needed: 48 "
        "for hundreds, 128 for thousands (%(default)s)",
    )
    parser.add_argument(
        "--autoencoder", default="3fabrec-mesh", help="of a delta: what it was taught on (%(default)s)"
    )
    parser.add_argument(
        "--shard-size", metavar="SIZE", help=f"of a checkpoint: the most that a file takes ({SHARD_SIZE})"
    )
    add_device_option(parser, "where --data is scored by PyTorch")
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
    _check_arguments(arguments)
    from ..checkpoints.loading import load_landmark_model
    from ..export.delta import check_delta_folder
    from ..export.runtime_files import check_export_folder

    ways: dict[str, tuple[Callable[[Path], None], Callable[..., _Written]]] = {
        DELTA: (check_delta_folder, _export_delta),
        CHECKPOINT: (check_delta_folder, _export_checkpoint),
    }
    check, export = ways.get(arguments.format, (partial(check_export_folder, format=arguments.format), _export_graph))
    check(arguments.output)
    model, processor = load_landmark_model(arguments.model)
    scores, files = export(model, processor, arguments)
    report = {"model": arguments.model, "format": arguments.format, "int8": arguments.int8} | scores
    report |= {"files": [str(file) for file in files], "bytes": sum(file.stat().st_size for file in files)}
    say(json.dumps(report, indent=2) if arguments.json else _describe(report))
    return 0


def _check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.format not in FORMATS and arguments.int8:
        raise FabRecError(f"--int8 is for graphs: export a {arguments.format} without it.")
    if arguments.shard_size is not None and arguments.format != CHECKPOINT:
        raise FabRecError(f"--shard-size is for --format {CHECKPOINT}: leave it out.")
    if arguments.format != DELTA and arguments.int8 != bool(arguments.data):
        raise FabRecError("--int8 and --data go together: 8 bits are fitted to and checked on annotated faces.")
    if arguments.int8_faces < 1:
        raise FabRecError(f"--int8-faces must be at least 1, not {arguments.int8_faces}.")
    if arguments.rank < 1:
        raise FabRecError(f"--rank must be at least 1, not {arguments.rank}.")


def crops_to_quantize_by(
    processor: "FabRecImageProcessor", faces: Any, count: int, seed: int = 0, batch_size: int = CROPS_AT_A_TIME
) -> "Iterator[np.ndarray]":
    """Cut a seeded draw of `count` faces out of rows with `image` and `box`; yields (n, 3, S, S) batches."""
    import numpy as np
    from tqdm import tqdm

    rows = np.sort(np.random.default_rng(seed).permutation(len(faces))[:count])
    for start in tqdm(range(0, len(rows), batch_size), desc="Faces for 8 bits", unit="batch", disable=None):
        batch = faces[rows[start : start + batch_size]]
        inputs = processor(batch["image"], boxes=[[box] for box in batch["box"]])
        yield inputs["pixel_values"].numpy()


def _export_graph(model: Any, processor: "FabRecImageProcessor", arguments: argparse.Namespace) -> _Written:
    """Write what another runtime runs, in 32 or 8 bits."""
    from ..export.runtime_files import export_model

    scores: dict[str, float] = {}
    if arguments.int8:
        scores = _export_int8(model, processor, arguments)
    else:
        export_model(model, processor, arguments.output, arguments.format)
    return scores, [arguments.output / name for name in FORMATS[arguments.format]]


def _export_int8(model: Any, processor: "FabRecImageProcessor", arguments: argparse.Namespace) -> dict[str, float]:
    """Quantize into a folder of its own, score it there, and move it to its place if it is good enough."""
    from ..data import load_faces
    from ..export.runtime_files import export_model
    from ..export.runtimes import load_exported

    names = column_names(arguments.columns)
    train = load_faces(arguments.data, "train", ("image", "box"), names=names)
    crops = crops_to_quantize_by(processor, train, arguments.int8_faces, arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        export_model(model, processor, folder, arguments.format, quantize_by=crops)
        quantized, _ = load_exported(folder)
        advice = "give more --int8-faces, or export without --int8"
        scored = _check_growth((model.fuse(), quantized), ("nme_int8", "INT8", advice), processor, arguments)
        _move_files(folder, arguments.output)
    return scored


def _export_delta(model: Any, processor: "FabRecImageProcessor", arguments: argparse.Namespace) -> _Written:
    """Write a delta; with data, into a folder of its own first, to score what is loaded from there."""
    from ..checkpoints.loading import load_landmark_model
    from ..export.delta import save_delta
    from ..model.delta_fabrec import DELTA_NAME

    files = [arguments.output / DELTA_NAME]
    if not arguments.data:
        save_delta(model, processor, arguments.output, arguments.autoencoder, arguments.rank)
        return {}, files
    with tempfile.TemporaryDirectory() as folder:
        save_delta(model, processor, folder, arguments.autoencoder, arguments.rank)
        small, _ = load_landmark_model(folder)
        words = "nme_delta", f"rank {arguments.rank}", "give a larger --rank"
        scores = _check_growth((model.fuse(), small.fuse()), words, processor, arguments)
        _move_files(folder, arguments.output)
    return scores, files


def _export_checkpoint(model: Any, processor: "FabRecImageProcessor", arguments: argparse.Namespace) -> _Written:
    """Write shards into a folder of their own and move them to their place when all are there."""
    from ..checkpoints.weight_files import save_shards, weight_files

    with tempfile.TemporaryDirectory() as folder:
        try:
            save_shards(model, folder, arguments.shard_size or SHARD_SIZE)
        except ValueError as error:
            raise FabRecError(f"--shard-size: {error}") from error
        processor.save_pretrained(folder)
        _move_files(folder, arguments.output)
    return {}, weight_files(arguments.output)


def _check_growth(
    detectors: tuple[Any, Any], words: tuple[str, str, str], processor: "FabRecImageProcessor", arguments: Any
) -> dict[str, float]:
    """Score a detector and its smaller form on the test split.

    Args:
        detectors: Both.
        words: What the error of the second is called in the report, what the second is called, and what helps it.
        processor: The image processor of both.
        arguments: Of the command.

    Raises:
        CheckpointError: The error grows by more than is allowed.
    """
    import numpy as np
    import torch

    from ..checkpoints.loading import move_to_device
    from ..data import load_faces
    from ..data.annotations import COLUMNS, annotations
    from ..inference.dataset_prediction import checkpoint_scheme, predict_dataset
    from ..metrics import normalized_mean_error

    key, name, advice = words
    test = load_faces(arguments.data, "test", COLUMNS, names=column_names(arguments.columns))
    targets, boxes = annotations(test)
    scheme = checkpoint_scheme(detectors[0].config, targets.shape[1])
    errors = []
    for detector in detectors:
        if isinstance(detector, torch.nn.Module):  # and no session of another runtime
            detector = move_to_device(detector, arguments.device)
        points = predict_dataset(detector, processor, test, progress=True)
        errors.append(float(np.mean(normalized_mean_error(points, targets, scheme.normalizer, boxes))))
    growth = 100 * (errors[1] / errors[0] - 1)
    if not growth < arguments.max_growth:
        raise CheckpointError(
            f"{name} raises the error from {errors[0]:.3f} to {errors[1]:.3f} % ({growth:+.2f} % of itself), and "
            f"{arguments.max_growth:g} % are allowed: {advice}."
        )
    return {"nme": errors[0], key: errors[1], "growth_percent": growth, "faces": len(test)}


def _move_files(source: str, target: Path) -> None:
    write_files(target, {path.name: path.read_bytes() for path in sorted(Path(source).iterdir())})


def _describe(report: dict[str, Any]) -> str:
    line = f"{report['model']} -> {', '.join(report['files'])} ({report['bytes'] / 1e6:.1f} MB"
    for key, name in (("nme_int8", "in 8 bits"), ("nme_delta", "as a delta")):
        if key in report:
            line += f"; NME {report['nme']:.3f} %, {report[key]:.3f} % {name}, {report['faces']} faces"
    return line + ")"
