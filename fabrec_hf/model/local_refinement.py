"""A closer look at every point: the encoder's own maps around it say how far it still is from where it belongs.

All that a heatmap knows has passed through the latent vector, which is small. The encoder's earlier maps are finer and
keep what lies where. A linear map per point tells a move from what they show around it, as in supervised descent
(Xiong and De la Torre, CVPR 2013). It is solved for in closed form, see `learning/refinement.py`. Not in the paper.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .point_regression import mirror


# Maps of these sides are looked at: finer ones say nothing more, coarser ones have no places left.
SMALLEST_SIDE, LARGEST_SIDE = 8, 48
# Where a map is read: at the point and so many of its cells to the right, left, below and above.
REACH = 0.6
PLACES = ((0.0, 0.0), (1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0))
# No point moves farther than this, as a fraction of the crop: what lies so far off has not been seen in learning.
LARGEST_MOVE = 0.05


def is_local(side: int) -> bool:
    """Whether a map of such a side is looked at."""
    return SMALLEST_SIDE <= side <= LARGEST_SIDE


def local_maps(maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return those of an encoder's maps (N, C, S, S) that are looked at."""
    return tuple(values for values in maps if is_local(values.shape[-1]))


class LocalRefinement(nn.Module):
    """Moves points by what maps of the encoder show around them. A new one moves nothing.

    Args:
        num_landmarks: L.
        channels: Those of the maps that are looked at.

    Attributes:
        gain: (L, D, 2) from what the maps show, D = 5 times the sum of the channels, to x and y of the move.
        bias: (L, 2).
        flip_index: (L,) how points change places in a mirrored crop.
        look_around: Reads the maps; an export may put in what its runtime computes sooner.
    """

    def __init__(self, num_landmarks: int, channels: Sequence[int]):
        super().__init__()
        self.gain: torch.Tensor
        self.bias: torch.Tensor
        self.flip_index: torch.Tensor
        self.register_buffer("gain", torch.zeros(num_landmarks, len(PLACES) * sum(channels), 2))
        self.register_buffer("bias", torch.zeros(num_landmarks, 2))
        self.register_buffer("flip_index", torch.arange(num_landmarks))
        self.look_around: Callable[[torch.Tensor, Sequence[torch.Tensor]], torch.Tensor] = look_around

    def forward(
        self, landmarks: torch.Tensor, maps: Sequence[torch.Tensor], mirrored_maps: Sequence[torch.Tensor] = ()
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Move landmarks (N, L, 2), fractions of the crop, by its maps (N, C, S, S).

        Args:
            landmarks: Where the points are as far as heatmaps and regression know.
            maps: The encoder's, the finest first.
            mirrored_maps: Those of the mirrored crops: the moves are averaged then.

        Returns:
            The landmarks, and how far each was moved and would be moved again, (N, L, 2) lengths: a point that finds
            no rest is probably wrong.
        """
        move = self._mean_move(landmarks, maps, mirrored_maps)
        landmarks = landmarks + move.to(landmarks.dtype)
        again = self._mean_move(landmarks, maps, mirrored_maps)
        return landmarks, torch.stack([move, again], dim=2).square().sum(-1).sqrt().to(landmarks.dtype)

    def _mean_move(
        self, landmarks: torch.Tensor, maps: Sequence[torch.Tensor], mirrored_maps: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        move = self._move(landmarks, maps)
        if mirrored_maps:
            # Mirrored are places and indices; of a move, the direction alone.
            other = self._move(mirror(landmarks, self.flip_index), mirrored_maps)[:, self.flip_index]
            move = 0.5 * (move + other * other.new_tensor([-1.0, 1.0]))
        return move

    def _move(self, landmarks: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        # 16 bits are too few for places, and for sums of so many products.
        seen = self.look_around(landmarks.float(), maps)
        move = (seen[:, :, None] @ self.gain.float())[:, :, 0] + self.bias.float()
        return move.clamp(-LARGEST_MOVE, LARGEST_MOVE)


def look_around(landmarks: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return what maps (N, C, S, S) show at and around landmarks (N, L, 2), fractions of the crop: (N, L, D)."""
    around = landmarks.new_tensor(PLACES)
    seen = []
    for values in maps:
        places = landmarks[:, :, None] + around * (REACH / values.shape[-1])
        found = F.grid_sample(values.float(), 2 * places - 1, padding_mode="border", align_corners=False)
        seen.append(found.permute(0, 2, 3, 1).flatten(2))
    return torch.cat(seen, dim=-1)


__all__ = ["LocalRefinement", "is_local", "local_maps", "look_around"]
