"""The picture of how the error falls with the number of annotated faces, for a card with few-shot revisions."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..checkpoints.results import read_results
from ..common.figures import as_png, make_figure


__all__ = ["CURVE_NAME", "draw_few_shot_curve", "few_shot_errors"]

CURVE_NAME = "few-shot.png"
COLOR = "#1d4ed8"


def few_shot_errors(folders: Mapping[str, Path]) -> list[tuple[int, float]]:
    """Return the annotated faces and the error of each checkpoint that was measured, the fewest first.

    Args:
        folders: Of the checkpoints, by the name of their revision.

    Returns:
        (faces, NME in percent) of the first evaluation of each.
    """
    first = [evaluations[0] for folder in folders.values() if (evaluations := read_results(folder)["evaluations"])]
    known = [(entry.get("shots"), entry["nme"]) for entry in first]
    return sorted((int(shots), float(nme)) for shots, nme in known if shots and nme is not None)


def draw_few_shot_curve(errors: Sequence[tuple[int, float]]) -> bytes:
    """Draw the curve; faces are on a logarithmic axis.

    Args:
        errors: (faces, NME in percent), the fewest first.

    Returns:
        A PNG, twice as wide as high.

    Raises:
        FabRecError: If matplotlib is not installed.
    """
    figure = make_figure(figsize=(8, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    faces, nme = zip(*errors, strict=True)
    axes.plot(faces, nme, color=COLOR, marker="o", linewidth=2)
    for x, y in errors:
        axes.annotate(f"{y:.2f}", (x, y), (0, 8), textcoords="offset points", ha="center")
    axes.set_xscale("log")
    axes.set_xticks(faces, [f"{count:,}" for count in faces])
    axes.set_xticks([], minor=True)
    axes.set_ylim(0, 1.15 * max(nme))
    axes.set_xlabel("annotated faces")
    axes.set_ylabel("NME in %")
    axes.spines[["top", "right"]].set_visible(False)
    return as_png(figure)
