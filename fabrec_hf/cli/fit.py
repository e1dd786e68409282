"""`fabrec fit`: from a few annotated faces to a detector of their points, in minutes on a laptop."""

import argparse
import io
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from ..common.console import say
from ..common.drafts import unfinished_folder
from ..common.output_folder import check_new_folder, check_output_folder, make_readable, take_place
from ..data.box_rules import BOX_RULES
from ..data.readers import KINDS
from ..errors import DataError, FabRecError
from .columns import add_columns_option, column_names
from .device_option import add_device_option
from .reader_options import READER_OPTIONS, add_reader_options


if TYPE_CHECKING:
    import datasets

    from ..data.face_set import FaceSet
    from ..learning.fit_result import FitResult
    from ..model.known_schemes import LandmarkScheme

__all__ = ["add_arguments", "run"]

NOTES = """DATA is anything that `fabrec convert` reads: a folder of pictures with .pts files or with metadata, a COCO
keypoints JSON, files of CVAT, Label Studio, labelme, VIA or dlib's imglab, a CSV, or Parquet. All annotated faces of
it are learned from; a point may be missing in some of them. Afterward the error on new faces is estimated: a second
detector learns, for three quarters as long, from two thirds of the faces and predicts the others, in the boxes that
detection will find. With --folds 2 or more the faces are shared out among that many parts, and each is predicted by a
detector that learned from the other parts (cross-validation), one face at a time with as many folds as faces
(leave-one-out): a surer figure, in as many times the time. 0 skips the estimate.
The progress bar shows the error on the annotated faces, then that on the faces left out so far.
The detector is saved before the estimate starts, and the folder is a pipeline that needs neither a network nor this
package. The error comes with the two values between which it lies nine times of ten: three faces say little.
Ctrl-C saves the best that has been learned so far; during the estimate, the finished detector and the part of the
estimate that is there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a fit to a parser."""
    parser.description = f"{parser.description} {NOTES}"
    parser.add_argument("data", metavar="DATA", help="annotated faces: a folder or a file")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="new folder for the detector")
    parser.add_argument("--kind", choices=list(KINDS), help="what DATA is, where that cannot be told from its files")
    add_columns_option(parser)
    add_reader_options(parser)
    parser.add_argument(
        "--boxes",
        choices=BOX_RULES,
        help="where the faces' boxes come from, as in fabrec convert: auto looks whether the given ones mean the face",
    )
    parser.add_argument("--split", help="which split of DATA to learn from (train, where there are several)")
    parser.add_argument("--shots", type=int, metavar="N", help="learn from N faces, drawn at random; all by default")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the draw, the new layers and the training (%(default)s)"
    )
    parser.add_argument(
        "--model",
        default="3fabrec-mesh",
        help="what to start from, a detector or an autoencoder: folder, embedded or hub name (%(default)s)",
    )
    parser.add_argument(
        "--instant",
        action="store_true",
        help="no training: tell the points from those that the model knows, and look closer, in seconds",
    )
    parser.add_argument("--effort", type=float, default=1.0, metavar="X", help="X times the steps (%(default)s)")
    add_device_option(parser)
    parser.add_argument(
        "--folds",
        type=int,
        default=1,
        metavar="K",
        help="detectors more, to estimate the error on new faces. 1: a third of the faces is held out; 2 or more: "
        "cross-validation; the number of faces: leave-one-out; 0: no estimate (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Fit as the arguments say, save the detector and print the results.

    Args:
        arguments: Parsed arguments of `add_arguments`.

    Returns:
        The exit code: 0, also where Ctrl-C ended the training early.

    Raises:
        FabRecError: For whatever the user can put right; one line.
    """
    if not 0 < arguments.effort <= 1000:
        raise FabRecError(f"--effort must lie between 0 and 1000, not {arguments.effort}.")
    if arguments.folds < 0:
        raise FabRecError(f"--folds must not be negative, got {arguments.folds}.")
    output = Path(arguments.output)
    check_new_folder(output)
    check_output_folder(output)
    # What is not finished has a name of its own, so that a kill leaves no half of a detector.
    with unfinished_folder(output.absolute().parent) as workplace:
        results = _fit(arguments, workplace)
    say(json.dumps(results, indent=2) if arguments.json else _summary(results, output))
    return 0


def _fit(arguments: argparse.Namespace, workplace: Path) -> dict[str, Any]:
    """Fit, and save the detector when it has learned and again with its estimate; returns its results."""
    from ..checkpoints.loading import move_to_device
    from ..data.picture_digests import LEARNED_NAME, learned_pictures, picture_digests
    from ..learning.anchors import load_start
    from ..learning.as_detected import FacesAsDetected
    from ..learning.fewshot import FitOptions, fit_landmarks, fit_recipe
    from ..learning.fit_result import describe_fit
    from ..learning.labeled_faces import LabeledFaces
    from ..learning.landmark_training import build_model, build_processor, find_scheme
    from ..model.face_detection import can_find_faces

    start = load_start(arguments.model)
    dataset, face_set = _load(arguments, workplace)
    scheme = find_scheme(arguments.scheme, face_set, len(dataset[0]["landmarks"]))
    processor = build_processor(face_set, start.config.image_size)
    faces = LabeledFaces(dataset, processor, progress=len(dataset) > 200 and sys.stderr.isatty())
    recipe = fit_recipe(start, len(faces), arguments.seed, arguments.effort)
    model = move_to_device(build_model(start, scheme, recipe), arguments.device)
    saved = _SavedDetector(model, processor, workplace, arguments.output)
    learned = {LEARNED_NAME: learned_pictures(picture_digests(dataset))}

    # The estimate is one of detection, whatever the boxes of the annotations mean.
    as_detected = FacesAsDetected(dataset, faces, processor) if can_find_faces() else None

    def finish_learning() -> None:
        if arguments.folds and len(faces) > 1:
            saved.save(learned)
            say(f"fabrec fit: saved to {arguments.output}; its error on new faces is being estimated.", sys.stderr)

    with _stop_on_interrupt() as stop, _progress(finish_learning) as report:
        options = FitOptions(arguments.folds, as_detected, arguments.instant, report, stop.is_set)
        result = fit_landmarks(model, faces, scheme, recipe, options)
    results = describe_fit(result, scheme, recipe, arguments.model, arguments.folds)
    worst = _worst_faces(dataset, scheme, result)
    saved.save(learned | {"fit.json": (json.dumps(results, indent=2) + "\n").encode()} | worst)
    return results


class _SavedDetector:
    """The folder of the detector: it appears whole, as a pipeline, and each of its files is replaced whole."""

    def __init__(self, model: Any, processor: Any, workplace: Path, output: Path):
        self.model, self.processor, self.workplace, self.output = model, processor, workplace, output
        self.is_there = False

    def save(self, files: Mapping[str, bytes]) -> None:
        """Write what the saved pipeline has, and further files by their names."""
        from ..model.pipeline_fabrec import FaceLandmarkPipeline

        draft, training = Path(mkdtemp(dir=self.workplace)), self.model.training
        pipeline = FaceLandmarkPipeline(
            model=self.model, image_processor=self.processor, task="keypoint-detection", device=self.model.device
        )
        pipeline.save_pretrained(draft)
        self.model.train(training)
        for name, content in files.items():
            (draft / name).write_bytes(content)
        make_readable(draft)
        if self.is_there:
            for file in sorted(draft.iterdir()):
                file.replace(self.output / file.name)
            return
        take_place(draft, self.output)
        self.is_there = True


def _load(arguments: argparse.Namespace, workplace: Path) -> tuple["datasets.Dataset", "FaceSet | None"]:
    """Read the annotated faces that have a point; `workplace` may hold a copy of large Parquet files."""
    import numpy as np

    from ..data import load_faces, random_shots
    from ..data.face_set import find_face_set
    from ..data.in_memory import read_faces
    from ..data.readers import guess_kind, known_options, open_source

    kind = arguments.kind or guess_kind(arguments.data)
    names = column_names(arguments.columns)
    if names and kind != "parquet":
        raise DataError(f"--columns is for Parquet and Hub data sets; {kind} data names its columns otherwise.")
    if kind == "parquet":
        _refuse_reader_options(arguments)
        columns, cache = ("image", "landmarks", "box"), workplace / "cache"
        dataset = load_faces(
            arguments.data, arguments.split, columns, default_split="train", names=names, cache_dir=cache
        )
        face_set = find_face_set(arguments.data)
    else:
        options = {name: getattr(arguments, name) for name in READER_OPTIONS}
        if "split" in known_options(kind):  # others know of themselves what their splits are called
            options["split"] = arguments.split
        source = open_source(kind, arguments.data, **options)
        dataset, face_set = read_faces(source, arguments.split, arguments.boxes, progress=sys.stderr.isatty())
        say(face_set.summary(), sys.stderr)
    annotated = [
        row
        for row, points in enumerate(dataset["landmarks"])
        if points and np.isfinite(np.asarray(points, dtype=float)).all(axis=-1).any()
    ]
    if not annotated:
        raise DataError(f"None of the {len(dataset)} faces in {arguments.data} has an annotated point.")
    if len(annotated) < len(dataset):
        left = len(dataset) - len(annotated)
        say(f"fabrec fit: {left} of {len(dataset)} faces have no points and are left out.", sys.stderr)
    dataset = dataset.select(annotated)
    if arguments.shots is not None:
        dataset = random_shots(dataset, arguments.shots, arguments.seed)
    return dataset, face_set


def _refuse_reader_options(arguments: argparse.Namespace) -> None:
    """Refuse options that say how annotations are read, where the columns of Parquet say it."""
    for name in (*READER_OPTIONS, "boxes"):
        if name != "scheme" and getattr(arguments, name) is not None:
            option = name.replace("_", "-")
            raise DataError(f"Parquet and Hub data sets take no --{option}; use fabrec convert first.")


@contextmanager
def _stop_on_interrupt() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a wish to stop; the second one interrupts as ever."""
    stop = threading.Event()

    def ask(*_: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, previous)
        say("\nfabrec fit: stopping; the best that has been learned is saved.", sys.stderr)

    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _progress(on_learned: Callable[[], None]) -> Iterator[Any]:
    """Show one bar a phase, with the error going down; without a terminal, a line every tenth.

    Args:
        on_learned: Called once, after the last step of learning.
    """
    from tqdm import tqdm

    from ..learning.fewshot import FitProgress

    bars: dict[str, tqdm] = {}
    shown = sys.stderr.isatty()

    def report(progress: FitProgress) -> None:
        error = "" if progress.error is None else f", error {progress.error:.2f} %"
        tenth = 10 * progress.step // progress.steps
        if not shown and tenth > 10 * (progress.step - 1) // progress.steps:
            say(f"fabrec fit: {progress.phase}, step {progress.step} of {progress.steps}{error}", sys.stderr)
        if progress.phase not in bars:
            for bar in bars.values():
                bar.close()
            bars[progress.phase] = tqdm(
                total=progress.steps, desc=progress.phase, unit="step", disable=None, file=sys.stderr
            )
        bar = bars[progress.phase]
        if progress.error is not None:
            bar.set_postfix_str(f"error {progress.error:.2f} %", refresh=False)
        bar.update(progress.step - bar.n)
        if progress.phase == "learning" and progress.step == progress.steps:
            on_learned()

    try:
        yield report
    finally:
        for bar in bars.values():
            bar.close()


def _worst_faces(dataset: "datasets.Dataset", scheme: "LandmarkScheme", result: "FitResult") -> dict[str, bytes]:
    """Draw the faces with the landmarks predicted for them while they were left out, the worst first; {} for none."""
    import numpy as np

    from ..evaluation.plots import draw_worst_faces
    from ..evaluation.scoring import ScoredFace
    from ..model.turned_crops import landmarks_from_turned_crop

    known, faces = np.flatnonzero(np.isfinite(result.held_out_errors)), result.held_out_faces
    if not len(known) or faces is None:
        return {}
    worst = known[np.argsort(-result.held_out_errors[known])][:12]
    landmarks = np.asarray(
        landmarks_from_turned_crop(result.held_out.landmarks.numpy(), faces.crop_boxes, faces.rolls)
    )
    scored = [ScoredFace(int(row), float(result.held_out_errors[row]), landmarks[row]) for row in worst]
    picture = io.BytesIO()
    title = f"{scheme.name}: faces predicted from the others"
    draw_worst_faces(dataset, scored, title).save(picture, format="PNG")
    return {"held_out.png": picture.getvalue()}


def _summary(results: dict[str, Any], output: Path) -> str:
    """Say in words what a fit has come to."""
    from ..inference.score_words import UNCALIBRATED

    faces = f"{results['faces']} face" + ("s" if results["faces"] > 1 else "")
    points = f"{results['points']} point" + ("s" if results["points"] > 1 else "")
    unit = "the face box" if results["normalizer"]["kind"] == "box" else "the normalizing distance"
    total = results["recipe"]["head_steps"] + results["recipe"]["finetune_steps"]
    halted = results["steps"] < total and not results["instant"]
    stopped = f", stopped at step {results['steps']} of {total}" if halted else ""
    lines = [f"Learned {points} from {faces} in {results['seconds']:.0f} s{stopped}."]
    if results["training_error"] is not None:
        lines.append(f"Error on these faces: {results['training_error']:.2f} % of {unit}.")
    lines.append(f"Error on new faces: {_estimate(results, unit, output)}")
    if not results["scores_calibrated"]:
        lines.append(UNCALIBRATED)
    lines.append(f"Saved to {output}: try it by fabrec detect PHOTO --model {output} --output found.")
    return "\n".join(lines)


def _estimate(results: dict[str, Any], unit: str, output: Path) -> str:
    """Say what is known of the error on new faces, how, and how more would be known."""
    faces, folds = results["faces"], results["folds"]
    if faces == 1:
        return "not estimated, which takes two faces or more."
    if results["held_out_error"] is None:
        why = "stopped before" if results["stopped"] else "none could be scored" if folds else "as asked"
        return f"not estimated ({why}); --folds 1 holds a third out, --folds {faces} leaves one face out at a time."
    count = results["held_out_faces"]
    if folds == 1:
        how = f"from {count} of the faces, predicted by a detector that learned from the others alone"
        more = f" A surer figure, in {faces} times the time: --folds {faces}."
    else:
        how = "by " + ("leave-one-out" if folds == faces else f"{folds}-fold cross-validation")
        how += f", stopped after {count} of {faces} faces" if results["stopped"] else ""
        how += ": each face predicted by a detector that learned from the others alone"
        more = "" if folds == faces else f" Leave-one-out: --folds {faces}."
    missed = results["held_out_not_found"]
    if missed:
        more += f" The face detector misses {missed} of the {count} faces: they were predicted in their given boxes."
    effort = "" if results["instant"] else ", for three quarters as long"
    interval = results["held_out_interval"]
    sure = f", between {interval[0]:.1f} and {interval[1]:.1f} nine times of ten" if interval else ""
    return (
        f"{results['held_out_error']:.2f} % of {unit}{sure}, {how}{effort} "
        f"(see {output / 'held_out.png'}). With few faces that is above the error of the detector itself.{more}"
    )
