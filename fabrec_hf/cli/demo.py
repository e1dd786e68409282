"""`fabrec demo`: the method in a browser."""

import argparse
import os
import sys
from pathlib import Path

from ..common.console import say
from ..common.output_folder import check_output_folder
from ..errors import FabRecError
from .device_option import add_device_option


__all__ = ["add_arguments", "run"]

NOTES = """It listens on this machine only, unless --host says otherwise, and sends nothing to any other but a
detector that is pushed to the Hub. Annotations are kept from one run to the next. Ctrl-C ends it."""

MONTH = 30 * 86400.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the demonstration to a parser."""
    parser.description = f"{parser.description} {NOTES}"
    parser.add_argument(
        "--model",
        nargs="+",
        default=["3fabrec-300w"],
        metavar="NAME",
        help="landmark checkpoints: folders, embedded or hub names; the first one detects, all can be compared, "
        "as in --model full shots-1 shots-10 shots-50 (3fabrec-300w)",
    )
    parser.add_argument(
        "--autoencoder",
        default="3fabrec-autoencoder",
        metavar="NAME",
        help="for reconstructions, and for teaching instead of 3fabrec-mesh (%(default)s)",
    )
    add_device_option(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    parser.add_argument("--port", type=int, help="port to listen at; the first free one from 7860 on by default")
    parser.add_argument(
        "--sessions",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fabrec_hf" / "sessions",
        help="where photographs and annotations are kept; removed after a month without use (%(default)s)",
    )
    parser.add_argument("--examples", type=Path, metavar="DIR", help="photographs to try")
    parser.add_argument(
        "--annotate",
        type=Path,
        metavar="DIR",
        help="open the page Teach with these photographs: what fabrec select --output wrote, or any folder of "
        "photographs; the same folder goes on where it was left. Whoever opens the page sees them",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve the demonstration until it is interrupted.

    Args:
        arguments: Parsed arguments of `add_arguments`.

    Returns:
        The exit code, 0.

    Raises:
        FabRecError: If a checkpoint or a folder cannot be used, or the port is taken; one line.
    """
    from ..demo.server import Settings, example_pictures, serve
    from ..demo.uploads import Limits

    if arguments.port is not None and not 0 < arguments.port < 65536:
        raise FabRecError(f"--port must lie between 1 and 65535, not {arguments.port}.")
    check_output_folder(arguments.sessions)
    annotate, limits = None, Limits()
    if arguments.annotate is not None:
        from ..demo.prepared import folder_to_annotate

        annotate = folder_to_annotate(
            arguments.annotate, limits.photographs, lambda text: say(f"fabrec demo: {text}", sys.stderr)
        )
    serve(
        Settings(
            annotate=annotate,
            limits=limits,
            models=tuple(arguments.model),
            autoencoder=arguments.autoencoder,
            sessions=arguments.sessions,
            max_age=MONTH,
            examples=example_pictures(arguments.examples),
            host=arguments.host,
            port=arguments.port,
            device=arguments.device,
        ),
        on_start=lambda url: say(f"The demonstration runs at {url} (Ctrl-C ends it)."),
    )
    return 0
