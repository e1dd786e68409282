"""Lines on the screen: what commands say, and what progress bars over pictures and frames show beside their rate."""

import sys
from typing import Any, TextIO


__all__ = ["say", "show_rate"]


def say(line: str, file: TextIO | None = None) -> None:
    """Write a line of a command's answer to standard output, or a remark to `file`, without tearing a progress bar.

    Args:
        line: What to say; may hold several lines.
        file: `sys.stderr` for what is not the answer itself.
    """
    from tqdm import tqdm  # `fabrec --help` has no bar and need not wait for it

    file = file or sys.stdout
    tqdm.write(line, file=file)
    file.flush()  # whoever reads a pipe sees it at once, too


def show_rate(bar: Any, faces: int) -> None:
    """Let a `tqdm` bar show the faces a second, given the faces so far; it is drawn at the bar's own pace."""
    elapsed = bar.format_dict["elapsed"]
    if elapsed:
        bar.set_postfix_str(f"{faces / elapsed:.1f} faces/s", refresh=False)
