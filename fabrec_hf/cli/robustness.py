"""`fabrec robustness`: landmark errors under perturbations, and reconstruction errors by group of people."""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.choices import COLUMNS
from ..common.console import say
from ..common.figures import require_matplotlib
from ..common.output_folder import check_output_folder, write_files
from ..errors import DataError, FabRecError
from .columns import add_columns_option, column_names
from .device_option import add_device_option


if TYPE_CHECKING:
    import numpy as np


__all__ = ["add_arguments", "run", "write_report"]

NOTES = """With --data, annotated faces are scored while their boxes are jittered and their pictures blurred,
compressed, darkened, covered and turned, each at five strengths. With --faces, an autoencoder reconstructs faces that
no pre-training saw, and its errors are told apart by source and by the age, gender and race that a source labels.
results.json, report.md and robustness.png are written when all of it is done."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a read-out to a parser."""
    parser.description = f"{parser.description or ''} {NOTES}".strip()
    parser.add_argument("--model", default="3fabrec-300w", help="folder, embedded name or Hub name (%(default)s)")
    parser.add_argument(
        "--data", nargs="+", help="annotated faces: Parquet file, folder or glob with columns image, landmarks, box"
    )
    parser.add_argument("--split", help="train, validation or test, where --data has several (test)")
    add_columns_option(parser)
    parser.add_argument(
        "--faces",
        nargs="+",
        help="face crops: Parquet file, folder or glob with the column image, and source, age, gender, race if known",
    )
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder to write the results to")
    parser.add_argument(
        "--autoencoder",
        default="3fabrec-autoencoder",
        help="what reconstructs --faces; a landmark model's own, if it is one (%(default)s)",
    )
    parser.add_argument(
        "--all-faces", action="store_true", help="reconstruct also those that pre-training may have seen"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the perturbations and the intervals (%(default)s)")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="measure N faces only of each kind, spread evenly over the data"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="faces at a time; changes the speed only")
    add_device_option(parser)
    parser.add_argument("--json", action="store_true", help="print the content of results.json instead of the report")


def run(args: argparse.Namespace) -> int:
    """Measure as the arguments say, write the results and print them.

    Args:
        args: Parsed arguments of `add_arguments`.

    Returns:
        The exit code, 0.

    Raises:
        FabRecError: For whatever the user can put right; one line. Nothing is written then.
    """
    _check(args)
    from ..evaluation.reconstruction_errors import measure_reconstruction
    from ..evaluation.reports import describe_length
    from ..evaluation.robustness import RobustnessSettings, measure_robustness
    from ..evaluation.robustness_plot import draw_robustness
    from ..model.known_schemes import LandmarkScheme

    results: dict[str, Any] = {"seed": args.seed}
    # Everything is loaded before anything is measured, so that mistakes show at once.
    landmark_task = _load_landmark_task(args) if args.data else None
    face_task = _load_face_task(args) if args.faces else None
    progress = sys.stderr.isatty()
    if landmark_task:
        model, processor, dataset = landmark_task
        rows = _spread(len(dataset), args.limit)
        settings = RobustnessSettings(rows=rows, seed=args.seed, batch_size=args.batch_size, progress=progress)
        measured = measure_robustness(model, processor, dataset, settings)
        length = describe_length(measured["normalizer"], LandmarkScheme.from_dict(model.config.landmark_scheme))
        header = {"model": args.model, "data": args.data, "split": args.split, "length": length}
        results["robustness"] = header | measured
    if face_task:
        autoencoder, faces = face_task
        header = {"autoencoder": args.autoencoder, "faces": args.faces, "held_out_only": not args.all_faces}
        results["reconstruction"] = header | measure_reconstruction(
            autoencoder, faces, seed=args.seed, batch_size=args.batch_size, progress=progress
        )
    # JSON has no NaN, which the mean of faces that all lack a prediction is.
    results = json.loads(json.dumps(results), parse_constant=lambda name: None)
    report, content = write_report(results), json.dumps(results, indent=2)
    files = {
        "results.json": f"{content}\n".encode(),
        "report.md": report.encode(),
        "robustness.png": draw_robustness(results),
    }
    write_files(args.output, files)
    say(content if args.json else f"{report}\n{', '.join(str(args.output / name) for name in files)}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if not args.data and not args.faces:
        raise FabRecError("there is nothing to measure: give annotated faces (--data), face crops (--faces), or both.")
    if args.batch_size < 1 or (args.limit is not None and args.limit < 1):
        raise FabRecError("--batch-size and --limit must be positive.")
    if args.seed < 0:
        raise FabRecError("--seed must not be negative.")
    require_matplotlib()
    check_output_folder(args.output)


def _load_landmark_task(args: argparse.Namespace) -> tuple:
    from ..checkpoints.loading import load_landmark_model, move_to_device
    from ..data import load_faces

    names = column_names(args.columns)
    dataset = load_faces(args.data, args.split, COLUMNS, default_split="test", names=names)
    model, processor = load_landmark_model(args.model)
    return move_to_device(model, args.device), processor, dataset


def _load_face_task(args: argparse.Namespace) -> tuple:
    from ..checkpoints.loading import load_autoencoder, move_to_device
    from ..data import held_out_faces, load_faces

    faces = load_faces(args.faces)
    model = move_to_device(load_autoencoder(args.autoencoder), args.device)
    if not args.all_faces:
        count = len(faces)
        _, faces = held_out_faces(faces)
        if not len(faces):
            raise DataError(f"None of the {count} faces is held out of pre-training; --all-faces measures them all.")
    rows = _spread(len(faces), args.limit)
    return model, faces if rows is None else faces.select(rows)


def _spread(count: int, limit: int | None) -> "np.ndarray | None":
    """Return `limit` rows at even distances, or None for all."""
    import numpy as np

    return None if limit is None or limit >= count else np.arange(limit) * count // limit


def write_report(results: Mapping[str, Any]) -> str:
    """Write results as Markdown: a table of what was perturbed, a table of groups, and how both were measured."""
    from ..evaluation.reconstruction_report import reconstruction_section

    parts = ["# Robustness and reconstruction", ""]
    if "robustness" in results:
        parts += _robustness_section(results["robustness"])
    if "reconstruction" in results:
        parts += reconstruction_section(results["reconstruction"])
    return "\n".join([*parts, f"Random draws: seed {results['seed']}."]) + "\n"


def _robustness_section(measured: Mapping[str, Any]) -> list[str]:
    from ..evaluation.perturbations import PERTURBATIONS

    flip = ", flip average" if measured["flip_average"] else ""
    limit = f"{measured['threshold']:g} %"
    lines = [
        "## Landmarks under perturbations",
        "",
        f"{measured['model']} on {measured['count']} faces of {' '.join(measured['data'])}"
        f"{' (' + measured['split'] + ')' if measured['split'] else ''}, scheme {measured['scheme']}, "
        f"{measured['decoding']} decoding{flip}. Errors in percent of {measured['length']}, in the "
        f"undisturbed face. The longer side of the boxes is {measured['median_box_side']:.0f} px in the median.",
        "",
        f"| perturbation | strength | NME % | change | failures over {limit} |",
        "|---|---:|---:|---:|---:|",
    ]
    notes = []
    for name, entry in measured["perturbations"].items():
        plain = entry["curve"][0]["nme"]
        for point in entry["curve"]:
            first = point is entry["curve"][0]
            change = None if first or plain is None or point["nme"] is None else point["nme"] - plain
            lines.append(
                f"| {entry['title'] + ': ' + entry['unit'] if first else ''} "
                f"| {PERTURBATIONS[name].tick(point['strength'])} | {_number(point['nme'], '.2f')} "
                f"| {_number(change, '+.2f')} | {point['failure_rate']:.1f} % |"
            )
        notes.append(f"- {entry['title']}: {entry['description']}")
        if "roc_auc" in entry:
            each = ", ".join(
                f"{point['roc_auc']:.2f} at {PERTURBATIONS[name].tick(point['strength'])}"
                for point in entry["curve"]
                if "roc_auc" in point
            )
            notes.append(
                f"- Scores tell covered points from the same points without a cover with an area under the ROC curve "
                f"of {entry['roc_auc']:.2f} over {entry['covered_points']:,} points ({each})."
            )
    return [*lines, "", *notes, ""]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
