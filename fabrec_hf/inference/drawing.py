"""Draw faces' boxes, landmarks and the confidence in each of them onto a picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import SchemeError
from ..model.image_inputs import as_picture
from ..model.known_schemes import LandmarkScheme
from ..model.turned_crops import turn_points


# From unsure to sure: crimson, amber, aqua. Lightness and hue both change, so that the order stays visible to the
# color-blind, and none of the three is a color of skin.
COLOR_STOPS = ((224, 36, 94), (255, 176, 32), (62, 245, 212))

# Shapes are drawn this much larger and averaged down, which is what smooths their edges.
SUPERSAMPLING = 4
LARGEST_CANVAS = 4096

LABELS = ("names", "index")
# Neighboring heatmaps would else run into one another.
SHARPENING = 3
# Points have at least this radius as a share of the picture's longer side, as long as they do not hide the face.
SMALLEST_RADIUS = 1 / 400
LARGEST_RADIUS_OF_FACE = 1 / 40
# A face with a smaller share of the picture's longer side is drawn once more, enlarged, by `draw_overview`.
SMALL_FACE = 0.2
MOST_INSETS = 6
INSET_MARGIN = 0.35


def confidence_colors(scores: Any, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """Return the colors that stand for confidences.

    Between the stops colors are mixed in linear light, which keeps the mixtures from turning muddy.

    Args:
        scores: (L,) confidences; what lies outside `low` to `high` is clipped.
        low: the confidence of the first color.
        high: the confidence of the last color.

    Returns:
        (L, 3) uint8 RGB.
    """
    position = np.clip((np.asarray(scores, dtype=float) - low) / (high - low), 0, 1)
    linear = (np.array(COLOR_STOPS) / 255) ** 2.2
    knots = np.linspace(0, 1, len(COLOR_STOPS))
    mixed = np.stack([np.interp(position, knots, linear[:, channel]) for channel in range(3)], axis=-1)
    return np.round(255 * mixed ** (1 / 2.2)).astype(np.uint8)


def heat_colors(crop: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay heatmaps (S, S) in [0, 1] over a picture (S, S, 3) in 0..255 as opacity of aqua; uint8."""
    opacity = 0.85 * heat[..., None] ** SHARPENING
    return np.round(crop * (1 - opacity) + np.asarray(COLOR_STOPS[-1]) * opacity).astype(np.uint8)


def draw_landmarks(
    image: Any,
    faces: Sequence[Mapping[str, Any]],
    scheme: LandmarkScheme | None = None,
    min_score: float | None = None,
    draw_boxes: bool = True,
    labels: str | None = None,
) -> Image.Image:
    """Draw faces onto a copy of a picture.

    Points are colored from crimson (unsure) over amber to aqua (sure); the scheme's edges and the boxes are thin
    lines. Everything is scaled to the size of its face.

    Args:
        image: anything that the image processor reads; it is turned upright first, as the landmarks refer to that.
        faces: for every face what `post_process_keypoint_detection` or the pipeline returns: `keypoints` (L, 2) in
            pixels with centers at integers, NaN for a point to leave out; `scores` (L,), optional; `bbox`
            (x, y, width, height), optional; `roll`, the degrees by which the box is turned about its middle,
            optional; `label`, a few letters to write onto the box, optional.
        scheme: whose edges are drawn; none if None.
        min_score: points that score lower, and the edges to them, are left out.
        draw_boxes: whether to draw `bbox`; the size of points goes with it in either case, which a few points in the
            middle of a face do not tell.
        labels: `"names"` writes the names of the scheme's points beside them, `"index"` their places in it, counted
            from 0 as in every file; nothing is written if None.

    Returns:
        An RGB picture of the size of the upright one.

    Raises:
        SchemeError: if a face has another number of points than the scheme, or not one score a point.
        ValueError: if the image cannot be read, or `labels` is something else.

    Example:
        In a notebook the picture is the figure of the cell:

        >>> from PIL import Image
        >>> face = {"keypoints": [[40.0, 40.0], [60.0, 40.0]], "scores": [0.9, 0.5]}
        >>> draw_landmarks(Image.new("RGB", (100, 80)), [face]).size
        (100, 80)
    """
    texts = _point_texts(labels, scheme)
    canvas = Image.fromarray(as_picture(image).rgb)  # which copies it before anything is drawn
    for face in faces:
        points = np.asarray(face["keypoints"], dtype=float).reshape(-1, 2).copy()
        scores = np.ones(len(points)) if face.get("scores") is None else np.asarray(face["scores"], dtype=float)
        if scheme is not None and len(points) != scheme.num_landmarks:
            raise SchemeError(f"A face has {len(points)} points, but the scheme {scheme.name} {scheme.num_landmarks}.")
        if len(scores) != len(points):
            raise SchemeError(f"A face has {len(points)} points but {len(scores)} scores.")
        if min_score is not None:
            points[scores < min_score] = np.nan
        box = np.asarray(face["bbox"], dtype=float) if face.get("bbox") is not None else None
        edges = scheme.edges if scheme is not None else ()
        _draw_face(canvas, points + 0.5, scores, box, float(face.get("roll", 0.0)), edges, draw_boxes)
        if labels:
            _draw_texts(canvas, points, texts or [str(index) for index in range(len(points))])
        if draw_boxes and box is not None and face.get("label"):
            _draw_label(canvas, box, face["label"])
    return canvas


