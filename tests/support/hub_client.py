"""The Hub of the tests: a server process on a loopback port, and processes that use it as a fresh machine would."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from support.warm_processes import run_code


ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class HubServer:
    """Where the server is, and how to reach it."""

    endpoint: str

    def api(self, token: str | bool = "writer") -> HfApi:
        return HfApi(endpoint=self.endpoint, token=token)

    def log(self) -> list[str]:
        with urllib.request.urlopen(f"{self.endpoint}/control/log") as answer:
            return json.load(answer)

    def hold_uploads(self, hold: bool) -> None:
        url = f"{self.endpoint}/control/uploads/{'hold' if hold else 'release'}"
        urllib.request.urlopen(urllib.request.Request(url, method="POST")).close()

    def environment(self, home: Path, token: str | None = "writer", **changes: str) -> dict[str, str]:
        """Variables of a process that knows this Hub and has never used one before."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        own = {
            "PYTHONPATH": str(ROOT),
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        return kept | own | ({"HF_TOKEN": token} if token else {}) | changes


@contextmanager
def running_hub() -> Iterator[HubServer]:
    """Start the server in a process of its own; it ends with its standard input."""
    command = [sys.executable, str(Path(__file__).with_name("hub_server.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        port = json.loads(server.stdout.readline())["port"]
        yield HubServer(f"http://127.0.0.1:{port}")


def run_python(script: str, *arguments: str, environment: dict[str, str]) -> dict:
    """Run a script that prints FOUND and JSON last, and return that."""
    done = run_code(script, *arguments, environment=environment, folder=environment["HF_HOME"])
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.rpartition("FOUND")[2])
