"""Downloads one large file, and continues where it stopped.

The bytes go to `PATH.part`; the address, the size and the server's name for this version of the file go to
`PATH.part.json`. Both stay after a cut connection, Ctrl-C, a kill or a full disk, so that the next attempt
continues from there. They are removed when the file is there, or when the server has sent another one. One
process downloads a file; others wait for it.
"""

import base64
import http.client
import json
import os
import re
import shutil
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import rich.progress
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.common.file_lock import file_lock
from leo_lightning.common.files import checksum_of
from leo_lightning.common.web_page import START, page_name

TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 2**18
_AGAIN = "run the same command again to continue"
_CUT = (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)


class _State(NamedTuple):
    """The file to which the part file belongs."""

    url: str
    size: int | None
    validator: str | None
    md5: str | None
    """Its checksum, where the server sends one."""


def download(
    url: str, path: Path, md5: str | None = None, fault: Callable[[Path], str | None] = lambda path: None
) -> Path:
    """Download `url` to `path`, continuing an earlier attempt if the file has not changed since.

    A file that exists already is left as it is, if it is the right one; otherwise it is set aside.

    Args:
        url: an http or https address.
        path: the file; it appears only when complete and checked.
        md5: checksum of the file, in lower case; None: that of the server, if it sends one.
        fault: tells why a file is not the right one, as "it is not a zip archive"; None: it is.

    Raises:
        InputError: the address is wrong, the connection was cut, the disk is full, or the server has sent a
            web page or another file.
    """
    if not re.match(r"https?://[^/\s]+", url):
        raise InputError(f"'{url}' is not a web address; give one that starts with http:// or https://")
    part = path.with_name(path.name + ".part")
    if path.is_file() and _problem(path, md5, fault) is None:  # it may be in a folder that cannot be written
        _remove(part)
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(path):
            if path.is_file():
                if (problem := _problem(path, md5, fault)) is None:  # another process has just downloaded it
                    return path
                os.replace(path, aside := path.with_name(path.name + ".aside"))
                print(f"note: {path}: {problem}; set aside as {aside.name}", file=sys.stderr)
            state = _read_state(part)
            if not part.exists() or state is None or state.url != url:  # bytes of unknown origin
                state = None
            start = part.stat().st_size if state else 0
            if state is None or start != state.size:
                with _open(url, state, start) as response:
                    state = _receive(url, response, part)
            if problem := _problem(part, md5 or state.md5, fault):
                _remove(part)
                raise InputError(
                    f"{url}: the file was damaged on its way, or has changed ({problem}), and was removed; "
                    "run the same command again to download it anew"
                )
            os.replace(part, path)
            _remove(part)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); {_AGAIN}") from None
    return path


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, in lower case; shows progress, since the file may be large."""
    with rich.progress.open(path, "rb", description=f"checking {path.name}", **_where()) as file:
        return checksum_of(file, "md5")


def _where() -> dict[str, Any]:
    """Return the settings of a progress bar: on stderr, if that is a terminal."""
    console = Console(stderr=True)
    return {"console": console, "disable": not console.is_terminal}


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    """Download a file in one process at a time."""
    lock = path.with_name(path.name + ".lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(lock, f"{path}: another process downloads it; waiting for its end"))
        except InputError as held:
            print(f"note: {held}", file=sys.stderr)
            stack.enter_context(file_lock(lock))
        yield


def _problem(path: Path, md5: str | None, fault: Callable[[Path], str | None]) -> str | None:
    """Return why a file is not the right one."""
    with path.open("rb") as file:
        page = page_name(file.read(START))
    if page:
        return f"it is {page}"
    if md5 is not None and (actual := md5_of(path)) != md5:
        return f"its MD5 is {actual}, not {md5}"
    return fault(path)


def _remove(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state_path(part).unlink(missing_ok=True)


def _open(url: str, state: _State | None, start: int) -> http.client.HTTPResponse:
    """Request the file from byte `start`, or from the beginning if the rest would not fit the part file."""
    headers = {"User-Agent": "leo-lightning", "Accept-Encoding": "identity"}
    if state and start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": state.validator} if state.validator else {})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # nothing lies behind `start`: the part is of another version
            return _open(url, None, 0)
        problem = "there is no such file" if error.code in (404, 410) else error.reason
        raise InputError(f"{url}: {problem} (the server answered {error.code}); check the address") from None
    except (ValueError, http.client.InvalidURL) as error:
        raise InputError(f"'{url}' is not a web address ({error}); check it") from None
    except (urllib.error.URLError, *_CUT) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else one_line(error)
        raise InputError(f"{url}: cannot be reached ({reason}); check the address and the network") from None
    if url.startswith("https:") and not response.url.startswith("https:"):
        response.close()
        raise InputError(f"{url}: leads to {printable(response.url)}, which is not https; check the address")
    if state and response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != start or match[2] not in ("*", str(state.size or match[2])):
            response.close()
            return _open(url, None, 0)
    return response


def _receive(url: str, response: http.client.HTTPResponse, part: Path) -> _State:
    """Write the response behind the part file (status 206), or in its place (200), and check the size."""
    block, cut = b"", False
    try:
        block = response.read(_BLOCK)
    except _CUT:
        cut = True
    if response.status != 206 and (page := page_name(block[:START])):
        raise InputError(
            f"{url}: the server sent {page}, not a file; open the address in a browser to see what it asks "
            "for, or download the file there"
        )
    start = part.stat().st_size if response.status == 206 else 0
    length = response.headers.get("Content-Length", "")
    size = start + int(length) if length.isdigit() else None
    free = shutil.disk_usage(part.parent).free
    if size is not None and size - start > free:
        raise InputError(
            f"{part.parent}: the download needs {size - start:,} more bytes and {free:,} are free; "
            f"make room, then {_AGAIN}"
        )
    tag = response.headers.get("ETag", "W/")
    validator = response.headers.get("Last-Modified") if tag.startswith("W/") else tag  # no weak tags
    state = _State(url, size, validator, _md5_sent(response))
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    with part.open("r+b" if start else "wb") as file, Progress(*columns, **_where()) as progress:
        # Written only now, when old bytes of another version are gone.
        _state_path(part).write_text(json.dumps(state), encoding="utf-8")
        file.seek(start)
        task = progress.add_task(part.stem, total=size, completed=start)
        try:
            while block:
                file.write(block)
                progress.advance(task, len(block))
                block = response.read(_BLOCK)
        except _CUT:
            cut = True
        arrived = file.tell()
        file.flush()
        os.fsync(file.fileno())
    if cut or size not in (None, arrived):
        total = "unknown" if size is None else f"{size:,}"
        raise InputError(f"{url}: the connection was cut after {arrived:,} of {total} bytes; {_AGAIN}")
    return state


def _md5_sent(response: http.client.HTTPResponse) -> str | None:
    """Return the MD5 that Google Cloud Storage sends, "crc32c=…,md5=BASE64" in one header or in two.

    https://cloud.google.com/storage/docs/xml-api/reference-headers#xgooghash
    """
    match = re.search(r"md5=([\w+/]{22}==)", ",".join(response.headers.get_all("x-goog-hash", [])))
    return base64.b64decode(match[1]).hex() if match else None


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_state(part: Path) -> _State | None:
    """Return the state beside the part file; None if it is missing or damaged."""
    try:
        return _State(*json.loads(_state_path(part).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
