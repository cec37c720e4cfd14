"""A hub on this machine: the few endpoints that making, filling and reading a repository need."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """Its repositories, each with its files by commit, and what was asked of it."""

    address: str = ""
    repositories: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, name: str, files: dict[str, bytes]) -> str:
        """Add a commit on top of the newest one; its name."""
        commits = self.repositories.setdefault(name, {})
        whole = (list(commits.values())[-1] if commits else {}) | files
        commit = hashlib.sha1(repr(sorted(whole.items())).encode()).hexdigest()
        commits[commit] = whole
        return commit


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """Run a hub on a free port."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub.asked.append(f"POST {self.path}")
            match self.path.split("/")[1:]:
                case ["api", "validate-yaml"]:
                    self.answer({"errors": [], "warnings": []})
                case ["api", "repos", "create"]:
                    given = json.loads(body)
                    name = f"{given['organization']}/{given['name']}"
                    hub.repositories.setdefault(name, {})
                    self.answer({"url": f"{hub.address}/{name}", "id": name})
                case ["api", "models", _, _, "preupload", "main"]:
                    paths = [file["path"] for file in json.loads(body)["files"]]
                    modes = {"uploadMode": "regular", "shouldIgnore": False}
                    self.answer({"files": [{"path": path} | modes for path in paths]})
                case ["api", "models", owner, name, "commit", "main"]:
                    lines = [json.loads(line) for line in body.splitlines()]
                    files = [line["value"] for line in lines if line["key"] == "file"]
                    content = {file["path"]: base64.b64decode(file["content"]) for file in files}
                    commit = hub.add(f"{owner}/{name}", content)
                    url = f"{hub.address}/{owner}/{name}/commit/{commit}"
                    self.answer({"commitUrl": url, "commitOid": commit, "success": True})
                case _:
                    self.send_error(404)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            match self.path.split("/")[1:]:
                case [owner, name, "resolve", revision, path]:
                    commits = hub.repositories.get(f"{owner}/{name}")
                    commit = (list(commits) or [""])[-1] if commits and revision == "main" else revision
                    if commits is None or commit not in commits or path not in commits[commit]:
                        missing = "RepoNotFound" if commits is None else "EntryNotFound"
                        self.answer({}, 404, {"X-Error-Code": missing})
                        return
                    content = commits[commit][path]
                    etag = f'"{hashlib.sha1(content).hexdigest()}"'
                    self.answer(content, 200, {"X-Repo-Commit": commit, "ETag": etag})
                case _:
                    self.answer({}, 404)

        def answer(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Content-Type", "application/json")
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
