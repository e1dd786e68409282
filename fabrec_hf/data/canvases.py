"""Faces in memory with some of what is around them, from which augmented crops are cut."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import numpy as np
    import torch


__all__ = ["Canvases"]


@dataclass(frozen=True, eq=False)
class Canvases:
    """Square pictures of one size, each of which holds a face crop and perhaps a margin around it.

    A crop that is turned or shifted finds real pixels in the margin.

    Attributes:
        pixels: (N, 3, C, C) uint8.
        crop_fraction: Side of the crop over the side C; the two share their center. 1 is a crop without a margin.
    """

    pixels: "torch.Tensor"
    crop_fraction: float = 1.0

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def device(self) -> "torch.device":
        """Where the pixels are."""
        return self.pixels.device

    def subset(self, rows: "slice | list[int] | np.ndarray | torch.Tensor") -> "Canvases":
        """Return those of some rows, which are integers (M,) or a slice."""
        return replace(self, pixels=self.pixels[rows])

    def split(self, count: int) -> "Iterator[Canvases]":
        """Yield all in their order, `count` at a time."""
        for pixels in self.pixels.split(count):
            yield replace(self, pixels=pixels)

    def to(self, device: "torch.device", non_blocking: bool = False) -> "Canvases":
        """Return the same on a device."""
        return replace(self, pixels=self.pixels.to(device, non_blocking=non_blocking))
