"""The twin of a landmark detector that finds the same landmarks sooner."""

import copy
from typing import Any

import torch
from torch import nn

from .fusion_fabrec import FusedHeatmapNetwork
from .landmark_decoding import Decoded, Drawing, decode_drawing, decoding_steps, flip_permutation
from .model_inputs import check_inputs
from .outputs_fabrec import FabRecLandmarkOutput


class FabRecFusedForLandmarkDetection(nn.Module):
    """What `FabRecForLandmarkDetection.fuse` returns: for inference only, channels last, without reconstruction.

    Args:
        model: The model to copy, whatever mode it is in.
    """

    def __init__(self, model: Any):
        super().__init__()
        self.config = copy.deepcopy(model.config)
        # Folding asks for eval mode and shares what it does not change: a copy keeps the model as it is.
        self.network = FusedHeatmapNetwork(copy.deepcopy(model).eval())
        self.network.requires_grad_(False).to(memory_format=torch.channels_last)
        self.point_regression = copy.deepcopy(model.point_regression)
        self.shape_prior = copy.deepcopy(model.shape_prior)
        self.local_refinement = copy.deepcopy(model.local_refinement)
        flip_index = flip_permutation(model.config)
        self.flip_index: torch.Tensor | None
        # A buffer: a list would be copied to the device, which waits for it, in every call.
        self.register_buffer("flip_index", None if flip_index is None else torch.tensor(flip_index))
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the weights."""
        return next(self.parameters()).dtype

    def draw(self, pixel_values: torch.Tensor) -> tuple[Drawing, torch.Tensor]:
        """Return the drawing of crops (N, 3, S, S), flip-averaged if so configured, and latents (N, latent_size)."""
        drawing, latent = self.network(pixel_values)
        if self.flip_index is not None:
            drawing = drawing.average(self.network(pixel_values.flip(-1))[0], self.flip_index)
        return drawing, latent

    def decode(self, drawing: Drawing, blur: str = "products") -> Decoded:
        """Read landmarks off a drawing as the model does; `blur` as in `decode_heatmaps`."""
        return decode_drawing(self.config, decoding_steps(self), drawing, blur)

    @torch.no_grad()
    def forward(self, pixel_values: torch.Tensor) -> FabRecLandmarkOutput:
        """Detect landmarks in face crops (N, 3, S, S), see `FabRecForLandmarkDetection.forward`.

        Raises:
            ValueError: The images do not fit the configuration.
        """
        check_inputs(self.config, pixel_values)
        drawing, latent = self.draw(pixel_values.contiguous(memory_format=torch.channels_last))
        own = drawing.heatmaps[:, : self.config.num_landmarks]
        # The network draws channels last, and a CPU reads points off such maps in half the time.
        blur = "channels_last" if own.device.type == "cpu" and own.stride(1) == 1 else "products"
        return FabRecLandmarkOutput(heatmaps=own, latent=latent, **self.decode(drawing, blur)._asdict())


__all__ = ["FabRecFusedForLandmarkDetection"]
