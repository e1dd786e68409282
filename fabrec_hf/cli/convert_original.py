"""`fabrec convert-original`: the arguments of `export.authors_checkpoint.convert` on the command line."""

import argparse

from ..common.console import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a conversion to a parser."""
    parser.add_argument("mdl", metavar="MDL", help="the authors' saae.mdl")
    parser.add_argument("output", metavar="OUTPUT", help="new folder for the converted checkpoint")


def run(arguments: argparse.Namespace) -> int:
    """Convert as the arguments say and print where the result is.

    Args:
        arguments: parsed arguments of `add_arguments`.

    Returns:
        The exit code, 0.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is no published checkpoint, or the output folder is in use.
    """
    from ..export.authors_checkpoint import convert

    say(f"{arguments.mdl} -> {convert(arguments.mdl, arguments.output)}")
    return 0
