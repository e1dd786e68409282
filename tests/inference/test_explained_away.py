import pytest
import torch

from fabrec_hf.inference.explained_away import FULL_DISTANCE, SMOOTHING, explained_away


def test_equal_pictures_have_nothing_to_explain():
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    assert explained_away(images, images.clone()).shape == (2, 32, 48)
    assert (explained_away(images, images.clone()) == 0).all()


def test_a_flat_difference_is_its_distance_in_colors():
    images = torch.zeros(1, 3, 40, 40)
    other = torch.tensor([0.1, 0.2, 0.2]).view(1, 3, 1, 1).expand(1, 3, 40, 40)
    torch.testing.assert_close(explained_away(images, other), torch.full((1, 40, 40), 0.3 / FULL_DISTANCE))


def test_more_than_the_full_distance_stays_one():
    assert (explained_away(torch.ones(1, 3, 16, 16), torch.zeros(1, 3, 16, 16)) == 1).all()


def test_an_edge_falls_off_as_the_gaussian_says():
    """Across the edge of a covered half the map is the normal distribution of the distance from the edge."""
    covered = torch.zeros(1, 3, 256, 256)
    covered[:, :, :, :128] = 0.2
    row = explained_away(covered, torch.zeros_like(covered))[0, 128]
    distance = torch.arange(256) + 0.5 - 128
    expected = torch.special.ndtr(-distance / (256 * SMOOTHING)) * 0.2 * 3**0.5 / FULL_DISTANCE
    torch.testing.assert_close(row, expected, atol=2e-3, rtol=0)


def test_thin_lines_count_less_than_covered_areas():
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, :, 32:33] = 1.0
    images[1, :, 16:48, 16:48] = 1.0
    line, area = explained_away(images, torch.zeros_like(images))
    assert line.max() < 0.9 and area[32, 32] == 1


def test_an_offset_that_both_share_does_not_matter():
    generator = torch.Generator().manual_seed(1)
    images, other = torch.rand(2, 1, 3, 32, 32, generator=generator)
    torch.testing.assert_close(explained_away(images - 0.5, other - 0.5), explained_away(images, other))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 3, 32, 16)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"must both be \(N, 3, H, W\)"):
        explained_away(torch.zeros(shape), torch.zeros(1, 3, 32, 32))
