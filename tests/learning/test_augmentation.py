"""Augmented landmarks must stay on the pixels that they mark, and every range mean what its docstring says."""

import math

import pytest
import torch
import torch.nn.functional as F

from fabrec_hf.data.canvases import Canvases
from fabrec_hf.learning.augmentation import (
    LARGEST_ELASTIC,
    AugmentationConfig,
    _undo_shifts,
    augment,
    plain_crops,
)
from fabrec_hf.learning.landmark_training import LandmarkRecipe


CANVAS, SIZE, FRACTION = 160, 64, 0.625  # the plain crop is the middle 100 canvas pixels
TURNED = AugmentationConfig(rotation=45, translation=0.04, scale=(0.94, 1.03))
COVERED = AugmentationConfig(rotation=30, translation=0.04, scale=(0.95, 1.05), elastic=0.03, occlusion=0.5)
NOTHING = AugmentationConfig(flip=0)


def canvas_position(landmarks):
    """Fractions of the plain crop to canvas pixels, centers at integers."""
    return CANVAS / 2 + (landmarks - 0.5) * CANVAS * FRACTION - 0.5


def blobs(landmarks):
    """Canvases with a soft bright blob at one landmark (N, 1, 2) each."""
    grid = torch.arange(CANVAS).float()
    center = canvas_position(landmarks[:, 0])
    squares = (grid - center[:, :1])[:, None, :] ** 2 + (grid - center[:, 1:])[:, :, None] ** 2
    gray = (255 * torch.exp(-squares / (2 * 4.0**2))).round().to(torch.uint8)
    return Canvases(gray[:, None].expand(-1, 3, -1, -1), FRACTION)


def centers(crops):
    """Center of brightness of each crop, as fractions of it: (N, 1, 2)."""
    weights = crops.mean(dim=1).double()
    positions = (torch.arange(SIZE).double() + 0.5) / SIZE
    total = weights.sum(dim=(1, 2))
    x = (weights.sum(dim=1) * positions).sum(dim=1) / total
    y = (weights.sum(dim=2) * positions).sum(dim=1) / total
    return torch.stack([x, y], dim=-1)[:, None].float()


def random_landmarks(count=40, low=0.3, high=0.7):
    return low + (high - low) * torch.rand(count, 1, 2, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    "config",
    [
        NOTHING,
        AugmentationConfig(flip=0, rotation=45),
        AugmentationConfig(flip=0, translation=0.1),
        AugmentationConfig(flip=0, scale=(0.7, 1.3)),
        AugmentationConfig(flip=1),
        AugmentationConfig(flip=0, elastic=0.03),
        AugmentationConfig(flip=0.5, rotation=30, translation=0.05, scale=(0.9, 1.1), elastic=0.03),
    ],
    ids=["nothing", "rotation", "translation", "scale", "flip", "elastic", "everything"],
)
def test_landmarks_follow_the_pixels(config):
    landmarks = random_landmarks()
    torch.manual_seed(0)
    crops, moved = augment(blobs(landmarks), SIZE, config, landmarks, flip_index=[0])
    assert crops.shape == (40, 3, SIZE, SIZE) and moved.shape == landmarks.shape
    # A deformation bends the blob, too, and so moves its center a little beside the landmark.
    assert ((centers(crops) - moved) * SIZE).abs().max() < (0.45 if config.elastic else 0.3)
    if config == NOTHING:
        torch.testing.assert_close(moved, landmarks, atol=1e-6, rtol=0)
    else:
        assert ((moved - landmarks) * SIZE).abs().max() > 1.5  # the test would see a landmark that stayed behind


def test_without_ranges_the_crop_is_the_plain_one():
    canvases = Canvases(torch.randint(0, 256, (3, 3, CANVAS, CANVAS), dtype=torch.uint8), FRACTION)
    crops, landmarks = augment(canvases, SIZE, NOTHING)
    assert landmarks is None
    torch.testing.assert_close(crops, plain_crops(canvases, SIZE))
    # at 100 px the plain crop is the canvas's own middle, pixel for pixel
    middle = canvases.pixels[..., 30:130, 30:130].float() / 255
    torch.testing.assert_close(plain_crops(canvases, 100), middle, atol=1e-4, rtol=0)


