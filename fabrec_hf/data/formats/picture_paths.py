"""Where the pictures are that annotations name: tools write other separators, absolute names, URLs."""

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ...errors import DataError
from ..picture_files import is_picture


__all__ = ["TRIED", "PicturePlaces", "plain_name"]

TRIED = 100
"""Pictures that are looked for before a folder is taken for the wrong one."""

# Label Studio puts eight digits before the name of a picture that is uploaded.
_UPLOAD_MARK = re.compile(r"[0-9a-f]{8}-(?=.)")


@dataclass(frozen=True)
class PicturePlaces:
    """Finds pictures by the names that annotations give them.

    Attributes:
        folders: What names may be relative to, the likeliest first.
        roots: Where a picture is looked for, at any depth, by its base name alone.
    """

    folders: tuple[Path, ...]
    roots: tuple[Path, ...] = ()

    def find(self, name: str) -> Path | None:
        """Return the file of a picture, or None if there is none.

        Raises:
            DataError: If several pictures below the roots have this base name, and none the whole name.
        """
        for written in dict.fromkeys((name, plain_name(name))):
            for folder in self.folders:
                if (folder / written).is_file():
                    return folder / written
        base = plain_name(name).rpartition("/")[2]
        for wanted in dict.fromkeys((base, _UPLOAD_MARK.sub("", base, count=1))):
            for root in self.roots:
                found = _base_names(root, root.stat().st_mtime_ns).get(wanted, ())
                if len(found) > 1:
                    raise DataError(
                        f"The annotations name {name}, and there are {found[0]} and {found[1]} in {root}; rename one, "
                        "or say which folder of pictures is meant (images)."
                    )
                if found:
                    return root / found[0]
        return None

    def path(self, name: str) -> Path:
        """Return the file of a picture; where there is none, the one that would be looked for first."""
        return self.find(name) or self.folders[0] / name

    def holds_one_of(self, names: Sequence[str]) -> bool:
        """Whether at least one of the pictures is found."""
        return any(self.find(name) is not None for name in names)


def plain_name(name: str) -> str:
    r"""Return a picture's name with `/` between folders, without percent codes, scheme and query of a URL.

    >>> plain_name("faces\\my%20face.jpg")
    'faces/my face.jpg'
    """
    if re.match(r"[a-z][a-z0-9+.-]+://", name, re.IGNORECASE):
        parts = urlsplit(name)
        name = f"{parts.netloc}{parts.path}"
    return unquote(name).replace("\\", "/")


@functools.lru_cache(maxsize=16)
def _base_names(root: Path, changed: int) -> dict[str, tuple[str, ...]]:
    """List the pictures below a folder, nothing hidden, by base name; two of each name are enough.

    A cache holds what was found, for as long as the folder was last `changed` at the same time.
    """
    found: dict[str, tuple[str, ...]] = {}
    for place, folders, names in os.walk(root):
        folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
        for name in sorted(names):
            if is_picture(name) and len(found.get(name, ())) < 2:
                found[name] = (*found.get(name, ()), os.path.relpath(os.path.join(place, name), root))
    return found
