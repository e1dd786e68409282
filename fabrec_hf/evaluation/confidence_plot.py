"""The figure that says whether scores can be trusted: risk against coverage, and reliability."""

from typing import Any

import numpy as np

from ..common.figures import as_png, make_figure
from ..metrics.confidence import points_with_both, reliability, risk_coverage, summarize_confidence
from .scoring import FaceScores


__all__ = ["draw_confidence"]

# Okabe and Ito's colors, which people with any color vision tell apart.
BLUE, GREEN, ORANGE, GRAY = "#0072B2", "#009E73", "#D55E00", "#555555"
PALE = "#D9D9D9"

KNOTS = 1000
"""Points that a curve is drawn with: a pixel shows no more."""

NOISY = 0.02
"""Share of the points below which a mean over them does not set the scale of the axis."""


def draw_confidence(scores: FaceScores, title: str, length: str) -> bytes:
    """Draw the mean error of the surest points against how many are kept, and calibrated scores against the truth.

    The first panel has the risk-coverage curves of the scores, of a perfect order, by the errors themselves, and of
    no order. The second, the reliability diagram, is there if the scores are calibrated.

    Args:
        scores: From `score_faces`.
        title: What stands above.
        length: What errors are in percent of, in words.

    Returns:
        A PNG.

    Raises:
        FabRecError: If matplotlib is not installed.
    """
    summary = summarize_confidence(scores.point_scores, scores.point_errors, scores.score_tolerance)
    sureness, errors = points_with_both(scores.point_scores, scores.point_errors)
    panels = 2 if "calibration" in summary else 1
    figure = make_figure(figsize=(6.6 * panels, 5.4), dpi=130, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold", wrap=True)
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for panel in axes:
        panel.grid(color="#DDDDDD", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    if summary["points"]:
        _draw_risk(axes[0], sureness, errors, summary)
        axes[0].set_ylabel(f"mean error of the points kept\n(% of {length})")
    else:
        axes[0].text(0.5, 0.5, "no point has both a score and an error", ha="center", transform=axes[0].transAxes)
    if panels == 2:
        _draw_reliability(axes[1], sureness, errors, summary["calibration"])
    return as_png(figure)


def _draw_risk(axes: Any, sureness: np.ndarray, errors: np.ndarray, summary: dict[str, Any]) -> None:
    mean, kept = summary["mean_error"], summary["kept"]
    area = summary["area_under_risk_coverage"]
    curves = {
        f"no order: area {mean:.2f} %": (np.array([0.0, 1.0]), np.array([mean, mean]), GRAY, "--"),
        f"ordered by score: area {area:.2f} %": (*risk_coverage(sureness, errors), BLUE, "-"),
        f"perfect order: area {summary['perfect_order']:.2f} %": (*risk_coverage(-errors, errors), GREEN, "-."),
    }
    top = mean
    for label, (coverage, risk, color, style) in curves.items():
        top = max(top, *risk[coverage >= NOISY])
        chosen = np.unique(np.linspace(0, len(risk) - 1, KNOTS).astype(int))
        axes.plot(100 * coverage[chosen], risk[chosen], color=color, linestyle=style, linewidth=2.2, label=label)
    share = 100 * kept["share"]
    axes.plot(
        [share],
        [kept["error"]],
        marker="o",
        markersize=7,
        linestyle="",
        color=ORANGE,
        zorder=5,
        label=f"{share:.0f} % kept, score {kept['score']:g} or more: error {kept['error']:.2f} %",
    )
    axes.set(xlim=(0, 101), ylim=(0, 1.12 * top or 1.0), xlabel="points kept, the surest first (%)")
    axes.set_title(f"Risk against coverage, {summary['points']:,} points", loc="left", fontsize=11)
    axes.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)


def _draw_reliability(axes: Any, sureness: np.ndarray, errors: np.ndarray, calibration: dict[str, float]) -> None:
    claimed, found, counts = reliability(sureness, errors <= calibration["tolerance"])
    places = np.floor(np.clip(10 * claimed, 0, 9)) / 10 + 0.05
    axes.bar(places, counts / counts.sum(), width=0.096, color=PALE, zorder=1, label="share of all points")
    axes.plot([0, 1], [0, 1], color=GRAY, linestyle="--", linewidth=1.4, label="scores that keep their word")
    label = f"points found, calibration error {calibration['error']:.3f}"
    axes.plot(claimed, found, color=BLUE, marker="o", markersize=6, linewidth=2, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="score")
    axes.set_ylabel(f"share of points within {calibration['tolerance']:g} % of the truth")
    axes.set_title("Reliability of the calibrated scores", loc="left", fontsize=11)
    axes.legend(loc="upper left", frameon=True, framealpha=0.9, edgecolor="none", fontsize=9)