def test_rotation_turns_about_the_center_within_its_range():
    landmarks = torch.tensor([[[0.8, 0.5]]]).repeat(200, 1, 1)
    torch.manual_seed(0)
    _, moved = augment(blobs(landmarks), 8, AugmentationConfig(flip=0, rotation=30), landmarks)
    offset = moved[:, 0] - 0.5
    torch.testing.assert_close(offset.norm(dim=1), torch.full((200,), 0.3), atol=1e-5, rtol=0)
    angles = torch.rad2deg(torch.atan2(offset[:, 1], offset[:, 0]))
    assert -30 <= angles.min() < -25 and 25 < angles.max() <= 30


def test_scale_is_the_size_of_the_face():
    landmarks = torch.tensor([[[0.8, 0.4]]]).repeat(200, 1, 1)
    torch.manual_seed(0)
    _, moved = augment(blobs(landmarks), 8, AugmentationConfig(flip=0, scale=(0.5, 1.25)), landmarks)
    sizes = (moved[:, 0] - 0.5) / torch.tensor([0.3, -0.1])
    torch.testing.assert_close(sizes[:, 0], sizes[:, 1], atol=1e-5, rtol=0)  # x and y together
    assert 0.5 <= sizes.min() < 0.53 and 1.22 < sizes.max() <= 1.25 + 1e-5
    # and the pixels agree: a blob twice as large covers four times the area
    canvases = blobs(torch.full((1, 1, 2), 0.5))
    area = [augment(canvases, SIZE, AugmentationConfig(flip=0, scale=(s, s)))[0].sum() for s in (1.0, 2.0)]
    assert (area[1] / area[0]).item() == pytest.approx(4, rel=0.03)


def test_translation_is_a_fraction_of_the_crop():
    landmarks = torch.full((300, 1, 2), 0.5)
    torch.manual_seed(0)
    _, moved = augment(blobs(landmarks), 8, AugmentationConfig(flip=0, translation=0.04), landmarks)
    offsets = moved - 0.5
    assert 0.036 < offsets.abs().max() <= 0.04 + 1e-6
    assert (offsets.amin(dim=0) < -0.03).all() and (offsets.amax(dim=0) > 0.03).all()


def test_elastic_shifts_move_neighbors_together_and_no_point_too_far():
    steps = torch.linspace(0.3, 0.7, 9)
    landmarks = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(1, -1, 2).repeat(200, 1, 1)
    canvases = Canvases(torch.zeros(200, 3, 8, 8, dtype=torch.uint8), FRACTION)
    torch.manual_seed(0)
    config = AugmentationConfig(flip=0, elastic=0.04)
    shifts = augment(canvases, 4, config, landmarks, [*range(81)])[1] - landmarks
    # torch's cubic kernel (a = -0.75) weighs four values by -3/32, 19/32, 19/32, -3/32 halfway: 1.375 along each axis.
    assert 0.03 < shifts.abs().max() < 0.04 * 1.375**2
    assert shifts.mean(dim=0).abs().max() < 0.01, "no direction is preferred"
    grid = shifts.view(200, 9, 9, 2)
    assert grid.diff(dim=1).abs().max() < 0.05 * 0.8 and grid.std(dim=(1, 2)).mean() > 0.005


def test_no_deformation_is_steeper_than_stated():
    # What each node adds to d, and its slopes by differences; the worst signs of the nodes add up all of them.
    weights = F.interpolate(torch.eye(16).double().view(16, 1, 4, 4), size=769, mode="bicubic", align_corners=True)[
        :, 0
    ]
    along_x, along_y = weights.diff(dim=2)[:, :-1] * 384, weights.diff(dim=1)[:, :, :-1] * 384
    worst = max((along_x + along_y).abs().sum(0).max().item(), (along_x - along_y).abs().sum(0).max().item())
    assert 2 * worst == pytest.approx(15.8, abs=0.1)  # shifts are in units of half a crop
    assert 2 * worst * LARGEST_ELASTIC < 1


