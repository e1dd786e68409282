"""JSON that is written as it comes: an array whose entries may be more than memory holds."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, TextIO


__all__ = ["ArrayWriter", "write_members"]


class ArrayWriter:
    """Writes a JSON array entry by entry.

    Args:
        file: A text file; it stays open.
        indent: Spaces before every entry; the closing bracket stands two spaces further to the left.
    """

    def __init__(self, file: TextIO, indent: int = 0):
        self._file, self._indent = file, indent
        self._separator = "\n"
        file.write("[")

    def add(self, texts: Iterable[str]) -> None:
        """Add an entry that is JSON already, whole or in pieces such as the lines of a file."""
        self._file.write(self._separator + " " * self._indent)
        self._file.writelines(texts)
        self._separator = ",\n"

    def close(self) -> None:
        """End the array; the file is left as it is, so that more may follow."""
        self._file.write("\n" + " " * max(0, self._indent - 2) + "]")


def write_members(file: TextIO, members: Mapping[str, Any], first: bool) -> None:
    """Write members of a JSON object, indented by two spaces; brackets, and what follows, are the caller's.

    Args:
        file: A text file.
        members: Names and values that JSON can hold.
        first: Whether they begin the object, or follow others.
    """
    for name, value in members.items():
        file.write("\n  " if first else ",\n  ")
        file.write(f"{json.dumps(name)}: " + json.dumps(value, indent=2).replace("\n", "\n  "))
        first = False
