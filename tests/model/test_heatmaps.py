"""Heatmaps: drawn by a dense formula, read back to a twentieth of a pixel, and the authors' own decoding."""

import itertools

import numpy as np
import pytest
import torch

from fabrec_hf.model.heatmaps import alignment_shift, decode_heatmaps, encode_heatmaps


def dense_gaussians(points, size, sigma):
    """The definition, pixel by pixel: (L, size, size) for centers in heatmap pixels."""
    maps = np.zeros((len(points), size, size))
    for index, (x, y) in enumerate(points):
        for row, column in itertools.product(range(size), range(size)):
            maps[index, row, column] = np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2))
    return maps


@pytest.mark.parametrize(("size", "sigma"), [(32, 1.75), (16, 3.5)])
def test_targets_are_the_dense_formula(size, sigma):
    centers = np.array([[0.0, 0.0], [5.25, 11.75], [size - 1, 3.5], [-0.5, size - 0.5]])
    fractions = torch.from_numpy((centers + 0.5) / size)[None]
    heatmaps = encode_heatmaps(fractions, size, sigma)
    assert heatmaps.dtype == torch.float64 and heatmaps.shape == (1, 4, size, size)
    np.testing.assert_allclose(heatmaps[0].numpy(), dense_gaussians(centers, size, sigma), atol=1e-12)
    assert heatmaps[0, 0, 0, 0] == 1  # a center on a pixel is drawn at full height
    assert heatmaps[0, 0, 0, 2] == pytest.approx(np.exp(-2 / sigma**2))


def test_a_point_without_annotation_draws_nothing():
    landmarks = torch.tensor([[[0.5, 0.5], [torch.nan, 0.5], [torch.nan, torch.nan]]])
    heatmaps = encode_heatmaps(landmarks, 32, 3.5)
    assert heatmaps.isfinite().all()
    assert heatmaps[0, 0].max() > 0.9
    assert heatmaps[0, 1:].abs().max() == 0


def everywhere(size, step):
    """Points all over the heatmap, its borders and its corners, as fractions: (1, P, 2)."""
    along = torch.cat([torch.arange(0, size, step), torch.tensor([size - 1.0, 0.5 / size])]) / size
    along = torch.cat([along, torch.tensor([0.0, 1.0])])
    return torch.cartesian_prod(along, along)[None]


@pytest.mark.parametrize(("size", "sigma"), [(128, 7.0), (64, 3.5), (64, 7.0), (32, 1.75), (64, 2.0)])
def test_encoded_points_are_decoded_to_a_twentieth_of_a_pixel(size, sigma):
    points = everywhere(size, step=size / 11.3)
    landmarks, scores = decode_heatmaps(encode_heatmaps(points, size, sigma), "subpixel", sigma)
    error = (landmarks - points).norm(dim=-1) * size
    assert error.max() < 0.05
    assert scores.min() > 0.5 and scores.max() <= 1


@pytest.mark.parametrize(("size", "sigma"), [(64, 3.5)])
def test_decoding_survives_noise_near_the_scale_of_a_trained_model(size, sigma):
    points = 0.1 + 0.8 * torch.rand(4, 50, 2, generator=torch.Generator().manual_seed(0))
    noise = 0.01 * torch.randn(4, 50, size, size, generator=torch.Generator().manual_seed(1))
    landmarks, _ = decode_heatmaps(0.8 * encode_heatmaps(points, size, sigma) + noise, "subpixel", sigma)
    assert (landmarks - points).norm(dim=-1).mean() * size < 0.15


def box_blur_argmax(heatmap, radius):
    """The authors' decoding written out: zero-bordered box blur, integer argmax (x, y), and the blurred maximum."""
    size = len(heatmap)
    padded = np.pad(heatmap, radius)
    blurred = np.zeros_like(heatmap)
    for row, column in itertools.product(range(size), range(size)):
        blurred[row, column] = padded[row : row + 2 * radius + 1, column : column + 2 * radius + 1].mean()
    row, column = np.unravel_index(blurred.argmax(), blurred.shape)
    return (column, row), blurred.max()


def test_argmax_is_a_box_blur_with_a_zero_border():
    generator = torch.Generator().manual_seed(0)
    centers = torch.tensor([[[0.01, 0.02], [0.99, 0.5], [0.4, 0.6]]])
    heatmaps = encode_heatmaps(centers, 128, 7.0) + 0.3 * torch.rand(1, 3, 128, 128, generator=generator) - 0.15
    landmarks, scores = decode_heatmaps(heatmaps, "argmax")
    for index in range(3):
        (x, y), score = box_blur_argmax(heatmaps[0, index].double().numpy(), radius=4)
        assert (landmarks[0, index] * 128 - 0.5).tolist() == pytest.approx([x, y], abs=1e-4)
        assert scores[0, index].item() == pytest.approx(min(score, 1), abs=1e-5)


