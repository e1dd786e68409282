"""What an expert builds without this package: MediaPipe's face mesh, then a regression to one's own points.

For each point of the data, the steadiest of the 478 vertices, a mean offset and a ridge regression on all vertices
(`PointRegression`) are learned from annotated faces. MediaPipe sees every face with a margin around its box; a face
that it misses counts as the mean shape of the annotated faces in the box. MediaPipe runs in an environment of its own,
see `mediapipe_teacher.py`.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from mediapipe_teacher import VERTICES, MediaPipeTeacher
from tqdm.auto import tqdm

from fabrec_hf.data.annotations import annotations
from fabrec_hf.metrics import normalized_mean_error
from fabrec_hf.model.geometry import landmarks_to_crop
from fabrec_hf.model.known_schemes import LandmarkScheme
from fabrec_hf.model.point_regression import PointRegression


if TYPE_CHECKING:
    import datasets

PEER = "MediaPipe's mesh and a regression"


class MeshedFaces:
    """Annotated faces with the vertices that MediaPipe finds in them.

    Args:
        dataset: Rows with `image`, `landmarks` and `box`.
        teacher: Finds the vertices.

    Attributes:
        meshes: (N, 478, 2) in units of the face's box, NaN where MediaPipe finds no face.
        landmarks: (N, L, 2) likewise.
        boxes: (N, 4) likewise.
    """

    def __init__(self, dataset: "datasets.Dataset", teacher: MediaPipeTeacher):
        landmarks, boxes = annotations(dataset)
        squares = _squares(boxes)
        found = [
            teacher.find_vertices(row["image"], box)
            for row, box in zip(tqdm(dataset, desc="meshes", unit="face"), boxes, strict=True)
        ]
        self.meshes = torch.from_numpy(landmarks_to_crop(np.stack(found), squares)).float()
        self.landmarks = torch.from_numpy(landmarks_to_crop(landmarks, squares)).float()
        self.boxes = boxes / squares[:, 2:3]

    @property
    def found(self) -> torch.Tensor:
        """In which faces MediaPipe finds one, (N,)."""
        return self.meshes.isfinite().flatten(1).all(1)


def mesh_regression_error(
    training: MeshedFaces, rows: np.ndarray, scored: MeshedFaces, scheme: LandmarkScheme
) -> float:
    """Learn from some faces and return the mean error of others, in percent of the scheme's normalizing length.

    Args:
        training: Faces to learn from.
        rows: Which of them, integers (n,).
        scored: Faces to score.
        scheme: Its normalizer.
    """
    known = torch.as_tensor(rows)[training.found[rows]]
    regression = PointRegression(training.landmarks.shape[1], VERTICES)
    regression.fit(training.meshes[known], training.landmarks[known])
    predicted = regression(scored.meshes)
    predicted[~scored.found] = training.landmarks[rows].nanmean(0)
    errors = normalized_mean_error(predicted.numpy(), scored.landmarks.numpy(), scheme.normalizer, scored.boxes)
    return float(np.nanmean(errors))


def _squares(boxes: np.ndarray) -> np.ndarray:
    """Return squares about the middles of boxes (x, y, width, height), which the units are taken from."""
    sides = boxes[:, 2:].max(axis=1, keepdims=True)
    return np.concatenate([boxes[:, :2] + (boxes[:, 2:] - sides) / 2, sides, sides], axis=1)
