"""Pictures of an evaluation: the cumulative error distribution, and the faces with the largest errors."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..common.figures import as_png, make_figure
from ..data.decoding import CANVAS_RATIO, cut_canvas
from ..inference.drawing import confidence_colors, draw_landmarks
from ..metrics import cumulative_error_distribution, summarize_errors
from ..model.geometry import crop_box_from_box, landmarks_to_crop
from ..model.image_inputs import Picture
from ..model.known_schemes import LandmarkScheme
from .scoring import FaceScores, ScoredFace


if TYPE_CHECKING:
    import datasets


__all__ = ["draw_error_distribution", "draw_worst_faces"]

# Okabe and Ito's colors, which people with any color vision tell apart; black is for all the data together.
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
LINE_STYLES = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)))

# How far beyond the threshold the curves are drawn, to show how bad the failures are.
OVERSHOOT = 1.5

# Side of a face's tile in pixels, and how much wider it shows the face than the model's crop.
TILE = 330
CONTEXT = 1.1
COLUMNS = 4
MARGIN = 12
CAPTION = 44
HEADING = 74
INK, PALE = (25, 25, 30), (110, 110, 118)

# Two confidence colors of `draw_landmarks`: sure stands for the annotation, unsure for the prediction.
ANNOTATED, PREDICTED = 1.0, 0.0


def draw_error_distribution(
    scores: FaceScores, masks: Mapping[str, np.ndarray], threshold: float, title: str, length: str
) -> bytes:
    """Draw the cumulative error distribution of all faces, and of every subset.

    Each curve is the exact staircase: it rises at every face's error. Faces without a prediction are never reached.

    Args:
        scores: From `score_faces`.
        masks: (N,) booleans for every subset.
        threshold: The error of a failure in percent; the area is measured up to it.
        title: What stands above.
        length: What errors are in percent of, in words.

    Returns:
        A PNG.

    Raises:
        FabRecError: If matplotlib is not installed.
    """
    end = OVERSHOOT * threshold
    figure = make_figure(figsize=(9, 6.4), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(threshold, end, color="#F2F2F2", zorder=0)
    axes.axvline(threshold, color="#444444", linewidth=1, zorder=1)
    axes.annotate(
        f"failures above {threshold:g} %", (threshold, 2), (6, 0), textcoords="offset points", color="#444444"
    )
    for index, (name, errors) in enumerate(_curves(scores, masks).items()):
        summary = summarize_errors(errors, threshold)
        steps, shares = cumulative_error_distribution(errors, end)
        label = (
            f"{name}: {summary['count']} faces, NME {summary['nme']:.2f} %, AUC {summary['auc']:.3f} "
            f"and FR {summary['failure_rate']:.2f} % at {threshold:g} %"
        )
        style: dict[str, Any] = {
            "color": COLORS[index % len(COLORS)],
            "linestyle": LINE_STYLES[index % len(LINE_STYLES)],
        }
        axes.plot(steps, 100 * shares, drawstyle="steps-post", linewidth=2.6 - 0.2 * index, label=label, **style)
    axes.set(xlim=(0, end), ylim=(0, 100.5), ylabel="faces with at most this error (%)")
    axes.set_xlabel(f"normalized mean error of a face, in % of {length}")
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold", wrap=True)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", frameon=False, fontsize=9.5, handlelength=3.2)
    return as_png(figure)


def _curves(scores: FaceScores, masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the errors of every curve by its name; subsets that are the same faces share one."""
    groups: dict[bytes, tuple[list[str], np.ndarray]] = {}
    everything = np.ones(len(scores.errors), dtype=bool)
    for name, mask in {"all the data": everything, **masks}.items():
        if not np.isnan(scores.errors[mask]).all():
            groups.setdefault(np.packbits(mask).tobytes(), ([], mask))[0].append(name.replace("_", " "))
    return {" = ".join(names): scores.errors[mask] for names, mask in groups.values()}


