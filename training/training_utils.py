"""What the training scripts share: arguments from YAML, checkpoints that survive a kill, processes and trackers."""

import argparse
import dataclasses
import importlib.util
import json
import os
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
import yaml
from accelerate import Accelerator
from accelerate.logging import get_logger
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from time_limit import check_minutes
from transformers import HfArgumentParser, PreTrainedModel

from fabrec_hf.checkpoints.weight_files import INDEX_NAME, WEIGHTS_NAME, check_shard_size, save_shards
from fabrec_hf.errors import FabRecError


logger = get_logger(__name__)

ArgumentsT = TypeVar("ArgumentsT")


@dataclass(kw_only=True)
class RunArguments:
    """What every long training is told of its run, beside what it learns."""

    resume_from_checkpoint: str | None = field(default=None, metadata={"help": "`latest` or a checkpoint folder."})
    max_minutes: float | None = field(default=None, metadata={"help": "Stop in time, with a checkpoint to go on."})
    report_to: str = field(default="tensorboard", metadata={"help": "Tracker: tensorboard, trackio, wandb or none."})
    shard_size: str | None = field(default=None, metadata={"help": "Save in 16 bits, in files such as 14MB."})
    push_to_hub: bool = field(default=False, metadata={"help": "Publish the finished model on the Hub."})
    hub_model_id: str | None = field(default=None, metadata={"help": "Repository, owner/name; the output's name."})

    def __post_init__(self):
        """Refuse values that would fail later, in words."""
        check_minutes(self.max_minutes)
        check_shard_size(self.shard_size)


def parse_arguments(arguments_class: type[ArgumentsT], description: str, argv: list[str] | None = None) -> ArgumentsT:
    """Read a dataclass of arguments from the command line, over the values of a `--config FILE.yaml`."""
    parser = HfArgumentParser(arguments_class, description=description)
    parser.add_argument("--config", help="YAML file with any of these arguments; the command line goes first.")
    argv = sys.argv[1:] if argv is None else argv
    finder = argparse.ArgumentParser(add_help=False)
    finder.add_argument("--config")
    known, _ = finder.parse_known_args(argv)
    if known.config:
        values = _read_config(parser, Path(known.config), arguments_class)
        parser.set_defaults(**values)
        for action in parser._actions:  # a value from the file satisfies a required argument
            action.required = action.required and action.dest not in values
    namespace = parser.parse_args(argv)
    fields = {field.name for field in dataclasses.fields(arguments_class)}  # type: ignore[arg-type]
    try:
        return arguments_class(**{name: value for name, value in vars(namespace).items() if name in fields})
    except ValueError as error:
        raise SystemExit(_complain(error)) from error


def _read_config(parser: HfArgumentParser, path: Path, arguments_class: type) -> dict:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"cannot read --config {path}: {error}")
    fields = {field.name: field for field in dataclasses.fields(arguments_class)}
    unknown = set(values) - set(fields)
    if unknown:
        parser.error(f"{path} sets unknown arguments: {', '.join(sorted(unknown))}.")
    # YAML reads 10 as an integer, also where a number with decimals is meant.
    return {name: float(value) if fields[name].type is float else value for name, value in values.items()}


def run_main(main, arguments) -> None:
    """Run a script's main function; a user's mistake becomes one line and exit code 2."""
    try:
        main(arguments)
    # Wrong values of arguments, configurations, pictures and weights, each with the words of who found them.
    except (FabRecError, OSError, ValueError, StrictDataclassError, SafetensorError, FloatingPointError) as error:
        sys.exit(_complain(error))


def _complain(error: Exception) -> int:
    if isinstance(error, StrictDataclassError) and error.__cause__ is not None:
        error = error.__cause__  # type: ignore[assignment]
    sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
    return 2


