"""A server on this machine that behaves well, or badly in one way."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

CONTENT = np.random.default_rng(0).bytes(1_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@dataclass
class Behaviour:
    """Behaviour of the server, and the Range header of every request."""

    content: bytes = CONTENT
    tag: str | None = '"one"'
    modified: str | None = None
    ranges: bool = True  # honours Range
    wrong_offset: bool = False  # answers a Range with another one
    cut_after: int | None = None  # closes the connection after so many bytes
    length: bool = True  # says how long the content is
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str | None] = field(default_factory=list)


@contextmanager
def serve(behaviour: Behaviour) -> Iterator[str]:
    """Run a server on a free port and yield the address of its file."""
    with serve_site({"/embeddings.zip": behaviour}) as home:
        yield f"{home}/embeddings.zip"


@contextmanager
def serve_site(files: dict[str, Behaviour]) -> Iterator[str]:
    """Run a server on a free port and yield its address; `files` are by path."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, files.get(self.path.partition("?")[0], Behaviour(status=404)))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(handler: BaseHTTPRequestHandler, behaviour: Behaviour) -> None:
    asked = handler.headers.get("Range")
    behaviour.asked.append(asked)
    if behaviour.status != 200:
        handler.send_error(behaviour.status)
        return
    content, start = behaviour.content, 0
    same = handler.headers.get("If-Range") in (None, behaviour.tag, behaviour.modified)
    if asked and behaviour.ranges and same:
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(content):
            handler.send_error(416)
            return
        start = 0 if behaviour.wrong_offset else start
        handler.send_response(206)
        handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
    else:
        handler.send_response(200)
    if behaviour.length:
        handler.send_header("Content-Length", str(len(content) - start))
    if behaviour.tag:
        handler.send_header("ETag", behaviour.tag)
    if behaviour.modified:
        handler.send_header("Last-Modified", behaviour.modified)
    for name, value in behaviour.headers.items():
        handler.send_header(name, value)
    handler.end_headers()
    end = len(content) if behaviour.cut_after is None else start + behaviour.cut_after
    with suppress(ConnectionError):  # a client that does not like the answer hangs up
        handler.wfile.write(content[start:end])
