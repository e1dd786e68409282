"""Files and folders that appear whole or not at all: they are written under hidden names, and then get their own.

An error leaves nothing of them, and what stood in their places before. A killed process leaves what it has written,
under names that begin with `PREFIX` and have no suffix, so that no reader takes it for a picture or a table. It may be
deleted when nobody is writing there. A job that goes on where it was killed calls `remove_drafts` first.
"""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


__all__ = ["PREFIX", "Drafts", "draft_of", "remove_drafts", "unfinished_folder"]

PREFIX = ".partial-"


class Drafts:
    """Hidden places for what will stand in a folder.

    As a context it finishes at its end, and discards after an error.

    Args:
        folder: A folder that is there. The drafts are in it.
        names: What will stand in it, files or folders; `"images/train"` is one in a folder, which is made in the end.
    """

    def __init__(self, folder: Path, *names: str):
        # Drawn by chance: another process, and another thread, may be writing the same file.
        mark = f"{PREFIX}{secrets.token_hex(6)}"
        self._folder = folder
        self._drafts = {name: folder / f"{mark}-{number}" for number, name in enumerate(names)}

    def __getitem__(self, name: str) -> Path:
        """Return where to write what is going to have a name; nothing is there yet."""
        return self._drafts[name]

    def finish(self) -> None:
        """Give everything its name, in the order of the names; a file that has one of them is replaced.

        Raises:
            OSError: If a draft was not written, or there is a folder in its place that is not empty.
        """
        try:
            for name, draft in self._drafts.items():
                place = self._folder / name
                place.parent.mkdir(parents=True, exist_ok=True)
                draft.replace(place)
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove what has not got its name."""
        for draft in self._drafts.values():
            _remove(draft)

    def __enter__(self) -> "Drafts":
        """Return the drafts themselves."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Finish, or discard after an error."""
        if kind is None:
            self.finish()
        else:
            self.discard()


@contextmanager
def draft_of(file: Path) -> Iterator[Path]:
    """Yield where to write a file that appears at the end of the block, and does not after an error.

    Args:
        file: Its place, in a folder that is there. A file that is there already is replaced.

    Raises:
        OSError: If it was not written, or cannot take its place.
    """
    with Drafts(file.parent, file.name) as drafts:
        yield drafts[file.name]


@contextmanager
def unfinished_folder(folder: Path) -> Iterator[Path]:
    """Make a folder, and yield a hidden one in it to fill and to move out of.

    What was not moved to its place is gone in the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f"{PREFIX}{secrets.token_hex(6)}"
    unfinished.mkdir()
    try:
        yield unfinished
    finally:
        _remove(unfinished)


def remove_drafts(folder: Path) -> None:
    """Remove what killed processes have left in a folder; nobody may be writing there."""
    for draft in folder.glob(f"{PREFIX}*"):
        _remove(draft)


def _remove(draft: Path) -> None:
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)
