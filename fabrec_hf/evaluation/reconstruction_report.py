"""Reconstruction errors by group of people as Markdown, for the robustness report and for model cards."""

from collections.abc import Mapping
from typing import Any


__all__ = ["group_name", "reconstruction_section"]


def group_name(entry: Mapping[str, Any]) -> str:
    """Return what a group is called beside its source and attribute: empty for a whole source."""
    return (entry["group"] or "").replace("_", " ")


def reconstruction_section(measured: Mapping[str, Any]) -> list[str]:
    """Return the lines of the section.

    Args:
        measured: What `measure_reconstruction` returns, with `autoencoder`, `faces` and `held_out_only` beside it.
    """
    which = "held out of pre-training" if measured["held_out_only"] else "pre-training may have seen most of them"
    lines = [
        "## Reconstruction by group",
        "",
        f"{measured['autoencoder']} on {measured['count']} faces of {' '.join(measured['faces'])} ({which}), at "
        f"{measured['image_size']} px. L1 in gray levels of 255; structural error is 1 - cs, cs being the "
        "contrast-structure part of SSIM. Means, with their 95 % intervals in brackets.",
        "",
        "| source | attribute | group | faces | L1 | structural error |",
        "|---|---|---|---:|---:|---:|",
    ]
    for entry in measured["groups"]:
        if entry["source"] is None and entry["attribute"] is None:
            names = ["all", "", ""]
        else:
            names = [entry["source"] or "", entry["attribute"] or "all", group_name(entry)]
        cells = [_interval(entry["l1"], ".1f"), _interval(entry["structural"], ".3f")]
        lines.append("| " + " | ".join([*names, str(entry["count"]), *cells]) + " |")
    notes = [
        f"- Groups of fewer than {measured['minimum']} faces are counted, and have no mean.",
        "- Groups are compared within their source only: sources differ in words, pictures and framing. Ages given as "
        "numbers were put into FairFace's bands (0-2, 3-9, 10-19, ..., 60-69, 70+); labels that are ranges already "
        "stand as their source wrote them.",
        f"- Intervals: percentile bootstrap over faces, {measured['resamples']} resamples, each group on its own.",
        "- The labels are those of the source, as they are. A difference between groups may come from pose, light, "
        "sharpness or framing that differ between them as well.",
    ]
    for entry in measured["unlabelled"]:
        where = f" of {entry['source']}" if entry["source"] else ""
        notes.append(f"- Faces{where} without a label of {entry['attribute']}, in no group of it: {entry['count']}.")
    return [*lines, "", *notes, ""]


def _interval(entry: Mapping[str, float] | None, form: str) -> str:
    if entry is None:
        return "too few faces"
    return f"{entry['mean']:{form}} ({entry['low']:{form}} to {entry['high']:{form}})"
