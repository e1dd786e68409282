"""Image processor of 3FabRec, torchvision backend: faces out of pictures, landmarks back into them."""

import torch
from torch.nn import functional as F
from transformers.image_processing_backends import TorchvisionBackend

from .geometry import AxisPlan, plan_crop
from .image_inputs import load_rgb
from .image_processing_base_fabrec import FaceCropProcessor, Normalization
from .turned_crops import turned_crop


# Rows of a huge picture that are averaged at a time, so that its float copy stays small.
ROWS_AT_A_TIME = 512


class FabRecImageProcessor(FaceCropProcessor, TorchvisionBackend):
    """Cuts faces out of pictures for 3FabRec and maps its landmarks back; runs on any torch device.

    A box is extended by 20 % of its height at the top and 12 % at the bottom, squared, cropped with black beyond the
    picture, resized and freed of the mean color (paper section 4.1). See [`FaceCropProcessor.preprocess`] for what
    goes in and comes out, and `geometry.py` for where points and boxes lie.

    Args:
        size: side of the crops in pixels, 256 by default; 128 for the small model.
        extend_top: fraction of the box height added above the box, 0.20 by default.
        extend_bottom: fraction of the box height added below the box, 0.12 by default.
        resample: `PIL.Image.Resampling.BILINEAR` (default) or `BICUBIC`, antialiased.
        image_mean: color to subtract, in [0, 1].
        image_std: what to divide by, 1.
        **kwargs: the other arguments of `TorchvisionBackend`, such as `device`.

    Example:
        >>> from PIL import Image
        >>> from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor
        >>> processor = FabRecImageProcessor(size=128)
        >>> inputs = processor(Image.new("RGB", (640, 480)), boxes=[[200, 100, 150, 150], [400, 120, 90, 100]])
        >>> inputs["pixel_values"].shape
        torch.Size([2, 3, 128, 128])
    """

    def process_image(self, image, input_data_format=None, device=None, index=0, **kwargs) -> torch.Tensor:
        """Reads one image of any kind as an upright RGB tensor.

        Args:
            image: anything [`image_inputs.load_rgb`] reads.
            input_data_format: "channels_first" or "channels_last", inferred if None.
            device: where the tensor shall be; where it is, if None.
            index: the image's place in the call, for error messages.
            **kwargs: ignored, as the base class hands on all of its arguments.

        Returns:
            (3, H, W) uint8, or float32 in [0, 255].
        """
        image = load_rgb(image, index, input_data_format)
        return image if device is None else image.to(device)

    def crop_faces(
        self, image: torch.Tensor, crop_boxes, size: tuple[int, int], filter_name: str, rolls
    ) -> list[torch.Tensor]:
        """Samples crops from one picture.

        Args:
            image: (3, H, W) uint8, or float32 in [0, 255].
            crop_boxes: (M, 4) crops (x, y, width, height) in pixels.
            size: (height, width) of the results.
            filter_name: "bilinear" or "bicubic".
            rolls: (M,) degrees by which the crops are turned about their middles; 0 for upright ones.

        Returns:
            M tensors (3, height, width), float32 in [0, 255].
        """

        def cut(box, size) -> torch.Tensor:
            return self._crop_face(image, *plan_crop(box, size, image.shape[-2:], filter_name))

        return [
            turned_crop(lambda wide, side: cut(wide, (side, side)), box, roll, size) if roll else cut(box, size)
            for box, roll in zip(crop_boxes, rolls, strict=True)
        ]

    @staticmethod
    def _crop_face(image: torch.Tensor, rows: AxisPlan, columns: AxisPlan) -> torch.Tensor:
        region = region_of_crop(image, rows, columns)
        if region.numel() == 0:
            return torch.zeros((3, len(rows.weights), len(columns.weights)), device=image.device)
        row_weights = torch.from_numpy(rows.weights).to(image.device)
        column_weights = torch.from_numpy(columns.weights).to(image.device)
        return (row_weights @ region.to(torch.float32) @ column_weights.T).clamp_(0, 255)

    def normalize_faces(
        self, faces: list[torch.Tensor], size: tuple[int, int], normalization: Normalization, device=None
    ) -> torch.Tensor:
        """Stacks the crops and normalizes them in one step.

        Args:
            faces: N tensors (3, height, width), in [0, 255].
            size: (height, width), for when there are none.
            normalization: what is done with their colors.
            device: where the result shall be; on that of the first image, if None.

        Returns:
            (N, 3, height, width) float32.
        """
        if not faces:
            return torch.empty((0, 3, *size), device=device)
        stacked = torch.stack([face.to(faces[0].device) for face in faces])
        return self.rescale_and_normalize(stacked, *normalization)


def region_of_crop(image: torch.Tensor, rows: AxisPlan, columns: AxisPlan) -> torch.Tensor:
    """Return what a crop needs of a picture (3, H, W), averaged over blocks as planned; empty if it misses it."""
    region = image[:, rows.first : rows.stop, columns.first : columns.stop]
    return shrink_blocks(region, rows.step, columns.step) if region.numel() else region


def shrink_blocks(region: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Averages (3, H, W) over blocks of `height` x `width` pixels, a few rows at a time; 1 x 1 leaves it as it is."""
    if (height, width) == (1, 1):
        return region
    chunk = height * max(1, ROWS_AT_A_TIME // height)
    return torch.cat([_block_mean(part, height, width) for part in region.split(chunk, 1)], 1)


def _block_mean(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Averages (3, H, W) over blocks of `height` x `width`; what a last block lacks counts as black."""
    return F.avg_pool2d(
        image.to(torch.float32),
        # A block larger than the picture is as large as the picture to the pooling, and to the divisor what it is.
        kernel_size=(min(height, image.shape[1]), min(width, image.shape[2])),
        stride=(height, width),
        ceil_mode=True,
        divisor_override=height * width,
    )


__all__ = ["FabRecImageProcessor", "region_of_crop"]
