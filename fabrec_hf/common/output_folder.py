"""Folders that a command writes its results to: refused early, filled all at once."""

import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import FabRecError
from .drafts import Drafts


__all__ = ["check_output_folder", "make_readable", "write_files"]


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with Drafts(folder, *files) as drafts:
            for name, content in files.items():
                drafts[name].write_bytes(content)
    except OSError as error:
        raise FabRecError(f"cannot write to {folder}: {error.strerror or error}.") from error
