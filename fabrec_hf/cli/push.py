"""`fabrec push`: publish a checkpoint, a converted data set or a metric on the Hub."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.choices import MAIN
from ..common.console import say


if TYPE_CHECKING:
    from ..hub.contents import Contents


__all__ = ["add_arguments", "run"]

NOTES = """Each revision is replaced by one commit: what a killed push has not reached is as it was, and a push of
the same content makes no commit. Of a checkpoint only weights, configuration with the landmark scheme, processor,
pipeline, the source files that these need, results.json and the card with its picture are sent. See `fabrec card` for
what the card says. The Hub and the token are those of `hf auth login`, HF_ENDPOINT and HF_TOKEN."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a push to a parser."""
    parser.description = f"{parser.description} {NOTES}"
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder or embedded name of a checkpoint, folder of `fabrec convert`, or name of a metric such as nme",
    )
    parser.add_argument("repository", metavar="REPO", help="owner/name, or a name alone for your own")
    parser.add_argument("--revision", default=MAIN, help="branch to push to (%(default)s)")
    parser.add_argument(
        "--few-shot",
        type=Path,
        metavar="FOLDER",
        help="push the checkpoint in each folder of FOLDER to the revision of that name, such as shots-10, and list "
        "them in the main card",
    )
    parser.add_argument("--annotations-only", action="store_true", help="of a data set, leave the pictures out")
    parser.add_argument(
        "--private", action="store_true", default=None, help="make a new repository private, and refuse a public one"
    )
    parser.add_argument("--dry-run", action="store_true", help="list what would be sent, and send nothing")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def run(arguments: argparse.Namespace) -> int:
    """Push, or list what would be pushed.

    Args:
        arguments: Parsed arguments of `add_arguments`.

    Returns:
        The exit code, 0.

    Raises:
        FabRecError: For whatever the user can put right; one line. The revision at fault stays as it was.
    """
    from ..hub.contents import gather
    from ..hub.publishing import check_name, push

    check_name(arguments.repository)
    options = (arguments.revision, arguments.few_shot, arguments.annotations_only)
    if arguments.dry_run:
        with gather(arguments.source, arguments.repository, *options) as contents:
            say(_plan(contents, arguments.repository, arguments.json))
        return 0
    from huggingface_hub.utils import enable_progress_bars

    if sys.stderr.isatty():
        enable_progress_bars()
    published = push(arguments.source, arguments.repository, *options, private=arguments.private)
    if arguments.json:
        say(json.dumps([vars(entry) for entry in published], indent=2))
        return 0
    for entry in published:
        state = "published" if entry.changed else "unchanged"
        say(f"{entry.repository}@{entry.revision}: {state}, {entry.files} files, commit {entry.commit}")
    return 0


def _plan(contents: "Contents", repository: str, as_json: bool) -> str:
    sizes = {
        revision: {name: path.stat().st_size for name, path in files.items()}
        for revision, files in contents.revisions.items()
    }
    if as_json:
        return json.dumps({"repository": repository, "kind": contents.kind, "revisions": sizes}, indent=2)
    lines = []
    for revision, files in sizes.items():
        lines.append(f"{contents.kind} {repository}@{revision}: {len(files)} files, {sum(files.values()):,} bytes")
        lines += [f"  {size:>12,}  {name}" for name, size in files.items()]
    return "\n".join([*lines, "Nothing was sent."])
