"""Label the pictures of a large data set with faces and landmarks, in any number of processes and machines.

    python training/label_dataset.py --data faces --output_dir labels
    accelerate launch --num_processes 8 training/label_dataset.py --data owner/faces --output_dir labels
    ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node 2 training/label_dataset.py --data faces ...

    python training/label_dataset.py --teacher mediapipe --teacher_python .mediapipe/bin/python --data faces ...

The Parquet files of the data are shared out among the processes; each becomes a Parquet file of the same rows with
`landmarks`, `box` and `scores`, one row a face. Started again after a kill, the command goes on with the files that
are not done, and shares those out among as many processes as there are then. All processes must see the output folder.
With `--max_minutes` no process begins a file after that time; the same command goes on.
"""

import sys
import time
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from mediapipe_teacher import MediaPipeTeacher
from time_limit import Pause, TimeLimit, check_minutes
from training_utils import parse_arguments, run_main, use_all_cores

from fabrec_hf.errors import FabRecError
from fabrec_hf.inference.landmark_finder import LandmarkFinder
from fabrec_hf.inference.shard_labeling import (
    LabelReport,
    LabelSettings,
    find_shards,
    finish_labels,
    label_shards,
    open_labels,
    unlabeled_shards,
)


# A process may wait for the others at the end for as long as their last shards take.
PATIENCE = timedelta(days=7)


@dataclass
class LabelArguments:
    """What to label, and how."""

    data: str = field(metadata={"help": "Parquet file, folder, glob, or a repository of Parquet files on the Hub."})
    output_dir: str = field(metadata={"help": "Folder of the labels: new, or that of the same job to go on with."})
    model: str = field(default="3fabrec-300w", metadata={"help": "Folder, embedded name or Hub name."})
    teacher: str = field(default="model", metadata={"help": "model, or mediapipe for the 128 points of `mesh`."})
    teacher_python: str | None = field(default=None, metadata={"help": "Interpreter that has MediaPipe; this one."})
    split: str | None = field(default=None, metadata={"help": "The split to label; all of them by default."})
    search: bool = field(default=False, metadata={"help": "Search for faces where the data has boxes, too."})
    min_score: float | None = field(default=None, metadata={"help": "Leave out landmarks that score lower, 0 to 1."})
    max_minutes: float | None = field(default=None, metadata={"help": "Begin no file after so many minutes."})

    def __post_init__(self):
        """Refuse values that would fail later, in words."""
        check_minutes(self.max_minutes)
        if self.teacher not in ("model", "mediapipe"):
            raise ValueError(f"--teacher must be model or mediapipe, not {self.teacher!r}.")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ValueError(f"--min_score must lie in 0 to 1, not {self.min_score}.")


def main(arguments: LabelArguments) -> Pause | None:
    """Label this process's share; the first process opens the folder before and sums up afterward.

    Returns:
        Where the labeling stopped because its minutes were over; None at its end.
    """
    limit = TimeLimit(arguments.max_minutes)
    accelerator = Accelerator(kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)])
    use_all_cores(accelerator)
    folder, settings = Path(arguments.output_dir), LabelSettings(arguments.search, arguments.min_score)
    finder: LandmarkFinder | MediaPipeTeacher
    if arguments.teacher == "mediapipe":
        finder = MediaPipeTeacher(arguments.teacher_python)
    else:
        finder = LandmarkFinder(arguments.model, str(accelerator.device))
    # One process looks, and the others are told: on a shared disk they might not see the same.
    told: list = [None]
    shards: list = []
    if accelerator.is_main_process:
        try:
            shards = find_shards(arguments.data, arguments.split)
            told = [open_labels(folder, shards, finder, settings)]
        except FabRecError as error:
            told = [error]
    (todo,) = broadcast_object_list(told)
    if isinstance(todo, FabRecError):
        accelerator.end_training()
        if accelerator.is_main_process:
            raise todo
        sys.exit(2)
    share = todo[accelerator.process_index :: accelerator.num_processes]
    progress, begun = accelerator.is_main_process and sys.stderr.isatty(), time.monotonic()
    label_shards(share, folder, finder, settings, progress, lambda labeled: limit.reached(None, labeled))
    accelerator.wait_for_everyone()
    stopped: list[Pause | None] = [None]
    if accelerator.is_main_process:
        left = len(unlabeled_shards(folder, shards))
        if left:
            rest = (time.monotonic() - begun) / (len(todo) - left) * left
            stopped = [Pause(len(shards) - left, left, rest, "file")]
            print(f"{stopped[0]}. Go on with the same command.")
        else:
            print_summary(finish_labels(folder, shards, finder), len(shards), len(todo))
    (pause,) = broadcast_object_list(stopped)
    accelerator.end_training()
    return pause


def print_summary(reports: dict[str, LabelReport], shards: int, labeled: int) -> None:
    """Print one summary of all processes."""
    for split, report in reports.items():
        mean = report.score_sum / max(1, report.faces)
        print(
            f"{split}: {report.pictures:,} pictures, {report.faces:,} faces, {report.without_face:,} pictures without "
            f"a face, {report.unreadable:,} unreadable, mean score {mean:.3f}"
        )
    print(f"{shards} shards, {labeled} of them labeled now")


if __name__ == "__main__":
    run_main(main, parse_arguments(LabelArguments, __doc__ or ""))
