"""What the training scripts share: arguments from YAML, checkpoints that survive a kill, seeds, learning rates."""

import argparse
import dataclasses
import json
import math
import os
import shutil
import sys
from pathlib import Path
from typing import TypeVar

import torch
import yaml
from accelerate import Accelerator
from accelerate.logging import get_logger
from transformers import HfArgumentParser

from fabrec_hf.errors import FabRecError


logger = get_logger(__name__)

ArgumentsT = TypeVar("ArgumentsT")


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
    except (FabRecError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
        sys.exit(_complain(error))


def _complain(error: Exception) -> int:
    sys.stderr.write(f"error: {error}\n")
    return 2


def seed_step(seed: int, step: int, process_index: int = 0) -> None:
    """Seed torch for one step, so that a resumed run draws what an unbroken one would have drawn."""
    torch.manual_seed((seed * 1_000_003 + process_index) * 1_000_003 + step)


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> torch.Tensor:
    """Rows of step `step` (from 0): shuffled passes over `count` rows, joined without gaps; (batch_size,)."""
    first = step * batch_size
    rows: list[torch.Tensor] = []
    while (missing := batch_size - sum(map(len, rows))) > 0:
        epoch, position = divmod(first + batch_size - missing, count)
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        rows.append(order[position : position + missing])
    return torch.cat(rows)


def cosine_factor(step: int, max_steps: int, warmup_steps: int, floor: float = 0.01) -> float:
    """Learning rate of a step over the peak rate: linear warm-up, then half a cosine down to `floor`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, max_steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def save_checkpoint(accelerator: Accelerator, output_dir: Path, step: int, keep: int = 2) -> None:
    """Write `checkpoint-STEP` under another name first, so that a kill never leaves half of one; prune old ones."""
    partial = output_dir / "checkpoint-partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    if accelerator.is_main_process:
        (partial / "progress.json").write_text(json.dumps({"step": step}))
        final = output_dir / f"checkpoint-{step}"
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        for old in list_checkpoints(output_dir)[:-keep]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()


def list_checkpoints(output_dir: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if (path / "progress.json").is_file()]
    found = [path for path in found if path.name != "checkpoint-partial"]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def resume_step(output_dir: Path, checkpoint: str | None) -> tuple[Path | None, int]:
    """Find the checkpoint to go on with.

    Args:
        output_dir: Folder of the run.
        checkpoint: Folder of a checkpoint, `"latest"` for the newest of the run (none yet: start anew), or None.

    Returns:
        Its folder and the step to go on with; None and 0 to start anew.

    Raises:
        FileNotFoundError: The folder is no checkpoint.
    """
    if checkpoint is None:
        return None, 0
    if checkpoint == "latest":
        available = list_checkpoints(output_dir)
        if not available:
            logger.info("No checkpoint in %s yet: starting from step 0.", output_dir)
            return None, 0
        folder = available[-1]
    else:
        folder = Path(checkpoint)
        if not (folder / "progress.json").is_file():
            raise FileNotFoundError(f"{folder} is not a checkpoint of this script: give its checkpoint-STEP folder.")
    step = json.loads((folder / "progress.json").read_text())["step"]
    logger.info("Resuming from %s at step %d.", folder, step)
    return folder, step


def use_all_cores(accelerator: Accelerator) -> None:
    """Share the CPU's cores among the processes: `accelerate launch` starts each with a single thread."""
    if accelerator.device.type == "cpu" and "OMP_NUM_THREADS" in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // accelerator.num_processes))
