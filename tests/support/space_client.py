"""The demonstration as visitors meet it: its server on a loopback port, and requests that no page would send."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from space_requests import SpaceClient, uploaded

from fabrec_hf.demo.server import Settings, example_pictures, launch, make_services


@dataclass(frozen=True)
class Space:
    """A running demonstration.

    Attributes:
        url: Where it listens, without a slash at the end.
        services: What its pages share.
        app: The Gradio application.
    """

    url: str
    services: Any
    app: Any

    def upload(self, content: bytes, name: str) -> str:
        """Upload a file as a page does; returns its path on the server."""
        return SpaceClient(self.url).upload(content, name)

    def detect(self, file: dict[str, Any], threshold: float = 0.0) -> dict[str, Any]:
        """Ask for the faces of a picture as the page does; returns the last message about it."""
        client = SpaceClient(self.url)
        return client.ask(client.event("detect"), [uploaded(file["path"], file["orig_name"]) | file, threshold])


@contextmanager
def running_space(sessions: Path, **options: Any) -> Iterator[Space]:
    """Start the demonstration in this process; `options` are further ones of `Settings`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Settings(sessions=sessions, examples=example_pictures(None), host="127.0.0.1", port=port, **options)
    with make_services(settings) as services:
        app = launch(services, settings)
        try:
            yield Space(f"http://127.0.0.1:{port}", services, app)
        finally:
            app.close(verbose=False)
