"""A server that speaks the Hub's HTTP protocol as far as its client and the libraries on top of it do.

    python tests/support/hub_server.py            # prints {"port": N}, serves until its standard input ends

Repositories live in memory. Large files go the way of Git LFS and come back from another host name, as on the Hub.
Beside the Hub's routes, `/control/...` tells a test what arrived and lets it hold uploads back.
"""

import asyncio
import base64
import hashlib
import json
import os
import re
import socket
import sys
import threading
from typing import Any
from urllib.parse import unquote

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response
from hub_card_rules import check_card
from hub_state import FIRST_COMMIT, Blob, Commit, Hub, Repository, refusal


LARGE = (".safetensors", ".parquet", ".png", ".bin")
KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


def build_app(port: int) -> FastAPI:
    app, hub = FastAPI(), Hub(port)

    @app.exception_handler(HTTPException)
    async def show_refusal(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    @app.middleware("http")
    async def keep_log(request: Request, call_next):
        if not request.url.path.startswith("/control"):
            hub.log.append(f"{request.method} {unquote(request.url.path)}")
        return await call_next(request)

    add_control_routes(app, hub)
    add_account_routes(app, hub)
    add_repository_routes(app, hub)
    add_commit_routes(app, hub)
    add_file_routes(app, hub)
    return app


def add_control_routes(app: FastAPI, hub: Hub) -> None:
    @app.get("/control/log")
    def log() -> list[str]:
        return hub.log

    @app.post("/control/uploads/{state}")
    def uploads(state: str) -> None:
        (hub.uploads_may_end.clear if state == "hold" else hub.uploads_may_end.set)()


def add_account_routes(app: FastAPI, hub: Hub) -> None:
    @app.get("/api/whoami-v2")
    def whoami(request: Request) -> dict[str, Any]:
        user = hub.user(request)
        token = {"displayName": "test", "role": user["role"]}
        return {
            "type": "user",
            "name": user["name"],
            "fullname": user["name"].title(),
            "orgs": [{"name": name, "type": "org"} for name in user["orgs"]],
            "auth": {"type": "access_token", "accessToken": token},
        }

    @app.post("/api/repos/create")
    async def create(request: Request) -> Any:
        values = await request.json()
        user = hub.user(request, write=True)
        owner = values.get("organization") or user["name"]
        if not hub.may_write(user, owner):
            raise refusal(403, f'You don\'t have the rights to create a model under the namespace "{owner}"')
        kind, name = values.get("type", "model"), f"{owner}/{values['name']}"
        url = f"http://127.0.0.1:{hub.port}/{'' if kind == 'model' else kind + 's/'}{name}"
        if (kind, name) in hub.repositories:
            return JSONResponse({"error": "You already created this model repo", "url": url}, 409)
        private = values.get("visibility") == "private" or bool(values.get("private"))
        hub.repositories[kind, name] = repository = Repository(kind, name, private)
        repository.commit("main", "initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)})
        return {"url": url, "name": name, "id": name}

    @app.post("/api/validate-yaml")
    async def validate(request: Request) -> JSONResponse:
        values = await request.json()
        errors, warnings = check_card(values["content"], values["repoType"])
        answer = {
            name: [{"message": text} for text in texts] for name, texts in (("errors", errors), ("warnings", warnings))
        }
        return JSONResponse(answer, 400 if errors else 200)


def add_repository_routes(app: FastAPI, hub: Hub) -> None:
    @app.get("/api/{kinds}/{owner}/{name}")
    @app.get("/api/{kinds}/{owner}/{name}/revision/{revision}")
    def information(request: Request, kinds: str, owner: str, name: str, revision: str = "main") -> dict[str, Any]:
        repository = hub.repository(request, KINDS[kinds], owner, name)
        commit = hub.commit(repository, revision)
        return {
            "_id": commit.sha[:24],
            "id": repository.name,
            "modelId": repository.name,
            "author": owner,
            "sha": commit.sha,
            "private": repository.private,
            "gated": False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "lastModified": f"{commit.date:%Y-%m-%dT%H:%M:%S.000Z}",
            "createdAt": f"{FIRST_COMMIT:%Y-%m-%dT%H:%M:%S.000Z}",
            "siblings": [{"rfilename": path} for path in commit.files],
        }

    @app.get("/api/{kinds}/{owner}/{name}/tree/{revision}")
    @app.get("/api/{kinds}/{owner}/{name}/tree/{revision}/{folder:path}")
    def tree(request: Request, kinds: str, owner: str, name: str, revision: str, folder: str = "") -> list[dict]:
        commit = hub.commit(hub.repository(request, KINDS[kinds], owner, name), revision)
        start = f"{folder}/" if folder else ""
        inside = {path: blob for path, blob in commit.files.items() if path.startswith(start)}
        if folder and not inside:
            raise refusal(404, f"{folder} does not exist", "EntryNotFound")
        folders = {path[: match.start()] for path in inside for match in re.finditer("/", path)} - {folder}
        entries = [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in sorted(folders)]
        entries += [blob.entry(path) for path, blob in inside.items()]
        if request.query_params.get("recursive", "").lower() in ("true", "1"):
            return [entry for entry in entries if entry["path"].startswith(start)]
        return [entry for entry in entries if "/" not in entry["path"].removeprefix(start)]

    @app.post("/api/{kinds}/{owner}/{name}/paths-info/{revision}")
    async def paths_info(request: Request, kinds: str, owner: str, name: str, revision: str) -> list[dict]:
        commit = hub.commit(hub.repository(request, KINDS[kinds], owner, name), revision)
        is_json = request.headers.get("content-type", "").startswith("application/json")
        paths = (await request.json())["paths"] if is_json else (await request.form()).getlist("paths")
        found = [commit.files[path].entry(path) for path in paths if path in commit.files]
        folders = [path for path in paths if any(file.startswith(f"{path}/") for file in commit.files)]
        return found + [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders]

    @app.get("/api/{kinds}/{owner}/{name}/refs")
    def refs(request: Request, kinds: str, owner: str, name: str) -> dict[str, Any]:
        repository = hub.repository(request, KINDS[kinds], owner, name)

        def listed(named: dict[str, Commit], place: str) -> list[dict[str, str]]:
            return [
                {"name": key, "ref": f"refs/{place}/{key}", "targetCommit": commit.sha}
                for key, commit in named.items()
            ]

        return {
            "branches": listed(repository.branches, "heads"),
            "tags": listed(repository.tags, "tags"),
            "converts": [],
        }

    @app.get("/api/{kinds}/{owner}/{name}/commits/{revision}")
    def commits(request: Request, kinds: str, owner: str, name: str, revision: str) -> list[dict[str, Any]]:
        commit = hub.commit(hub.repository(request, KINDS[kinds], owner, name), revision)
        return [
            {
                "id": entry.sha,
                "title": entry.title,
                "message": "",
                "authors": [{"user": owner}],
                "date": f"{entry.date:%Y-%m-%dT%H:%M:%S.000Z}",
            }
            for entry in commit.history()
        ]

    @app.post("/api/{kinds}/{owner}/{name}/branch/{branch}")
    async def branch(request: Request, kinds: str, owner: str, name: str, branch: str) -> None:
        repository = hub.repository(request, KINDS[kinds], owner, name, write=True)
        branch = unquote(branch)
        if branch in repository.branches:
            raise refusal(409, "Reference already exists")
        values = json.loads(await request.body() or b"{}")
        repository.branches[branch] = hub.commit(repository, values.get("startingPoint", "main"))

    @app.post("/api/{kinds}/{owner}/{name}/tag/{revision}")
    async def tag(request: Request, kinds: str, owner: str, name: str, revision: str) -> None:
        repository = hub.repository(request, KINDS[kinds], owner, name, write=True)
        repository.tags[(await request.json())["tag"]] = hub.commit(repository, revision)


def add_commit_routes(app: FastAPI, hub: Hub) -> None:
    @app.post("/api/{kinds}/{owner}/{name}/preupload/{revision}")
    async def preupload(request: Request, kinds: str, owner: str, name: str, revision: str) -> dict[str, Any]:
        repository = hub.repository(request, KINDS[kinds], owner, name, write=True)
        known = hub.commit(repository, revision).files
        files = []
        for entry in (await request.json())["files"]:
            path = entry["path"]
            mode = "lfs" if path.endswith(LARGE) else "regular"
            answer = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            files.append(answer | ({"oid": known[path].oid} if path in known else {}))
        return {"files": files}

    async def batch(request: Request, kind: str, owner: str, name: str) -> dict[str, Any]:
        hub.repository(request, kind, owner, name.removesuffix(".git"), write=True)
        base, objects = f"http://127.0.0.1:{hub.port}/lfs", []
        for entry in (await request.json())["objects"]:
            actions = {
                "upload": {"href": f"{base}/{entry['oid']}"},
                "verify": {"href": f"{base}/{entry['oid']}/verify"},
            }
            objects.append(entry | ({} if entry["oid"] in hub.large else {"actions": actions}))
        return {"transfer": "basic", "objects": objects}

    @app.post("/datasets/{owner}/{name}/info/lfs/objects/batch")
    async def batch_of_a_dataset(request: Request, owner: str, name: str) -> dict[str, Any]:
        return await batch(request, "dataset", owner, name)

    @app.post("/spaces/{owner}/{name}/info/lfs/objects/batch")
    async def batch_of_a_space(request: Request, owner: str, name: str) -> dict[str, Any]:
        return await batch(request, "space", owner, name)

    @app.post("/{owner}/{name}/info/lfs/objects/batch")
    async def batch_of_a_model(request: Request, owner: str, name: str) -> dict[str, Any]:
        return await batch(request, "model", owner, name)

    @app.put("/lfs/{oid}")
    async def upload(request: Request, oid: str) -> None:
        content = await request.body()
        while not hub.uploads_may_end.is_set():
            await asyncio.sleep(0.05)
        if hashlib.sha256(content).hexdigest() != oid:
            raise refusal(422, "the content has another hash")
        hub.large[oid] = content

    @app.post("/lfs/{oid}/verify")
    def verify(oid: str) -> None:
        if oid not in hub.large:
            raise refusal(404, "no such object")

    @app.post("/api/{kinds}/{owner}/{name}/commit/{revision}")
    async def commit(request: Request, kinds: str, owner: str, name: str, revision: str) -> dict[str, Any]:
        repository = hub.repository(request, KINDS[kinds], owner, name, write=True)
        files = dict(hub.commit(repository, revision).files)
        title = ""
        for line in (await request.body()).splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, hub.commit(repository, revision).sha):
                    raise refusal(412, "A commit has happened since. Please refresh and try again.")
            elif entry["key"] == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), large=False)
            elif entry["key"] == "lfsFile":
                files[value["path"]] = Blob(hub.large[value["oid"]], large=True)
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
            elif entry["key"] == "deletedFolder":
                files = {path: blob for path, blob in files.items() if not path.startswith(value["path"])}
        made = repository.commit(unquote(revision), title, files)
        url = f"http://127.0.0.1:{hub.port}/{repository.name}/commit/{made.sha}"
        return {"success": True, "commitOid": made.sha, "commitUrl": url, "hookOutput": ""}


