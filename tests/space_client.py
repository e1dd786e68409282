"""The demonstration as visitors meet it: its server on a loopback port, and requests that no page would send."""

import json
import socket
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        request = urllib.request.Request(f"{self.url}/gradio_api/upload", body, kind)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)[0]

    def detect(self, file: dict[str, Any], threshold: float = 0.0) -> dict[str, Any]:
        """Ask for the faces of a picture as the page does; returns the last message about it."""
        number = next(index for index, fn in self.app.fns.items() if fn.api_name == "detect")
        return self.ask(number, [{**file, "meta": {"_type": "gradio.FileData"}}, threshold])

    def ask(self, number: int, data: list[Any]) -> dict[str, Any]:
        """Trigger an event of the page by its number, and wait for its end."""
        session = uuid.uuid4().hex
        body = json.dumps({"data": data, "fn_index": number, "session_hash": session}).encode()
        kind = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/gradio_api/queue/join", body, kind)).close()
        with urllib.request.urlopen(f"{self.url}/gradio_api/queue/data?session_hash={session}") as stream:
            for line in stream:
                message = json.loads(line[5:]) if line.startswith(b"data:") else {}
                if message.get("msg") in ("process_completed", "unexpected_error"):
                    return message
        raise AssertionError("The server said nothing.")


@contextmanager
def running_space(sessions: Path) -> Iterator[Space]:
    """Start the demonstration in this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = Settings(sessions=sessions, examples=example_pictures(None), host="127.0.0.1", port=port)
    with make_services(settings) as services:
        app = launch(services, settings)
        try:
            yield Space(f"http://127.0.0.1:{port}", services, app)
        finally:
            app.close(verbose=False)
