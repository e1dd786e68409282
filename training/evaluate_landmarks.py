"""Score a landmark checkpoint on annotated faces: `fabrec evaluate`, and shared by several processes too.

    python training/evaluate_landmarks.py --model 3fabrec-300w --data data/300w --split test --output results
    accelerate launch training/evaluate_landmarks.py --data data/300w --split test
    ACCELERATE_USE_CPU=true torchrun --standalone --nproc_per_node 2 training/evaluate_landmarks.py --data data/300w

The first process prints and writes. On CPUs the result is the same, bit for bit, for any number of processes.
"""

import io
import sys
import time
from contextlib import redirect_stderr, redirect_stdout

from accelerate import Accelerator
from training_utils import use_all_cores

from fabrec_hf.cli import main as run_command_line


# Launchers end all processes as soon as one of them fails: seconds that the first one gets to say why.
PATIENCE = 15


def main(arguments: list[str]) -> int:
    """Run `fabrec evaluate` in every process and let the first one speak; returns the exit code."""
    accelerator = Accelerator()
    use_all_cores(accelerator)
    if accelerator.num_processes > 1:
        arguments = ["--device", str(accelerator.device), *arguments]
    try:
        if accelerator.is_main_process:
            return run_command_line(["evaluate", *arguments])
        return run_silently(["evaluate", *arguments])
    finally:
        accelerator.end_training()


def run_silently(words: list[str]) -> int:
    """Run the command line without a word, unless it turns out that this process alone has failed."""
    complaints = io.StringIO()
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(complaints):
            code = run_command_line(words)
    except SystemExit as stop:  # arguments that cannot be parsed
        code = stop.code if isinstance(stop.code, int) else 1
    if code:
        time.sleep(PATIENCE)
        sys.stderr.write(complaints.getvalue())
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
