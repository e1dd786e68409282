"""`fabrec select`: which faces of a folder to annotate, so that a few stand for all."""

import argparse
import csv
import io
import json
import math
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.choices import TEMPLATES
from ..common.console import say
from ..common.output_folder import check_output_folder, write_files
from ..errors import DataError, FabRecError
from .columns import add_columns_option, column_names
from .device_option import add_device_option


if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    from ..model.known_schemes import LandmarkScheme

__all__ = ["add_arguments", "choose_pictures", "contact_sheet", "run"]

NOTES = """The faces are encoded by the autoencoder, and those chosen are the medoids of as many clusters: every face
is as near to one of them as can be. Those whose code is unusually short or long, plain or extreme faces, are chosen
only if there are too few others. They are listed by the number of faces that they stand for, so the first ones are
worth the most. A picture gives one face as long as there are pictures enough. Faces that a detector found count only
if they are large and sharp enough. Sharpness is fine detail over contrast: 0.19 to 0.76 in 300-W, and below 0.11 for
19 of 20 of these faces once they are blurred by a fiftieth of their height. With --output, selected.csv lists file,
box and share, selected.png shows the faces, and pictures/ holds the chosen pictures, ready for a tool; --template
writes what that is started with. A face that is turned by more than 20 degrees is encoded and shown upright."""

LARGEST_POOL = 10_000  # the distances of all pairs are in memory, 400 MB for this many
CELL = 160


