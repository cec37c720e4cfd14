"""A W&B server on this machine, as far as a run needs one: it keeps what it gets, or refuses everything."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0" * 40


@dataclass
class FakeRun:
    """The server's copy of a run."""

    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    """The variables of the last request that made or changed it."""
    uploaded: set[str] = field(default_factory=set)
    offsets: list[int] = field(default_factory=list)
    """Positions at which rows were put."""


@dataclass
class FakeWandb:
    """The server."""

    status: int = 200
    runs: dict[str, FakeRun] = field(default_factory=dict)
    home: str = ""
    unknown: list[str] = field(default_factory=list)
    """Requests that it did not understand."""

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL request."""
        if operation == "RunResumeStatus":
            known = self.runs.get(given["name"])
            return {"model": None if known is None else self._model(given["name"], known)}
        if operation == "UpsertBucket":
            run = self.runs.setdefault(given["name"], FakeRun())
            run.settings |= {key: value for key, value in given.items() if value is not None}
            return {"upsertBucket": {"bucket": self._bucket(given["name"], run), "inserted": True}}
        if operation == "CreateRunFiles":
            files = [
                {"name": name, "uploadUrl": f"{self.home}/upload/{given['run']}/{name}"}
                for name in given["files"]
            ]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        if operation not in ("ServerFeaturesQuery", "OrganizationCoreWeaveOrganizationID", "Viewer"):
            self.unknown.append(operation)
        return {}

    def _bucket(self, name: str, run: FakeRun) -> dict[str, Any]:
        entity = {"id": "1", "name": run.settings.get("entity", "somebody")}
        return {
            "id": name,
            "name": name,
            "displayName": run.settings.get("displayName"),
            "config": run.settings.get("config", "{}"),
            "project": {"id": "1", "name": run.settings.get("project", "p"), "entity": entity},
            "historyLineCount": len(run.history),
        }

    def _model(self, name: str, run: FakeRun) -> dict[str, Any]:
        bucket = self._bucket(name, run) | {
            "summaryMetrics": json.dumps(run.summary),
            "logLineCount": 0,
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in run.history[-1:]]),
            "eventsTail": "[]",
            "tags": run.settings.get("tags", []),
            "notes": "",
            "wandbConfig": '{"t": 1}',
        }
        return {"id": "1", "name": "p", "entity": {"id": "1", "name": "somebody"}, "bucket": bucket}

    def stream(self, name: str, files: dict[str, Any]) -> None:
        """Take rows and summaries: at their offset, over what is there."""
        run = self.runs[name]
        for file, part in files.items():
            rows = (
                [json.loads(line) for line in part["content"]] if file.endswith((".jsonl", ".json")) else []
            )
            if file == "wandb-history.jsonl":
                run.offsets.append(part["offset"])
                run.history[part["offset"] : part["offset"] + len(rows)] = rows
            elif file == "wandb-summary.json":
                run.summary = rows[-1]


@contextmanager
def serve_wandb(fake: FakeWandb) -> Iterator[dict[str, str]]:
    """Run the server on a free port; the variables by which W&B finds it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if fake.status != 200:
                return self.reply({"errors": [{"message": "user is not logged in"}]}, fake.status)
            parts = self.path.strip("/").split("/")
            if parts[0] == "graphql":
                request = json.loads(body)
                return self.reply(
                    {"data": fake.answer(request.get("operationName"), request.get("variables") or {})}
                )
            if parts[0] == "upload":
                fake.runs[parts[1]].uploaded.add("/".join(parts[2:]))
            elif parts[-1] == "file_stream":
                fake.stream(parts[-2], json.loads(body).get("files") or {})
            return self.reply({})

        do_PUT = do_GET = do_POST

        def reply(self, content: object, status: int = 200) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads, block_on_close = True, False

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that was killed leaves a broken connection."""

    server = Server(("127.0.0.1", 0), Handler)
    fake.home = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield {"WANDB_BASE_URL": fake.home, "WANDB_API_KEY": KEY}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