def test_the_largest_deformation_can_be_undone_in_the_worst_case():
    torch.manual_seed(0)
    signs = 2 * LARGEST_ELASTIC * torch.randint(0, 2, (400, 2, 4, 4)).mul(2).sub(1)
    points = 2 * torch.rand(400, 20, 2) - 1
    found = _undo_shifts(points, signs)
    # The definition by torch's own upsampling, at the nearest of 1,025 x 1,025 places, which are 1/512 apart. Rows and
    # columns are upsampled one after the other, so what the nodes of a line add to each place of it is enough.
    line = F.interpolate(torch.eye(4).view(1, 4, 4, 1), size=(1025, 1), mode="bicubic", align_corners=True)
    line = line[0, ..., 0].T
    places = (found.clamp(-1, 1) + 1).mul(512).round().long()
    moved = torch.einsum("nkr,ndrc,nkc->nkd", line[places[..., 1]], signs, line[places[..., 0]])
    field = F.interpolate(signs[:2], size=1025, mode="bicubic", align_corners=True)
    rows = torch.arange(2)[:, None, None], torch.arange(2)[None, None], places[:2, :, 1:], places[:2, :, :1]
    torch.testing.assert_close(moved[:2], field[rows], atol=1e-5, rtol=0)
    inside = (found.abs() <= 1).all(-1)
    assert inside.float().mean() > 0.8
    # 1/512 at most beside a place, times a slope below 2, and what 15 iterations leave.
    assert (found + moved - points)[inside].abs().max() < 2 / 512 + 0.003


@pytest.mark.parametrize("elastic", [-0.01, LARGEST_ELASTIC + 0.01, math.nan])
def test_deformations_that_would_fold_a_face_are_refused(elastic):
    with pytest.raises(ValueError, match=r"elastic must lie between 0 and 0\.06"):
        AugmentationConfig(elastic=elastic)
    with pytest.raises(ValueError, match="elastic must lie between"):
        LandmarkRecipe(elastic=elastic)


def test_flip_swaps_the_paired_points():
    landmarks = torch.tensor([[[0.3, 0.4], [0.6, 0.45], [0.5, 0.7]]])
    canvases = Canvases(torch.zeros(1, 3, CANVAS, CANVAS, dtype=torch.uint8), FRACTION)
    _, moved = augment(canvases, SIZE, AugmentationConfig(flip=1), landmarks, flip_index=[1, 0, 2])
    expected = torch.tensor([[[0.4, 0.45], [0.7, 0.4], [0.5, 0.7]]])
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


def test_flip_happens_with_its_probability_and_not_without_pairs():
    landmarks = torch.tensor([[[0.3, 0.5]]]).repeat(400, 1, 1)
    canvases = blobs(landmarks)
    torch.manual_seed(0)
    _, moved = augment(canvases, 8, AugmentationConfig(flip=0.25), landmarks, flip_index=[0])
    share = (moved[:, 0, 0] > 0.5).float().mean().item()
    assert share == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 400))
    crops, moved = augment(canvases, SIZE, AugmentationConfig(flip=1), landmarks)
    torch.testing.assert_close(moved, landmarks, atol=1e-6, rtol=0)
    assert ((centers(crops) - landmarks) * SIZE).abs().max() < 0.3
    crops, _ = augment(canvases, SIZE, AugmentationConfig(flip=1))  # without landmarks everything may flip
    assert ((centers(crops)[:, 0, 0] - 0.7) * SIZE).abs().max() < 0.3


def test_missing_points_stay_missing_and_spoil_no_other():
    landmarks = torch.rand(8, 4, 2)
    landmarks[2, 1] = torch.nan
    landmarks[5] = torch.nan
    complete = landmarks.nan_to_num(0.5)
    canvases = Canvases(torch.zeros(8, 3, 32, 32, dtype=torch.uint8), FRACTION)
    results = []
    for points in (landmarks, complete):
        torch.manual_seed(0)
        results.append(augment(canvases, 16, COVERED, points, flip_index=[0, 1, 2, 3])[1])
    missing = landmarks.isnan()
    assert torch.equal(results[0].isnan(), missing)
    torch.testing.assert_close(results[0][~missing], results[1][~missing])


