"""Losses of the autoencoder (paper equation 4)."""

import torch
import torch.nn.functional as F


def reconstruction_loss(reconstruction: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Mean absolute error in gray levels of 255 (paper section 3.2); scalar."""
    return 255 * (reconstruction - images).abs().mean()


def structural_similarity(
    reconstruction: torch.Tensor, images: torch.Tensor, sigma: float = 1.5, dynamic_range: float = 2.0
) -> torch.Tensor:
    """Contrast-structure part of SSIM in Gaussian windows, (N,): the paper's equations 1 to 3 as its code has them.

    The reference fuses c and s into (2 cov + C) / (var + var + C) with C = (0.03 * range)**2. Its range is 2 for any
    image with a near-black red channel, which its rotated crops always have; 2 is used for every image here. Its
    window has 31 pixels; beyond 11 the weights at sigma 1.5 are below 4e-4 of the center's, so 11 are used, for the
    whole batch at once. Only whole windows count: a border of 5 pixels (15 in the reference) has no say of its own.

    Args:
        reconstruction: (N, C, H, W).
        images: (N, C, H, W).
        sigma: Standard deviation of the window in pixels.
        dynamic_range: Range of the pixel values.
    """
    radius = 5
    positions = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (positions / sigma) ** 2)
    weights = weights / weights.sum()
    channels = images.shape[1]

    def blur(planes: torch.Tensor) -> torch.Tensor:
        groups = planes.shape[1]
        planes = F.conv2d(planes, weights.view(1, 1, -1, 1).expand(groups, 1, -1, 1), groups=groups)
        return F.conv2d(planes, weights.view(1, 1, 1, -1).expand(groups, 1, 1, -1), groups=groups)

    products = torch.cat([reconstruction, images, reconstruction**2 + images**2, reconstruction * images], dim=1)
    mean_a, mean_b, squares, product = blur(products).split(channels, dim=1)
    covariance = product - mean_a * mean_b
    variances = squares - mean_a**2 - mean_b**2
    constant = (0.03 * dynamic_range) ** 2
    return ((2 * covariance + constant) / (variances + constant)).mean(dim=(1, 2, 3))


def structural_loss(reconstruction: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """One minus the structural similarity (paper equation 3), scalar in [0, 2]; equation 4 weighs it by 60."""
    return 1 - structural_similarity(reconstruction, images).mean()


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """Non-saturating adversarial loss -log sigmoid(D(fake)) (paper equation 4, L_adv and L_enc); scalar."""
    return F.softplus(-fake_logits).mean()


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of a discriminator, averaged over its real and its fake half; scalar."""
    return 0.5 * (F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean())


def gradient_penalty(logits: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """Mean squared gradient of a discriminator at its inputs, (R1 of Mescheder et al. 2018); scalar.

    It keeps the latent discriminator from winning outright: an unpenalised one separates 99-D latents from the prior
    within minutes, after which its gradient carries no shape.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return gradient.square().flatten(1).sum(dim=1).mean()


__all__ = [
    "discriminator_loss",
    "generator_loss",
    "gradient_penalty",
    "reconstruction_loss",
    "structural_loss",
    "structural_similarity",
]
