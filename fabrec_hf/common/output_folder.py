"""Folders that a command writes its results to: refused early, filled all at once."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ..errors import DataError, FabRecError
from .drafts import Drafts


__all__ = ["check_new_folder", "check_output_folder", "make_readable", "take_place", "write_files", "writing_to"]


def check_output_folder(folder: Path) -> None:
    """Refuse early, before a model is loaded, what can never become the folder of the results.

    Raises:
        FabRecError: If a file is in the way, or there is no permission to write.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise FabRecError(f"cannot write to {folder}: {existing} is not a folder.")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise FabRecError(f"cannot write to {folder}: permission denied.")


def check_new_folder(folder: Path, error: type[FabRecError] = DataError) -> None:
    """Refuse a folder that holds something, and a file in its place; an empty folder will do.

    Args:
        folder: What is going to be written.
        error: What is raised.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise error(f"{folder} exists and is not empty; name a new folder.")


def take_place(finished: Path, folder: Path) -> None:
    """Give a finished folder its name; what `check_new_folder` has let pass is replaced."""
    if folder.is_dir():
        folder.rmdir()
    finished.rename(folder)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Say of what the system refuses within the block that the folder cannot be written to.

    Raises:
        FabRecError: If it cannot; one line with the reason.
    """
    try:
        yield
    except OSError as error:
        raise FabRecError(f"cannot write to {folder}: {error.strerror or error}.") from error


def make_readable(folder: Path) -> None:
    """Give a folder and its files the permissions that new ones have: safetensors and tempfile mean one user alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | ((0o777 if path.is_dir() else 0o666) & ~mask))


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files under other names first, then give all of them their own: a kill leaves none half-written.

    Args:
        folder: Where to; made if it is not there.
        files: Content by name.

    Raises:
        FabRecError: If the folder cannot be written to.
    """
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with Drafts(folder, *files) as drafts:
            for name, content in files.items():
                drafts[name].write_bytes(content)
