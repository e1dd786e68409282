"""`fabrec detect`: the faces in photographs, and the landmarks of every face."""

import argparse
import io
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import BoxError, FabRecError, ImageError
from .output_folder import check_output_folder, write_files


if TYPE_CHECKING:
    from .face_detection import FaceDetector
    from .image_processing_fabrec import FabRecImageProcessor
    from .modeling_fabrec import FabRecForLandmarkDetection

Box = tuple[float, float, float, float]

# What is taken for a picture in a folder; a file that is named is opened whatever it is called.
PICTURE_SUFFIXES = {".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
OVERLAY_SUFFIX = ".landmarks.png"
BATCH_SIZE = 32

NOTES = """A folder stands for the pictures directly in it. A picture that cannot be read, or in which no face is
found, is reported on stderr and the others go on. The exit code is 0 if every picture could be read and at least one
held a face, and 2 otherwise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a detection to a parser."""
    parser.description = f"{parser.description} {NOTES}"
    parser.add_argument("inputs", metavar="IMAGE|FOLDER", nargs="+", help="photographs, or folders of them")
    parser.add_argument("--model", default="3fabrec-300w", help="folder, embedded name or hub name (%(default)s)")
    parser.add_argument(
        "--boxes",
        metavar="X,Y,W,H",
        nargs="+",
        action="extend",
        help="faces of the one photograph, brow to chin, in pixels; without them they are searched for",
    )
    parser.add_argument(
        "--min-score", type=float, metavar="S", help="leave out landmarks with a score below S, in [0, 1]"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help=f"write NAME{OVERLAY_SUFFIX} and NAME.json of every photograph here"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of one line a photograph")


def run(arguments: argparse.Namespace) -> int:
    """Detect as the arguments say, print what was found and write it if asked to.

    Args:
        arguments: parsed arguments of `add_arguments`.

    Returns:
        The exit code: 0, or 2 if a picture could not be read or none holds a face.

    Raises:
        FabRecError: for mistakes that concern more than one picture; one line.
    """
    boxes = parse_boxes(arguments.boxes) if arguments.boxes else None
    min_score = arguments.min_score
    if min_score is not None and not 0 <= min_score <= 1:
        raise FabRecError(f"--min-score must lie in 0 to 1, not {min_score}.")
    paths = collect_pictures(arguments.inputs)
    if boxes is not None and len(paths) > 1:
        raise BoxError(f"--boxes are those of one picture, but {len(paths)} were given.")
    if arguments.output is not None:
        check_output_folder(arguments.output)
    names = dict(zip(paths, distinct_names(paths), strict=True))

    from tqdm import tqdm

    finder = LandmarkFinder(arguments.model, boxes, min_score)
    records, failures = [], 0
    with tqdm(paths, unit="picture", disable=None if len(paths) > 1 else True, file=sys.stderr) as bar:
        for path in bar:
            try:
                image = open_picture(path)
                faces = finder(image)
            except (FabRecError, OSError) as error:
                failures += 1
                bar.write(f"fabrec detect: error: {path}: {error}", file=sys.stderr)
                continue
            record = make_record(path, image, faces, arguments.model, finder.scheme_name)
            records.append(record)
            if not faces:
                advice = "give its box with --boxes x,y,w,h, or a picture in which the face is larger"
                bar.write(f"fabrec detect: {path}: no face found; {advice}.", file=sys.stderr)
                continue
            overlay = None
            if arguments.output is not None:
                overlay = write_result(arguments.output, names[path], image, faces, record, finder.scheme)
            if not arguments.json:
                bar.write(describe(record, overlay), file=sys.stdout)
    found_any = any(record["faces"] for record in records)
    if arguments.json and found_any:
        print(json.dumps(records, indent=2))
    return 0 if found_any and not failures else 2


class LandmarkFinder:
    """A landmark model, its processor and a face detector in one.

    Args:
        model: folder, embedded name or hub name of the checkpoint.
        boxes: the faces; searched for if None.
        min_score: landmarks that score lower become NaN.

    Raises:
        CheckpointError: if the checkpoint cannot be used.
    """

    def __init__(self, model: str, boxes: Sequence[Box] | None = None, min_score: float | None = None):
        import torch

        from .face_detection import default_face_detector
        from .landmarks import LandmarkScheme
        from .loading import load_landmark_model

        self.model: FabRecForLandmarkDetection
        self.processor: FabRecImageProcessor
        self.model, self.processor = load_landmark_model(model)
        self.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.boxes, self.min_score = boxes, min_score
        self.detector: FaceDetector | None = default_face_detector() if boxes is None else None
        values = self.model.config.landmark_scheme
        self.scheme = LandmarkScheme.from_dict(values) if values else None

    @property
    def scheme_name(self) -> str | None:
        """The name of the model's landmark scheme."""
        return self.scheme.name if self.scheme else None

    def __call__(self, image: Image.Image) -> list[dict[str, Any]]:
        """Find the faces of an upright picture, as `post_process_keypoint_detection` returns them.

        Raises:
            BoxError: if a box lies outside the picture.
            ImageError: if the picture cannot be read.
        """
        import torch

        try:
            boxes: list[Any] = list(self.boxes or ())
            for box in boxes:
                _check_inside(box, image.size)
            if self.detector:
                boxes = self.processor.boxes_from_detections([found.box for found in self.detector(image)])
            faces: list[dict[str, Any]] = []
            for start in range(0, len(boxes), BATCH_SIZE):
                inputs = self.processor(image, boxes=boxes[start : start + BATCH_SIZE])
                with torch.inference_mode():
                    outputs = self.model(inputs.pop("pixel_values").to(self.model.device))
                faces += self.processor.post_process_keypoint_detection(
                    outputs, **inputs, num_images=1, threshold=self.min_score
                )[0]
        except FabRecError:
            raise
        except ValueError as error:
            raise ImageError(str(error)) from error
        return faces


def parse_boxes(texts: Iterable[str]) -> list[Box]:
    """Read boxes written as x,y,width,height.

    Raises:
        BoxError: if one is malformed or has no area.
    """
    boxes: list[Box] = []
    for text in texts:
        try:
            x, y, width, height = (float(number) for number in text.split(","))
        except ValueError:
            hint = "; name the picture before --boxes" if Path(text).exists() else ""
            raise BoxError(f"{text.strip()!r} is not a box: write x,y,width,height in pixels{hint}.") from None
        if not all(math.isfinite(value) for value in (x, y, width, height)):
            raise BoxError(f"The box {text.strip()} is not finite.")
        if width <= 0 or height <= 0:
            raise BoxError(f"The box {text.strip()} has no area: width and height must be positive.")
        boxes.append((x, y, width, height))
    return boxes


def collect_pictures(inputs: Iterable[str]) -> list[Path]:
    """List the pictures that files and folders stand for, each once, folders in alphabetical order.

    Raises:
        ImageError: if a file or folder is missing, or a folder holds no picture.
    """
    paths: dict[Path, Path] = {}
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            found = sorted(
                entry
                for entry in path.iterdir()
                if entry.suffix.lower() in PICTURE_SUFFIXES
                and not entry.name.startswith(".")
                and not entry.name.endswith(OVERLAY_SUFFIX)
            )
            if not found:
                raise ImageError(
                    f"{path}: no picture in this folder; it looks for {', '.join(sorted(PICTURE_SUFFIXES))}."
                )
        elif path.exists():
            found = [path]
        else:
            raise ImageError(f"{path}: no such file.")
        for entry in found:
            paths.setdefault(entry.resolve(), entry)
    return list(paths.values())


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """Return a name for the results of each picture: its stem, and where that is taken its stem and a number."""
    names: list[str] = []
    stems = {path.stem for path in paths}
    for path in paths:
        name, number = path.stem, 1
        while name in names or (number > 1 and name in stems):
            number += 1
            name = f"{path.stem}-{number}"
        names.append(name)
    return names


def open_picture(path: Path) -> Image.Image:
    """Read a picture completely and turn it upright.

    Raises:
        ImageError: if it is not an image, or is truncated; the message does not name the file.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ImageError("this is not an image that can be read.") from error
    except PermissionError as error:
        raise ImageError("there is no permission to read it.") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"it cannot be read: {' '.join(str(error).split()) or type(error).__name__}.") from error


def make_record(
    path: Path, image: Image.Image, faces: Sequence[Mapping[str, Any]], model: str, scheme: str | None
) -> dict[str, Any]:
    """Put what was found in a picture into plain data; a landmark that was left out is null."""
    return {
        "image": str(path),
        "width": image.width,
        "height": image.height,
        "model": model,
        "scheme": scheme,
        "faces": [
            {
                "bbox": [round(value, 2) for value in face["bbox"].tolist()],
                "keypoints": [
                    None if any(math.isnan(value) for value in point) else [round(value, 2) for value in point]
                    for point in face["keypoints"].tolist()
                ],
                "scores": [round(value, 4) for value in face["scores"].tolist()],
            }
            for face in faces
        ],
    }


def describe(record: Mapping[str, Any], overlay: Path | None) -> str:
    """Return the line that tells a person what was found in a picture."""
    scores = [score for face in record["faces"] for score in face["scores"]]
    count = len(record["faces"])
    line = f"{record['image']}: {count} face{'s' if count > 1 else ''}, mean score {sum(scores) / len(scores):.2f}"
    return f"{line} -> {overlay}" if overlay else line


def write_result(
    folder: Path,
    name: str,
    image: Image.Image,
    faces: Sequence[Mapping[str, Any]],
    record: Mapping[str, Any],
    scheme: Any,
) -> Path:
    """Write the overlay and the JSON of a picture, both or none.

    Returns:
        The path of the overlay.

    Raises:
        FabRecError: if the folder cannot be written to.
    """
    from .visualization import draw_landmarks

    picture = io.BytesIO()
    draw_landmarks(image, faces, scheme).save(picture, format="PNG")
    overlay = f"{name}{OVERLAY_SUFFIX}"
    write_files(folder, {overlay: picture.getvalue(), f"{name}.json": json.dumps(record, indent=2).encode()})
    return folder / overlay


def _check_inside(box: Box, size: tuple[int, int]) -> None:
    x, y, width, height = box
    if x >= size[0] or y >= size[1] or x + width <= 0 or y + height <= 0:
        text = ",".join(f"{value:g}" for value in box)
        raise BoxError(f"the box {text} lies outside this picture of {size[0]} x {size[1]} pixels.")