def draw_overview(
    image: Any,
    faces: Sequence[Mapping[str, Any]],
    scheme: LandmarkScheme | None = None,
    min_score: float | None = None,
    labels: str | None = None,
) -> Image.Image:
    """Draw faces as `draw_landmarks` does, and small faces a second time, enlarged, in a strip below.

    A single small face is enlarged twice, without and with its landmarks.

    Args:
        image: anything that the image processor reads.
        faces: what `draw_landmarks` takes; faces without `bbox` are not enlarged.
        scheme: whose edges are drawn.
        min_score: points that score lower are left out.
        labels: what is written beside points; where faces are enlarged, only there.

    Returns:
        An RGB picture of the upright one's size where no face is small, else of that width and higher by the strip.

    Raises:
        SchemeError, ValueError: as `draw_landmarks`.
    """
    picture = as_picture(image)
    plain = Image.fromarray(picture.rgb)
    boxes = {
        index: np.asarray(face["bbox"], dtype=float)
        for index, face in enumerate(faces)
        if face.get("bbox") is not None
    }
    small = [index for index, box in boxes.items() if 0 < box[2:].max() < SMALL_FACE * max(plain.size)][:MOST_INSETS]
    if not small:
        return draw_landmarks(picture, faces, scheme, min_score, labels=labels)
    numbered = [
        {**face, "label": face.get("label") or (str(index + 1) if index in small else "")}
        for index, face in enumerate(faces)
    ]
    drawn = draw_landmarks(picture, numbered, scheme, min_score)
    tiles = [dict(numbered[index]) for index in small]
    if len(tiles) == 1:  # beside the face as it is, which fills the strip
        tiles.insert(0, {**tiles[0], "keypoints": np.empty((0, 2)), "scores": None})
    side = plain.width // len(tiles)
    strip = Image.new("RGB", (plain.width, side), (20, 20, 30))
    for place, tile in enumerate(tiles):
        own = scheme if len(tile["keypoints"]) else None
        strip.paste(_enlarged(plain, tile, side, own, min_score, labels), (place * side, 0))
    whole = Image.new("RGB", (plain.width, plain.height + side))
    whole.paste(drawn)
    whole.paste(strip, (0, plain.height))
    return whole


def face_tile(
    image: Any,
    face: Mapping[str, Any],
    side: int,
    scheme: LandmarkScheme | None = None,
    min_score: float | None = None,
    labels: str | None = None,
) -> Image.Image:
    """Cut a face with its surroundings out of a picture and draw its landmarks, side x side pixels.

    Args:
        image: anything that the image processor reads.
        face: what `draw_landmarks` takes; `bbox` is needed.
        side: of the result, in pixels.
        scheme: whose edges are drawn.
        min_score: points that score lower are left out.
        labels: what is written beside points.
    """
    return _enlarged(Image.fromarray(as_picture(image).rgb), face, side, scheme, min_score, labels)


def tile_points(points: Any, box: Any, side: int) -> np.ndarray:
    """Return where points (L, 2) in pixels of a picture lie in the `face_tile` of a box, in its pixels."""
    corner, scale = _tile_place(box, side)
    return (np.asarray(points, dtype=float) + 0.5 - corner) / scale - 0.5


def _tile_place(box: Any, side: int) -> tuple[np.ndarray, float]:
    """Return the upper left corner of the tile of a box, and pixels of the picture for one of the tile."""
    box = np.asarray(box, dtype=float)
    length = float(max(box[2:].max(), 1.0)) * (1 + 2 * INSET_MARGIN)
    return box[:2] + box[2:] / 2 - length / 2, length / side


def _enlarged(
    image: Image.Image,
    face: Mapping[str, Any],
    side: int,
    scheme: LandmarkScheme | None,
    min_score: float | None,
    labels: str | None,
) -> Image.Image:
    corner, scale = _tile_place(face["bbox"], side)
    reduced = max(1, int(scale))  # bilinear sampling alone would alias where the picture is shrunk
    source = image.reduce(reduced) if reduced > 1 else image
    place = tuple(value / reduced for value in (scale, 0, corner[0], 0, scale, corner[1]))
    tile = source.transform((side, side), Image.Transform.AFFINE, place, Image.Resampling.BICUBIC)
    inner = side / (1 + 2 * INSET_MARGIN)
    moved = {
        "keypoints": tile_points(face["keypoints"], face["bbox"], side),
        "scores": face.get("scores"),
        "bbox": (side / 2 - inner / 2, side / 2 - inner / 2, inner, inner),
    }
    drawn = draw_landmarks(tile, [moved], scheme, min_score, draw_boxes=False, labels=labels)
    if face.get("label"):
        margin = side / 20
        _draw_label(drawn, np.array([margin, 3.2 * margin, side / 2, side / 2]), str(face["label"]))
    return drawn


