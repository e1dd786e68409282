"""The whole way from photographs to a table of errors in one command, in as many pieces as the machine's time allows.

    python training/ladder.py --preset small --faces FACES --labeled LABELED --output_dir runs/ladder --max_minutes 50

The rungs: the autoencoder at 128 px, for `base` also at 256 px; the mesh of a teacher, where there are labels of one;
a detector from all annotated faces and its scores; detectors from few faces and their table. Given the same command
again, the ladder leaves out what is finished and goes on with what is not. `--show` prints the command of each rung
instead, for other machines or for `accelerate launch` with several processes.
"""

import gc
import importlib.util
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import evaluate_landmarks
import fewshot_sweep
import label_dataset
import pretrain
import torch
import train_landmarks
import yaml
from time_limit import Pause, check_minutes, duration
from training_utils import parse_arguments, run_main

from fabrec_hf.checkpoints.weight_files import check_shard_size
from fabrec_hf.errors import FabRecError


CONFIGS = Path(__file__).parent / "configs"

# What a preset changes in the configurations of its rungs, and with which size of pictures it ends.
PRESETS: dict[str, dict[str, Any]] = {
    "small": {"image_size": 128, "autoencoder": "autoencoder-small.yaml", "landmarks": {}},
    # The paper's: heatmaps of 128 px for pictures of 256.
    "base": {
        "image_size": 256,
        "autoencoder": "autoencoder-base.yaml",
        "landmarks": {"heatmap_size": 128, "heatmap_sigma": 7.0},
    },
}


@dataclass
class LadderArguments:
    """What to climb from, and how far in this run."""

    faces: list[str] = field(metadata={"help": "Parquet files or folders of faces with an `image` column."})
    labeled: list[str] = field(
        metadata={"help": "Annotated faces with a test split, as `fabrec convert` writes them."}
    )
    output_dir: str = field(metadata={"help": "Folder of all rungs."})
    preset: str = field(default="small", metadata={"help": "small: half width, 128 px; base: the paper's, 256 px."})
    mesh: list[str] | None = field(
        default=None, metadata={"help": "Faces with the points of `mesh`, if there are any."}
    )
    teacher_python: str | None = field(
        default=None, metadata={"help": "Interpreter with MediaPipe, to label the faces here instead of --mesh."}
    )
    max_minutes: float | None = field(default=None, metadata={"help": "Stop in time; the same command goes on."})
    settings: str | None = field(default=None, metadata={"help": "YAML file: other arguments of rungs, by rung."})
    shard_size: str | None = field(default=None, metadata={"help": "Save models in 16 bits, in files such as 14MB."})
    show: bool = field(default=False, metadata={"help": "Only print the commands of the rungs that are not finished."})

    def __post_init__(self):
        """Refuse values that would fail later, in words."""
        if self.preset not in PRESETS:
            raise ValueError(f"--preset must be small or base, got {self.preset!r}.")
        if self.mesh and self.teacher_python:
            raise ValueError("--mesh and --teacher_python exclude each other: labels are there, or made here.")
        check_minutes(self.max_minutes)
        check_shard_size(self.shard_size)


@dataclass(frozen=True)
class Rung:
    """A script with its arguments, and the file that it writes last.

    Attributes:
        name: Also the name of its folder.
        script: File in this folder.
        words: Its command line.
        last: What it writes at its very end.
        limited: Whether it takes --max_minutes.
        resumes: Whether it takes --resume_from_checkpoint.
    """

    name: str
    script: str
    words: list[str]
    last: Path
    limited: bool = True
    resumes: bool = True

    @property
    def finished(self) -> bool:
        """Whether it need not be run any more."""
        return self.last.is_file()

    @property
    def command(self) -> str:
        """The command that runs it alone."""
        more = ["--resume_from_checkpoint", "latest"] if self.resumes else []
        return shlex.join(["accelerate", "launch", f"training/{self.script}", *self.words, *more])

    def run(self, minutes: float | None) -> Pause | None:
        """Run it, or what is left of it.

        Returns:
            Where it stopped because the minutes were over; None at its end.

        Raises:
            FabRecError: Its script failed and has said why.
        """
        if self.script == "evaluate_landmarks.py":
            if evaluate_landmarks.main(self.words):
                raise FabRecError(f"the rung {self.name} failed, see above.")
            return None
        kind, main = SCRIPTS[self.script]
        words = [*self.words]
        if self.resumes:
            words += ["--resume_from_checkpoint", "latest"]
        if self.limited and minutes is not None:
            words += ["--max_minutes", str(minutes)]
        arguments = parse_arguments(arguments_class=kind, description="", argv=words)
        return main(arguments)


SCRIPTS: dict[str, tuple[type, Callable[[Any], Pause | None]]] = {
    "pretrain.py": (pretrain.PretrainingArguments, pretrain.main),
    "label_dataset.py": (label_dataset.LabelArguments, label_dataset.main),
    "train_landmarks.py": (train_landmarks.LandmarkTrainingArguments, train_landmarks.main),
    "fewshot_sweep.py": (fewshot_sweep.SweepArguments, fewshot_sweep.main),
}


