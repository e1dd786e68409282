"""What an expert builds without this package: MediaPipe's face mesh, then a regression to one's own points.

    python training/benchmarks/benchmark_mesh_regression.py --data 300w --teacher_python .mediapipe/bin/python

The regression learns from the first `--shots` training faces; the error is that of the test faces, by the data's
normalizer. `fewshot_sweep.py` shows the same numbers beside its own. See `mesh_regression.py`.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


sys.path.insert(0, str(Path(__file__).parents[1]))  # the training scripts

from mediapipe_teacher import MediaPipeTeacher  # noqa: E402
from mesh_regression import PEER, MeshedFaces, mesh_regression_error  # noqa: E402
from training_utils import parse_arguments, run_main  # noqa: E402

from fabrec_hf.data import first_shots, load_faces  # noqa: E402
from fabrec_hf.data.face_set import shared_face_set  # noqa: E402
from fabrec_hf.learning.landmark_training import find_scheme  # noqa: E402


@dataclass
class BaselineArguments:
    """Which faces, how many of them, and where MediaPipe is."""

    data: list[str] = field(metadata={"help": "Parquet files or folders with image, landmarks and box."})
    teacher_python: str | None = field(default=None, metadata={"help": "Interpreter that has MediaPipe; this one."})
    shots: list[int] = field(default_factory=lambda: [1, 10, 50, 157, 315], metadata={"help": "Numbers of faces."})
    split: str = field(default="test", metadata={"help": "The split to score."})
    scheme: str | None = field(default=None, metadata={"help": "300w, wflw, aflw, mtfl or a file; the data's own."})


def main(arguments: BaselineArguments) -> None:
    """Print one row of a few-shot table."""
    training = load_faces(arguments.data, "train", columns=("image", "landmarks", "box"))
    training = first_shots(training, min(max(arguments.shots), len(training)))
    scored = load_faces(arguments.data, arguments.split, columns=("image", "landmarks", "box"))
    scheme = find_scheme(arguments.scheme, shared_face_set(arguments.data), len(training[0]["landmarks"]))
    teacher = MediaPipeTeacher(arguments.teacher_python)
    shots, faces = MeshedFaces(training, teacher), MeshedFaces(scored, teacher)
    errors = [mesh_regression_error(shots, np.arange(n), faces, scheme) for n in arguments.shots]
    print(f"| faces | {' | '.join(map(str, arguments.shots))} |")
    print(f"|---|{'---:|' * len(errors)}")
    print(f"| {PEER} | {' | '.join(f'{error:.2f}' for error in errors)} |")
    missed = int((~faces.found).sum())
    print(f"\nNME in % over {len(faces.found)} faces, {missed} of them missed by MediaPipe.")


if __name__ == "__main__":
    run_main(main, parse_arguments(BaselineArguments, __doc__ or ""))
