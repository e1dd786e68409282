"""Where the latent vectors of photographs lie: their mean and covariance, which random faces are drawn from.

The autoencoder was trained toward a normal distribution of standard deviation 1, but photographs do not fill it: 99
numbers, of which a third do most of the work. Vectors drawn from the full normal distribution are therefore unlike
those of photographs, and many of their pictures are no faces.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from ..common.output_folder import write_files
from ..errors import CheckpointError, DataError


__all__ = ["FILE_NAME", "LatentDistribution"]

# Lies beside the weights of an autoencoder.
FILE_NAME = "latent_distribution.safetensors"
# A face is left out that lies this many times as far from the middle as the median face does; first in a straight
# line, which needs no covariance that it could spoil, then measured by the covariance of the others.
FAR, FAR_BY_COVARIANCE = 2.0, 1.5
MOST_ROUNDS = 20
SMALLEST = 1e-4


@dataclass(frozen=True)
class LatentDistribution:
    """A normal distribution of latent vectors.

    Attributes:
        mean: (D,).
        factor: (D, D), whose product with its transpose is the covariance.
        faces: Photographs that it was measured on; 0 where it was not measured.
    """

    mean: torch.Tensor
    factor: torch.Tensor
    faces: int = 0

    @classmethod
    def standard(cls, size: int) -> "LatentDistribution":
        """Return the distribution that autoencoders are trained toward, for one that was not measured."""
        return cls(torch.zeros(size), torch.eye(size))

    @classmethod
    def measure(cls, latents: torch.Tensor) -> "LatentDistribution":
        """Take the mean and covariance of latent vectors (N, D), without those that lie far from all others.

        The encoder gives one photograph in twenty-five a vector that is many times as long as usual, all in the same
        direction. It would dominate the covariance, and its picture has colored noise in a corner.

        Raises:
            DataError: Fewer than ten times as many vectors as numbers in each, or not all of them are finite.
        """
        latents = latents.double()
        size = latents.shape[1]
        if len(latents) < 10 * size:
            raise DataError(f"{len(latents)} faces are too few for {size} latent numbers: take {10 * size} at least.")
        if not latents.isfinite().all():
            raise DataError("Some latent vectors are not finite.")
        distance = (latents - latents.median(dim=0).values).norm(dim=1)
        kept = latents[distance <= FAR * distance.median()]
        for _ in range(MOST_ROUNDS):
            factor = torch.linalg.cholesky(_covariance(kept))
            distance = torch.linalg.solve_triangular(factor, (kept - kept.mean(dim=0)).T, upper=False).norm(dim=0)
            near = distance <= FAR_BY_COVARIANCE * distance.median()
            if near.all():
                break
            kept = kept[near]
        factor = torch.linalg.cholesky(_covariance(kept))
        return cls(kept.mean(dim=0).float(), factor.float(), len(kept))

    @classmethod
    def load(cls, folder: Path) -> "LatentDistribution | None":
        """Read what lies beside the weights of an autoencoder; None if nothing does.

        Raises:
            CheckpointError: The file is damaged.
        """
        file = folder / FILE_NAME
        if not file.is_file():
            return None
        try:
            values = load_file(file)
            mean, factor = values["mean"].float(), values["factor"].float()
            if mean.ndim != 1 or factor.shape != (len(mean), len(mean)):
                raise ValueError("its shapes do not fit")
            return cls(mean, factor, int(values["faces"]))
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise CheckpointError(f"{file} is damaged ({error}): measure it again, or remove it.") from error

    def save(self, folder: Path) -> None:
        """Write the file, in 16 bits, beside the weights of an autoencoder."""
        values = {
            "mean": self.mean.half(),
            "factor": self.factor.half().contiguous(),
            "faces": torch.tensor(self.faces),
        }
        write_files(folder, {FILE_NAME: save(values)})

    def place(self, normal: torch.Tensor) -> torch.Tensor:
        """Turn draws (N, D) from a standard normal distribution into latent vectors (N, D) of this one."""
        return self.mean + normal @ self.factor.T


def _covariance(latents: torch.Tensor) -> torch.Tensor:
    # Numbers that photographs hardly differ in would make it singular.
    return torch.cov(latents.T) + SMALLEST * torch.eye(latents.shape[1], dtype=latents.dtype)
