"""What an expert builds without this package: MediaPipe's face mesh, then a regression to one's own points.

    python training/benchmarks/benchmark_mesh_regression.py --data 300w --teacher_python .mediapipe/bin/python

For each point of the data, the steadiest of the 478 vertices, a mean offset and a ridge regression on all vertices
(`PointRegression`) are learned from the first `--shots` training faces; the error is that of the test faces, by the
data's normalizer. MediaPipe sees every face with a margin around its box; a face that it misses counts as the mean
shape of the annotated faces in the box. MediaPipe runs in an environment of its own, see `mediapipe_teacher.py`.
"""

from dataclasses import dataclass, field

import datasets
import numpy as np
import torch
from mediapipe_teacher import VERTICES, MediaPipeTeacher
from tqdm.auto import tqdm
from training_utils import parse_arguments, run_main

from fabrec_hf.data import first_shots, load_faces
from fabrec_hf.data.annotations import annotations
from fabrec_hf.data.face_set import shared_face_set
from fabrec_hf.learning.landmark_training import find_scheme
from fabrec_hf.metrics import normalized_mean_error
from fabrec_hf.model.geometry import landmarks_to_crop
from fabrec_hf.model.known_schemes import LandmarkScheme
from fabrec_hf.model.point_regression import PointRegression


@dataclass
class BaselineArguments:
    """Which faces, how many of them, and where MediaPipe is."""

    data: list[str] = field(metadata={"help": "Parquet files or folders with image, landmarks and box."})
    teacher_python: str | None = field(default=None, metadata={"help": "Interpreter that has MediaPipe; this one."})
    shots: list[int] = field(default_factory=lambda: [1, 10, 50, 157, 315], metadata={"help": "Numbers of faces."})
    split: str = field(default="test", metadata={"help": "The split to score."})
    scheme: str | None = field(default=None, metadata={"help": "300w, wflw, aflw, mtfl or a file; the data's own."})


def find_meshes(teacher: MediaPipeTeacher, dataset: datasets.Dataset, boxes: np.ndarray) -> torch.Tensor:
    """Find the vertices of each face, (N, 478, 2) in units of its box, NaN where MediaPipe finds no face."""
    found = [
        teacher.find_vertices(row["image"], box)
        for row, box in zip(tqdm(dataset, desc="meshes", unit="face"), boxes, strict=True)
    ]
    return torch.from_numpy(landmarks_to_crop(np.stack(found), _squares(boxes))).float()


def score(
    shots: tuple[torch.Tensor, torch.Tensor],
    meshes: torch.Tensor,
    landmarks: torch.Tensor,
    scheme: LandmarkScheme,
    boxes: np.ndarray,
) -> float:
    """Learn from some faces and return the mean error of others in percent.

    Args:
        shots: Meshes (n, 478, 2) and landmarks (n, L, 2) to learn from.
        meshes: (N, 478, 2) of the faces to score.
        landmarks: (N, L, 2) the truth.
        scheme: Its normalizer.
        boxes: (N, 4) in the unit of the landmarks.
    """
    known = shots[0].isfinite().flatten(1).all(1)
    regression = PointRegression(landmarks.shape[1], VERTICES)
    regression.fit(shots[0][known], shots[1][known])
    predicted = regression(meshes)
    missed = ~meshes.isfinite().flatten(1).all(1)
    predicted[missed] = shots[1].nanmean(0)
    return float(np.nanmean(normalized_mean_error(predicted.numpy(), landmarks.numpy(), scheme.normalizer, boxes)))


def _squares(boxes: np.ndarray) -> np.ndarray:
    """Return squares about the middles of boxes (x, y, width, height), which the units are taken from."""
    sides = boxes[:, 2:].max(axis=1, keepdims=True)
    return np.concatenate([boxes[:, :2] + (boxes[:, 2:] - sides) / 2, sides, sides], axis=1)


def main(arguments: BaselineArguments) -> None:
    """Print one row of a few-shot table."""
    training = load_faces(arguments.data, "train", columns=("image", "landmarks", "box"))
    training = first_shots(training, min(max(arguments.shots), len(training)))
    scored = load_faces(arguments.data, arguments.split, columns=("image", "landmarks", "box"))
    scheme = find_scheme(arguments.scheme, shared_face_set(arguments.data), len(training[0]["landmarks"]))
    teacher = MediaPipeTeacher(arguments.teacher_python)
    parts = []
    for dataset in (training, scored):
        landmarks, boxes = annotations(dataset)
        points = torch.from_numpy(landmarks_to_crop(landmarks, _squares(boxes))).float()
        parts.append((find_meshes(teacher, dataset, boxes), points, boxes / _squares(boxes)[:, 2:3]))
    (shots, points, _), (meshes, truth, unit_boxes) = parts
    missed = int((~meshes.isfinite().flatten(1).all(1)).sum())
    errors = [score((shots[:n], points[:n]), meshes, truth, scheme, unit_boxes) for n in arguments.shots]
    print(f"| faces | {' | '.join(map(str, arguments.shots))} |")
    print(f"|---|{'---:|' * len(errors)}")
    print(f"| MediaPipe's mesh and a regression | {' | '.join(f'{error:.2f}' for error in errors)} |")
    print(f"\nNME in % over {len(truth)} faces, {missed} of them missed by MediaPipe.")


if __name__ == "__main__":
    run_main(main, parse_arguments(BaselineArguments, __doc__ or ""))