@pytest.mark.parametrize("config", [TURNED, COVERED])
def test_the_same_seed_repeats_the_step(config):
    canvases = Canvases(torch.randint(0, 256, (4, 3, 48, 48), dtype=torch.uint8), FRACTION)
    landmarks = torch.rand(4, 3, 2)
    runs = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        runs.append(augment(canvases, 32, config, landmarks, flip_index=[0, 1, 2]))
    assert torch.equal(runs[0][0], runs[1][0]) and torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[2][0]) and not torch.equal(runs[0][1], runs[2][1])


def test_occlusion_covers_a_rectangle_with_another_picture():
    levels = torch.tensor([40, 90, 140, 190], dtype=torch.uint8)
    canvases = Canvases(levels.view(4, 1, 1, 1).expand(4, 3, 32, 32), FRACTION)
    torch.manual_seed(0)
    crops, _ = augment(canvases, SIZE, AugmentationConfig(flip=0, occlusion=1))
    for index in range(4):
        own = levels[index] / 255
        other = levels[(index - 1) % 4] / 255
        covered = (crops[index, 0] - own).abs() > 0.01
        assert 0 < covered.float().mean() <= 0.26  # at most half of each side, perhaps cut by the border
        torch.testing.assert_close(crops[index, :, covered], other.expand(3, int(covered.sum())))
        rows, columns = covered.any(dim=1).nonzero(), covered.any(dim=0).nonzero()
        assert covered.sum() == len(rows) * len(columns)  # a rectangle
    torch.manual_seed(0)
    plain, _ = augment(canvases, SIZE, AugmentationConfig(flip=0, occlusion=0.0))
    torch.testing.assert_close(plain, (levels / 255).view(4, 1, 1, 1).expand(4, 3, SIZE, SIZE))


def test_colors_change_within_their_range_and_gray_has_none():
    color = torch.tensor([120, 80, 60], dtype=torch.uint8).view(1, 3, 1, 1)
    canvases = Canvases(color.expand(300, 3, 8, 8), FRACTION)
    torch.manual_seed(0)
    crops, _ = augment(canvases, 4, AugmentationConfig(flip=0, color=0.2))
    brightness = crops.mean(dim=(1, 2, 3)) / (260 / 3 / 255)
    assert brightness.min() > 0.8 * 0.88 and brightness.max() < 1.2 * 1.12
    assert brightness.min() < 0.85 and brightness.max() > 1.15
    assert bool((crops >= 0).all() and (crops <= 1).all())
    crops, _ = augment(canvases, 4, AugmentationConfig(flip=0, grayscale=1))
    torch.testing.assert_close(crops[:, 0], crops[:, 1])
    torch.testing.assert_close(crops[:, 1], crops[:, 2])
    # Rec. 601 luma of (120, 80, 60)
    assert (crops[0, 0, 0, 0] * 255).item() == pytest.approx(0.2989 * 120 + 0.587 * 80 + 0.114 * 60, abs=0.1)


def test_blur_softens_and_keeps_the_brightness():
    canvases = blobs(torch.full((6, 1, 2), 0.5))
    torch.manual_seed(0)
    plain, _ = augment(canvases, SIZE, NOTHING)
    blurred, _ = augment(canvases, SIZE, AugmentationConfig(flip=0, blur=1))
    assert (blurred.amax(dim=(1, 2, 3)) < plain.amax(dim=(1, 2, 3)) - 0.005).all()
    torch.testing.assert_close(blurred.sum(dim=(1, 2, 3)), plain.sum(dim=(1, 2, 3)), rtol=1e-3, atol=0)


def test_a_shared_batch_is_augmented_as_in_one_process():
    """Every process draws for the whole batch and keeps its rows; only occlusion looks at a process's own canvases."""
    noise = torch.randint(0, 256, (6, 3, 80, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    canvases = Canvases(noise, 0.7)
    landmarks = random_landmarks(6)
    config = AugmentationConfig(rotation=40, translation=0.1, scale=(0.8, 1.2), elastic=0.03, color=0.3, blur=0.5)

    def run(rank, world_size):
        torch.manual_seed(3)
        rows = slice(rank, None, world_size)
        return augment(canvases.subset(rows), 32, config, landmarks[rows], [0], share=(rank, world_size))

    whole, points = run(0, 1)
    for rank in range(2):
        crops, found = run(rank, 2)
        torch.testing.assert_close(crops, whole[rank::2])
        torch.testing.assert_close(found, points[rank::2])
