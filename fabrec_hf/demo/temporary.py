"""A folder for what is only needed while the demonstration runs, removed at its end, however that comes."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


try:
    import fcntl
except ImportError:  # not on Windows, where a folder that was left behind stays
    fcntl = None  # type: ignore[assignment]

__all__ = ["temporary_folder"]

PREFIX = "fabrec-demo-"
LOCK = "lock"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that only this user can read, and remove it at the end.

    A process that is killed cannot remove its own: the next one that starts does. The lock of a file in it, which the
    system takes back from a process that is gone, tells the two apart.
    """
    remove_left_behind()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / LOCK).open("w") as lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_behind() -> None:
    """Remove the folders of this user's demonstrations that are no longer running."""
    if fcntl is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # it has no lock yet, its demonstration runs, or another one is removing it
            continue