def _point_texts(labels: str | None, scheme: LandmarkScheme | None) -> list[str] | None:
    """Return what is written beside the points of every face; None for their places."""
    if labels is not None and labels not in LABELS:
        raise ValueError(f"labels must be one of {', '.join(LABELS)} or None, not {labels!r}.")
    return list(scheme.point_names) if labels == "names" and scheme is not None else None


def _draw_texts(canvas: Image.Image, points: np.ndarray, texts: Sequence[str]) -> None:
    """Write a text beside every point, on the side that leads away from the middle of the face."""
    seen = np.isfinite(points).all(1)
    if not seen.any():
        return
    middle = points[seen].mean(0)
    size = max(9.0, float(np.ptp(points[seen], axis=0).max()) / 32)
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size)
    for point, text in zip(points[seen], np.asarray(texts, dtype=object)[seen], strict=True):
        right = point[0] >= middle[0]
        x, y = point + 0.5 + ((size / 2, 0) if right else (-size / 2, 0))
        pen.text(
            (float(x), float(y)),
            text,
            fill=(255, 255, 255),
            anchor="lm" if right else "rm",
            font=font,
            stroke_width=max(1, round(size / 9)),
            stroke_fill=(20, 20, 30),
        )


def _draw_face(
    canvas: Image.Image,
    points: np.ndarray,
    scores: np.ndarray,
    box: np.ndarray | None,
    roll: float,
    edges: Sequence[tuple[int, int]],
    draws_box: bool,
) -> None:
    """Draw one face onto `canvas`; `points` (L, 2) and `box` are in pixels from the picture's corner."""
    corners = points[np.isfinite(points).all(1)]
    if box is not None:
        corners = np.concatenate([corners, _box_corners(box, roll)])
    if len(corners) == 0:
        return
    face_size = float(max(np.ptp(corners, axis=0).max(), 1.0))
    line = max(1.0, face_size / 220)
    visible = min(max(canvas.size) * SMALLEST_RADIUS, face_size * LARGEST_RADIUS_OF_FACE)
    radius = max(1.2, face_size / 75, visible)
    first = np.floor(np.maximum(corners.min(0) - 2 * radius, 0)).astype(int)
    stop = np.ceil(np.minimum(corners.max(0) + 2 * radius, canvas.size)).astype(int)
    if (stop <= first).any():  # the face lies outside the picture
        return
    width, height = (stop - first).tolist()
    scale = max(1, min(SUPERSAMPLING, LARGEST_CANVAS // max(width, height)))
    layer = Image.new("RGBA", (width * scale, height * scale))
    pen = ImageDraw.Draw(layer)
    if draws_box and box is not None:
        _draw_box(pen, (box - [*first, 0, 0]) * scale, roll, round(line * scale))
    points = (points - first) * scale
    for start, end in edges:
        if np.isfinite(points[[start, end]]).all():
            pen.line([tuple(points[start]), tuple(points[end])], fill=(255, 255, 255, 150), width=round(line * scale))
    colors = confidence_colors(scores)
    # Points that are sure come last, on top.
    for index in np.argsort(scores):
        if np.isfinite(points[index]).all():
            _draw_point(pen, points[index], radius * scale, tuple(colors[index].tolist()))
    # Averaging must weigh colors by their opacity, or transparent black would darken every edge.
    layer = layer.convert("RGBa").resize((width, height), Image.Resampling.BOX).convert("RGBA")
    canvas.paste(layer, tuple(first.tolist()), layer)


def _box_corners(box: np.ndarray, roll: float) -> np.ndarray:
    """Return the corners (4, 2) of a box that is turned about its middle, clockwise from the upper left one."""
    corners = box[:2] + np.array([[0, 0], [1, 0], [1, 1], [0, 1]]) * box[2:]
    return turn_points(corners, box[:2] + box[2:] / 2, roll)


def _draw_box(pen: ImageDraw.ImageDraw, box: np.ndarray, roll: float, line: int) -> None:
    if roll:
        corners = [tuple(corner) for corner in _box_corners(box, roll).tolist()]
        pen.line([*corners, corners[0], corners[1]], fill=(255, 255, 255, 170), width=line, joint="curve")
        return
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


__all__ = [
    "LABELS",
    "confidence_colors",
    "draw_landmarks",
    "draw_overview",
    "face_tile",
    "heat_colors",
    "tile_points",
]