def test_the_blur_scales_with_the_heatmap():
    heatmaps = torch.zeros(1, 1, 64, 64)
    heatmaps[0, 0, 20, 30] = 1
    _, scores = decode_heatmaps(heatmaps, "argmax")  # 5 x 5 at 64 px
    assert scores.item() == pytest.approx(1 / 25)


def test_scores_are_clamped_and_low_for_an_empty_map():
    heatmaps = torch.stack([torch.full((64, 64), 3.0), torch.full((64, 64), -1.0), torch.zeros(64, 64)])[None]
    for method in ("argmax", "subpixel"):
        landmarks, scores = decode_heatmaps(heatmaps, method, 3.5)
        assert landmarks.isfinite().all()
        assert scores.tolist() == [[1.0, 0.0, 0.0]]


@pytest.mark.parametrize(("heatmap_size", "image_size"), [(128, 256), (128, 128), (64, 256)])
def test_alignment_by_indices_puts_index_i_on_crop_pixel_i_times_the_ratio(heatmap_size, image_size):
    shift = alignment_shift("indices", heatmap_size, image_size)
    rows, columns = [3, heatmap_size // 2, heatmap_size - 20], [heatmap_size - 9, 17, 50]
    heatmaps = torch.zeros(1, 3, heatmap_size, heatmap_size)
    for index, (row, column) in enumerate(zip(rows, columns, strict=True)):
        # several pixels, so that the maximum of the box blur is unique
        center = torch.tensor([[[(column + 0.5) / heatmap_size, (row + 0.5) / heatmap_size]]])
        heatmaps[0, index] = encode_heatmaps(center, heatmap_size, 5.0)[0, 0]
    ratio = image_size // heatmap_size
    expected = [[column * ratio, row * ratio] for row, column in zip(rows, columns, strict=True)]
    landmarks, _ = decode_heatmaps(heatmaps[:, 1:], "argmax", 5.0, shift)
    torch.testing.assert_close(landmarks[0] * image_size - 0.5, torch.tensor(expected[1:]).float(), atol=1e-3, rtol=0)
    landmarks, _ = decode_heatmaps(heatmaps, "subpixel", 5.0, shift)
    torch.testing.assert_close(landmarks[0] * image_size - 0.5, torch.tensor(expected).float(), atol=0.05, rtol=0)
    # and targets are drawn where they are read
    drawn = encode_heatmaps(landmarks, heatmap_size, 5.0, shift)
    assert (drawn - heatmaps).abs().max() < 0.01


def test_alignment_by_edges_has_no_shift():
    assert alignment_shift("edges", 64, 256) == 0
    assert alignment_shift("indices", 128, 128) == 0
    assert alignment_shift("indices", 128, 256) == -0.25


@pytest.mark.parametrize("method", ["subpixel", "argmax"])
def test_decoding_exports(method):
    class Decoder(torch.nn.Module):
        def forward(self, heatmaps):
            return decode_heatmaps(heatmaps, method, 3.5)

    heatmaps = encode_heatmaps(torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(0)), 64, 3.5)
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(Decoder(), (heatmaps,), dynamic_shapes={"heatmaps": {0: batch}})
    points = torch.rand(7, 5, 2, generator=torch.Generator().manual_seed(1))
    landmarks, scores = exported.module()(encode_heatmaps(points, 64, 3.5))
    assert landmarks.shape == (7, 5, 2) and scores.shape == (7, 5)
    tolerance = 0.05 if method == "subpixel" else 3.0  # the zero border pulls inwards
    assert (landmarks - points).abs().max() * 64 < tolerance


def test_decoding_works_in_half_precision():
    points = 0.2 + 0.6 * torch.rand(1, 20, 2, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float16, torch.bfloat16):
        heatmaps = encode_heatmaps(points, 64, 3.5).to(dtype)
        landmarks, scores = decode_heatmaps(heatmaps, "subpixel", 3.5)
        assert landmarks.isfinite().all() and scores.isfinite().all()
        assert landmarks.dtype == torch.float32
        assert (landmarks - points).abs().max() * 64 < 0.2
