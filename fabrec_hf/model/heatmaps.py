"""Landmarks to heatmaps and back, in tensor operations that export.

Coordinates are fractions of the crop: 0 and 1 are its edges, so pixel i of an S-pixel grid has its center at
(i + 0.5) / S. The authors round the center of every Gaussian to an integer pixel and shift it near the left and top
border; here the center is exact everywhere.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def alignment_shift(alignment: str, heatmap_size: int, image_size: int) -> float:
    """Shift of the heatmap grid against the crop in heatmap pixels, see `FabRecConfig.heatmap_alignment`."""
    return 0.0 if alignment == "edges" else 0.5 * heatmap_size / image_size - 0.5


def encode_heatmaps(
    landmarks: torch.Tensor,
    size: int,
    sigma: float,
    shift: float = 0.0,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> torch.Tensor:
    """Draw one Gaussian of amplitude 1 per landmark (paper section 3.3.1).

    Args:
        landmarks: (N, L, 2) x and y as fractions of the crop; NaN for points that are not annotated.
        size: Side S of the square heatmaps in pixels.
        sigma: Standard deviation in heatmap pixels.
        shift: Shift of the grid from `alignment_shift`, in heatmap pixels.
        memory_format: Layout of the result: that of what it is compared with saves a copy.

    Returns:
        (N, L, S, S) heatmaps in [0, 1]; all zeros for a point that is not annotated.
    """
    grid = torch.arange(size, device=landmarks.device, dtype=landmarks.dtype)
    centers = torch.nan_to_num(landmarks, nan=-1e4) * size - 0.5 - shift
    profiles = torch.exp(-0.5 * ((grid - centers.unsqueeze(-1)) / sigma) ** 2)
    shape = *landmarks.shape[:2], size, size
    heatmaps = torch.empty(shape, dtype=profiles.dtype, device=profiles.device, memory_format=memory_format)
    return torch.mul(profiles[:, :, 1].unsqueeze(-1), profiles[:, :, 0].unsqueeze(-2), out=heatmaps)


def decode_heatmaps(
    heatmaps: torch.Tensor, method: str = "subpixel", sigma: float = 7.0, shift: float = 0.0, blur: str = "products"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the landmark in each heatmap.

    Both methods blur with a box of the paper's relative size (9 x 9 at 128 px), which also gives the score.
    `"argmax"` stops at the best integer pixel. `"subpixel"` fits a parabola to the logarithm of the heatmap around
    that pixel, along x and along y: exact for a Gaussian of any width, also where the border cuts it.

    Args:
        heatmaps: (N, L, H, W).
        method: `"subpixel"` or `"argmax"`.
        sigma: Standard deviation the heatmaps were trained with, in heatmap pixels; sets the width of the fit.
        shift: Shift of the grid from `alignment_shift`, in heatmap pixels.
        blur: How the box blur is computed, of which a runtime may do one faster than the others: matrix `"products"`
            (PyTorch), depthwise `"convolutions"` (ONNX Runtime), `"pooling"` (OpenVINO), or `"channels_last"`, which
            pools maps that are laid out so (PyTorch on a CPU). The same up to rounding.

    Returns:
        Landmarks (N, L, 2) as fractions of the crop and scores (N, L) in [0, 1], the blurred peak.
    """
    layout = torch.channels_last if blur == "channels_last" else torch.contiguous_format
    # 16 bits would place landmarks on a grid of whole pixels.
    heatmaps = heatmaps.float().contiguous(memory_format=layout)
    height, width = heatmaps.shape[-2:]
    radius = round(height * 4 / 128)
    # The authors' blur counts pixels beyond the border as zeros. That pulls peaks inwards, so the sub-pixel method
    # averages over the pixels that exist.
    zero_border = method == "argmax"
    blurred = _BLURS[blur](heatmaps, radius, zero_border)
    peaks, rows, columns = _best_pixels(blurred, pools=blur == "channels_last")
    if method == "argmax":
        x, y = columns.to(heatmaps.dtype), rows.to(heatmaps.dtype)
    else:
        step = max(1, round(sigma / 2))
        x = _parabola_peak(heatmaps, rows, columns, step, along_x=True)
        y = _parabola_peak(heatmaps, rows, columns, step, along_x=False)
    points = torch.stack([(x + 0.5 + shift) / width, (y + 0.5 + shift) / height], dim=-1)
    return points, peaks.clamp(0, 1)