def save_checkpoint(
    accelerator: Accelerator, output_dir: Path, step: int, stages: tuple[int, ...] = (), keep: int = 2
) -> None:
    """Write `checkpoint-STEP` under another name first, so that a kill never leaves half of one; prune old ones.

    Args:
        accelerator: Holds the prepared models and optimizers.
        output_dir: Folder of the run.
        step: Steps done.
        stages: Last steps of the stages that have optimizers of their own; a resumed run must have the same.
        keep: How many checkpoints to keep.
    """
    partial = output_dir / "checkpoint-partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    if accelerator.is_main_process:
        (partial / "progress.json").write_text(json.dumps({"step": step, "stages": stages}))
        final = output_dir / f"checkpoint-{step}"
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in list_checkpoints(output_dir)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def save_weights(model: PreTrainedModel, folder: Path, shard_size: str | None) -> None:
    """Save a trained model: whole in 32 bits, or in 16-bit shards of a size where one is given."""
    if shard_size is None:
        model.save_pretrained(folder)
    else:
        save_shards(model, folder, shard_size)


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if (path / "progress.json").is_file()]
    found = [path for path in found if path.name != "checkpoint-partial"]
    return sorted(found, key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def resume_step(
    output_dir: Path, checkpoint: str | None, max_steps: int, stages: tuple[int, ...] = ()
) -> tuple[Path | None, int]:
    """Find the checkpoint to go on with.

    Args:
        output_dir: Folder of the run.
        checkpoint: Folder of a checkpoint, `"latest"` for the newest of the run (none yet: start anew), or None.
        max_steps: Steps that the run is to have in the end.
        stages: As `save_checkpoint` had them.

    Returns:
        Its folder and the step to go on with; None and 0 to start anew.

    Raises:
        FileNotFoundError: The folder is no checkpoint.
        FabRecError: The run cannot go on from it, or its later checkpoints would be mixed with new ones.
    """
    available = list_checkpoints(output_dir)
    if checkpoint is None:
        if available:
            raise FabRecError(
                f"{output_dir} holds checkpoints of an earlier run: go on with --resume_from_checkpoint latest, or "
                "name another --output_dir."
            )
        return None, 0
    if checkpoint == "latest":
        if not available:
            logger.info("No checkpoint in %s yet: starting from step 0.", output_dir)
            return None, 0
        folder = available[-1]
    else:
        folder = Path(checkpoint)
        if not (folder / "progress.json").is_file():
            raise FileNotFoundError(f"{folder} is not a checkpoint of this script: give its checkpoint-STEP folder.")
    progress = json.loads((folder / "progress.json").read_text())
    step = progress["step"]
    # A run that was killed between its last checkpoint and its model has nothing left to do but to save that.
    is_saved = any((output_dir / name).is_file() for name in (WEIGHTS_NAME, INDEX_NAME))
    if step > max_steps or (step == max_steps and is_saved):
        raise FabRecError(f"{folder} has {step} steps already, and the run is to have {max_steps}: ask for more.")
    if tuple(progress["stages"]) != stages:
        raise FabRecError(f"{folder} comes from stages that end at {progress['stages']}, not {list(stages)}.")
    if checkpoint != "latest" and available and _step_of(available[-1]) > step:
        raise FabRecError(f"{output_dir} holds later checkpoints than {folder}: name another --output_dir.")
    logger.info("Resuming from %s at step %d.", folder, step)
    return folder, step


def find_tracker(name: str) -> str | None:
    """Return what `Accelerator(log_with=...)` takes for a value of --report_to.

    Raises:
        ValueError: There is no such tracker.
        FabRecError: Its package is not installed: Accelerate would leave it out without a word.
    """
    if name == "none":
        return None
    if name not in ("tensorboard", "trackio", "wandb"):
        raise ValueError(f"--report_to must be tensorboard, trackio, wandb or none, got {name!r}.")
    if importlib.util.find_spec(name) is None:
        raise FabRecError(f"--report_to {name} needs its package: pip install {name}, or say --report_to none.")
    return name


def open_hub_repository(push_to_hub: bool, hub_model_id: str | None, output_dir: Path) -> str | None:
    """Find out before a long run whether its model can be published.

    Args:
        push_to_hub: Whether it is to be.
        hub_model_id: Repository, `owner/name` or a name; the name of the output folder by default.
        output_dir: Folder of the run.

    Returns:
        `owner/name`; None if nothing is to be published.

    Raises:
        HubError: The Hub cannot be reached or refuses.
    """
    if not push_to_hub:
        return None
    from fabrec_hf.hub.publishing import open_repository

    return open_repository(hub_model_id or output_dir.resolve().name)


def publish_model(accelerator: Accelerator, output_dir: Path, repository: str | None) -> None:
    """Publish the finished model of a run, if that was asked for."""
    if repository is None or not accelerator.is_main_process:
        return
    from fabrec_hf.hub.publishing import push

    for entry in push(output_dir, repository):
        logger.info("%s: %s files, commit %s.", repository, entry.files, entry.commit)


def use_all_cores(accelerator: Accelerator) -> None:
    """Share the CPU's cores among the processes, where `accelerate launch` has set a single thread for each."""
    if accelerator.device.type == "cpu" and os.environ.get("OMP_NUM_THREADS") == "1":
        # The cores that this process may use, which on Linux can be fewer than there are.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // accelerator.num_processes))


def check_batch_size(accelerator: Accelerator, batch_size: int) -> None:
    """Refuse a batch that the processes cannot share evenly: its faces would not weigh the same."""
    if batch_size % accelerator.num_processes:
        raise FabRecError(f"--batch_size {batch_size} does not divide among {accelerator.num_processes} processes.")
