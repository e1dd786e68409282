"""Requests to a running demonstration, as its pages send them."""

import json
import urllib.request
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


SECONDS = 300


@dataclass(frozen=True)
class SpaceClient:
    """One visitor of a demonstration.

    Attributes:
        url: Where it listens, without a slash at the end.
        session: What the server tells this visitor's requests from others' by.
    """

    url: str
    session: str = field(default_factory=lambda: uuid.uuid4().hex)

    def upload(self, content: bytes, name: str) -> str:
        """Upload a file; returns its path on the server."""
        mark = uuid.uuid4().hex
        head = f'--{mark}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
        answer = self._post("upload", body, f"multipart/form-data; boundary={mark}")
        return json.loads(answer)[0]

    def ask(self, event: int, data: Sequence[Any]) -> dict[str, Any]:
        """Trigger an event of the page by its number, and return the last message about it."""
        body = json.dumps({"data": data, "fn_index": event, "session_hash": self.session}).encode()
        self._post("queue/join", body, "application/json")
        address = f"{self.url}/gradio_api/queue/data?session_hash={self.session}"
        with urllib.request.urlopen(address, timeout=SECONDS) as stream:
            for line in stream:
                message = json.loads(line[5:]) if line.startswith(b"data:") else {}
                if message.get("msg") in ("process_completed", "unexpected_error"):
                    return message
        raise ConnectionError("The server said nothing.")

    def event(self, name: str) -> int:
        """Return the number of an event that has a name for other programs."""
        with urllib.request.urlopen(f"{self.url}/config", timeout=SECONDS) as answer:
            events = json.load(answer)["dependencies"]
        return next(entry["id"] for entry in events if entry["api_name"] == name)

    def _post(self, place: str, body: bytes, kind: str) -> bytes:
        request = urllib.request.Request(f"{self.url}/gradio_api/{place}", body, {"Content-Type": kind})
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return answer.read()


def uploaded(path: str, name: str) -> dict[str, Any]:
    """Return an upload as events of pages take it."""
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
