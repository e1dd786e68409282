"""Crops of faces that are turned in the picture's plane: the same squares as ever, but turned with the face.

A roll is the angle in degrees by which a face is turned clockwise in the picture: 90 for a face whose chin points to
the left. A box with a roll is an upright box that is turned about its own middle, and so is a crop.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from .geometry import _as_float64, landmarks_from_crop, landmarks_to_crop


# Degrees from which a crop is turned with its face. Below, the network reads a turned face almost as well, and the
# crop of nearly every face stays what it was to the last bit.
TURNED_FROM = 20.0
WRONG_ROLLS = "rolls must hold one finite number of degrees for each box of each image."
# Samples of a turned crop are taken this much denser than its pixels and then averaged, so that turning blurs little.
OVERSAMPLING = 2


def wrapped(degrees: Any) -> Any:
    """Return an angle, or an array of them, in [-180, 180)."""
    return (degrees + 180.0) % 360.0 - 180.0


def turn_points(points: Any, pivots: Any, rolls: Any) -> Any:
    """Turn points clockwise about pivots.

    Args:
        points: (..., L, 2) float array or tensor.
        pivots: (..., 2).
        rolls: (...) degrees.

    Returns:
        The shape and kind of `points`.
    """
    angles = np.radians(np.asarray(rolls, dtype=np.float64))
    # Rows are points, so the matrix stands transposed.
    matrices: Any = np.stack([np.cos(angles), np.sin(angles), -np.sin(angles), np.cos(angles)], -1)
    matrices, pivots = matrices.reshape(*angles.shape, 2, 2), np.asarray(pivots, dtype=np.float64)[..., None, :]
    if isinstance(points, torch.Tensor):
        matrices, pivots = torch.from_numpy(matrices).to(points), torch.from_numpy(pivots).to(points)
    return (points - pivots) @ matrices + pivots


def turn_crops(crop_boxes: np.ndarray, boxes: np.ndarray, rolls: np.ndarray) -> np.ndarray:
    """Move the crops of upright boxes to where they lie when the boxes are turned about their middles.

    Args:
        crop_boxes: (N, 4) crops (x, y, width, height) of `boxes` as if these were upright.
        boxes: (N, 4) boxes (x, y, width, height).
        rolls: (N,) degrees.

    Returns:
        (N, 4) crops, each to be turned about its own middle.
    """
    middles, pivots = crop_boxes[:, :2] + crop_boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    moved = turn_points(middles[:, None], pivots, rolls)[:, 0] - middles
    # An upright crop keeps its last bit.
    moved[rolls == 0] = 0.0
    return np.concatenate([crop_boxes[:, :2] + moved, crop_boxes[:, 2:]], axis=1)


def landmarks_from_turned_crop(landmarks: Any, crop_boxes: Any, rolls: Any) -> Any:
    """Map points in [0, 1] of turned crops to the picture: [`geometry.landmarks_from_crop`] for any roll.

    Args:
        landmarks: (L, 2) or (N, L, 2) fractions of the crops; NaN stays NaN.
        crop_boxes: (4,) or (N, 4) crops (x, y, width, height) in pixels.
        rolls: A number or (N,) degrees; None for upright crops.
    """
    if rolls is None:
        return landmarks_from_crop(landmarks, crop_boxes)
    points = turn_points(
        landmarks_from_crop(_as_float64(landmarks), crop_boxes), _middles(crop_boxes), _as_array(rolls)
    )
    return points if _is_double(landmarks) else points.float()


def landmarks_to_turned_crop(landmarks: Any, crop_boxes: Any, rolls: Any) -> Any:
    """Map points of the picture into turned crops: the inverse of [`landmarks_from_turned_crop`]."""
    if rolls is None:
        return landmarks_to_crop(landmarks, crop_boxes)
    points = turn_points(_as_float64(landmarks), _middles(crop_boxes), -_as_array(rolls))
    inside = landmarks_to_crop(points, crop_boxes)
    return inside if _is_double(landmarks) else inside.float()


def turned_crop(
    cut: Callable[[np.ndarray, int], torch.Tensor], crop_box: np.ndarray, roll: float, size: tuple[int, int]
) -> torch.Tensor:
    """Sample a turned crop.

    An upright square that holds the turned one is cut first, with the antialiasing of every other crop, and then
    turned, which changes no scale and therefore cannot alias.

    Args:
        cut: `cut(box, side)` samples an upright square (x, y, side, side) of the picture as (3, side, side) floats.
        crop_box: (4,) square (x, y, side, side) in pixels, turned about its middle.
        roll: Degrees.
        size: (height, width) of the result.

    Returns:
        (3, height, width) tensor of the type and on the device of what `cut` returns; black beyond the picture.
    """
    angle = math.radians(roll)
    grown = abs(math.cos(angle)) + abs(math.sin(angle))
    dense = (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING)
    side = math.ceil(max(dense) * grown) + 2
    grown = side / max(dense)
    x, y, width, _ = (float(value) for value in crop_box)
    length = width * grown
    wide = cut(np.array([x + width / 2 - length / 2, y + width / 2 - length / 2, length, length]), side)
    # `affine_grid` asks where a sample of the result comes from, in halves of the sides about the middle.
    cosine, sine = math.cos(angle) / grown, math.sin(angle) / grown
    matrix = torch.tensor([[[cosine, -sine, 0.0], [sine, cosine, 0.0]]], device=wide.device, dtype=wide.dtype)
    grid = F.affine_grid(matrix, [1, 3, *dense], align_corners=False)
    return F.avg_pool2d(F.grid_sample(wide[None], grid, align_corners=False), OVERSAMPLING)[0]


def roll_of_landmarks(points: Any, flip_pairs: Any) -> np.ndarray:
    """Return by how much faces are turned, from points that change places in a mirror.

    The lines between such points lie across the face. Which of two points comes first in a pair does not matter, so
    that a roll is known up to half a turn.

    Args:
        points: (N, L, 2) landmarks; NaN for one that is not known.
        flip_pairs: (P, 2) indices of points.

    Returns:
        (N,) degrees in (-90, 90]; 0 where there are no pairs.
    """
    pairs = np.asarray(flip_pairs, dtype=np.int64).reshape(-1, 2)
    points = np.asarray(points, dtype=np.float64)
    across = np.nan_to_num(points[:, pairs[:, 1]] - points[:, pairs[:, 0]])
    x, y = across[..., 0], across[..., 1]
    return np.degrees(np.arctan2((2 * x * y).sum(1), (x * x - y * y).sum(1))) / 2


def rolls_per_image(rolls: Any, boxes: list[np.ndarray | None]) -> list[np.ndarray]:
    """Sort the rolls a user gave by picture and check them against the boxes.

    Args:
        rolls: None, or as the boxes are given: for one picture one number a box, for several one list each.
        boxes: What `boxes_per_image` returns.

    Returns:
        (M,) float64 for every picture.

    Raises:
        ValueError: There is not one finite number for each box.
    """
    counts = [1 if entry is None else len(entry) for entry in boxes]
    if rolls is None:
        return [np.zeros(count) for count in counts]
    if isinstance(rolls, (torch.Tensor, np.ndarray)):
        rolls = rolls.tolist()
    if not hasattr(rolls, "__len__"):
        raise ValueError(WRONG_ROLLS)
    entries = [rolls] if len(boxes) == 1 and not (len(rolls) == 1 and hasattr(rolls[0], "__len__")) else rolls
    try:
        tables = [np.asarray(entry, dtype=np.float64).reshape(-1) for entry in entries]
    except (TypeError, ValueError):
        tables = []
    if [len(table) for table in tables] != counts or not all(np.isfinite(table).all() for table in tables):
        raise ValueError(WRONG_ROLLS)
    return tables


def _is_double(landmarks: Any) -> bool:
    """Whether points are answered in 64 bits: arrays, lists and tensors of them."""
    return not isinstance(landmarks, torch.Tensor) or landmarks.dtype == torch.float64


def _as_array(rolls: Any) -> np.ndarray:
    return np.asarray(rolls.cpu() if isinstance(rolls, torch.Tensor) else rolls, dtype=np.float64)


def _middles(crop_boxes: Any) -> np.ndarray:
    """Return the middles of crops, in pixels with centers at integers."""
    crops = _as_array(crop_boxes)
    return crops[..., :2] + crops[..., 2:] / 2 - 0.5


__all__ = [
    "TURNED_FROM",
    "landmarks_from_turned_crop",
    "landmarks_to_turned_crop",
    "roll_of_landmarks",
    "rolls_per_image",
    "turn_crops",
    "turn_points",
    "turned_crop",
    "wrapped",
]
