"""The one figure of `fabrec robustness`: curves of error against strength, and bars of error by group."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..common.figures import as_png, make_figure, require_matplotlib
from .perturbations import PERTURBATIONS
from .reconstruction_report import group_name


__all__ = ["draw_robustness"]

# Okabe and Ito's colors, which people with any color vision tell apart.
BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#555555"
ATTRIBUTE_COLORS = {None: GRAY, "age": BLUE, "gender": ORANGE, "race": GREEN}

DPI = 100
WIDTH = 16.0  # inches: 1600 px
PANEL_HEIGHT = 3.6
BAR_HEIGHT = 0.24
BAR_ALPHA = 0.7
COLUMNS = 3


def draw_robustness(results: Mapping[str, Any]) -> bytes:
    """Draw everything that was measured into one figure.

    Args:
        results: With `robustness`, `reconstruction` or both, as `fabrec robustness` writes them.

    Returns:
        A PNG, 1600 pixels wide.

    Raises:
        FabRecError: If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    curves = results.get("robustness", {}).get("perturbations", {})
    groups = results.get("reconstruction", {}).get("groups", [])
    curve_rows = math.ceil(len(curves) / COLUMNS)
    heights = [curve_rows * PANEL_HEIGHT] if curves else []
    heights += [BAR_HEIGHT * (len(groups) + _gaps(groups)) + 1.6] if groups else []
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, hspace=0.04)
    figure = make_figure(figsize=(WIDTH, sum(heights)), dpi=DPI, layout=layout)
    parts = iter(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    if curves:
        _draw_curves(next(parts), results["robustness"], curve_rows)
    if groups:
        _draw_groups(next(parts), results["reconstruction"])
    return as_png(figure)


def _draw_curves(figure: Any, measured: Mapping[str, Any], rows: int) -> None:
    """Draw a panel a perturbation: the mean error on the left axis, failures on the right one, both shared by all."""
    figure.suptitle(f"{measured['model']}: landmarks under perturbations, {measured['count']} faces", fontsize=15)
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    curves = measured["perturbations"]
    known = [point["nme"] for entry in curves.values() for point in entry["curve"] if point["nme"] is not None]
    tops = {"nme": 1.1 * max(known, default=1), "failure_rate": 102}
    failures = f"failures (over {measured['threshold']:g} %), % of faces"
    styles = {
        "nme": ("NME, %", {"color": BLUE, "marker": "o", "linewidth": 2}),
        "failure_rate": (failures, {"color": ORANGE, "marker": "s", "linewidth": 1.5, "linestyle": "--"}),
    }
    for index, (panel, (name, entry)) in enumerate(zip(panels, curves.items(), strict=False)):
        curve = entry["curve"]
        strengths = [point["strength"] for point in curve]
        for key, axes in (("failure_rate", panel.twinx()), ("nme", panel)):
            label, style = styles[key]
            axes.plot(strengths, [math.nan if point[key] is None else point[key] for point in curve], **style)
            axes.set_ylim(-0.02 * tops[key], tops[key])
            axes.tick_params(axis="y", colors=style["color"])
            axes.spines["top"].set_visible(False)
            outer = index % COLUMNS == 0 if key == "nme" else index % COLUMNS == COLUMNS - 1
            if outer or (key == "failure_rate" and index == len(curves) - 1):
                axes.set_ylabel(label, fontsize=11, color=style["color"])
        panel.set_zorder(1)  # the error lies over the failures
        panel.patch.set_visible(False)
        panel.grid(color="#DDDDDD", linewidth=0.8)
        panel.set_xticks(strengths, [PERTURBATIONS[name].tick(strength) for strength in strengths])
        panel.set_title(entry["title"], fontsize=13)
        panel.set_xlabel(entry["unit"], fontsize=11)
    for panel in panels[len(curves) :]:
        panel.set_visible(False)


def _draw_groups(figure: Any, measured: Mapping[str, Any]) -> None:
    """Draw a bar a group, once for each of the two errors."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    which = "held-out faces" if measured["held_out_only"] else "faces"
    figure.suptitle(f"{measured['autoencoder']}: reconstruction of {measured['count']} {which} by group", fontsize=15)
    groups = measured["groups"]
    places = _places(groups)
    panels = figure.subplots(1, 2, sharey=True)
    labels = ("mean absolute error, gray levels of 255", "structural error, 1 - cs")
    for panel, measure, label in zip(panels, ("l1", "structural"), labels, strict=True):
        source_mean = None
        for place, entry in zip(places, groups, strict=True):
            if entry["attribute"] is None:
                source_mean = entry[measure]
            _draw_bar(panel, place, entry, measure)
            if entry["attribute"] is not None and source_mean is not None:
                panel.plot([source_mean["mean"]] * 2, [place - 0.5, place + 0.5], color="black", linewidth=1)
        panel.set_xlabel(label, fontsize=11)
        panel.set_xlim(left=0)
        panel.set_ylim(max(places) + 0.7, min(places) - 0.7)
        panel.grid(axis="x", color="#DDDDDD", linewidth=0.8)
        panel.set_axisbelow(True)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    panels[0].set_yticks(places, [_bar_label(entry) for entry in groups], fontsize=10)
    present = dict.fromkeys(entry["attribute"] for entry in groups)
    handles: list[Any] = [
        Patch(
            color=ATTRIBUTE_COLORS[name],
            alpha=BAR_ALPHA,
            label=f"mean by {name}" if name else "mean of all, or of a source",
        )
        for name in present
    ]
    handles.append(Line2D([], [], color="black", linewidth=2.5, label="95 % interval (bootstrap)"))
    handles.append(Line2D([], [], color="black", linewidth=1, marker="|", linestyle="", markersize=12,
                          label="mean of the group's source"))  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=11, frameon=False)


def _draw_bar(panel: Any, place: float, entry: Mapping[str, Any], measure: str) -> None:
    value = entry[measure]
    if value is None:
        panel.text(0, place, " too few faces", va="center", fontsize=9, color=GRAY)
        return
    panel.barh(place, value["mean"], height=0.78, color=ATTRIBUTE_COLORS[entry["attribute"]], alpha=BAR_ALPHA)
    panel.plot([value["low"], value["high"]], [place, place], color="black", linewidth=2.5)


def _bar_label(entry: Mapping[str, Any]) -> str:
    words = [entry["source"], entry["attribute"], group_name(entry)]
    name = ", ".join(word for word in words if word) or "all faces"
    return f"{name} (n = {entry['count']})"


def _places(groups: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return a place on the axis for every bar, with a gap where another attribute or source begins."""
    places: list[float] = []
    for index, entry in enumerate(groups):
        before = groups[index - 1] if index else entry
        gap = 0.6 if (entry["source"], entry["attribute"]) != (before["source"], before["attribute"]) else 0.0
        places.append(places[-1] + 1 + gap if places else 0.0)
    return places


def _gaps(groups: Sequence[Mapping[str, Any]]) -> float:
    return _places(groups)[-1] - len(groups) + 1
