"""What progress bars over pictures and frames show beside their own rate."""

from typing import Any


__all__ = ["show_rate"]


def show_rate(bar: Any, faces: int) -> None:
    """Let a `tqdm` bar show the faces a second, given the faces so far; it is drawn at the bar's own pace."""
    elapsed = bar.format_dict["elapsed"]
    if elapsed:
        bar.set_postfix_str(f"{faces / elapsed:.1f} faces/s", refresh=False)
