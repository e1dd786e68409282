"""`fabrec detect`: the faces in pictures and videos, and the landmarks of every face."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..common.console import say, show_rate
from ..common.json_array import ArrayWriter
from ..common.output_folder import check_output_folder, write_files
from ..data.readers import PROPOSALS
from ..errors import BoxError, FabRecError, ImageError
from .device_option import add_device_option
from .proposals import check_points, check_proposals, write_proposals


if TYPE_CHECKING:
    from ..inference.landmark_finder import LandmarkFinder
    from ..inference.videos import VideoSummary

NOTES = """A folder stands for the pictures and videos directly in it. What cannot be read, and what no face is
found in, is reported on stderr and the others go on. A face may be turned in the picture's plane by any angle:
beyond 20 degrees its landmarks are found in an upright cut, its record says "roll", and its box is turned by as
much about its middle. Of a given box without a face the record says "is_face": false. In a video each face has an
id, and is followed from frame to frame; its landmarks are smoothed over time. A number, such as 0, is a camera of
this machine: its faces are shown in a window, until Escape, q or Ctrl-C. The exit code is 0 if everything
could be read to its end and something held a face, and 2 otherwise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a detection to a parser."""
    parser.description = f"{parser.description} {NOTES}"
    parser.add_argument(
        "inputs",
        metavar="IMAGE|VIDEO|FOLDER|CAMERA",
        nargs="+",
        help="pictures, videos, folders of them, or the number of a camera",
    )
    parser.add_argument(
        "--model",
        default="3fabrec-300w",
        help="folder, embedded name or hub name (%(default)s), or a folder that `fabrec export` wrote, which runs in "
        "its own runtime",
    )
    parser.add_argument(
        "--boxes",
        metavar="X,Y,W,H",
        nargs="+",
        action="extend",
        help="faces of the one picture, or of the one video's first frame, brow to chin, in pixels; without them they "
        "are searched for",
    )
    parser.add_argument(
        "--small-faces",
        action="store_true",
        help="search for small faces also where larger ones are found at once, which takes several times as long",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        metavar="S",
        help="leave out landmarks with a score below S, in [0, 1]; of a calibrated detector the score is the share of "
        "such points that lie near the truth, else the height of a heatmap, for which S has to be found by trying",
    )
    texts = parser.add_mutually_exclusive_group()
    texts.add_argument(
        "--draw-names", action="store_const", const="names", dest="labels", help="write the points' names beside them"
    )
    texts.add_argument(
        "--draw-index", action="store_const", const="index", dest="labels", help="write the points' numbers, from 0"
    )
    add_device_option(parser)
    _add_video_arguments(parser)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="write NAME.landmarks.png, NAME.json and NAME.csv of every picture here, and "
        "NAME.landmarks.mp4, NAME.json and NAME.csv of every video",
    )
    parser.add_argument(
        "--to",
        choices=PROPOSALS,
        help="write the faces of pictures to --output as proposals for an annotation tool instead, and what its "
        "project is set up with: a person corrects instead of clicking; dlib is imglab's XML, pts a file a face, wflw "
        "a list of 98 points a line",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of one line a picture or video")


def _add_video_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--detect-every",
        type=int,
        default=15,
        metavar="N",
        help="search every N-th frame of a video for faces, and follow them in between (%(default)s)",
    )
    parser.add_argument(
        "--no-smoothing", action="store_true", help="keep the landmarks of a video as they are found in each frame"
    )


def run(arguments: argparse.Namespace) -> int:
    """Detect as the arguments say, print what was found and write it if asked to.

    Args:
        arguments: Parsed arguments of `add_arguments`.

    Returns:
        The exit code: 0, or 2 if something could not be read or nothing holds a face.

    Raises:
        FabRecError: For mistakes that concern more than one input; one line.
    """
    from ..inference.input_files import collect_inputs, distinct_names, is_video, parse_boxes

    # What can be wrong with the arguments is said before PyTorch is loaded.
    boxes = parse_boxes(arguments.boxes) if arguments.boxes else None
    if arguments.min_score is not None and not 0 <= arguments.min_score <= 1:
        raise FabRecError(f"--min-score must lie in 0 to 1, not {arguments.min_score}.")
    if arguments.detect_every < 1:
        raise FabRecError(f"--detect-every is a number of frames, at least 1, not {arguments.detect_every}.")
    cameras = [text for text in arguments.inputs if text.isdecimal() and not Path(text).exists()]
    if cameras:
        return _show_camera(arguments, int(cameras[0]))
    paths = collect_inputs(arguments.inputs, lambda text: say(f"fabrec detect: {text}", sys.stderr))
    if boxes is not None and len(paths) > 1:
        raise BoxError(f"--boxes are those of one picture, but {len(paths)} were given.")
    if arguments.labels and arguments.output is None:
        raise FabRecError("--draw-names and --draw-index are for the drawings: say where with --output DIR.")
    if arguments.output is not None:
        check_output_folder(arguments.output)
    if arguments.to is not None:
        check_proposals(arguments.to, arguments.output, paths, arguments.labels)

    from ..inference.score_words import score_note

    finder = _open_finder(arguments, sum(not is_video(path) for path in paths))
    if arguments.to is not None:
        check_points(arguments.to, finder.num_landmarks, arguments.min_score)
    entries = zip(paths, distinct_names(paths), strict=True)
    # The JSON that is printed at the end may outgrow the memory, so it waits in a file.
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+", encoding="utf-8") as document:
        detection = _Detection(arguments, boxes, finder, Path(scratch), document)
        for video, group in groupby(entries, key=lambda entry: is_video(entry[0])):
            if video:
                for path, name in group:
                    detection.detect_video(path, name)
            else:
                detection.detect_pictures(dict(group))
        if detection.found_any:
            if arguments.to is not None:
                written = write_proposals(arguments.to, arguments.output, detection.records, finder)
                say(written, sys.stderr if arguments.json else sys.stdout)
            detection.print_document()
            note = score_note(finder.model.config)
            if note:
                say(f"fabrec detect: {note}", sys.stderr)
    return 0 if detection.found_any and not detection.failures else 2


def _open_finder(arguments: argparse.Namespace, pictures: int = 0) -> "LandmarkFinder":
    """Load the detector; one that was exported computes with one thread for each of several pictures at a time."""
    from ..checkpoints.weight_files import is_export
    from ..export.runtimes import load_exported
    from ..inference.landmark_finder import LandmarkFinder

    model = arguments.model
    source = load_exported(model, threads=1 if pictures > 1 else None) if is_export(model) else model
    return LandmarkFinder(source, device=arguments.device, small_faces=arguments.small_faces)


def _show_camera(arguments: argparse.Namespace, number: int) -> int:
    """Show the faces of a camera in a window."""
    if len(arguments.inputs) > 1:
        raise FabRecError("a camera goes alone, without pictures, videos or another camera.")
    for option in ("output", "to", "boxes", "json"):
        if getattr(arguments, option):
            raise FabRecError(f"--{option} is not for a camera, whose faces are only shown.")
    from ..inference import camera

    with camera.open_camera(number) as frames:
        from ..inference.score_words import score_note

        finder = _open_finder(arguments)
        stream = camera.CameraStream(
            finder,
            detect_every=arguments.detect_every,
            smoothing=not arguments.no_smoothing,
            labels=arguments.labels,
        )
        with camera.open_window() as window:
            shown = camera.watch(frames, stream, window, arguments.min_score or 0.0)
    say(f"camera {number}: {shown} frames")
    note = score_note(finder.model.config)
    if note:
        say(f"fabrec detect: {note}", sys.stderr)
    return 0


class _Detection:
    """One run of the command: what it is to do, and what has come of it so far."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        boxes: Sequence[Any] | None,
        finder: "LandmarkFinder",
        scratch: Path,
        document: TextIO,
    ):
        self.output: Path | None = arguments.output
        self.arguments, self.boxes, self.finder, self.scratch = arguments, boxes, finder, scratch
        self.failures = 0
        self.found_any = False
        self.records: list[dict[str, Any]] = []
        """Of the pictures with a face, where they are to become proposals."""
        self._document, self._array = document, ArrayWriter(document)

    def detect_pictures(self, names: Mapping[Path, str]) -> None:
        """Find the faces of pictures; `names` says what their results are called."""
        from tqdm import tqdm

        from ..inference.face_records import describe_picture
        from ..inference.pictures import landmark_pictures

        draw, faces = self.output is not None and self.arguments.to is None, 0
        results = landmark_pictures(
            list(names), self.finder, self.boxes, self.arguments.min_score, draw, self.arguments.labels
        )
        hidden = None if len(names) > 1 else True
        with closing(results), tqdm(total=len(names), unit="picture", disable=hidden, file=sys.stderr) as bar:
            for result in results:
                overlay = None
                if result.note:
                    say(f"fabrec detect: {result.path}: {result.note}", sys.stderr)
                if result.error is not None:
                    self._fail(result.path, str(result.error))
                elif result.record is None or not result.record["faces"]:
                    advice = "give its box with --boxes x,y,w,h, or a picture in which the face is larger"
                    say(f"fabrec detect: {result.path}: no face found; {advice}.", sys.stderr)
                    self._keep([json.dumps(result.record, indent=2)])
                else:
                    if self.arguments.to is not None:
                        self.records.append(result.record)
                    elif self.output is not None:
                        name = names[result.path]
                        write_files(self.output, {f"{name}{end}": content for end, content in result.files.items()})
                        overlay = self.output / f"{name}.landmarks.png"
                    self._report(describe_picture(result.record, overlay))
                    self._keep([json.dumps(result.record, indent=2)])
                    self.found_any = True
                    faces += len(result.record["faces"])
                show_rate(bar, faces)
                bar.update()

    def detect_video(self, path: Path, name: str) -> None:
        """Follow the faces of a video."""
        from ..inference.videos import VideoSettings, landmark_video

        settings = VideoSettings(
            detect_every=self.arguments.detect_every,
            smoothing=not self.arguments.no_smoothing,
            min_score=self.arguments.min_score,
            boxes=self.boxes,
            draw=self.output is not None,
            labels=self.arguments.labels,
        )
        folder = self.scratch if self.output is None else self.output
        try:
            summary = landmark_video(path, self.finder, folder, name, settings, progress=True)
        except (ImageError, BoxError) as error:
            self._fail(path, str(error))
            return
        if not summary.faces:
            say(
                f"fabrec detect: {path}: no face found in {summary.frames} frames; give the boxes of its first "
                "frame with --boxes x,y,w,h.",
                sys.stderr,
            )
        else:
            self._report(describe_video(path, summary, self.output))
            with summary.files[".json"].open(encoding="utf-8") as lines:
                self._keep(lines)
            self.found_any = True
        if not summary.is_whole:
            self._fail(path, f"it is damaged or ends early; {summary.frames} frames could be read.")

    def print_document(self) -> None:
        """Print the JSON of all inputs, if it was asked for."""
        if self.arguments.json:
            self._array.close()
            self._document.seek(0)
            sys.stdout.writelines(self._document)
            sys.stdout.write("\n")

    def _keep(self, texts: Iterable[str]) -> None:
        """Add the JSON of an input to the document."""
        if self.arguments.json:
            self._array.add(texts)

    def _report(self, line: str) -> None:
        if not self.arguments.json:
            say(line)

    def _fail(self, path: Path, reason: str) -> None:
        self.failures += 1
        say(f"fabrec detect: error: {path}: {reason}", sys.stderr)


def describe_video(path: Path, summary: "VideoSummary", output: Path | None) -> str:
    """Return the line that tells a person what was found in a video."""
    from ..inference.face_records import count_faces

    line = f"{path}: {count_faces(len(summary.tracks))} in {summary.frames} frames"
    before, after = summary.jitter["before"], summary.jitter["after"]
    if before is not None and after is not None:
        line += f", jitter {before:.2f}"
        line += f" before smoothing, {after:.2f} after" if before != after else ""
    return f"{line} -> {summary.files['.landmarks.mp4']}" if output is not None else line
