"""Training scripts with the words of their command lines, in this process.

Starting Python and loading PyTorch takes longer than the few steps of a test. Each script is really launched by one
test of its own; the others ask for what it does.
"""

import io
import logging
import os
import runpy
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch


TRAINING = Path(__file__).parents[2] / "training"


@dataclass(frozen=True)
class Done:
    """What a process that ran the script would have left."""

    returncode: int
    stdout: str
    stderr: str


def run_script(script: str, *words) -> Done:
    """Run a file of `training/` as `python training/SCRIPT WORDS` does; what it logs is in `stderr`."""
    path, stdout, stderr = TRAINING / script, io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    root, threads, code = logging.getLogger(), torch.get_num_threads(), 0
    level = root.level
    # As `accelerate launch` sets it; the script then takes all cores, like every launched one.
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        with (
            mock.patch("sys.argv", [str(path), *map(str, words)]),
            mock.patch.dict(os.environ, environment),
            redirect_stdout(stdout),
            redirect_stderr(stderr),
        ):
            runpy.run_path(str(path), run_name="__main__")
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        torch.set_num_threads(threads)
    return Done(code, stdout.getvalue(), stderr.getvalue())
