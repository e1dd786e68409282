"""The models that all visitors share, loaded once."""

import threading
from collections import OrderedDict
from pathlib import Path

import torch

from ..checkpoints.loading import load_autoencoder, move_to_device
from ..checkpoints.names import resolve_checkpoint
from ..inference.landmark_finder import LandmarkFinder
from ..model.modeling_fabrec import FabRecAutoencoder
from .latent_distribution import LatentDistribution


__all__ = ["AUTOENCODER", "LANDMARKS", "ModelShelf"]

LANDMARKS, AUTOENCODER, START = "3fabrec-300w", "3fabrec-autoencoder", "3fabrec-mesh"


class ModelShelf:
    """Loads landmark models when they are asked for, and keeps the ones used last. Safe to use from threads.

    Args:
        landmarks: Name of the landmark model of the demonstration.
        autoencoder: Name of the autoencoder that reconstructs faces. Detectors are taught from it, too, if it is
            another one than the default, and from the embedded mesh-taught detector otherwise.
        capacity: Landmark models to keep.
        device: Where they compute; the GPU by default where there is one.
    """

    def __init__(
        self,
        landmarks: str = LANDMARKS,
        autoencoder: str = AUTOENCODER,
        capacity: int = 4,
        device: str | None = None,
    ):
        self.device = device
        self.landmarks_name, self.autoencoder_name, self.capacity = landmarks, autoencoder, capacity
        self.start_name = START if autoencoder == AUTOENCODER else autoencoder
        self._finders: OrderedDict[tuple[str, int], LandmarkFinder] = OrderedDict()
        self._autoencoder: FabRecAutoencoder | None = None
        self._lock = threading.Lock()

    def finder(self, name: str | Path | None = None) -> LandmarkFinder:
        """Return a landmark model, the demonstration's own by default.

        Args:
            name: A checkpoint that the owner of the demonstration or a session vouches for: never a visitor's text.

        Raises:
            CheckpointError: If it cannot be used.
        """
        text = str(name or self.landmarks_name)
        # A detector in a folder may be taught again.
        key = text, max((weights.stat().st_mtime_ns for weights in Path(text).glob("*.safetensors")), default=0)
        with self._lock:
            if key not in self._finders:
                self._finders[key] = LandmarkFinder(text, device=self.device)
            self._finders.move_to_end(key)
            while len(self._finders) > self.capacity:
                self._finders.popitem(last=False)
            return self._finders[key]

    @property
    def autoencoder(self) -> FabRecAutoencoder:
        """The autoencoder."""
        with self._lock:
            if self._autoencoder is None:
                self._autoencoder = move_to_device(load_autoencoder(self.autoencoder_name), self.device)
            return self._autoencoder

    @property
    def distribution(self) -> LatentDistribution:
        """Where the autoencoder's latent vectors of photographs lie, as far as that was measured.

        Raises:
            CheckpointError: If the file beside the weights is damaged.
        """
        measured = LatentDistribution.load(Path(resolve_checkpoint(self.autoencoder_name)))
        return measured or LatentDistribution.standard(self.autoencoder.config.latent_size)

    @torch.inference_mode()
    def reconstruct(self, pixel_values: torch.Tensor, finder: LandmarkFinder) -> torch.Tensor:
        """Reconstruct crops (N, 3, S, S) of a landmark model; the result is on the CPU.

        The autoencoder does it where it takes crops of this size: fine-tuning for landmarks makes an encoder forget
        what landmarks do not need. Else the landmark model reconstructs as well as it can.
        """
        if self.autoencoder.config.image_size == pixel_values.shape[-1]:
            return self.autoencoder(pixel_values.to(self.autoencoder.device)).reconstruction.float().cpu()
        outputs = finder.model(pixel_values.to(finder.model.device, finder.model.dtype), output_reconstruction=True)
        return outputs.reconstruction.float().cpu()
