"""`fabrec convert`: any face data that can be read, to Parquet for the Hub, or to files of other formats."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.choices import TO_SCHEMES
from ..common.console import say
from ..common.drafts import unfinished_folder
from ..common.output_folder import check_new_folder, take_place
from ..data.box_rules import BOX_RULES
from ..data.readers import KINDS, TOOLS, open_source
from ..errors import DataError, FabRecError
from .reader_options import READER_OPTIONS, add_reader_options


if TYPE_CHECKING:
    from ..data.face_set import FaceSet


__all__ = ["add_arguments", "run"]

OPTIONS_OF_SOURCES = (*READER_OPTIONS, "split", "box_source", "min_height")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a conversion to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    kinds = "\n".join(f"  {kind:<12} {what}" for kind, (_, what) in KINDS.items())
    parser.description = f"{parser.description}\n\nkinds:\n{kinds}"
    parser.add_argument("kind", metavar="KIND", choices=list(KINDS), help="what SOURCE is, see above")
    parser.add_argument("source", metavar="SOURCE", help="folder or file to read")
    parser.add_argument("output", metavar="OUTPUT", help="new folder to write")
    forms = ("parquet", "pts", "coco", "wflw", *TOOLS)
    parser.add_argument(
        "--to", choices=forms, default="parquet", help="format, or an annotation tool; dlib is imglab (%(default)s)"
    )
    reading = parser.add_argument_group("reading (each kind takes some of these, and says which)")
    add_reader_options(reading)
    reading.add_argument("--split", help="name of the split, where the data does not tell (train)")
    reading.add_argument("--box-source", choices=("ground_truth", "detector", "points"), help="300-W: which boxes")
    reading.add_argument("--min-height", type=int, metavar="PX", help="VGGFace2: keep faces higher than this (100)")
    writing = parser.add_argument_group("writing")
    writing.add_argument(
        "--boxes",
        choices=BOX_RULES,
        help="where a face's box comes from: auto looks whether the given boxes mean the face, and keeps, converts or "
        "replaces them; given keeps them; points and detector replace them; image and none keep them, and take the "
        "whole picture or nothing where there is none (auto)",
    )
    writing.add_argument(
        "--to-scheme",
        choices=TO_SCHEMES,
        help="write fewer points: those of wflw as 300w or mtfl (68 or 5), those of 300w as mtfl",
    )
    writing.add_argument("--allow-copies", action="store_true", help="accept one picture in several splits")
    writing.add_argument("--skip-unreadable", action="store_true", help="leave out pictures that cannot be read")
    writing.add_argument("--shard-size", type=int, default=2000, metavar="N", help="faces a file (%(default)s)")
    writing.add_argument("--num-proc", type=int, default=1, metavar="N", help="processes (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Convert as the arguments say, and print what was found.

    Args:
        arguments: Parsed arguments of `add_arguments`.

    Returns:
        The exit code, 0.

    Raises:
        FabRecError: For whatever the user can put right; one line.
    """
    if arguments.shard_size < 1 or arguments.num_proc < 1:
        raise FabRecError("--shard-size and --num-proc must be at least 1.")
    output = Path(arguments.output)
    if arguments.to == "parquet":
        say(_summary(_convert(arguments, output), output))
        return 0
    check_new_folder(output)
    # By way of Parquet, so that every format keeps the same rules and has the same report.
    with unfinished_folder(output.absolute().parent) as folder:
        face_set = _convert(arguments, folder / "faces")
        _export(face_set, folder / "faces", folder / "files", arguments.to)
        take_place(folder / "files", output)
    say(_summary(face_set, output))
    return 0


def _convert(arguments: argparse.Namespace, output: Path) -> "FaceSet":
    from ..data.conversion import ConversionSettings, convert_faces

    source = open_source(
        arguments.kind, arguments.source, **{name: getattr(arguments, name) for name in OPTIONS_OF_SOURCES}
    )
    if arguments.to != "parquet" and source.scheme is None:
        raise DataError(f"The {source.kind} data has no landmarks to write as {arguments.to}.")
    if arguments.to == "wflw" and source.scheme is not None:
        from ..data.formats.wflw_writer import check_wflw_points
        from ..model.known_schemes import get_scheme

        to_scheme = arguments.to_scheme
        check_wflw_points(get_scheme(to_scheme).num_landmarks if to_scheme else source.scheme.num_landmarks)
    settings = ConversionSettings(
        boxes=arguments.boxes,
        shard_size=arguments.shard_size,
        num_proc=arguments.num_proc,
        allow_copies=arguments.allow_copies,
        skip_unreadable=arguments.skip_unreadable,
        to_scheme=arguments.to_scheme,
        progress=sys.stderr.isatty(),
    )
    return convert_faces(source, output, settings)


def _export(face_set: "FaceSet", faces: Path, output: Path, form: str) -> None:
    """Write the pictures and annotations of a converted folder as files."""
    from ..data import load_faces
    from ..data.formats.coco_writer import export_coco
    from ..data.formats.pts import export_pts
    from ..data.formats.tool_writer import export_tool, export_wflw

    progress, scheme = sys.stderr.isatty(), face_set.scheme
    for split in face_set.splits:
        rows = load_faces(faces, split, cache_dir=faces.parent / "cache")
        if form == "coco" and scheme:
            export_coco(rows, scheme, output, split, progress=progress)
        elif form == "wflw" and scheme:
            export_wflw(rows, scheme, output, split, progress=progress)
        elif form in TOOLS and scheme:
            export_tool(rows, scheme, output, split, form, progress=progress)
        else:
            export_pts(rows, output, progress=progress)
    face_set.write(output)


def _summary(face_set: "FaceSet", output: Path) -> str:
    """Say in words and a table what was found."""
    return f"{face_set.summary()}\nWritten to {output}."
