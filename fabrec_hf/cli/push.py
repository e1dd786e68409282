"""`fabrec push`: publish a checkpoint, a converted data set, a metric or the demonstration on the Hub."""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.choices import MAIN
from ..common.console import say
from ..common.drafts import unfinished_folder
from ..common.output_folder import check_new_folder, take_place
from ..errors import FabRecError


if TYPE_CHECKING:
    from ..hub.contents import Contents
    from ..hub.publishing import Pushed


__all__ = ["add_arguments", "run"]

NOTES = """Each revision is replaced by one commit: what a killed push has not reached is as it was, and a push of
the same content makes no commit. Of a checkpoint only weights, configuration with the landmark scheme, processor,
pipeline, the source files that these need, results.json and the card with its picture are sent. See `fabrec card` for
what the card says. With --space, the demonstration (`fabrec demo`) becomes a Space that starts as it is: its app with
the sources and weights of this package beside it. The Hub and the token are those of `hf auth login`, HF_ENDPOINT and
HF_TOKEN."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of a push to a parser."""
    parser.description = f"{parser.description} {NOTES}"
    parser.add_argument(
        "source",
        metavar="SOURCE",
        nargs="?",
        help="folder or embedded name of a checkpoint, folder of `fabrec convert`, or name of a metric such as nme",
    )
    parser.add_argument("repository", metavar="REPO", nargs="?", help="owner/name, or a name alone for your own")
    parser.add_argument(
        "--space", metavar="REPO", help="publish the demonstration as the Space REPO, in place of SOURCE and REPO"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="with --space: write it into this new folder, and send nothing",
    )
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
    if arguments.space is not None:
        return _run_space(arguments)
    if arguments.source is None or arguments.repository is None:
        raise FabRecError("Name what to publish and where: fabrec push SOURCE REPO, or fabrec push --space REPO.")
    if arguments.output is not None:
        raise FabRecError("--output is for --space; --dry-run lists what would be sent of anything else.")
    from ..hub.contents import gather
    from ..hub.publishing import check_name, push

    check_name(arguments.repository)
    options = (arguments.revision, arguments.few_shot, arguments.annotations_only)
    if arguments.dry_run:
        with gather(arguments.source, arguments.repository, *options) as contents:
            say(_plan(contents, arguments.repository, arguments.json))
        return 0
    _show_progress()
    _report(push(arguments.source, arguments.repository, *options, private=arguments.private), arguments.json)
    return 0


def _run_space(arguments: argparse.Namespace) -> int:
    """Publish the demonstration, list its files or write them."""
    given = {
        "SOURCE and REPO": arguments.source,
        "--revision": arguments.revision != MAIN,
        "--few-shot": arguments.few_shot,
        "--annotations-only": arguments.annotations_only,
    }
    for name, value in given.items():
        if value:
            raise FabRecError(f"--space publishes the demonstration, for which {name} means nothing: leave it out.")
    from ..hub.contents import Contents
    from ..hub.publishing import check_name, push_space
    from ..hub.space import space_files

    check_name(arguments.space)
    if arguments.output is not None:
        _write_space(arguments.output, space_files())
        say(f"The Space lies in {arguments.output}. Nothing was sent.")
        return 0
    if arguments.dry_run:
        contents = Contents("space", {MAIN: space_files()}, "gradio")
        say(_plan(contents, arguments.space, arguments.json))
        return 0
    _show_progress()
    _report([push_space(arguments.space, arguments.private)], arguments.json)
    return 0


def _write_space(folder: Path, files: Mapping[str, Path]) -> None:
    check_new_folder(folder)
    with unfinished_folder(folder.absolute().parent) as workplace:
        finished = workplace / "space"
        for name, path in files.items():
            target = finished / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        take_place(finished, folder)


def _show_progress() -> None:
    from huggingface_hub.utils import enable_progress_bars

    if sys.stderr.isatty():
        enable_progress_bars()


def _report(published: "Sequence[Pushed]", as_json: bool) -> None:
    if as_json:
        say(json.dumps([vars(entry) for entry in published], indent=2))
        return
    for entry in published:
        state = "published" if entry.changed else "unchanged"
        say(f"{entry.repository}@{entry.revision}: {state}, {entry.files} files, commit {entry.commit}")


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
