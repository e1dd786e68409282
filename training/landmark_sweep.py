"""The cells of a few-shot sweep, and the table and plot that they make."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fabrec_hf.common.figures import as_png, make_figure
from fabrec_hf.errors import DataError
from fabrec_hf.evaluation.published_results import load_published_results


@dataclass(frozen=True)
class Cell:
    """One training of a sweep.

    Attributes:
        shots: Annotated faces.
        protocol: `"paper"` (the first ones), `"random"` or `"selected"` (medoids in latent space).
        draw: Which draw, from 0.
        head_steps: Steps of transfer layers and head alone.
        finetune_steps: Steps with the encoder, after those.
        transfer_layers: Which ITLs exist; all if None.
    """

    shots: int
    protocol: str
    draw: int
    head_steps: int
    finetune_steps: int
    transfer_layers: list[int] | None = None

    @property
    def steps(self) -> int:
        """Steps of both kinds."""
        return self.head_steps + self.finetune_steps

    @property
    def name(self) -> str:
        """A name for its files, which says all that sets it apart."""
        layers = "" if self.transfer_layers is None else "-itl" + "".join(map(str, self.transfer_layers))
        return f"{self.shots}-{self.protocol}-{self.draw}-{self.head_steps}+{self.finetune_steps}{layers}"


def parse_shots(text: str, available: int, head_steps: int, finetune_steps: int) -> tuple[int, int, int]:
    """Read `10`, `all` or `10:300:600`: number of faces, steps without and with the encoder.

    Raises:
        ValueError: If it is written in another way, or asks for no step.
        DataError: If there are fewer faces.
    """
    parts = text.split(":")
    try:
        shots = available if parts[0] == "all" else int(parts[0])
        head_steps, finetune_steps = map(int, parts[1:]) if len(parts) > 1 else (head_steps, finetune_steps)
    except ValueError:
        raise ValueError(f"--shots takes numbers such as 10, all or 10:300:600, got {text!r}.") from None
    if min(head_steps, finetune_steps) < 0 or head_steps + finetune_steps < 1:
        raise ValueError(f"--shots {text} asks for no step of training.")
    if not 1 <= shots <= available:
        raise DataError(f"--shots {text}: there are {available} faces to train on.")
    return shots, head_steps, finetune_steps


def paper_curve() -> dict[int, float]:
    """NME on 300-W common of the paper's table 4 by number of faces; all 3,148 are its table 1's."""
    for entry in load_published_results().tables:
        if entry.scheme == "300w" and entry.limited and entry.number == 4:
            (row,) = (row for row in entry.rows if row.method.startswith("3FabRec"))
            cells = zip(entry.columns, row.values, strict=True)
            return {
                column.shots or 3148: float(value)
                for column, value in cells
                if value is not None and column.subset == "common"
            }
    return {}


def table(results: Sequence[Mapping], beside_paper: bool, note: str = "") -> str:
    """Write the cells as Markdown: a row for each number of faces, protocol and set of ITLs.

    Args:
        results: Cells as dictionaries with NME in percent where it was measured: `before` and `after`, and `peer`, of
            MediaPipe's mesh and a regression that learned from the same faces.
        beside_paper: Whether the paper's numbers are of the same test set.
        note: A sentence to end with.
    """
    paper = paper_curve() if beside_paper else {}
    lines = [
        "| faces | protocol | ITLs | draws | transfer layers only | with the encoder | MediaPipe, ridge | paper |",
        "|---:|---|---|---:|---:|---:|---:|---:|",
    ]
    for (shots, protocol, layers), cells in _groups(results).items():
        columns = ("before", "after", "peer")
        numbers = [_mean_and_deviation([cell[key] for cell in cells if key in cell]) for key in columns]
        same = shots in paper and protocol == "paper" and layers == "all"
        published = f"{paper[shots]:.2f}" if same else "-"
        lines.append(f"| {shots:,} | {protocol} | {layers} | {len(cells)} | {' | '.join(numbers)} | {published} |")
    scored = results[0]["faces_scored"] if results else 0
    about = f"NME in % over {scored} faces; mean and standard deviation over the draws. {note}".strip()
    return "\n".join([*lines, "", about, ""])


def _groups(results: Sequence[Mapping]) -> dict[tuple[int, str, str], list[Mapping]]:
    found: dict[tuple[int, str, str], list[Mapping]] = {}
    for cell in results:
        layers = cell["transfer_layers"]
        name = "all" if layers is None else ", ".join(map(str, layers))
        found.setdefault((cell["shots"], cell["protocol"], name), []).append(cell)
    return found


def _mean_and_deviation(values: Sequence[float]) -> str:
    if not values:
        return "-"
    deviation = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{deviation}"


def draw_curve(results: Sequence[Mapping], beside_paper: bool) -> bytes:
    """Plot NME against the number of faces, one line a protocol and stage, and the paper's beside them.

    Returns:
        A PNG.
    """
    figure = make_figure(figsize=(7, 4.5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    curves: dict[str, dict[int, list[float]]] = {}
    for cell in results:
        stages = {"before": "transfer layers only", "after": "with the encoder", "peer": "MediaPipe and a regression"}
        for key, stage in stages.items():
            if key in cell and cell["transfer_layers"] is None:
                curves.setdefault(f"{cell['protocol']}, {stage}", {}).setdefault(cell["shots"], []).append(cell[key])
    for label, points in curves.items():
        shots = sorted(points)
        deviations = [np.std(points[count], ddof=1) if len(points[count]) > 1 else 0 for count in shots]
        axes.errorbar(shots, [np.mean(points[count]) for count in shots], deviations, marker="o", label=label)
    if beside_paper and (paper := paper_curve()):
        axes.plot(list(paper), list(paper.values()), "k--", marker="s", label="3FabRec (CVPR 2020)")
    axes.set(xscale="log", yscale="log", xlabel="annotated faces", ylabel="NME in %")
    axes.grid(True, which="both", alpha=0.3)
    if curves:
        axes.legend()
    return as_png(figure)
