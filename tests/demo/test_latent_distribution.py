"""The distribution that random faces are drawn from."""

import pytest
import torch

from fabrec_hf.demo.latent_distribution import FILE_NAME, LatentDistribution
from fabrec_hf.errors import CheckpointError, DataError


def test_what_is_measured_is_where_vectors_lie_and_where_new_ones_are_placed():
    narrow = torch.randn(3000, 30, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.1, 2, 30) + 1
    found = LatentDistribution.measure(narrow)
    assert found.faces == 3000
    assert found.mean == pytest.approx(1.0, abs=0.15)
    assert torch.allclose((found.factor @ found.factor.T).diagonal().sqrt(), torch.linspace(0.1, 2, 30), rtol=0.1)
    placed = found.place(torch.randn(5000, 30, generator=torch.Generator().manual_seed(2)))
    assert torch.allclose(placed.std(dim=0), torch.linspace(0.1, 2, 30), rtol=0.1)


def test_a_few_vectors_far_away_change_nothing():
    clean = torch.randn(3000, 40, generator=torch.Generator().manual_seed(3))
    far = torch.randn(120, 40, generator=torch.Generator().manual_seed(4))
    far[:, 7] -= torch.linspace(12, 140, 120)
    found = LatentDistribution.measure(torch.cat([clean, far]))
    assert 2950 <= found.faces <= 3000
    assert found.mean[7] == pytest.approx(clean[:, 7].mean().item(), abs=0.02)
    assert (found.factor @ found.factor.T)[7, 7] == pytest.approx(1.0, abs=0.1)


def test_it_is_kept_in_16_bits_beside_the_weights(tmp_path):
    assert LatentDistribution.load(tmp_path) is None
    found = LatentDistribution.measure(torch.randn(500, 9, generator=torch.Generator().manual_seed(5)))
    found.save(tmp_path)
    again = LatentDistribution.load(tmp_path)
    assert again.faces == found.faces and [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    torch.testing.assert_close(again.mean, found.mean, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(again.factor, found.factor, atol=1e-3, rtol=1e-3)
    (tmp_path / FILE_NAME).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        LatentDistribution.load(tmp_path)


def test_too_few_and_broken_vectors_are_refused():
    with pytest.raises(DataError, match="99 faces are too few for 10 latent numbers: take 100 at least"):
        LatentDistribution.measure(torch.zeros(99, 10))
    with pytest.raises(DataError, match="not finite"):
        LatentDistribution.measure(torch.full((200, 2), torch.nan))


def test_what_was_not_measured_is_what_the_training_aims_at():
    standard = LatentDistribution.standard(3)
    normal = torch.randn(4, 3, generator=torch.Generator().manual_seed(6))
    assert torch.equal(standard.place(normal), normal) and standard.faces == 0
