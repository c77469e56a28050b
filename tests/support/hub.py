"""A small model hub on this machine: the few answers of the real one that its clients ask for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c0ffee" + "0" * 34
TOKEN = "right"


@dataclass
class Repository:
    """What the hub has of a model: its newest commit, and the files of each commit; `gated` ones want the token."""

    files: dict[str, bytes]
    commit: str = COMMIT
    gated: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    older: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def move_on(self, commit: str, files: dict[str, bytes]) -> None:
        """Have a newer commit."""
        self.older[self.commit], self.commit, self.files = self.files, commit, files

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return the commit of a revision and its files, None for an unknown one."""
        commit = self.commit if revision == "main" else self.tags.get(revision, revision)
        files = self.files if commit == self.commit else self.older.get(commit)
        return None if files is None else (commit, files)


class Hub:
    """The hub: `repositories` by their ids, and the paths that were `asked` for."""

    def __init__(self, repositories: dict[str, Repository]) -> None:
        self.repositories = repositories
        self.asked: list[str] = []
        self.url = ""

    def answer(self, path: str, authorization: str | None) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers of the answer to a path without its query."""
        parts = path.strip("/").split("/")
        of_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if of_api else parts[:2])
        verb, revision, *rest = (*(parts[4:] if of_api else parts[2:]), "", "")
        repository = self.repositories.get(name)
        found = repository.at(revision) if repository is not None else None
        if repository is None or found is None:
            return 404, b"", {}
        if repository.gated and authorization != f"Bearer {TOKEN}":
            return 401, b"", {"X-Error-Code": "GatedRepo"}
        commit, files = found
        headers = {"X-Repo-Commit": commit}
        if of_api and verb == "revision":
            siblings = [{"rfilename": one} for one in files]
            return 200, json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode(), headers
        if of_api and verb == "tree":
            tree = [{"type": "file", "path": one, "size": len(data), "oid": "0"} for one, data in files.items()]
            return 200, json.dumps(tree).encode(), headers
        content = files.get("/".join(one for one in rest if one))
        if of_api or verb != "resolve" or content is None:
            return 404, b"", {}
        return 200, content, headers | {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'}


@contextmanager
def serving(repositories: dict[str, Repository]) -> Iterator[Hub]:
    """Serve models on the loopback; `url` is what HF_ENDPOINT is to name."""
    hub = Hub(repositories)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            hub.asked.append(path)
            status, body, headers = hub.answer(path, self.headers.get("Authorization"))
            self.send_response(status)
            for header, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