@dataclass(frozen=True)
class FoundFace:
    """A face of the pool.

    Attributes:
        file: The picture.
        box: (x, y, width, height) of its landmarks in pixels of the upright picture, as a detector found it; the
            whole picture where none was found.
        detected: Whether a detector found it.
        sharpness: As `face_quality.sharpness` measures it.
        roll: Degrees by which the face is turned clockwise, and its box with it about its middle; 0 where it is seen
            upright as it is.
    """

    file: str
    box: tuple[float, float, float, float]
    detected: bool
    sharpness: float
    roll: float = 0.0

    def is_good(self, min_size: float, min_sharpness: float) -> bool:
        """Whether a person can annotate it; what was not detected is not judged."""
        return not self.detected or (min(self.box[2:]) >= min_size and self.sharpness >= min_sharpness)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a selection to a parser."""
    parser.description = f"{parser.description} {NOTES}"
    parser.add_argument(
        "inputs",
        metavar="FOLDER|IMAGE|DATA",
        nargs="+",
        help="photographs, folders of them, and Parquet or Hub data sets, of which the column image is enough",
    )
    parser.add_argument("--split", help="which split of a data set to choose from (train, where there are several)")
    add_columns_option(parser)
    parser.add_argument("--count", type=int, default=10, metavar="N", help="faces to choose (%(default)s)")
    parser.add_argument(
        "--model", default="3fabrec-autoencoder", help="autoencoder: folder, embedded or hub name (%(default)s)"
    )
    parser.add_argument(
        "--cropped", action="store_true", help="the pictures are face crops already: take them whole, detect nothing"
    )
    parser.add_argument(
        "--min-size", type=float, default=64, metavar="PX", help="leave out faces with a shorter side (%(default)s)"
    )
    parser.add_argument(
        "--min-sharpness", type=float, default=0.1, metavar="S", help="leave out faces less sharp (%(default)s)"
    )
    parser.add_argument(
        "--template",
        choices=TEMPLATES,
        help="into --output: a table to fill in for fabrec fit, the labels of a CVAT task, or the labeling interface "
        "of a Label Studio project; needs --scheme",
    )
    parser.add_argument("--scheme", help="of the template: 300w, wflw, aflw, mtfl, or a YAML or JSON file")
    add_device_option(parser)
    parser.add_argument("--output", type=Path, metavar="DIR", help="write the choice and its pictures here")
    parser.add_argument("--json", action="store_true", help="print JSON instead of one line a face")


def run(arguments: argparse.Namespace) -> int:
    """Choose as the arguments say, print the choice and write it if asked to.

    Args:
        arguments: Parsed arguments of `add_arguments`.

    Returns:
        The exit code: 0, or 2 if a picture could not be read.

    Raises:
        FabRecError: For mistakes that concern more than one picture; one line.
    """
    if arguments.count < 1:
        raise FabRecError(f"--count must be at least 1, not {arguments.count}.")
    if arguments.template and (arguments.output is None or arguments.scheme is None):
        raise FabRecError("--template needs --output DIR and --scheme, the points to annotate.")
    from ..data.readers import holds_rows
    from ..inference.input_files import collect_inputs, is_video

    # What is not there is said before PyTorch is loaded.
    data = [name for name in arguments.inputs if holds_rows(name)]
    files = collect_inputs([name for name in arguments.inputs if name not in data], _remark)
    called = {path: str(path) for path in files if not is_video(path)}
    if not called and not data:
        raise DataError("There is no picture to choose from, only videos: take frames out of them first.")
    if arguments.output is not None:
        check_output_folder(arguments.output)

    from ..data.scheme_files import load_scheme
    from ..data.unpacked_pictures import unpack_pictures

    scheme, names = load_scheme(arguments.scheme), column_names(arguments.columns)
    with tempfile.TemporaryDirectory() as scratch:
        for number, name in enumerate(data):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            called |= unpack_pictures(name, folder, arguments.split, names)
        return _select(arguments, called, scheme)


def _select(arguments: argparse.Namespace, called: Mapping[Path, str], scheme: "LandmarkScheme | None") -> int:
    """Choose among pictures, of which each is called something, and print and write the choice."""
    import numpy as np

    from ..learning.fewshot import assign_faces

    encoder = _FaceEncoder(arguments.model, arguments.cropped, arguments.device)
    faces, latents, failures = _encode_all(called, encoder)
    pool = np.flatnonzero([face.is_good(arguments.min_size, arguments.min_sharpness) for face in faces])
    if len(pool) < len(faces):
        left_out = len(faces) - len(pool)
        say(f"fabrec select: {left_out} faces are too small or too blurred (--min-size, --min-sharpness).", sys.stderr)
    if len(pool) > LARGEST_POOL:
        pool = np.sort(np.random.default_rng(0).permutation(len(pool))[:LARGEST_POOL])
        say(f"fabrec select: choosing among {LARGEST_POOL:,} of {len(faces):,} faces.", sys.stderr)
    if len(pool) < arguments.count:
        raise DataError(f"--count {arguments.count} faces, but only {len(pool)} were found in {len(called)} pictures.")
    chosen = choose_pictures(faces, latents, pool, arguments.count)
    shares = np.bincount(assign_faces(latents, chosen), minlength=len(chosen)) / len(faces)
    records = [
        asdict(faces[row]) | {"share": round(float(share), 4)} for row, share in zip(chosen, shares, strict=True)
    ]
    if arguments.output is not None:
        _write(
            arguments.output, records, [encoder.crop(faces[row]) for row in chosen], arguments.template, scheme, called
        )
    records = [record | {"file": called[Path(record["file"])]} for record in records]
    if arguments.json:
        say(json.dumps(records, indent=2))
    else:
        for record in records:
            box = ",".join(f"{value:.0f}" for value in record["box"])
            say(f"{record['file']} (face at {box}) stands for {100 * record['share']:.0f} % of {len(faces)} faces")
        if arguments.output is not None:
            say(f"-> {arguments.output / 'selected.png'}")
    return 2 if failures else 0


def _remark(text: str) -> None:
    say(f"fabrec select: {text}", sys.stderr)


class _FaceEncoder:
    """Finds the faces of a picture and encodes them; `cropped` pictures are taken whole."""

    def __init__(self, model: str, cropped: bool, device: str | None = None):
        from ..checkpoints.loading import load_autoencoder, move_to_device
        from ..model.face_detection import default_face_detector
        from ..model.image_processing_fabrec import FabRecImageProcessor

        self.model = move_to_device(load_autoencoder(model), device)
        size = self.model.config.image_size
        margins = {"extend_top": 0.0, "extend_bottom": 0.0} if cropped else {}
        self.processor = FabRecImageProcessor(size={"height": size, "width": size}, **margins)
        self.detector = None if cropped else default_face_detector()

    def __call__(self, path: Path) -> tuple[list[FoundFace], "torch.Tensor"]:
        """Return the faces of a picture, or the picture as one if there is none, and their latents (N, D)."""
        import torch

        from ..inference.face_quality import sharpness
        from ..inference.input_files import open_picture
        from ..model.turned_crops import TURNED_FROM

        image = open_picture(path)
        seen = self.detector(image) if self.detector else []
        boxes: list[Any] = [face.box for face in seen] or [(0.0, 0.0, float(image.width), float(image.height))]
        rolls = [face.roll if face.roll and abs(face.roll) > TURNED_FROM else 0.0 for face in seen] or [0.0]
        with torch.inference_mode():
            pixel_values = self.processor(image, boxes=boxes, rolls=rolls)["pixel_values"]
            latents = self.model.encode(pixel_values.to(self.model.device)).cpu()
        found = [
            FoundFace(
                str(path),
                tuple(map(float, box)),  # type: ignore[arg-type]
                bool(seen),
                round(sharpness(image, box), 4),
                round(float(roll), 1),
            )
            for box, roll in zip(boxes, rolls, strict=True)
        ]
        return found, latents

    def crop(self, face: FoundFace) -> "np.ndarray":
        """Return what the encoder saw of a face, (S, S, 3) uint8."""
        from ..inference.input_files import open_picture

        picture = open_picture(Path(face.file))
        pixels = self.processor(picture, boxes=[face.box], rolls=[face.roll], do_normalize=False)["pixel_values"]
        return _to_picture(pixels[0])


def _to_picture(pixels: "torch.Tensor") -> "np.ndarray":
    """Return (3, S, S) values in [0, 1] as (S, S, 3) uint8."""
    return (255 * pixels.clamp(0, 1)).round().byte().permute(1, 2, 0).cpu().numpy()


def choose_pictures(faces: Sequence[FoundFace], latents: "torch.Tensor", pool: "np.ndarray", count: int) -> list[int]:
    """Choose the faces that stand for the others, one a picture as long as there are pictures enough.

    Args:
        faces: All faces.
        latents: (N, D) their codes.
        pool: Rows to choose from.
        count: How many, at most the rows of the pool.

    Returns:
        Rows, that which stands for most faces first.
    """
    import numpy as np

    from ..learning.fewshot import choose_faces

    several = len({faces[row].file for row in pool}) < count
    if several:
        say("fabrec select: there are fewer pictures than faces to choose, so some give several.", sys.stderr)
    while True:
        chosen = pool[choose_faces(latents[pool], count)].tolist()
        first = {faces[row].file: row for row in reversed(chosen)}
        if several or len(first) == len(chosen):
            return chosen
        # Of a picture that was chosen twice, only the face that stands for most is left to choose from.
        times = Counter(faces[row].file for row in chosen)
        twice = {file: row for file, row in first.items() if times[file] > 1}
        pool = np.array([row for row in pool if twice.get(faces[row].file, row) == row])


def _encode_all(called: Mapping[Path, str], encoder: _FaceEncoder) -> tuple[list[FoundFace], "torch.Tensor", int]:
    """Encode the faces of all pictures: the faces, their latents (N, D), and how many pictures could not be read."""
    import torch
    from tqdm import tqdm

    faces: list[FoundFace] = []
    latents: list[torch.Tensor] = []
    failures = 0
    with tqdm(called, unit="picture", desc="encoding", disable=None, file=sys.stderr) as bar:
        for path in bar:
            try:
                found, codes = encoder(path)
            except (FabRecError, OSError, ValueError) as error:
                failures += 1
                say(f"fabrec select: error: {called[path]}: {error}", sys.stderr)
                continue
            faces += found
            latents.append(codes)
    if not faces:
        raise DataError(f"None of the {len(called)} pictures could be read.")
    return faces, torch.cat(latents), failures


def contact_sheet(crops: "Sequence[np.ndarray]", titles: Sequence[str]) -> "Image.Image":
    """Lay crops out in rows, each above its title.

    Args:
        crops: (S, S, 3) uint8 RGB each, in the order of reading.
        titles: One short line each.
    """
    from PIL import Image, ImageDraw

    columns = min(len(crops), max(1, math.ceil(math.sqrt(len(crops) * 1.6))))
    rows = -(-len(crops) // columns)
    line = 20
    sheet = Image.new("RGB", (columns * CELL, rows * (CELL + line)), (250, 250, 250))
    pen = ImageDraw.Draw(sheet)
    for place, (crop, title) in enumerate(zip(crops, titles, strict=True)):
        x, y = place % columns * CELL, place // columns * (CELL + line)
        sheet.paste(Image.fromarray(crop).resize((CELL - 4, CELL - 4), Image.Resampling.BICUBIC), (x + 2, y + 2))
        while pen.textlength(title) > CELL - 8 and len(title) > 2:
            title = f"{title[:-2]}…"
        pen.text((x + 4, y + CELL + 3), title, fill=(20, 20, 30))
    return sheet


def _write(
    folder: Path,
    records: Sequence[dict[str, Any]],
    crops: "Sequence[np.ndarray]",
    template: str | None,
    scheme: "LandmarkScheme | None",
    called: Mapping[Path, str],
) -> None:
    """Write the choice, its pictures, and what a tool is started with."""
    from ..data.annotation_templates import annotation_template
    from ..inference.input_files import copy_names

    names = copy_names([Path(name) for name in dict.fromkeys(record["file"] for record in records)])
    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["file", "x", "y", "width", "height", "share"])
    for record in records:
        writer.writerow([called[Path(record["file"])], *(round(value, 2) for value in record["box"]), record["share"]])
    titles = [f"{place}. {Path(record['file']).name}" for place, record in enumerate(records, start=1)]
    picture = io.BytesIO()
    contact_sheet(crops, titles).save(picture, format="PNG")
    write_files(folder / "pictures", {name: file.read_bytes() for file, name in names.items()})
    if template and scheme:
        faces = [{"picture": f"pictures/{names[Path(record['file'])]}", "box": record["box"]} for record in records]
        write_files(folder, annotation_template(template, scheme, faces))
    write_files(folder, {"selected.csv": table.getvalue().encode(), "selected.png": picture.getvalue()})