def _best_pixels(blurred: torch.Tensor, pools: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the highest value of each map (N, L, H, W), the first one of equals, and its row and column, (N, L)."""
    height, width = blurred.shape[-2:]
    if pools:  # a reduction over all but the innermost axis is slow, and pooling is made for this layout
        peaks, places = (found.flatten(1) for found in F.max_pool2d(blurred, (height, width), return_indices=True))
        return peaks, places // width, places % width
    # The best row and then the best pixel in it: searching all pixels at once is several times slower.
    peaks, rows = blurred.amax(dim=-1).max(dim=-1)
    columns = blurred.gather(2, rows[..., None, None].expand(-1, -1, 1, width)).squeeze(2).argmax(dim=-1)
    return peaks, rows, columns


def calibrate_scores(heights: torch.Tensor, knots: Sequence[float], scores: Sequence[float]) -> torch.Tensor:
    """Interpolate a rising curve, flat beyond its ends, in operations that export.

    Args:
        heights: Uncalibrated scores of any shape.
        knots: (K,) heights at which the curve is known, strictly rising.
        scores: (K,) its values there.
    """
    result = torch.full_like(heights, scores[0])
    for low, high, first, last in zip(knots, knots[1:], scores, scores[1:], strict=False):
        result = result + (heights.clamp(low, high) - low) * ((last - first) / (high - low))
    return result


def _blur_by_products(heatmaps: torch.Tensor, radius: int, zero_border: bool) -> torch.Tensor:
    """Average over squares of 2 * radius + 1 pixels by two products with band matrices."""
    rows, columns = (_band(size, radius, heatmaps) for size in heatmaps.shape[-2:])
    if not zero_border:
        rows, columns = (matrix / matrix.sum(dim=1, keepdim=True) for matrix in (rows, columns))
        return rows @ heatmaps @ columns.T
    return rows @ heatmaps @ columns.T / (2 * radius + 1) ** 2


def _blur_by_convolutions(heatmaps: torch.Tensor, radius: int, zero_border: bool) -> torch.Tensor:
    """Average over squares of 2 * radius + 1 pixels by two depthwise convolutions."""
    channels, extent = heatmaps.shape[1], 2 * radius + 1
    ones = heatmaps.new_ones((channels, 1, extent, 1))
    sums = F.conv2d(heatmaps, ones, padding=(radius, 0), groups=channels)
    sums = F.conv2d(sums, ones.transpose(2, 3), padding=(0, radius), groups=channels)
    if zero_border:
        return sums / extent**2
    rows, columns = (_band(size, radius, heatmaps).sum(dim=1) for size in heatmaps.shape[-2:])
    return sums * (1 / (rows[:, None] * columns))


def _blur_by_pooling(heatmaps: torch.Tensor, radius: int, zero_border: bool) -> torch.Tensor:
    """Average over squares of 2 * radius + 1 pixels by pooling columns and rows."""
    extent = 2 * radius + 1
    means = F.avg_pool2d(heatmaps, (extent, 1), 1, (radius, 0), count_include_pad=zero_border)
    return F.avg_pool2d(means, (1, extent), 1, (0, radius), count_include_pad=zero_border)


_BLURS = {
    "products": _blur_by_products,
    "convolutions": _blur_by_convolutions,
    "pooling": _blur_by_pooling,
    "channels_last": _blur_by_pooling,
}


def _band(size: int, radius: int, like: torch.Tensor) -> torch.Tensor:
    """Ones where row and column are at most `radius` apart, (size, size)."""
    positions = torch.arange(size, device=like.device)
    return ((positions[:, None] - positions).abs() <= radius).to(like.dtype)


def _parabola_peak(
    heatmaps: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, step: int, along_x: bool
) -> torch.Tensor:
    """Vertex of the parabola through the log-heatmap at three pixels `step` apart; (N, L) in heatmap pixels."""
    width = heatmaps.shape[-1]
    along, length = (columns, width) if along_x else (rows, heatmaps.shape[-2])
    center = along.clamp(step, length - 1 - step)  # the stencil stays inside; the vertex may lie outside
    stride = step if along_x else step * width
    base = rows * width + center if along_x else center * width + columns
    positions = torch.stack([base - stride, base, base + stride], dim=-1)
    values = heatmaps.flatten(2).gather(-1, positions)
    low, middle, high = torch.log(values.clamp(min=1e-6)).unbind(-1)
    curvature = low - 2 * middle + high
    # A flat or hollow profile has no vertex: stay at the integer peak.
    vertex = torch.where(curvature < -1e-4, 0.5 * (low - high) / curvature.clamp(max=-1e-4), (along - center) / step)
    # The peak of the blurred map is at most half a pixel off for a Gaussian; a far vertex is noise.
    offset = (vertex * step).clamp(-step - 1.0, step + 1.0)
    return center.to(heatmaps.dtype) + offset


__all__ = ["alignment_shift", "calibrate_scores", "decode_heatmaps", "encode_heatmaps"]
