"""The options that say how annotations are read, of the verbs that take them in any format."""

from typing import Any


__all__ = ["READER_OPTIONS", "add_reader_options"]

READER_OPTIONS = ("scheme", "origin", "images", "annotations", "category", "image_column")
"""Their names, which are also those of what `open_source` takes."""


def add_reader_options(parser: Any) -> None:
    """Add the options to a parser, or to a group of its arguments."""
    parser.add_argument("--scheme", help="what the points are: 300w, wflw, aflw, mtfl, or a YAML or JSON file")
    parser.add_argument("--origin", type=int, choices=(0, 1), help=".pts files: the first pixel's coordinate")
    parser.add_argument("--images", metavar="FOLDER", help="where the pictures are, if not where they should be")
    parser.add_argument("--annotations", metavar="FOLDER", help=".pts files that do not lie beside their pictures")
    parser.add_argument("--category", help="which objects are faces, where a COCO file or a tool has several")
    parser.add_argument("--image-column", help="CSV: the column with the picture's file")
