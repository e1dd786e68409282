"""Draw faces' boxes, landmarks and the confidence in each of them onto a picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import SchemeError
from ..model.image_inputs import load_rgb
from ..model.known_schemes import LandmarkScheme


# From unsure to sure: crimson, amber, aqua. Lightness and hue both change, so that the order stays visible to the
# colour-blind, and none of the three is a colour of skin.
COLOR_STOPS = ((224, 36, 94), (255, 176, 32), (62, 245, 212))

# Shapes are drawn this much larger and averaged down, which is what smooths their edges.
SUPERSAMPLING = 4
LARGEST_CANVAS = 4096


def confidence_colors(scores: Any, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Return the colours that stand for confidences.

    Between the stops colours are mixed in linear light, which keeps the mixtures from turning muddy.

    Args:
        scores: (L,) confidences; what lies outside `low` to `high` is clipped.
        low: the confidence of the first colour.
        high: the confidence of the last colour.

    Returns:
        (L, 3) uint8 RGB.
    """
    position = np.clip((np.asarray(scores, dtype=float) - low) / (high - low), 0, 1)
    linear = (np.array(COLOR_STOPS) / 255) ** 2.2
    knots = np.linspace(0, 1, len(COLOR_STOPS))
    mixed = np.stack([np.interp(position, knots, linear[:, channel]) for channel in range(3)], axis=-1)
    return np.round(255 * mixed ** (1 / 2.2)).astype(np.uint8)


def draw_landmarks(
    image: Any,
    faces: Sequence[Mapping[str, Any]],
    scheme: LandmarkScheme | None = None,
    min_score: float | None = None,
    draw_boxes: bool = True,
) -> Image.Image:
    """Draw faces onto a copy of a picture.

    Points are coloured from crimson (unsure) over amber to aqua (sure); the scheme's edges and the boxes are thin
    lines. Everything is scaled to the size of its face.

    Args:
        image: anything that the image processor reads; it is turned upright first, as the landmarks refer to that.
        faces: for every face what `post_process_keypoint_detection` or the pipeline returns: `keypoints` (L, 2) in
            pixels with centres at integers, NaN for a point to leave out; `scores` (L,), optional; `bbox`
            (x, y, width, height), optional; `label`, a few letters to write onto the box, optional.
        scheme: whose edges are drawn; none if None.
        min_score: points that score lower, and the edges to them, are left out.
        draw_boxes: whether to draw `bbox`.

    Returns:
        An RGB picture of the size of the upright one.

    Raises:
        SchemeError: if a face has another number of points than the scheme, or not one score a point.
        ValueError: if the image cannot be read.
    """
    pixels = load_rgb(image).cpu().permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
    canvas = Image.fromarray(np.ascontiguousarray(pixels))
    for face in faces:
        points = np.asarray(face["keypoints"], dtype=float).reshape(-1, 2).copy()
        scores = np.ones(len(points)) if face.get("scores") is None else np.asarray(face["scores"], dtype=float)
        if scheme is not None and len(points) != scheme.num_landmarks:
            raise SchemeError(f"A face has {len(points)} points, but the scheme {scheme.name} {scheme.num_landmarks}.")
        if len(scores) != len(points):
            raise SchemeError(f"A face has {len(points)} points but {len(scores)} scores.")
        if min_score is not None:
            points[scores < min_score] = np.nan
        box = np.asarray(face["bbox"], dtype=float) if draw_boxes and face.get("bbox") is not None else None
        _draw_face(canvas, points + 0.5, scores, box, scheme.edges if scheme is not None else ())
        if box is not None and face.get("label"):
            _draw_label(canvas, box, face["label"])
    return canvas


def _draw_face(
    canvas: Image.Image,
    points: np.ndarray,
    scores: np.ndarray,
    box: np.ndarray | None,
    edges: Sequence[tuple[int, int]],
) -> None:
    """Draw one face onto `canvas`; `points` (L, 2) and `box` are in pixels from the picture's corner."""
    corners = points[np.isfinite(points).all(1)]
    if box is not None:
        corners = np.concatenate([corners, [box[:2], box[:2] + box[2:]]])
    if len(corners) == 0:
        return
    face_size = float(max(np.ptp(corners, axis=0).max(), 1.0))
    line, radius = max(1.0, face_size / 220), max(1.2, face_size / 75)
    first = np.floor(np.maximum(corners.min(0) - 2 * radius, 0)).astype(int)
    stop = np.ceil(np.minimum(corners.max(0) + 2 * radius, canvas.size)).astype(int)
    if (stop <= first).any():  # the face lies outside the picture
        return
    width, height = (stop - first).tolist()
    scale = max(1, min(SUPERSAMPLING, LARGEST_CANVAS // max(width, height)))
    layer = Image.new("RGBA", (width * scale, height * scale))
    pen = ImageDraw.Draw(layer)
    if box is not None:
        _draw_box(pen, (box - [*first, 0, 0]) * scale, round(line * scale))
    points = (points - first) * scale
    for start, end in edges:
        if np.isfinite(points[[start, end]]).all():
            pen.line([tuple(points[start]), tuple(points[end])], fill=(255, 255, 255, 150), width=round(line * scale))
    colors = confidence_colors(scores)
    # Points that are sure come last, on top.
    for index in np.argsort(scores):
        if np.isfinite(points[index]).all():
            _draw_point(pen, points[index], radius * scale, tuple(colors[index].tolist()))
    # Averaging must weigh colours by their opacity, or transparent black would darken every edge.
    layer = layer.convert("RGBa").resize((width, height), Image.Resampling.BOX).convert("RGBA")
    canvas.paste(layer, tuple(first.tolist()), layer)


def _draw_box(pen: ImageDraw.ImageDraw, box: np.ndarray, line: int) -> None:
    x, y, width, height = box.tolist()
    pen.rounded_rectangle(
        (x, y, x + width, y + height), radius=max(width, height) / 25, outline=(255, 255, 255, 170), width=line
    )


def _draw_label(canvas: Image.Image, box: np.ndarray, text: str) -> None:
    """Write a text above the upper left corner of a box, in a size that goes with the box."""
    size = float(max(10.0, box[2:].max() / 8))
    ImageDraw.Draw(canvas).text(
        (float(box[0]), float(box[1])),
        text,
        fill=(255, 255, 255),
        anchor="lb",
        font=ImageFont.load_default(size),
        stroke_width=max(1, round(size / 12)),
        stroke_fill=(20, 20, 30),
    )


def _draw_point(pen: ImageDraw.ImageDraw, point: np.ndarray, radius: float, color: tuple[int, ...]) -> None:
    """Draw a disc with a dark rim, which keeps it visible on any skin and on bright clothes."""
    for extent, fill in ((radius * 1.35, (20, 20, 30, 170)), (radius, (*color, 255))):
        pen.ellipse((*(point - extent), *(point + extent)), fill=fill)


__all__ = ["confidence_colors", "draw_landmarks"]
