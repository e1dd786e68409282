"""Programs in processes of their own that need not import PyTorch first.

A new Python takes seconds to import PyTorch and torchvision. A test that is about something else, such as what a
program does with a new cache or with another process, forks one that has them. Nothing that reads variables of the
Hub is imported in it, and nothing of this package. What a test is about imports, or about the launch, starts Python.
"""

import atexit
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any


ROOT = Path(__file__).parents[2]
# What transformers, datasets and this package import, and what does not import huggingface_hub.
IMPORTED = (
    "torch",
    "torch.distributed.checkpoint",
    "torchvision.transforms.v2.functional",
    "pandas",
    "scipy.optimize",
)
IMPORTED += ("scipy.stats", "pyarrow.parquet", "pyarrow.dataset", "jinja2", "yaml")


@functools.cache
def _server() -> subprocess.Popen:
    command = [sys.executable, str(Path(__file__).with_name("warm_server.py")), *IMPORTED]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen) -> None:
    assert server.stdin is not None
    server.stdin.close()
    server.wait()


def _run(programs: list[dict[str, Any]]) -> list[CompletedProcess]:
    """Run programs at the same time."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        files = [{name: f"{folder}/{name}-{place}" for name in ("stdout", "stderr")} for place in range(len(programs))]
        request = [program | file for program, file in zip(programs, files, strict=True)]
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        codes = json.loads(server.stdout.readline())
        texts = [[Path(file[name]).read_text() for name in ("stdout", "stderr")] for file in files]
    return [
        CompletedProcess(program["words"], code, *text)
        for program, code, text in zip(programs, codes, texts, strict=True)
    ]


def run_code(
    code: str, *words: object, environment: Mapping[str, str] | None = None, folder: Path | str = "."
) -> CompletedProcess:
    """Run what `python -c CODE WORDS` does, in a folder and with variables of its own.

    Args:
        code: The program.
        *words: Its command line.
        environment: All of its variables, this process's if None.
        folder: Where it runs.
    """
    return _run([_program(code, None, words, environment, folder)])[0]


def run_file(script: Path, *words: object, environment: Mapping[str, str] | None = None) -> CompletedProcess:
    """Run what `python SCRIPT WORDS` does, with variables of its own, or with this process's."""
    return _run([_program(None, script, words, environment, ".")])[0]


def run_ranks(
    script: Path, *words: object, processes: int = 2, environment: Mapping[str, str] | None = None
) -> CompletedProcess:
    """Run a script as `torchrun` does, in several processes that share their work.

    Args:
        script: The program.
        *words: Its command line.
        processes: How many there are.
        environment: Variables beside this process's.

    Returns:
        The sum of what the processes said, and the exit code of one that failed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = os.environ | (environment or {}) | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    shared |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "PYTHONPATH": str(ROOT)}
    ranks = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    done = _run([_program(None, script, words, variables, ".") for variables in ranks])
    codes = [process.returncode for process in done]
    texts = ["".join(getattr(process, name) for process in done) for name in ("stdout", "stderr")]
    return CompletedProcess(done[0].args, next((code for code in codes if code > 0), min(codes)), *texts)


def _program(code, script, words, environment, folder) -> dict[str, Any]:
    return {
        "code": code,
        "script": script and str(script),
        "words": [str(word) for word in words],
        "environment": dict(os.environ if environment is None else environment),
        "folder": str(Path(folder).absolute()),
        "timeout": 600,
    }
