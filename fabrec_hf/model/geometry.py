"""Coordinates of face crops: boxes to square crops, points into a crop and back, and the weights that resample it.

One convention holds everywhere. A point has its pixel centers at integers, as OpenCV, dlib and 0-based ``.pts`` files
do. A box is made of edges, (x, y, width, height), so that the box of a whole W x H picture is (0, 0, W, H) and the
center of its first pixel lies half a pixel inside it. A position in a crop is a fraction of its side,
``u = (x + 0.5 - left) / width``: edges map to edges, whatever the crop is resized to.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch


# The margins of the paper's 300-W crops, as fractions of the box height: the tight box of 68 points ends at the brows.
EXTEND_TOP = 0.20
EXTEND_BOTTOM = 0.12

# Edges further away than this belong to no picture; beyond it float64 could no longer place a point to 1e-3 px either.
MAX_COORDINATE = 2.0**31

# A crop that is shrunk by 2 x REDUCING_GAP or more is first averaged over whole blocks of pixels, and the filter still
# shrinks the result REDUCING_GAP times: Pillow's documentation calls 3 indistinguishable from the filter alone.
REDUCING_GAP = 3.0


def _as_float64(values: Any) -> Any:
    """Returns `values` as a float64 array, or as a float64 tensor where it is a tensor."""
    if isinstance(values, torch.Tensor):
        # MPS has no float64; the few numbers of a box or a face are as quick on the CPU.
        values = values.cpu() if values.device.type == "mps" else values
        return values.to(torch.float64)
    return np.asarray(values, dtype=np.float64)


def crop_box_from_box(boxes: Any, extend_top: float = EXTEND_TOP, extend_bottom: float = EXTEND_BOTTOM) -> Any:
    """Turns face boxes into the square crops the network sees (paper section 4.1; the authors' 300-W reader).

    The box grows by `extend_top` of its height at the top and `extend_bottom` at the bottom; the crop is the square
    about the center of the grown box whose side is the longer of its two sides. It may reach beyond the picture.

    Args:
        boxes: (..., 4) boxes (x, y, width, height) in pixels, edges; array, tensor or nested list.
        extend_top: fraction of the box height that is added above.
        extend_bottom: fraction of the box height that is added below.

    Returns:
        (..., 4) square boxes (x, y, side, side), float64; a tensor if `boxes` is one, else an array.

    Raises:
        ValueError: if the last axis does not hold four numbers, or the margins leave nothing of the box.
    """
    boxes = _as_float64(boxes)
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        raise ValueError(f"boxes must be (..., 4) as (x, y, width, height), got shape {tuple(boxes.shape)}.")
    if not 1.0 + extend_top + extend_bottom > 0.0:
        raise ValueError(f"extend_top={extend_top} and extend_bottom={extend_bottom} leave nothing of a box.")
    library = torch if isinstance(boxes, torch.Tensor) else np
    left, top, width, height = (boxes[..., i] for i in range(4))
    grown_height = height * (1.0 + extend_top + extend_bottom)
    side = library.maximum(width, grown_height)
    center_x = left + width / 2
    center_y = top - extend_top * height + grown_height / 2
    return library.stack([center_x - side / 2, center_y - side / 2, side, side], -1)


def crop_box_from_image_size(width: int, height: int) -> np.ndarray:
    """Returns the square about a whole picture, which is taken as a face that somebody has already cropped.

    Args:
        width: width of the picture in pixels.
        height: height of the picture in pixels.

    Returns:
        (4,) float64 box (x, y, side, side) whose side is the longer side of the picture.
    """
    return crop_box_from_box(np.array([0.0, 0.0, width, height]), extend_top=0.0, extend_bottom=0.0)


def _points_and_crops(points: Any, crop_boxes: Any) -> tuple[Any, Any, torch.dtype | None]:
    """Brings points (..., L, 2) and crops (..., 4) to one library in float64; the dtype is the one to answer in."""
    if isinstance(points, torch.Tensor):
        dtype = torch.float64 if points.dtype == torch.float64 else torch.float32
        points = _as_float64(points)
        crop_boxes = torch.as_tensor(_as_float64(crop_boxes), device=points.device)
    else:
        dtype = None
        points = _as_float64(points)
        crop_boxes = crop_boxes.detach().cpu().numpy() if isinstance(crop_boxes, torch.Tensor) else crop_boxes
        crop_boxes = _as_float64(crop_boxes)
    if points.ndim < 2 or points.shape[-1] != 2:
        raise ValueError(f"landmarks must be (L, 2) or (N, L, 2), got shape {tuple(points.shape)}.")
    if crop_boxes.ndim == 0 or crop_boxes.shape[-1] != 4:
        raise ValueError(f"crop_boxes must be (4,) or (N, 4), got shape {tuple(crop_boxes.shape)}.")
    if points.ndim == 2 and tuple(crop_boxes.shape) == (1, 4):
        crop_boxes = crop_boxes[0]
    if tuple(crop_boxes.shape[:-1]) not in ((), tuple(points.shape[:-2])):
        raise ValueError(
            f"landmarks {tuple(points.shape)} and crop_boxes {tuple(crop_boxes.shape)} do not belong together: "
            "give one crop box for each face."
        )
    return points, crop_boxes, dtype


def landmarks_to_crop(landmarks: Any, crop_boxes: Any) -> Any:
    """Maps points of the original picture into the crop, where [0, 1] spans its edges.

    Args:
        landmarks: (L, 2) or (N, L, 2) points (x, y) in pixels of the upright picture; NaN stays NaN.
        crop_boxes: (4,) or (N, 4) crops (x, y, width, height) in pixels.

    Returns:
        The shape of `landmarks`, in [0, 1] inside the crop and beyond it outside. Arrays and lists give float64
        arrays; tensors give tensors, float64 if `landmarks` is and float32 otherwise.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    points, crops, dtype = _points_and_crops(landmarks, crop_boxes)
    inside = (points + 0.5 - crops[..., None, :2]) / crops[..., None, 2:]
    return inside if dtype is None else inside.to(dtype)


def landmarks_from_crop(landmarks: Any, crop_boxes: Any) -> Any:
    """Maps points in [0, 1] of the crop back to the original picture: the inverse of [`landmarks_to_crop`].

    Args:
        landmarks: (L, 2) or (N, L, 2) points (u, v) as fractions of the crop; NaN stays NaN.
        crop_boxes: (4,) or (N, 4) crops (x, y, width, height) in pixels.

    Returns:
        The shape of `landmarks`, in pixels of the upright picture, centers at integers; types as
        [`landmarks_to_crop`] gives them.

    Raises:
        ValueError: if the shapes do not belong together.
    """
    points, crops, dtype = _points_and_crops(landmarks, crop_boxes)
    outside = points * crops[..., None, 2:] + crops[..., None, :2] - 0.5
    return outside if dtype is None else outside.to(dtype)


class AxisPlan(NamedTuple):
    """How one axis of a picture becomes one axis of a crop: average blocks of `step` pixels, then multiply.

    Attributes:
        first: first source pixel that is needed.
        stop: one past the last source pixel that is needed; equal to `first` where the crop misses the picture.
        step: number of pixels that are averaged before the filter, 1 for none.
        weights: (size, blocks) float32; a row sums to the share of its sample that lies in the picture.
    """

    first: int
    stop: int
    step: int
    weights: np.ndarray


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(distance), 0.0)


