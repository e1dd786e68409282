"""Annotated faces in memory, as training takes them."""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..data.annotations import annotations
from ..data.decoding import decode_canvases
from ..model.geometry import crop_box_from_box, landmarks_to_crop
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.known_schemes import LandmarkScheme
from .augmentation import AugmentationConfig, augment, plain_crops


if TYPE_CHECKING:
    import datasets


__all__ = ["LabeledFaces", "image_mean"]

# Where the crops lie, an array each.
_PLACES = ("crop_boxes", "boxes", "rolls", "detected")


class LabeledFaces:
    """Faces held as canvases with their landmarks, which are fractions of the plain crop.

    Args:
        dataset: Rows with `image`, `landmarks` (L, 2) in its pixels, NaN where missing, and `box`.
        processor: Says how crops are cut, and of what size.
        progress: Show a progress bar while pictures are decoded.

    Attributes:
        size: Side of the crops in pixels.
        canvases: Of N faces.
        landmarks: (N, L, 2), 0 and 1 being the edges of the plain crop.
        crop_boxes: (N, 4) the plain crops (x, y, side, side) in pixels of their pictures.
        boxes: (N, 4) in units of the crop's side, for normalizers that measure the box.
        rolls: (N,) degrees by which the crops are turned clockwise about their middles; 0 in given boxes.
        detected: (N,) whether the face detector found the face in this crop; False in given boxes.
        anchors: (N, A, 2) in the units of the landmarks: other points that a model is to remember; None at first.
        anchor_flip_index: Their permutation under mirroring, None if they have no pairs.

    Raises:
        DataError: A column is missing, or a row has no usable box or landmarks.
    """

    def __init__(self, dataset: "datasets.Dataset", processor: FabRecImageProcessor, progress: bool = True):
        self.size = size = int(processor.size["height"])
        landmarks, boxes = annotations(dataset)
        crop_boxes = crop_box_from_box(boxes, processor.extend_top, processor.extend_bottom)
        self.landmarks = torch.as_tensor(landmarks_to_crop(landmarks, crop_boxes)).float()
        self.crop_boxes, self.boxes = crop_boxes, boxes / crop_boxes[:, 2:3]
        self.rolls, self.detected = np.zeros(len(crop_boxes)), np.zeros(len(crop_boxes), dtype=bool)
        self.canvases = decode_canvases(dataset, crop_boxes, size, progress)
        self.anchors: torch.Tensor | None = None
        self.anchor_flip_index: list[int] | None = None

    def __len__(self) -> int:
        return len(self.canvases)

    def subset(self, rows: np.ndarray) -> "LabeledFaces":
        """Return the faces of some rows, which are integers (M,)."""
        part = copy.copy(self)
        part.canvases, part.landmarks = self.canvases.subset(rows), self.landmarks[rows]
        for name in _PLACES:
            setattr(part, name, getattr(self, name)[rows])
        part.anchors = None if self.anchors is None else self.anchors[rows]
        return part

    def replaced(self, rows: np.ndarray, others: "LabeledFaces") -> "LabeledFaces":
        """Return the faces with those of some rows, integers (M,), as `others` (M) have them; canvases excepted."""
        whole = copy.copy(self)
        whole.landmarks = self.landmarks.index_copy(0, torch.as_tensor(rows), others.landmarks)
        for name in _PLACES:
            values = getattr(self, name).copy()
            values[rows] = getattr(others, name)
            setattr(whole, name, values)
        return whole

    def with_anchors(self, anchors: torch.Tensor, flip_index: list[int] | None) -> "LabeledFaces":
        """Return the same faces with points (N, A, 2) that a model is to remember, and how these mirror."""
        same = copy.copy(self)
        same.anchors, same.anchor_flip_index = anchors, flip_index
        return same

    def plain_inputs(self, device: torch.device) -> Iterator[torch.Tensor]:
        """Yield what a model takes of the plain crops, (n, 3, size, size) on a device, a few at a time."""
        for canvases in self.canvases.split(64):
            yield plain_crops(canvases.to(device), self.size) - image_mean(device)

    def augmented_inputs(
        self, rows: torch.Tensor, augmentation: AugmentationConfig, flip_index: list[int] | None, device: torch.device
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield what a model takes of changed crops of rows (M,), and where their landmarks are, a few at a time.

        Args:
            rows: Which faces, each as often as it is named.
            augmentation: What the changes are drawn from, by torch's global generator.
            flip_index: Permutation of the landmarks under mirroring; without it nothing is mirrored.
            device: Where to.

        Yields:
            Inputs (n, 3, size, size) and landmarks (n, L, 2), fractions of the changed crops.
        """
        for batch in rows.split(64):
            canvases, landmarks = self.canvases.subset(batch).to(device), self.landmarks[batch].to(device)
            crops, shown = augment(canvases, self.size, augmentation, landmarks, flip_index)
            assert shown is not None  # it is None without landmarks only
            yield crops - image_mean(device), shown

    def flip_index(self, scheme: LandmarkScheme) -> list[int] | None:
        """Return the permutation of landmarks and anchors under mirroring, None if one of them has no pairs."""
        if not scheme.flip_pairs:
            return None
        if self.anchors is None:
            return scheme.flip_index
        if self.anchor_flip_index is None:
            return None
        return [*scheme.flip_index, *(scheme.num_landmarks + place for place in self.anchor_flip_index)]


def image_mean(device: torch.device) -> torch.Tensor:
    """What the processor takes off the colors, (1, 3, 1, 1)."""
    return torch.tensor(FabRecImageProcessor.image_mean, device=device).view(1, 3, 1, 1)