def read_settings(path: str | None) -> dict[str, dict[str, Any]]:
    """Read the arguments of rungs by their names.

    Raises:
        FabRecError: The file cannot be read or says something else.
    """
    if path is None:
        return {}
    try:
        values = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise FabRecError(f"cannot read --settings {path}: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(value, dict) for value in values.values()):
        raise FabRecError(f"--settings {path} must hold a mapping of arguments under the name of each rung.")
    return values


def flags(values: dict[str, Any]) -> list[str]:
    """Return arguments as words of a command line."""
    words: list[str] = []
    for name, value in values.items():
        if value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


def build_rungs(arguments: LadderArguments) -> list[Rung]:
    """Return the rungs in their order.

    Raises:
        FabRecError: The settings are of a rung that there is not.
    """
    output, settings = Path(arguments.output_dir), read_settings(arguments.settings)
    preset = PRESETS[arguments.preset]
    rungs: list[Rung] = []

    def add(name: str, script: str, last: str, values: dict[str, Any], config: str | None = None, **kinds) -> str:
        values = values | settings.pop(name, {}) | {"output_dir": str(output / name)}
        words = [*(["--config", str(CONFIGS / config)] if config else []), *flags(values)]
        rungs.append(Rung(name, script, words, output / name / last, **kinds))
        return str(output / name)

    saved: dict[str, Any] = {"shard_size": arguments.shard_size}
    if importlib.util.find_spec("tensorboard") is None:
        saved["report_to"] = "none"
    pretraining = {"data": arguments.faces} | saved
    start = add("autoencoder-128", "pretrain.py", "preprocessor_config.json", pretraining, preset["autoencoder"])
    if preset["image_size"] == 256:
        grown = pretraining | {"initial_model": start}
        start = add("autoencoder-256", "pretrain.py", "preprocessor_config.json", grown, "autoencoder-256.yaml")
    mesh = arguments.mesh
    if arguments.teacher_python:
        labels = {"data": arguments.faces[0], "teacher": "mediapipe", "teacher_python": arguments.teacher_python}
        mesh = [add("mesh-labels", "label_dataset.py", "summary.json", labels, resumes=False)]
    every, few = "landmarks-small.yaml", "landmarks-fewshot.yaml"
    teaching = preset["landmarks"] | saved
    if mesh:
        values = teaching | {"data": mesh, "scheme": "mesh", "autoencoder": start}
        start = add("mesh", "train_landmarks.py", "training_results.json", values, "landmarks-mesh.yaml")
        every, few = "landmarks-300w-mesh.yaml", "landmarks-fewshot-mesh.yaml"
    labeled = {"data": arguments.labeled, "autoencoder": start}
    values = teaching | labeled
    detector = add("landmarks", "train_landmarks.py", "training_results.json", values, every)
    add_scores(rungs, output, arguments, detector)
    add("few", "fewshot_sweep.py", "table.md", preset["landmarks"] | labeled, few, resumes=False)
    if settings:
        known = ", ".join(rung.name for rung in rungs)
        raise FabRecError(f"--settings names {', '.join(settings)}, which is no rung of this ladder: {known}.")
    return rungs


def add_scores(rungs: list[Rung], output: Path, arguments: LadderArguments, detector: str) -> None:
    """Add the scores of the detector on the test split."""
    words = ["--model", detector, "--data", *arguments.labeled, "--split", "test", "--output", str(output / "scores")]
    last = output / "scores" / "results.json"
    rungs.append(Rung("scores", "evaluate_landmarks.py", words, last, limited=False, resumes=False))


def main(arguments: LadderArguments) -> None:
    """Climb until the top is reached or the time is over, and say where that is.

    Raises:
        FabRecError: It was started as several processes, or a rung failed.
    """
    end = None if arguments.max_minutes is None else time.monotonic() + 60 * arguments.max_minutes
    rungs = build_rungs(arguments)
    todo = [rung for rung in rungs if not rung.finished]
    if arguments.show:
        print("\n".join(rung.command for rung in todo) or "All rungs are finished.")
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise FabRecError("the ladder is one process: for several, run the commands that --show prints.")
    for rung in rungs:
        if rung.finished:
            print(f"{rung.name}: finished before")
    for place, rung in enumerate(todo):
        minutes = None if end is None else (end - time.monotonic()) / 60
        if minutes is not None and minutes <= 0:
            say_next(todo[place:], None)
            return
        begun = time.monotonic()
        pause = rung.run(minutes)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if pause:
            say_next(todo[place:], pause)
            return
        print(f"{rung.name}: finished, {duration(time.monotonic() - begun)} in this run", flush=True)
    print(f"All rungs are finished: {arguments.output_dir}/scores/table.md, {arguments.output_dir}/few/table.md")


def say_next(left: list[Rung], pause: Pause | None) -> None:
    """Say what is left, and for how long where that was measured."""
    if pause:
        print(f"{left[0].name}: {str(pause)[0].lower()}{str(pause)[1:]}")
        left = left[1:]
    if left:
        print(f"not begun: {', '.join(rung.name for rung in left)}")
    print("Go on with the same command.", flush=True)


if __name__ == "__main__":
    import logging

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    run_main(main, parse_arguments(LadderArguments, __doc__))
