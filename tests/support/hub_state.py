"""What the tests' Hub remembers: repositories with their branches, large files, users and their rights."""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import unquote

from fastapi import HTTPException, Request


TOKENS = {
    "writer": {"name": "alice", "orgs": ["faces"], "role": "write"},
    "reader": {"name": "alice", "orgs": ["faces"], "role": "read"},
    "stranger": {"name": "mallory", "orgs": [], "role": "write"},
}
FIRST_COMMIT = datetime(2026, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True)
class Blob:
    """A file's content; `oid` is what the client compares, SHA-256 for large files and the Git hash for others."""

    content: bytes
    large: bool

    @property
    def oid(self) -> str:
        if self.large:
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    def entry(self, path: str) -> dict[str, Any]:
        known = {"type": "file", "path": path, "size": len(self.content), "oid": self.oid[:40]}
        if self.large:
            known["lfs"] = {"oid": self.oid, "size": len(self.content), "pointerSize": 130}
        return known


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    date: datetime
    files: dict[str, Blob]
    parent: "Commit | None" = None

    def history(self) -> list["Commit"]:
        return [self, *(self.parent.history() if self.parent else [])]


@dataclass
class Repository:
    kind: str
    name: str
    private: bool
    branches: dict[str, Commit] = field(default_factory=dict)
    tags: dict[str, Commit] = field(default_factory=dict)

    def commit(self, branch: str, title: str, files: dict[str, Blob]) -> Commit:
        parent = self.branches.get(branch)
        count = len({commit.sha for head in self.branches.values() for commit in head.history()})
        text = json.dumps(
            [self.kind, self.name, count, title, sorted((path, blob.oid) for path, blob in files.items())]
        )
        date = FIRST_COMMIT + timedelta(minutes=count)
        self.branches[branch] = Commit(hashlib.sha1(text.encode()).hexdigest(), title, date, files, parent)
        return self.branches[branch]

    def find(self, revision: str) -> Commit | None:
        named = self.branches.get(revision) or self.tags.get(revision)
        shas = {commit.sha: commit for head in self.branches.values() for commit in head.history()}
        return named or shas.get(revision)


class Hub:
    """All repositories and large files, and what a test wants to know or to do about them."""

    def __init__(self, port: int):
        self.port = port
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.large: dict[str, bytes] = {}
        self.log: list[str] = []
        self.uploads_may_end = threading.Event()
        self.uploads_may_end.set()

    def user(self, request: Request, write: bool = False) -> dict[str, Any]:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not token:
            raise refusal(401, "Invalid username or password.")
        if token not in TOKENS:
            raise refusal(401, "Invalid credentials in Authorization header")
        if write and TOKENS[token]["role"] != "write":
            raise refusal(403, "This token has no write permission.")
        return TOKENS[token]

    def may_write(self, user: dict[str, Any], owner: str) -> bool:
        return owner in (user["name"], *user["orgs"])

    def repository(self, request: Request, kind: str, owner: str, name: str, write: bool = False) -> Repository:
        found = self.repositories.get((kind, f"{owner}/{name}"))
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        visible = found and (not found.private or self.may_write(TOKENS.get(token, {"name": "", "orgs": []}), owner))
        if not found or not visible:
            raise refusal(401 if not token else 404, "Repository not found", "RepoNotFound")
        if write and not self.may_write(self.user(request, write=True), owner):
            raise refusal(403, f"You don't have the rights to write to {owner}/{name}.")
        return found

    def commit(self, repository: Repository, revision: str) -> Commit:
        found = repository.find(unquote(revision))
        if found is None:
            raise refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return found


def refusal(status: int, message: str, code: str | None = None) -> HTTPException:
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return HTTPException(status, message, headers)