def _cubic(distance: np.ndarray) -> np.ndarray:
    # Keys' cubic convolution with a = -1/2, the member of the family that reproduces quadratics (and Pillow's choice).
    x = np.abs(distance)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, ((2.5 - 0.5 * x) * x - 4) * x + 2, 0.0))


_FILTERS = {"bilinear": (_triangle, 1.0), "bicubic": (_cubic, 2.0)}


def plan_axis(start: float, length: float, size: int, extent: int, filter_name: str = "bilinear") -> AxisPlan:
    """Plans the antialiased resampling of ``[start, start + length)`` of an axis to `size` samples.

    No library call takes a float crop, widens its filter when it shrinks and makes black what lies beyond the picture,
    all in one pass; a matrix for each axis does, equally for NumPy and for torch on any device. The filter is that of
    Pillow's `Image.resize`: widened by the scale when shrinking, and blind to what is not in the picture. A sample is
    then darkened by the share of its own area that lies beyond, so that the picture ends in a sharp edge and a crop of
    the whole picture keeps its rim.

    Args:
        start: left or top edge of the crop in pixels.
        length: width or height of the crop in pixels, positive.
        size: number of samples to make.
        extent: width or height of the picture in pixels.
        filter_name: "bilinear" or "bicubic".

    Returns:
        The plan. Its cost depends on the picture and on `size`, not on `length`.
    """
    kernel, radius = _FILTERS[filter_name]
    scale = length / size
    step = max(1, int(scale / REDUCING_GAP))
    scale /= step
    widening = max(scale, 1.0)
    radius *= widening

    reach = (radius - 0.5 * scale) * step
    first = min(max(math.floor(start - reach), 0), extent)
    stop = min(max(math.ceil(start + length + reach), first), extent)
    blocks = -(-(stop - first) // step)
    # A block that is cut off inside the picture would mix in black that is not there.
    stop = min(first + blocks * step, extent)

    centers = (start - first) / step + scale * (np.arange(size) + 0.5)
    taps = np.floor(centers - radius)[:, None] + np.arange(math.ceil(2 * radius) + 1)
    rows, columns = np.nonzero((taps >= 0) & (taps < blocks))
    taps = taps[rows, columns].astype(np.int64)
    weights = np.zeros((size, blocks))
    weights[rows, taps] = kernel((taps + 0.5 - centers[rows]) / widening)
    # The last block may hold fewer pixels than the others; its mean counts the missing ones as black.
    filling = np.minimum((stop - first) / step - np.arange(blocks), 1.0)
    left_end, right_end = -start / length * size, (extent - start) / length * size
    samples = np.arange(size)
    share = (np.minimum(samples + 1, right_end) - np.maximum(samples, left_end)).clip(0, 1)
    total = weights @ filling
    weights *= np.divide(share, total, out=np.zeros(size), where=total > 0)[:, None]
    return AxisPlan(first, stop, step, weights.astype(np.float32))


def plan_crop(
    crop_box: Sequence[float], size: Sequence[int], image_size: Sequence[int], filter_name: str = "bilinear"
) -> tuple[AxisPlan, AxisPlan]:
    """Plans both axes of a crop.

    Args:
        crop_box: (x, y, width, height) in pixels.
        size: (height, width) of the result.
        image_size: (height, width) of the picture.
        filter_name: "bilinear" or "bicubic".

    Returns:
        The plans of the rows and of the columns.
    """
    left, top, width, height = (float(value) for value in crop_box)
    rows = plan_axis(top, height, size[0], image_size[0], filter_name)
    return rows, plan_axis(left, width, size[1], image_size[1], filter_name)


def _depth(value: Any) -> int:
    """Counts how deep lists, arrays and tensors are nested around the first number; None counts as a number."""
    if hasattr(value, "ndim"):
        return int(value.ndim)
    if isinstance(value, (list, tuple)):
        return 1 + (_depth(value[0]) if value else 0)
    return 0


def _check_image_boxes(boxes: Any, image: int) -> np.ndarray:
    """Returns the boxes of one picture as (M, 4) float64, or raises the ValueError that names the bad one."""
    boxes = boxes.detach().cpu().numpy() if isinstance(boxes, torch.Tensor) else boxes
    if _depth(boxes) == 1 and len(boxes) > 0:
        boxes = [boxes]
    table = np.empty((len(boxes), 4), dtype=np.float64)
    for index, box in enumerate(boxes):
        numbers_in = [v.item() if hasattr(v, "item") else v for v in (box if _depth(box) == 1 else [box])]
        shown = ", ".join(f"{float(v):g}" if isinstance(v, numbers.Real) else str(v) for v in numbers_in)
        where = f"Box {index} of image {image} is ({shown}):"
        try:
            row = np.asarray([float(value) for value in numbers_in])
        except (TypeError, ValueError):
            row = np.empty(0)
        if row.shape != (4,):
            raise ValueError(f"{where} a box is four numbers (x, y, width, height) in pixels.")
        if not np.isfinite(row).all():
            raise ValueError(f"{where} x, y, width and height must be finite.")
        if row[2] <= 0 or row[3] <= 0:
            raise ValueError(f"{where} width and height must be positive.")
        if np.abs(row).max() > MAX_COORDINATE:
            raise ValueError(f"{where} no picture reaches that far, give (x, y, width, height) in pixels.")
        table[index] = row
    return table


def boxes_per_image(boxes: Any, num_images: int) -> list[np.ndarray | None]:
    """Sorts the boxes a user gave by picture and checks them.

    Args:
        boxes: None (every picture is one face); for one picture a box or a list of boxes; for several pictures one
            entry each: None (the whole picture), a box, or a list of boxes, which may be empty. Lists, tuples, arrays
            and tensors are all welcome, a box is (x, y, width, height) in pixels.
        num_images: number of pictures.

    Returns:
        For every picture None or (M, 4) float64 boxes.

    Raises:
        ValueError: if there is not one entry a picture, or a box is not four finite numbers with a positive area; the
            message names the picture and the box, both counted from 0.
    """
    if boxes is None:
        return [None] * num_images
    depth = _depth(boxes)
    is_entry_each = depth == 3 or (depth > 0 and len(boxes) == 1 and boxes[0] is None)
    if num_images == 1 and depth in (1, 2) and not is_entry_each:
        # [[]] is an entry for the one picture: no faces.
        boxes = [boxes] if not (depth == 2 and len(boxes) == 1 and len(boxes[0]) == 0) else boxes
    if _depth(boxes) == 0 or len(boxes) != num_images:
        given = "a number" if _depth(boxes) == 0 else f"{len(boxes)} entries"
        raise ValueError(
            f"boxes has {given} for {num_images} image(s): give one list of (x, y, width, height) boxes for each "
            "image, [] for an image without faces."
        )
    for index, entry in enumerate(boxes):
        if entry is not None and _depth(entry) == 0:
            raise ValueError(f"boxes[{index}] must be a list of (x, y, width, height) boxes or None, got {entry!r}.")
    return [None if entry is None else _check_image_boxes(entry, index) for index, entry in enumerate(boxes)]


def box_overlap(first: Any, second: Any) -> float:
    """Return the area that two boxes (x, y, width, height) share over what they cover together; 0 if that is none."""
    a, b = (np.asarray(box, dtype=np.float64) for box in (first, second))
    sides = np.minimum(a[:2] + a[2:], b[:2] + b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(sides.clip(0)))
    covered = float(np.prod(a[2:]) + np.prod(b[2:])) - shared
    return shared / covered if covered > 0 else 0.0


__all__ = [
    "EXTEND_BOTTOM",
    "EXTEND_TOP",
    "AxisPlan",
    "box_overlap",
    "boxes_per_image",
    "crop_box_from_box",
    "crop_box_from_image_size",
    "landmarks_from_crop",
    "landmarks_to_crop",
    "plan_axis",
    "plan_crop",
]
