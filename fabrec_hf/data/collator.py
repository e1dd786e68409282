"""Rows of annotated faces to batches of a model, for `transformers.Trainer` and every `DataLoader`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from ..model.geometry import landmarks_to_crop
from .face_boxes import points_box


__all__ = ["LandmarkCollator"]


class LandmarkCollator:
    """Cuts the faces out of the pictures of rows, and expresses their landmarks in the crops.

    The Trainer needs `remove_unused_columns=False`, as the model knows nothing of pictures. The crops are cut in the
    workers of the data loader, if there are any. They are the plain ones: a transform of the data set may vary them.

    Args:
        processor: The image processor of the checkpoint.

    Example:
        >>> import fabrec_hf
        >>> processor = fabrec_hf.FabRecImageProcessor.from_pretrained("3fabrec-300w")
        >>> collator = fabrec_hf.LandmarkCollator(processor)
    """

    def __init__(self, processor: Any):
        self.processor = processor

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch.

        Args:
            rows: Each with `image`, `landmarks` (L, 2) in its pixels, None or NaN for a point that is not annotated,
                and `box` (x, y, width, height); where that is missing, the tight box of the points.

        Returns:
            `pixel_values` (N, 3, S, S), `labels` (N, L, 2) as fractions of the crop, NaN where not annotated, and
            `boxes` (N, 4), the boxes in the same unit.

        Raises:
            DataError: If a row has neither a box nor points that enclose an area.
        """
        boxes = [points_box(row["landmarks"]) if row.get("box") is None else row["box"] for row in rows]
        if any(box is None for box in boxes):
            raise DataError("A face has neither a box nor points that enclose an area; leave such rows out.")
        inputs = self.processor([row["image"] for row in rows], boxes=[[box] for box in boxes])
        unknown = [np.nan, np.nan]
        points = [[unknown if point is None else point for point in row["landmarks"]] for row in rows]
        crops = np.asarray(inputs["crop_boxes"])
        labels = landmarks_to_crop(np.array(points, dtype=np.float64), crops)
        edges = np.array(boxes, dtype=np.float64) - [[x, y, 0.0, 0.0] for x, y in crops[:, :2]]
        return {
            "pixel_values": inputs["pixel_values"],
            "labels": torch.as_tensor(labels, dtype=torch.float32),
            "boxes": torch.as_tensor(edges / crops[:, 2:3], dtype=torch.float32),
        }
