"""`fabrec evaluate`: score a landmark checkpoint on annotated faces, and set the result beside published ones."""

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.choices import PROTOCOLS
from ..common.console import say
from ..common.output_folder import check_output_folder, write_files
from ..errors import FabRecError, SchemeError
from .columns import add_columns_option, column_names
from .device_option import add_device_option


if TYPE_CHECKING:
    import datasets
    import numpy as np

    from ..evaluation.scoring import FaceScores
    from ..model.known_schemes import LandmarkScheme, Normalizer


__all__ = ["add_arguments", "run"]

FORMATS = ("markdown", "latex", "json")

NOTES = """The faces are scored in the boxes given with them, over all the data and over every published test set in
it: the columns subset (300-W), pose, expression, ... (WFLW) and visibility (AFLW) tell. Our row is set beside the
published ones of these test sets. A detector of the 98 points of WFLW is also scored on data with the 68 of 300-W, and
either on data with five points (eyes, nose, mouth corners): its landmarks are then converted, which is said. The line
"Confidence" says whether the scores of points can be trusted: their rank correlation with the errors (1: whatever
scores higher is nearer to the truth), the area under the risk-coverage curve (the mean error of the surest points,
over all shares of them; between that of a perfect order and that of none), the error that is left when the surest 80 %
are kept, and the --min-score of `fabrec detect` that keeps them; of calibrated scores also how far they are from the
share of points found. With --output, results.json, per_image.csv, table.md, table.tex, ced.png (cumulative errors),
confidence.png (risk against coverage, reliability of calibrated scores) and failures.png are written when all of it is
done, and nothing before. The worst faces are those of the data: mind its terms. Without matplotlib the two curves are
left out. Several processes, started by torchrun or accelerate launch, share the work of
training/evaluate_landmarks.py."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of an evaluation to a parser."""
    parser.description = f"{parser.description or ''} {NOTES}".strip()
    parser.add_argument("--model", default="3fabrec-300w", help="folder, embedded name or Hub name (%(default)s)")
    parser.add_argument(
        "--data",
        required=True,
        nargs="+",
        help="Parquet file, folder, glob or Hub data set with image, landmarks, box",
    )
    parser.add_argument("--split", help="train, validation or test, where the data has several (test)")
    add_columns_option(parser)
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="default",
        help="how heatmaps are decoded; paper: argmax, without shape prior (%(default)s)",
    )
    parser.add_argument(
        "--flip-average",
        action="store_true",
        default=None,
        help="average the heatmaps with those of the mirrored face",
    )
    parser.add_argument("--no-flip-average", dest="flip_average", action="store_false", help="do not average them")
    parser.add_argument(
        "--normalizer",
        metavar="LENGTH",
        help="what errors are divided by: inter_ocular, inter_pupil, box, box_diagonal, or two points by index or "
        "name, as 36,45 (the scheme's own)",
    )
    parser.add_argument("--threshold", type=float, default=10.0, help="error of a failure in percent (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=32, help="faces at a time; changes speed and memory only")
    add_device_option(parser)
    parser.add_argument("--name", help="what our row is called (the model's name)")
    parser.add_argument(
        "--shots",
        type=int,
        metavar="N",
        help="the model was trained on N annotated faces: put it into the tables of limited training data",
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder to write the results to")
    parser.add_argument("--worst", type=int, default=16, metavar="N", help="faces in failures.png (%(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="markdown", help="what is printed (%(default)s)")
    parser.add_argument("--json", action="store_const", const="json", dest="format", help="the same as --format json")


def run(args: argparse.Namespace) -> int:
    """Evaluate as the arguments say, write the result if asked to, and print it.

    Where PyTorch's default process group is set up, its processes share the work, and the first one reports.

    Args:
        args: Parsed arguments of `add_arguments`.

    Returns:
        The exit code, 0.

    Raises:
        FabRecError: For whatever the user can put right; one line. Nothing is written then.
    """
    _check(args)
    import torch

    from ..checkpoints.loading import load_landmark_model, move_to_device
    from ..data import load_faces
    from ..data.annotations import COLUMNS, count_points
    from ..evaluation.reports import make_tables, to_latex, to_markdown
    from ..evaluation.scored_points import scored_scheme
    from ..evaluation.scoring import ScoringSettings, find_subsets, score_faces, summarize_scores

    dataset = load_faces(args.data, args.split, COLUMNS, default_split="test", names=column_names(args.columns))
    model, processor = load_landmark_model(args.model)
    scheme = scored_scheme(model.config, count_points(dataset))
    _check_scheme(args.data, scheme)
    normalizer = _find_normalizer(args.normalizer, scheme)
    move_to_device(model, args.device)
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    first = not distributed or torch.distributed.get_rank() == 0
    settings = ScoringSettings(
        batch_size=args.batch_size,
        protocol=args.protocol,
        flip_average=args.flip_average,
        normalizer=normalizer,
        keep_worst=args.worst if args.output else 0,
        distributed=distributed,
        progress=first and sys.stderr.isatty(),
    )
    scores = score_faces(model, processor, dataset, settings)
    if not first:
        return 0
    _remark(args.model, dataset, scores)
    name = args.name or _name_of(args.model)
    masks = find_subsets(dataset, scores.scheme)
    result = summarize_scores(scores, masks, args.threshold)
    result = {"name": name, "model": args.model, "data": args.data, "split": args.split, "boxes": "given", **result}
    result |= {"shots": args.shots}
    tables = make_tables(result, name, scores.scheme, args.shots)
    texts = {"markdown": to_markdown(tables), "latex": to_latex(tables), "json": _to_json(result)}
    if args.output:
        write_files(args.output, _files(texts, dataset, scores, masks, args.threshold, name))
    sys.stdout.write(texts[args.format])
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse what would fail later, before anything is read."""
    if args.batch_size < 1 or not 0 < args.threshold < math.inf:
        raise FabRecError("--batch-size and --threshold must be positive.")
    if args.shots is not None and args.shots < 1:
        raise FabRecError(f"--shots is a number of annotated faces, at least 1, not {args.shots}.")
    if args.worst < 1:
        raise FabRecError(f"--worst is a number of faces, at least 1, not {args.worst}.")
    if args.output:
        check_output_folder(args.output)


def _remark(model: str, dataset: "datasets.Dataset", scores: "FaceScores") -> None:
    """Say what a reader of the figures has to know."""
    from ..data.picture_digests import count_learned

    if scores.converted_from:
        count = scores.scheme.num_landmarks
        say(
            f"fabrec evaluate: the landmarks of {model}, of the scheme {scores.converted_from}, are converted to the "
            f"{count} points of {scores.scheme.name} that the data has, and scored by that scheme.",
            sys.stderr,
        )
    learned = count_learned(model, dataset)
    if learned:
        say(
            f"fabrec evaluate: {model} has learned from the pictures of {learned:,} of these {len(dataset):,} "
            "faces: its error on new ones is larger.",
            sys.stderr,
        )


def _check_scheme(data: Sequence[str], ours: "LandmarkScheme") -> None:
    """Refuse data that says of itself that its points are others than those that are scored, though as many."""
    from ..data.face_set import shared_face_set

    face_set = shared_face_set(data)
    if face_set is None or face_set.scheme is None:
        return
    theirs = face_set.scheme
    if theirs.point_names and ours.point_names and theirs.point_names != ours.point_names:
        raise SchemeError(
            f"The data has the points of the scheme {theirs.name}, the model finds those of {ours.name}: they differ "
            "in the names of their points."
        )


def _find_normalizer(spec: str | None, scheme: "LandmarkScheme") -> "Normalizer | None":
    """Return the length that is asked for; None leaves it to the scheme."""
    if spec is None:
        return None
    from ..metrics import named_normalizer

    words = [word.strip() for word in spec.split(",")]
    ends = [int(word) if word.isdecimal() else word for word in words]
    try:
        return named_normalizer(spec if len(words) == 1 else ends, scheme)
    except ValueError as error:
        raise FabRecError(f"--normalizer {spec}: {error}") from error


def _name_of(model: str) -> str:
    """Return a folder's name; other names are names already."""
    return Path(model).resolve().name if Path(model).is_dir() else model


def _to_json(result: Mapping[str, Any]) -> str:
    """Write standard JSON, which has no NaN and no infinity: they become null."""
    return json.dumps(_without_nan(result), indent=2, ensure_ascii=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(entry) for key, entry in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _files(
    texts: Mapping[str, str],
    dataset: "datasets.Dataset",
    scores: "FaceScores",
    masks: "Mapping[str, np.ndarray]",
    threshold: float,
    name: str,
) -> dict[str, bytes]:
    """Return the files of the output folder."""
    from ..common.figures import has_matplotlib
    from ..evaluation.confidence_plot import draw_confidence
    from ..evaluation.plots import draw_error_distribution, draw_worst_faces
    from ..evaluation.reports import describe_length

    length = describe_length(scores.normalizer.to_dict(), scores.scheme)
    title = f"{name}: the {len(scores.worst)} worst of {len(dataset)} faces, NME in % of {length}"
    worst = io.BytesIO()
    draw_worst_faces(dataset, scores.worst, title).save(worst, "PNG")
    files = {
        "results.json": texts["json"].encode(),
        "per_image.csv": _error_lines(dataset, scores).encode(),
        "table.md": texts["markdown"].encode(),
        "table.tex": texts["latex"].encode(),
        "failures.png": worst.getvalue(),
    }
    if not has_matplotlib():
        say("fabrec evaluate: matplotlib is not installed, so ced.png and confidence.png are left out.", sys.stderr)
        return files
    curve = draw_error_distribution(scores, masks, threshold, f"{name}: cumulative error distribution", length)
    confidence = draw_confidence(scores, f"{name}: what the scores say of the errors", length)
    return files | {"ced.png": curve, "confidence.png": confidence}


def _error_lines(dataset: "datasets.Dataset", scores: "FaceScores") -> str:
    """Return a CSV line for every face: name (its row where it has none), NME and the NME of its parts in percent."""
    from ..data.annotations import ROWS

    columns = [scores.errors, *scores.part_errors.values()]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["name", "nme", *scores.part_errors])
    for start in range(0, len(dataset), ROWS):
        rows = range(start, min(start + ROWS, len(dataset)))
        names = dataset.select_columns(["name"])[start : rows.stop]["name"] if _has_names(dataset) else rows
        for row, name in zip(rows, names, strict=True):
            errors = (float(column[row]) for column in columns)
            cells = ("" if math.isnan(error) else repr(error) for error in errors)
            writer.writerow([row if name is None else name, *cells])
    return file.getvalue()


def _has_names(dataset: "datasets.Dataset") -> bool:
    return "name" in dataset.column_names
