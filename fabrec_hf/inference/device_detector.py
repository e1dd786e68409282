"""Pictures on a GPU in, landmarks on that GPU out: cropping included, and nothing waits for the device in between.

The crops are `FabRecImageProcessor`'s, but of all faces in few operations. What the host knows, it plans: the
boxes. It sends them in one piece of pinned memory, and never asks the device for anything. It also runs on a CPU.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ..model.geometry import AxisPlan, boxes_per_image, crop_box_from_box, landmarks_from_crop, plan_crop
from ..model.image_processing_base_fabrec import FILTER_NAMES
from ..model.image_processing_fabrec import FabRecImageProcessor, region_of_crop
from ..model.modeling_fabrec import FabRecForLandmarkDetection


__all__ = ["DeviceLandmarks", "DeviceLandmarkDetector"]


class DeviceLandmarks(NamedTuple):
    """Landmarks of all faces of a call, in the order of the pictures and their boxes, on the device.

    Attributes:
        keypoints: (N, L, 2) float32, pixels of the picture, centers at integers.
        scores: (N, L) float32 in [0, 1].
        image_indices: (N,) the picture of each face, as a list.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    image_indices: list[int]


class DeviceLandmarkDetector:
    """A fused detector that cuts its own faces, on one device.

    Args:
        model: The detector; neither changed nor moved.
        processor: Its image processor.
        device: Where to work; the GPU by default where there is one.
        dtype: Of the network, bfloat16 by default on a GPU and float32 elsewhere. The decoding is always in 32 bits.
        batch_size: Faces of one forward pass. Batches are filled up with empty crops, so that all have one shape.
        cuda_graph: Record the network's few hundred kernels once and start them as one; on a GPU only, where it is
            the default. A call then has to come from one thread at a time.

    Example:
        >>> import fabrec_hf, torch
        >>> from fabrec_hf.inference.device_detector import DeviceLandmarkDetector
        >>> from fabrec_hf.checkpoints.loading import load_landmark_model
        >>> detect = DeviceLandmarkDetector(*load_landmark_model("3fabrec-300w"), device="cpu", batch_size=1)
        >>> picture = torch.zeros(3, 240, 320, dtype=torch.uint8)
        >>> detect([picture], [[[100, 60, 90, 100]]]).keypoints.shape
        torch.Size([1, 68, 2])
    """

    def __init__(
        self,
        model: FabRecForLandmarkDetection,
        processor: FabRecImageProcessor,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int = 32,
        cuda_graph: bool | None = None,
    ):
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        on_gpu = self.device.type == "cuda"
        self.dtype = dtype or (torch.bfloat16 if on_gpu else torch.float32)
        self.batch_size = batch_size
        self.processor = processor
        self.model = model.fuse().to(self.device, self.dtype).to(memory_format=torch.channels_last)
        self.size = model.config.image_size
        scale = processor.rescale_factor if processor.do_rescale else 1.0
        mean = processor.image_mean if processor.do_normalize else [0.0] * 3
        std = processor.image_std if processor.do_normalize else [1.0] * 3
        # pixel * factor + offset is (pixel * scale - mean) / std
        factor, offset = [scale / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)]
        self._factor, self._offset = torch.tensor([factor, offset], device=self.device)[:, :, None, None]
        self._crops = torch.zeros((batch_size, 3, self.size, self.size), dtype=self.dtype, device=self.device)
        self._crops = self._crops.contiguous(memory_format=torch.channels_last)
        self._graph: torch.cuda.CUDAGraph | None = None
        if on_gpu if cuda_graph is None else cuda_graph:
            self._record()

    @torch.inference_mode()
    def __call__(self, images: Sequence[torch.Tensor], boxes: Sequence[Any]) -> DeviceLandmarks:
        """Find the landmarks of faces in pictures.

        Args:
            images: (3, H, W) uint8 RGB tensors, upright, on the device; of any sizes.
            boxes: One list of (x, y, width, height) per picture, on the host: as the detector gave them.

        Returns:
            The landmarks, on the device and possibly still being computed there; reading them waits.

        Raises:
            ValueError: A picture is of another kind or elsewhere, or a box is not four finite numbers with an area.
        """
        for index, image in enumerate(images):
            _check_image(image, index, self.device)
        per_image = boxes_per_image(list(boxes), len(images))
        if any(entry is None for entry in per_image):
            raise ValueError("Every picture needs a list of boxes, [] for one without faces.")
        faces = [(index, box) for index, entry in enumerate(per_image) for box in np.asarray(entry)]
        margins = self.processor.extend_top, self.processor.extend_bottom
        crop_boxes = crop_box_from_box(np.array([box for _, box in faces]).reshape(-1, 4), *margins)
        found = [
            self._detect([images[index] for index, _ in faces[start:stop]], crop_boxes[start:stop])
            for start in range(0, len(faces), self.batch_size)
            for stop in (min(start + self.batch_size, len(faces)),)
        ]
        if not found:
            empty = torch.empty((0, self.model.config.num_landmarks, 2), device=self.device)
            return DeviceLandmarks(empty, empty[..., 0], [])
        keypoints, scores = (torch.cat(parts) for parts in zip(*found, strict=True))
        return DeviceLandmarks(keypoints, scores, [index for index, _ in faces])

    def _detect(self, images: list[torch.Tensor], crop_boxes: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        crops = self._cut(images, crop_boxes)
        if self._graph is None:
            outputs = self.model(crops)
            landmarks, scores = outputs.landmarks, outputs.scores
        else:
            self._crops[: len(crops)].copy_(crops)
            self._graph.replay()
            # The next replay overwrites what this one wrote.
            landmarks, scores = self._landmarks[: len(crops)].clone(), self._scores[: len(crops)].clone()
        return landmarks_from_crop(landmarks, self._send(crop_boxes)), scores

    def _cut(self, images: list[torch.Tensor], crop_boxes: np.ndarray) -> torch.Tensor:
        """Return the normalized crops (n, 3, S, S) in the network's type."""
        size = (self.size, self.size)
        filter_name = FILTER_NAMES[self.processor.resample]
        plans = [
            plan_crop(box, size, image.shape[-2:], filter_name) for image, box in zip(images, crop_boxes, strict=True)
        ]
        weights = self._send(_stack_weights(plans, self.size))  # (2, n, S, longest)
        longest = weights.shape[-1]
        regions = torch.zeros((len(images), 3, longest, longest), device=self.device)
        for region, image, (rows, columns) in zip(regions, images, plans, strict=True):
            part = region_of_crop(image, rows, columns)
            region[:, : part.shape[1], : part.shape[2]] = part
        crops = torch.matmul(torch.matmul(weights[0, :, None], regions), weights[1, :, None].transpose(-1, -2))
        crops = torch.addcmul(self._offset, crops.clamp_(0, 255), self._factor)
        return crops.to(self.dtype, memory_format=torch.channels_last)

    def _send(self, values: np.ndarray) -> torch.Tensor:
        """Copy to the device behind what it is doing; from ordinary memory the copy would wait for it."""
        tensor = torch.from_numpy(values)
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    @torch.inference_mode()
    def _record(self) -> None:
        """Record a forward pass over the fixed batch as a CUDA graph."""
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(3):  # libraries choose kernels and take memory in the first passes
                self.model(self._crops)
        torch.cuda.current_stream(self.device).wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            outputs = self.model(self._crops)
        self._landmarks, self._scores = outputs.landmarks, outputs.scores


def _stack_weights(plans: Sequence[tuple[AxisPlan, AxisPlan]], size: int) -> np.ndarray:
    """Return the weights of rows and columns as one array (2, n, size, longest), filled up with zeros."""
    longest = max(1, max(plan.weights.shape[1] for pair in plans for plan in pair))
    stacked = np.zeros((2, len(plans), size, longest), dtype=np.float32)
    for face, pair in enumerate(plans):
        for axis, plan in enumerate(pair):
            stacked[axis, face, :, : plan.weights.shape[1]] = plan.weights
    return stacked


def _check_image(image: torch.Tensor, index: int, device: torch.device) -> None:
    if not isinstance(image, torch.Tensor) or image.dtype != torch.uint8 or image.ndim != 3 or len(image) != 3:
        raise ValueError(f"image {index} must be a (3, H, W) tensor of uint8.")
    if image.device.type != device.type:
        raise ValueError(f"image {index} is on {image.device}, not on {device}.")
    if image.numel() == 0:
        raise ValueError(f"image {index} is empty: {image.shape[2]} x {image.shape[1]} pixels.")
