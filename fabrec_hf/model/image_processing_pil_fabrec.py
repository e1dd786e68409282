"""Image processor of 3FabRec, PIL backend: the same numbers as the torchvision one, on the CPU without torchvision."""

import numpy as np
import torch
from transformers.image_processing_backends import PilBackend

from .geometry import AxisPlan, plan_crop
from .image_inputs import load_rgb
from .image_processing_base_fabrec import FaceCropProcessor, Normalization
from .turned_crops import turned_crop


class FabRecImageProcessorPil(FaceCropProcessor, PilBackend):
    """Cuts faces out of pictures for 3FabRec and maps its landmarks back, without torchvision.

    The twin of `FabRecImageProcessor`, with the same arguments and results: see there. `AutoImageProcessor` returns
    it for `backend="pil"`.

    Args:
        size: side of the crops in pixels, 256 by default; 128 for the small model.
        extend_top: fraction of the box height added above the box, 0.20 by default.
        extend_bottom: fraction of the box height added below the box, 0.12 by default.
        resample: `PIL.Image.Resampling.BILINEAR` (default) or `BICUBIC`, antialiased.
        image_mean: color to subtract, in [0, 1].
        image_std: what to divide by, 1.
        **kwargs: the other arguments of `PilBackend`.

    Example:
        >>> from PIL import Image
        >>> from fabrec_hf.model.image_processing_pil_fabrec import FabRecImageProcessorPil
        >>> processor = FabRecImageProcessorPil(size=128)
        >>> processor(Image.new("RGB", (640, 480)), boxes=[[200, 100, 150, 150]])["crop_boxes"].float().tolist()
        [[176.0, 70.0, 198.0, 198.0]]
    """

    def process_image(self, image, input_data_format=None, index=0, **kwargs) -> np.ndarray:
        """Reads one image of any kind as an upright RGB array.

        Args:
            image: anything [`image_inputs.load_rgb`] reads.
            input_data_format: "channels_first" or "channels_last", inferred if None.
            index: the image's place in the call, for error messages.
            **kwargs: ignored, as the base class hands on all of its arguments.

        Returns:
            (3, H, W) uint8, or float32 in [0, 255].
        """
        return load_rgb(image, index, input_data_format).cpu().numpy()

    def crop_faces(
        self, image: np.ndarray, crop_boxes, size: tuple[int, int], filter_name: str, rolls
    ) -> list[np.ndarray]:
        """Samples crops from one picture.

        Args:
            image: (3, H, W) uint8, or float32 in [0, 255].
            crop_boxes: (M, 4) crops (x, y, width, height) in pixels.
            size: (height, width) of the results.
            filter_name: "bilinear" or "bicubic".
            rolls: (M,) degrees by which the crops are turned about their middles; 0 for upright ones.

        Returns:
            M arrays (3, height, width), float32 in [0, 255].
        """

        def cut(box, size) -> np.ndarray:
            return self._crop_face(image, *plan_crop(box, size, image.shape[-2:], filter_name))

        def cut_tensor(box, side) -> torch.Tensor:
            return torch.from_numpy(cut(box, (side, side)))

        return [
            turned_crop(cut_tensor, box, roll, size).numpy() if roll else cut(box, size)
            for box, roll in zip(crop_boxes, rolls, strict=True)
        ]

    @staticmethod
    def _crop_face(image: np.ndarray, rows: AxisPlan, columns: AxisPlan) -> np.ndarray:
        region = image[:, rows.first : rows.stop, columns.first : columns.stop]
        if region.size == 0:  # the crop misses the picture
            return np.zeros((3, len(rows.weights), len(columns.weights)), dtype=np.float32)
        for axis, step in ((1, rows.step), (2, columns.step)):
            if step > 1:
                starts = np.arange(0, region.shape[axis], step)
                region = np.add.reduceat(region, starts, axis=axis, dtype=np.float32) / np.float32(step)
        faces = rows.weights @ region.astype(np.float32) @ columns.weights.T
        return faces.clip(0, 255)

    def normalize_faces(
        self, faces: list[np.ndarray], size: tuple[int, int], normalization: Normalization, device=None
    ) -> np.ndarray:
        """Normalizes the crops and stacks them.

        Args:
            faces: N arrays (3, height, width), in [0, 255].
            size: (height, width), for when there are none.
            normalization: what is done with their colors.
            device: the CPU, where everything is.

        Returns:
            (N, 3, height, width) float32.
        """
        if not faces:
            return np.empty((0, 3, *size), dtype=np.float32)
        if normalization.do_rescale:
            faces = [self.rescale(face, normalization.rescale_factor) for face in faces]
        if normalization.do_normalize:
            mean, std = normalization.image_mean, normalization.image_std
            faces = [self.normalize(face, mean, std) for face in faces]
        return np.stack(faces).astype(np.float32)


__all__ = ["FabRecImageProcessorPil"]
