"""`fabrec card`: collect what was measured of a checkpoint, and write its model card."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.names import embedded_names, resolve_checkpoint, weights_path
from ..checkpoints.results import FILE_NAME, add_measurements, to_json
from ..common.choices import PICTURE_NAME
from ..common.console import say
from ..common.output_folder import check_output_folder, write_files
from ..errors import CheckpointError
from .device_option import add_device_option


if TYPE_CHECKING:
    from ..hub.model_card import CardContext


__all__ = ["add_arguments", "run"]

NOTES = f"""The card says what config.json and {FILE_NAME} in the folder of the checkpoint say; `fabrec push` sends the
same one. --add and --photo write to that folder. The layout of {FILE_NAME} stands in
fabrec_hf/checkpoints/results.py."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a card to a parser."""
    parser.description = f"{parser.description} {NOTES}"
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder, or name of an embedded checkpoint")
    parser.add_argument(
        "--add",
        nargs="+",
        default=[],
        type=Path,
        metavar="RESULTS",
        help=f"results.json of `fabrec evaluate` or `fabrec robustness`: taken over into {FILE_NAME}",
    )
    parser.add_argument(
        "--photo",
        nargs="+",
        default=[],
        type=Path,
        help=f"draw the faces of these photographs into {PICTURE_NAME}, which is published with the card",
    )
    add_device_option(parser, "where --photo computes")
    parser.add_argument("--name", help="title of the card (the folder's name)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the card here instead of printing it")


def run(arguments: argparse.Namespace) -> int:
    """Collect and write as the arguments say.

    Args:
        arguments: Parsed arguments of `add_arguments`.

    Returns:
        The exit code, 0.

    Raises:
        FabRecError: For whatever the user can put right; one line. Nothing is written then.
    """
    folder = Path(resolve_checkpoint(arguments.checkpoint))
    if not folder.is_dir():
        raise CheckpointError(f"{arguments.checkpoint} is no folder: a card is made where the checkpoint lies.")
    if arguments.output:
        check_output_folder(arguments.output.parent)
    files: dict[str, bytes] = {}
    if arguments.add:
        files[FILE_NAME] = to_json(add_measurements(folder, arguments.add)).encode()
    if arguments.photo:
        files[PICTURE_NAME] = _draw(folder, arguments.photo, arguments.device)
    if files:
        write_files(folder, files)
    from ..hub.model_card import make_card

    name = arguments.name or folder.resolve().name
    card = make_card(folder, _context(arguments, folder, name))
    if arguments.output:
        write_files(arguments.output.parent, {arguments.output.name: card.encode()})
        say(str(arguments.output))
    else:
        sys.stdout.write(card)
    return 0


def _draw(folder: Path, photos: list[Path], device: str | None) -> bytes:
    from ..checkpoints.loading import load_checkpoint, move_to_device
    from ..hub.card_picture import draw_card_picture

    model, processor = load_checkpoint(folder)
    return draw_card_picture(move_to_device(model, device), processor, photos)


def _context(arguments: argparse.Namespace, folder: Path, name: str) -> "CardContext":
    from ..hub.model_card import CardContext

    embedded = arguments.checkpoint in embedded_names() and folder == weights_path(arguments.checkpoint)
    reference = f'fabrec_hf.weights_path("{arguments.checkpoint}")' if embedded else f'"{arguments.checkpoint}"'
    picture = None
    if (folder / PICTURE_NAME).is_file():
        start = arguments.output.absolute().parent if arguments.output else Path.cwd()
        picture = Path(os.path.relpath(folder.absolute() / PICTURE_NAME, start)).as_posix()
    return CardContext(name, reference, picture=picture)
