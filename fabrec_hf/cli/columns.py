"""The option `--columns` of the verbs that read annotated faces."""

import argparse
from collections.abc import Sequence

from ..common.choices import COLUMNS
from ..errors import DataError


__all__ = ["add_columns_option", "column_names"]


def add_columns_option(parser: argparse.ArgumentParser) -> None:
    """Add `--columns` to the parser of a verb."""
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="OURS=THEIRS",
        help="what columns of a Parquet or Hub data set are called, as landmarks=keypoints box=bbox; without a box it "
        "is the tight box of the points",
    )


def column_names(given: Sequence[str] | None) -> dict[str, str]:
    """Read the values of `--columns`.

    Raises:
        DataError: If one is no pair, or its first name is no column of ours.
    """
    pairs = dict(word.partition("=")[::2] for word in given or ())
    for ours, theirs in pairs.items():
        if ours not in COLUMNS or not theirs:
            raise DataError(f"--columns takes pairs as landmarks=keypoints, of {', '.join(COLUMNS)}, not {ours!r}.")
    return pairs
