"""Perturbations: what they do to pixels, points and boxes, against hand-computed values and second ways."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from fabrec_hf.evaluation.perturbations import PERTURBATIONS, FaceInPicture, cut_region, perturb, rotate_points


def make_face(seed=0, size=(90, 110)):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    points = random.uniform([35, 25], [75, 60], (6, 2))
    low, high = points.min(axis=0), points.max(axis=0)
    return FaceInPicture(pixels, points, np.concatenate([low, high - low]))


def same(first, second):
    return all(np.array_equal(getattr(first, key), getattr(second, key)) for key in ("pixels", "points", "box"))


def copied(face):
    return FaceInPicture(face.pixels.copy(), face.points.copy(), face.box.copy())


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_strength_zero_is_the_face_itself_and_no_face_is_changed_in_place(name):
    entry, face = PERTURBATIONS[name], make_face()
    before = copied(face)
    assert entry.strengths[0] == 0 and list(entry.strengths) == sorted(set(entry.strengths))
    assert perturb(face, entry, 0, row=3) is face
    for strength in entry.strengths[1:]:
        assert not same(perturb(face, entry, strength, row=3), face)
    assert same(face, before)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_draw_depends_on_seed_and_row_alone(name):
    entry, face = PERTURBATIONS[name], make_face()
    strength = entry.strengths[2]
    here = [perturb(face, entry, strength, row, seed=1) for row in range(8)]
    np.random.seed(99)
    again = [perturb(face, entry, strength, row, seed=1) for row in reversed(range(8))][::-1]
    assert all(map(same, here, again))
    random = name in ("box_jitter", "occlusion", "rotation")
    other = [perturb(face, entry, strength, row, seed=2) for row in range(8)]
    assert all(map(same, here, other)) != random
    assert all(same(here[0], one) for one in here[1:]) != random


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_strengths_out_of_range_are_refused(name):
    entry = PERTURBATIONS[name]
    for strength in (-1, entry.limit + 1, math.nan):
        with pytest.raises(ValueError, match=f"{name} takes a strength from 0 to"):
            perturb(make_face(), entry, strength, row=0)


def test_box_jitter_has_the_standard_deviations_it_states():
    face = FaceInPicture(np.zeros((4, 4, 3), np.uint8), np.zeros((1, 2)), np.array([10.0, 20.0, 100.0, 50.0]))
    entry = PERTURBATIONS["box_jitter"]
    boxes = np.stack([perturb(face, entry, 5, row).box for row in range(4000)])
    shifts = (boxes[:, :2] + boxes[:, 2:] / 2 - [60, 45]) / 100  # of the longer side
    sizes = np.log(boxes[:, 2:] / [100, 50])
    assert np.abs(shifts.mean(axis=0)).max() < 0.003
    assert shifts.std(axis=0) == pytest.approx([0.05, 0.05], rel=0.05)
    assert sizes[:, 0] == pytest.approx(sizes[:, 1])  # the shape of the box stays
    assert sizes[:, 0].mean() == pytest.approx(0, abs=0.004)
    assert sizes[:, 0].std() == pytest.approx(0.08, rel=0.05)
    one, double = perturb(face, entry, 5, 7).box, perturb(face, entry, 10, 7).box
    shift = one[:2] + one[2:] / 2 - [60, 45]
    assert double[:2] + double[2:] / 2 - [60, 45] == pytest.approx(2 * shift)  # the same draw grows


def test_blur_spreads_a_point_by_its_standard_deviation():
    """The second moment of a blurred point is sigma squared: 4 % of a box side of 100 px are 4 px."""
    pixels = np.zeros((81, 81, 3), np.uint8)
    pixels[38:43, 38:43] = 255
    face = FaceInPicture(pixels, np.zeros((1, 2)), np.array([0.0, 0.0, 60.0, 100.0]))
    blurred = perturb(face, PERTURBATIONS["blur"], 4, 0).pixels[..., 1].astype(float)
    offsets = np.arange(81) - 40
    profile = blurred.sum(axis=0) / blurred.sum()
    # The variance of a row of five pixels is (25 - 1) / 12 = 2.
    assert profile @ offsets == pytest.approx(0, abs=0.01)
    assert profile @ offsets**2 == pytest.approx(16 + 2, rel=0.05)


def test_jpeg_is_that_of_pillow_at_the_quality_named():
    face, entry = make_face(), PERTURBATIONS["jpeg"]
    buffer = io.BytesIO()
    Image.fromarray(face.pixels).save(buffer, "JPEG", quality=30)
    assert np.array_equal(perturb(face, entry, 70, 0).pixels, np.asarray(Image.open(buffer)))
    errors = [
        np.abs(perturb(face, entry, value, 0).pixels.astype(int) - face.pixels).mean() for value in entry.strengths
    ]
    assert errors == sorted(errors)
    assert [entry.tick(value) for value in (0, 70, 95)] == ["none", "30", "5"]


def test_darkness_halves_linear_light():
    """By the sRGB standard, 188 is linear 0.50289; half of it is 0.25144, which encodes to 137.2."""
    values = np.array([[[0, 5, 188], [255, 255, 255]]], np.uint8)
    face = FaceInPicture(values, np.zeros((1, 2)), np.array([0.0, 0.0, 1.0, 1.0]))
    once = perturb(face, PERTURBATIONS["darkness"], 1, 0).pixels
    assert once[0, 0].tolist() == [0, 2, 137]  # near black sRGB is linear: 5 / 2 is rounded to even
    assert once[0, 1].tolist() == [188, 188, 188]  # 0.5 encodes to 187.5
    assert perturb(face, PERTURBATIONS["darkness"], 8, 0).pixels[0, 1].tolist() == [13] * 3  # 255 * 12.92 / 256 = 12.9


@pytest.mark.parametrize("share", [5, 40, 50])
def test_occlusion_covers_the_share_it_states_inside_the_box(share):
    box = np.array([20.3, 11.7, 50.5, 61.25])
    columns, rows = np.arange(110), np.arange(90)
    ratios = []
    for row in range(40):
        # The same draw covers black and white by the same color: what is left of their difference is uncovered.
        black, white = (
            FaceInPicture(np.full((90, 110, 3), value, np.uint8), np.zeros((1, 2)), box) for value in (0, 255)
        )
        covers = [perturb(face, PERTURBATIONS["occlusion"], share, row).pixels for face in (black, white)]
        covered = 1 - (covers[1].astype(float) - covers[0])[..., 0] / 255
        assert covered.sum() == pytest.approx(share / 100 * box[2] * box[3], rel=0.01)
        across, down = covered.max(axis=0) > 0, covered.max(axis=1) > 0
        assert columns[across].min() >= 20 and columns[across].max() <= 70  # the box ends at 70.8
        assert rows[down].min() >= 11 and rows[down].max() <= 72  # the box ends at 72.95
        ratios.append((across.sum() / box[2]) / (down.sum() / box[3]))
        full = covered == 1
        assert (covers[0][full] == covers[0][full][0]).all()  # one color
    assert 0.4 < min(ratios) < 0.75 and 1.35 < max(ratios) < 2.3


def test_occlusion_says_which_points_it_covers():
    y, x = np.mgrid[5:90:10, 5:110:10]
    points = np.stack([x, y], axis=-1).reshape(-1, 2).astype(float)
    points[0] = np.nan
    box, counts = np.array([20.3, 11.7, 50.5, 61.25]), []
    for row in range(20):
        black, white = (FaceInPicture(np.full((90, 110, 3), value, np.uint8), points, box) for value in (0, 255))
        found, other = (perturb(face, PERTURBATIONS["occlusion"], 40, row) for face in (black, white))
        # A pixel that shows the same color whatever was below is covered whole, and its middle with it.
        whole = (found.pixels == other.pixels).all(axis=-1)[y, x].ravel()
        part = (np.abs(other.pixels.astype(int) - found.pixels) < 255).any(axis=-1)[y, x].ravel()
        whole[0] = part[0] = False
        assert (found.covered >= whole).all() and (found.covered <= part).all()
        counts.append(found.covered.sum())
    assert min(counts) > 0 and perturb(black, PERTURBATIONS["blur"], 2, 0).covered is None


def test_points_turn_clockwise_about_the_center_by_hand():
    """A quarter turn about edge position (10, 10), which is point (9.5, 9.5)."""
    turned = rotate_points(np.array([[12.5, 9.5], [9.5, 9.5], [np.nan, 0]]), np.array([10.0, 10.0]), 90)
    assert turned[:2] == pytest.approx(np.array([[9.5, 12.5], [9.5, 9.5]]))
    assert np.isnan(turned[2]).any()
    diagonal = rotate_points(np.array([[12.5, 9.5]]), np.array([10.0, 10.0]), -45)
    assert diagonal[0] == pytest.approx([9.5 + 3 / math.sqrt(2), 9.5 - 3 / math.sqrt(2)])


@pytest.mark.parametrize("angle", [10, 45, 90, 180])
def test_a_drawn_marker_is_found_where_its_point_went(angle):
    """Markers in red, green and blue, smooth about a point between pixels: their centroids are the turned points."""
    points = np.array([[52.25, 40.5], [70.0, 66.75], [47.5, 71.0]])
    y, x = np.mgrid[:120, :130]
    blobs = [255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 2.5**2)) for px, py in points]
    low, high = points.min(axis=0), points.max(axis=0)
    face = FaceInPicture(np.stack(blobs, axis=-1).round().astype(np.uint8), points, np.concatenate([low, high - low]))
    signs = set()
    for row in range(6):
        turned = perturb(face, PERTURBATIONS["rotation"], angle, row)
        for channel, point in enumerate(turned.points):
            weights = turned.pixels[..., channel].astype(float)
            found = np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()
            assert found == pytest.approx(point, abs=0.05)
        center = face.center - 0.5
        before, after = complex(*(points[0] - center)), complex(*(turned.points[0] - center))
        degrees = math.degrees(np.angle(after / before))
        assert abs(degrees) == pytest.approx(angle, abs=1e-6)
        signs.add(degrees > 0)
    assert angle == 180 or signs == {True, False}


def test_a_quarter_turn_moves_whole_pixels():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    face = FaceInPicture(pixels, np.array([[10.0, 12.0], [28.0, 26.0]]), np.array([10.0, 10.0, 20.0, 20.0]))
    directions = set()
    for row in range(8):
        turned = perturb(face, PERTURBATIONS["rotation"], 90, row).pixels.astype(int)
        # Pillow's filter does not round, which costs up to one gray level.
        matching = [turns for turns in (1, -1) if np.abs(turned - np.rot90(pixels, turns)).max() <= 1]
        assert len(matching) == 1
        directions.update(matching)
    assert directions == {1, -1}


def test_a_tight_box_is_tight_again_and_margins_are_kept():
    face = make_face()
    turned = perturb(face, PERTURBATIONS["rotation"], 30, 0)
    low, high = turned.points.min(axis=0), turned.points.max(axis=0)
    assert turned.box == pytest.approx(np.concatenate([low, high - low]))
    # A box that leaves a quarter of the tight width on the left, and as much again above as the tight box is high.
    x, y, width, height = face.box
    wide = FaceInPicture(face.pixels, face.points, np.array([x - width / 4, y - height, 1.5 * width, 2 * height]))
    turned = perturb(wide, PERTURBATIONS["rotation"], 30, 0)
    low, span = turned.points.min(axis=0), np.ptp(turned.points, axis=0)
    expected = [low[0] - span[0] / 4, low[1] - span[1], 1.5 * span[0], 2 * span[1]]
    assert turned.box == pytest.approx(expected)


def test_faces_with_few_points_turn_too():
    face = make_face()
    some = face.points.copy()
    some[1:4] = np.nan
    turned = perturb(FaceInPicture(face.pixels, some, face.box), PERTURBATIONS["rotation"], 20, 0)
    assert np.isnan(turned.points[1:4]).all() and np.isfinite(turned.points[[0, 4, 5]]).all()
    assert np.isfinite(turned.box).all() and (turned.box[2:] > 0).all()
    for points in (np.full((6, 2), np.nan), face.points[:1], np.array([[40.0, 30.0], [60.0, 30.0]])):
        turned = perturb(FaceInPicture(face.pixels, points, face.box), PERTURBATIONS["rotation"], 20, 0)
        assert np.array_equal(turned.box, face.box)


def test_a_region_holds_the_same_pixels_at_shifted_places():
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (300, 400, 3), dtype=np.uint8)
    points = np.array([[200.0, 151.0], [219.0, 170.0]])
    region = cut_region(FaceInPicture(pixels, points, np.array([200.5, 150.5, 20.0, 10.0])))
    # The center is (210.5, 155.5), the reach two sides of 20 px: columns 170.5 to 250.5, rows 115.5 to 195.5.
    assert np.array_equal(region.pixels, pixels[115:196, 170:251])
    assert region.points == pytest.approx(points - [170, 115])
    assert region.box == pytest.approx([30.5, 35.5, 20, 10])
    corner = cut_region(FaceInPicture(pixels, points, np.array([-30.0, -5.0, 40.0, 40.0])))
    assert np.array_equal(corner.pixels, pixels[:95, :70])
    assert corner.box == pytest.approx([-30, -5, 40, 40])
    outside = cut_region(FaceInPicture(pixels, points, np.array([1000.0, 1000.0, 10.0, 10.0])))
    assert outside.pixels.size > 0 and outside.box == pytest.approx([1000 - 399, 1000 - 299, 10, 10])
