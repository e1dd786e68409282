"""Losses against hand computation, window-by-window NumPy and PyTorch's own cross-entropy."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fabrec_hf.learning.autoencoder_losses import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    reconstruction_loss,
    structural_loss,
    structural_similarity,
)
from fabrec_hf.model.heatmap_loss import heatmap_loss


def images(seed, size=40, count=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator, dtype=torch.float64) - 0.45


def contrast_structure(first, second, window, constant):
    """(2 cov + C) / (var + var + C) in every full window of two (H, W) planes, one window at a time; its mean."""
    width = len(window)
    weights = np.outer(window, window)
    values = []
    for row, column in itertools.product(range(first.shape[0] - width + 1), range(first.shape[1] - width + 1)):
        a = first[row : row + width, column : column + width]
        b = second[row : row + width, column : column + width]
        a = a - (weights * a).sum()
        b = b - (weights * b).sum()
        covariance = (weights * a * b).sum()
        variances = (weights * a * a).sum() + (weights * b * b).sum()
        values.append((2 * covariance + constant) / (variances + constant))
    return np.mean(values)


def gaussian_window(width, sigma):
    positions = np.arange(width) - width // 2
    window = np.exp(-(positions**2) / (2 * sigma**2))
    return window / window.sum()


def test_structural_similarity_window_by_window():
    first, second = images(0, size=20), images(1, size=20)
    second = 0.7 * first + 0.3 * second
    expected = [
        np.mean(
            [
                contrast_structure(a.numpy(), b.numpy(), gaussian_window(11, 1.5), 0.06**2)
                for a, b in zip(x, y, strict=True)
            ]
        )
        for x, y in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(structural_similarity(first, second).numpy(), expected, rtol=1e-9)


def test_structural_similarity_equals_the_references_wider_window():
    # The reference's window has 31 pixels; a 31-pixel window of a 51-pixel picture sees its middle 21 + 30. Compare
    # on the pixels that both windows' centers can reach.
    first, second = images(0, size=41, count=1), images(1, size=41, count=1)
    second = 0.7 * first + 0.3 * second
    wide = np.mean(
        [
            contrast_structure(a.numpy(), b.numpy(), gaussian_window(31, 1.5), 0.06**2)
            for a, b in zip(first[0], second[0], strict=True)
        ]
    )
    ours = structural_similarity(first[..., 10:-10, 10:-10], second[..., 10:-10, 10:-10])
    assert ours.item() == pytest.approx(wide, abs=1e-4)


def test_structural_similarity_of_special_pairs():
    picture = images(2)
    np.testing.assert_allclose(structural_similarity(picture, picture).numpy(), 1, atol=1e-12)
    # brightness is no structure
    np.testing.assert_allclose(structural_similarity(picture + 0.2, picture).numpy(), 1, atol=1e-9)
    # the negative has covariance -variance: (C - 2v) / (C + 2v) < 0
    assert structural_similarity(-picture, picture).max() < -0.8
    # against a flat picture cov = 0 and one variance is 0: C / (var + C), with var about 1/12
    flat = structural_similarity(torch.zeros_like(picture), picture)
    assert 0.03 < flat.min() and flat.max() < 0.07
    assert structural_loss(picture, picture).item() == pytest.approx(0, abs=1e-12)
    assert structural_loss(-picture, picture).item() == pytest.approx(
        1 - structural_similarity(-picture, picture).mean().item()
    )


def test_structural_similarity_is_exact_enough_in_single_precision():
    first, second = images(0), images(1)
    single = structural_similarity(first.float(), second.float())
    torch.testing.assert_close(single.double(), structural_similarity(first, second), atol=1e-5, rtol=0)


def test_reconstruction_loss_is_in_gray_levels():
    pictures = torch.zeros(2, 3, 4, 4)
    others = pictures.clone()
    others[0] = 0.1
    assert reconstruction_loss(others, pictures).item() == pytest.approx(255 * 0.1 / 2)
    assert reconstruction_loss(-others, pictures).item() == pytest.approx(12.75)


def test_heatmap_loss_by_hand():
    targets = torch.zeros(2, 2, 2, 2)
    targets[0, 0, 0, 0] = 1
    predictions = torch.zeros(2, 2, 2, 2)
    predictions[0, 0] = torch.tensor([[0.5, 0.1], [0.0, 0.0]])  # squares 0.25 + 0.01 over 4 pixels: 0.065
    predictions[1, 1] = 0.2  # 0.04
    predictions[0, 1] = torch.nan  # not annotated: must not matter
    annotated = torch.tensor([[True, False], [True, True]])
    assert heatmap_loss(predictions, targets, annotated).item() == pytest.approx(300 * (0.065 + 0 + 0.04) / 3)
    # the one target pixel counts 1 + 3 times: (4 * 0.25 + 0.01) / 4 = 0.2525
    weighted = heatmap_loss(predictions, targets, annotated, foreground_weight=3)
    assert weighted.item() == pytest.approx(300 * (0.2525 + 0 + 0.04) / 3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_heatmap_loss_has_the_gradient_of_its_formula(layout):
    torch.manual_seed(0)
    predictions = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    targets = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    annotated = torch.tensor([[True, False, True], [True, True, True]])

    def loss(predictions):
        return heatmap_loss(predictions, targets, annotated, 7.0)

    assert torch.autograd.gradcheck(loss, predictions)
    loss(predictions).backward()
    expected = 300 * 2 * (1 + 7 * targets) * (predictions - targets) / 20 / 5 * annotated[..., None, None]
    torch.testing.assert_close(predictions.grad, expected.detach())


def test_heatmap_loss_of_nothing_is_zero():
    predictions = torch.ones(1, 2, 4, 4, requires_grad=True)
    loss = heatmap_loss(predictions, torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and predictions.grad.abs().max() == 0


def test_adversarial_losses_are_cross_entropies():
    real, fake = torch.tensor([3.0, -1.0, 0.2, 40.0]), torch.tensor([-2.0, 0.5, 60.0, -0.1])
    ones, zeros = torch.ones(4), torch.zeros(4)
    expected = F.binary_cross_entropy_with_logits(torch.cat([real, fake]), torch.cat([ones, zeros]))
    torch.testing.assert_close(discriminator_loss(real, fake), expected)
    torch.testing.assert_close(generator_loss(fake), F.binary_cross_entropy_with_logits(fake, ones))
    assert generator_loss(torch.zeros(3)).item() == pytest.approx(np.log(2))


def test_gradient_penalty_of_a_linear_and_a_quadratic_critic():
    weights = torch.tensor([3.0, 4.0, 0.0])
    inputs = torch.tensor([[1.0, 0.0, 2.0], [0.0, -1.0, 5.0]], requires_grad=True)
    assert gradient_penalty(inputs @ weights, inputs).item() == pytest.approx(25)
    # logit = |x|^2 / 2 has the gradient x: |x|^2 is 5 and 26
    assert gradient_penalty((inputs**2).sum(dim=1) / 2, inputs).item() == pytest.approx(31 / 2)


def test_gradient_penalty_trains_the_critic():
    critic = torch.nn.Linear(3, 1, bias=False)
    torch.nn.init.constant_(critic.weight, 2.0)
    pictures = torch.rand(4, 3, requires_grad=True)
    gradient_penalty(critic(pictures).flatten(), pictures).backward()
    # the penalty is |w|^2 whatever the inputs: its gradient is 2 w
    torch.testing.assert_close(critic.weight.grad, torch.full((1, 3), 4.0))