def draw_worst_faces(dataset: "datasets.Dataset", faces: Sequence[ScoredFace], title: str) -> Image.Image:
    """Draw faces with what is annotated and what was predicted, each point joined to its prediction.

    Args:
        dataset: Rows with `image`, `landmarks` and `box`, and `name` if the faces have names.
        faces: Which of them, with their predictions and errors.
        title: What stands above.

    Returns:
        An RGB picture, four faces a line.
    """
    columns = min(COLUMNS, max(1, len(faces)))
    lines = -(-len(faces) // columns)
    width = max(columns * (TILE + MARGIN) + MARGIN, 2 * TILE)
    sheet = Image.new("RGB", (width, HEADING + lines * (TILE + CAPTION) + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    _draw_heading(pen, title, width - 2 * MARGIN)
    for index, face in enumerate(faces):
        row = dataset[face.row]
        line, column = divmod(index, columns)
        x, y = MARGIN + column * (TILE + MARGIN), HEADING + line * (TILE + CAPTION)
        sheet.paste(_draw_tile(row, face), (x, y))
        error = f"{face.error:.1f} %" if np.isfinite(face.error) else "no prediction"
        bold = ImageFont.load_default(16)
        pen.text((x, y + TILE + 4), error, fill=INK, font=bold)
        offset = pen.textlength(error, font=bold) + 10
        name = _shorten(pen, str(row.get("name") or f"row {face.row}"), TILE - offset, ImageFont.load_default(14))
        pen.text((x + offset, y + TILE + 6), name, fill=PALE, font=ImageFont.load_default(14))
    return sheet


def _draw_heading(pen: ImageDraw.ImageDraw, title: str, width: int) -> None:
    font = ImageFont.load_default(20)
    pen.text((MARGIN, 10), _shorten(pen, title, width, font), fill=INK, font=font)
    font = ImageFont.load_default(15)
    x = MARGIN
    for words, level in (("annotated", ANNOTATED), ("predicted, joined to it", PREDICTED), ("given box", None)):
        if level is None:
            pen.rounded_rectangle((x, 46, x + 14, 60), radius=2, outline=PALE)
        else:
            color = tuple(confidence_colors([level])[0].tolist())
            pen.ellipse((x, 46, x + 14, 60), fill=color, outline=INK)
        pen.text((x + 20, 44), words, fill=INK, font=font)
        x += round(pen.textlength(words, font=font)) + 44


def _shorten(pen: ImageDraw.ImageDraw, text: str, width: float, font: Any) -> str:
    """Leave out the end of a text that is too long, with dots in its place."""
    text = " ".join(text.split())
    if pen.textlength(text, font=font) <= width:
        return text
    while text and pen.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text + "..."


def _draw_tile(row: Mapping[str, Any], face: ScoredFace) -> Image.Image:
    """Cut a face out, a little wider than the model saw it, and join what is annotated to what was predicted."""
    pixels = Picture(row["image"]).rgb
    x, y, side, _ = crop_box_from_box(row["box"])
    square = _about_center(x, y, side, CONTEXT)
    # `cut_canvas` adds a margin around what it is given.
    tile = cut_canvas(Image.fromarray(pixels), _about_center(*square[:3], 1 / CANVAS_RATIO), TILE)
    annotated, predicted = (
        TILE * landmarks_to_crop(points, square) - 0.5 for points in (row["landmarks"], face.landmarks)
    )
    predicted[np.isnan(annotated).any(axis=1)] = np.nan  # what is not annotated has no error to show
    count = len(annotated)
    both = {
        "keypoints": np.concatenate([annotated, predicted]),
        "scores": np.repeat([ANNOTATED, PREDICTED], count),
        "bbox": TILE / square[2] * (np.asarray(row["box"]) - [square[0], square[1], 0, 0]),
    }
    joined = LandmarkScheme("errors", 2 * count, edges=tuple((point, count + point) for point in range(count)))
    return draw_landmarks(tile, [both], joined)


def _about_center(x: float, y: float, side: float, factor: float) -> tuple[float, float, float, float]:
    """Return the square (x, y, side, side) made larger about its center."""
    shift = (factor - 1) * side / 2
    return x - shift, y - shift, side * factor, side * factor
