"""The option `--device` of the verbs that compute."""

import argparse


__all__ = ["add_device_option"]


def add_device_option(parser: argparse.ArgumentParser, what: str = "") -> None:
    """Add `--device` to the parser of a verb.

    Args:
        parser: Of the verb.
        what: What of it is computed there, where that is not all.
    """
    devices = "cpu, cuda, cuda:1; the GPU by default where there is one"
    parser.add_argument("--device", help=f"{what}: {devices}" if what else devices)