def add_file_routes(app: FastAPI, hub: Hub) -> None:
    def resolve(request: Request, kind: str, owner: str, name: str, revision: str, path: str) -> Response:
        repository = hub.repository(request, kind, owner, name)
        commit = hub.commit(repository, revision)
        if path not in commit.files:
            raise HTTPException(404, "Entry not found", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit.sha})
        blob = commit.files[path]
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes", "ETag": f'"{blob.oid}"'}
        if blob.large:
            # The client follows a redirect within one host on HEAD and would lose the commit; the Hub has another.
            headers |= {"X-Linked-Etag": f'"{blob.oid}"', "X-Linked-Size": str(len(blob.content))}
            return RedirectResponse(f"http://localhost:{hub.port}/lfs/{blob.oid}", 302, headers)
        return ranged(request, blob.content, headers)

    @app.api_route("/lfs/{oid}", methods=["GET", "HEAD"])
    def download(request: Request, oid: str) -> Response:
        return ranged(request, hub.large[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})

    @app.api_route("/datasets/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def file_of_a_dataset(request: Request, owner: str, name: str, revision: str, path: str) -> Response:
        return resolve(request, "dataset", owner, name, revision, path)

    @app.api_route("/spaces/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def file_of_a_space(request: Request, owner: str, name: str, revision: str, path: str) -> Response:
        return resolve(request, "space", owner, name, revision, path)

    @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    def file_of_a_model(request: Request, owner: str, name: str, revision: str, path: str) -> Response:
        return resolve(request, "model", owner, name, revision, path)


def ranged(request: Request, content: bytes, headers: dict[str, str]) -> Response:
    """Answer a request for a file, or for the part of it that its Range header names."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
    status = 200
    if match:
        start, end = int(match[1]), min(int(match[2] or len(content) - 1), len(content) - 1)
        headers = headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        content, status = content[start : end + 1], 206
    if request.method == "HEAD":
        return Response(None, status, headers | {"Content-Length": str(len(content))})
    return Response(content, status, headers, media_type="application/octet-stream")


def main() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # from now on a client waits, where it would be refused before the server is up
    port = listener.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(build_app(port), log_level="warning", access_log=False))

    def end_with_parent() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    print(json.dumps({"port": port}), flush=True)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
