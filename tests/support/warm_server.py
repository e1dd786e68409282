"""A process that has imported what takes seconds, and becomes a program of a test by forking.

    python tests/support/warm_server.py torch torchvision

A line of JSON on standard input asks for programs that run at the same time; the answer, a line on standard output,
is the list of their exit codes. As launchers do, it ends all of them as soon as one fails. It ends with its standard
input.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import sys
import types
from typing import Any


def main() -> dict[str, Any] | None:
    """Serve; returns the program that this process has become, None in the server itself at its end."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # or the collections of every child would copy and search all of it
    for line in sys.stdin:
        request = json.loads(line)
        running = {}
        for place, program in enumerate(request):
            process = os.fork()
            if not process:
                return program
            running[process] = place
        print(json.dumps(wait_for(running)), flush=True)
    return None


def wait_for(running: dict[int, int]) -> list[int]:
    """Wait for the processes, by id with their places, and return their exit codes by place."""
    codes = [0] * len(running)
    while running:
        process, status = os.wait()
        place = running.pop(process)
        codes[place] = os.waitstatus_to_exitcode(status)
        if codes[place]:
            for other in running:
                os.kill(other, signal.SIGTERM)
    return codes


def become(program: dict[str, Any]) -> None:
    """Give this process the files, the folder, the variables and the paths that a new one would have."""
    for descriptor, path in enumerate((os.devnull, program["stdout"], program["stderr"])):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdin = open(0, closefd=False)
    signal.alarm(program["timeout"])
    os.chdir(program["folder"])
    os.environ.clear()
    os.environ.update(program["environment"])
    first = str(os.path.dirname(program["script"])) if program["script"] else ""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [first, *filter(None, given), *sys.path[1:]]
    sys.argv[:] = [program["script"] or "-c", *program["words"]]
    if threads := os.environ.get("OMP_NUM_THREADS"):  # which a new process reads when it loads torch
        sys.modules["torch"].set_num_threads(int(threads))


if __name__ == "__main__" and (program := main()) is not None:
    become(program)
    if program["script"]:
        runpy.run_path(program["script"], run_name="__main__")
    else:
        sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(program["code"], "<string>", "exec"), sys.modules["__main__"].__dict__)
