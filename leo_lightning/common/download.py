"""Downloads one large file, and continues where it stopped.

The bytes go to `PATH.part`; what is needed to continue (the address, the size, the server's name for this
version of the file) goes to `PATH.part.json`. Both are gone when the download is complete.

What has arrived is kept where it is of use: after a cut connection, Ctrl-C or a full disk. Nothing is kept of
a file that the server does not have, nor of one whose checksum is wrong.
"""

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from leo_lightning.common.errors import InputError

TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 2**18
_AGAIN = "run the same command again to continue"
_CUT = (ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)


class _State(NamedTuple):
    """What the part file is a part of."""

    url: str
    size: int | None
    validator: str | None


def download(url: str, path: Path, md5: str | None = None) -> Path:
    """Download `url` to `path`, continuing an earlier attempt if the file has not changed since.

    A file that is there already is left as it is, if its checksum is right.

    Args:
        url: an http or https address.
        path: where the file goes; it appears there only when complete and checked.
        md5: checksum of the file, in lower case; None: there is none to compare with.

    Returns:
        `path`.

    Raises:
        InputError: the address is wrong, the connection was cut, or the disk is full. What has arrived is
            kept if it is of use. Or the checksum is another one: then the file is removed.
    """
    path = Path(path)
    if path.is_file():
        _check_md5(path, url, md5)
        return path
    if not re.match(r"https?://[^/\s]+", url):
        raise InputError(f"'{url}' is not a web address; give one that starts with http:// or https://")
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        start, complete = _resumable(url, part)
        if not complete:
            with _open(url, part, start) as response:
                _receive(url, response, part)
        _check_md5(part, url, md5)
        os.replace(part, path)
        _state_path(part).unlink(missing_ok=True)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise InputError(f"{path.parent}: the disk is full; make room, then {_AGAIN}") from None
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path


def md5_of(path: Path) -> str:
    """Return the MD5 of a file, in lower case."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file, _progress() as progress:
        task = progress.add_task(f"checking {path.name.removesuffix('.part')}", total=path.stat().st_size)
        while block := file.read(_BLOCK):
            digest.update(block)
            progress.advance(task, len(block))
    return digest.hexdigest()


def _check_md5(file: Path, url: str, md5: str | None) -> None:
    """Remove what has another checksum than it should have."""
    if md5 is None:
        return
    found = md5_of(file)
    if found != md5:
        file.unlink()
        _state_path(file).unlink(missing_ok=True)
        raise InputError(
            f"{url}: the file was damaged on its way, or has changed (its MD5 is {found}, not {md5}), and "
            "was removed; run the same command again to download it anew"
        )


def _resumable(url: str, part: Path) -> tuple[int, bool]:
    """Return how many bytes of `part` can be kept, and whether these are all.

    None can be kept unless they are known to come from this address.
    """
    state = _read_state(part)
    if state is None or state.url != url or not part.exists():
        return 0, False
    size = part.stat().st_size
    return size, size == state.size


def _open(url: str, part: Path, start: int) -> http.client.HTTPResponse:
    """Ask for the file from byte `start`, or from the beginning if the server does not honour that."""
    headers = {"User-Agent": "leo-lightning", "Accept-Encoding": "identity"}
    state = _read_state(part)
    if start:
        headers["Range"] = f"bytes={start}-"
        if state is not None and state.validator:
            headers["If-Range"] = state.validator
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:  # nothing lies behind `start`: the part is of another version
            return _open(url, part, 0)
        raise InputError(_refusal(url, error)) from None
    except urllib.error.URLError as error:
        raise InputError(_unreachable(url, error.reason)) from None
    except (ValueError, http.client.InvalidURL) as error:
        raise InputError(f"'{url}' is not a web address ({error}); check it") from None
    except _CUT as error:
        raise InputError(_unreachable(url, error)) from None
    if start and (response.status != 206 or not _continues(response, start, state)):
        if response.status == 206:
            response.close()
            return _open(url, part, 0)
        start = 0  # the server sends the whole file
    if response.status == 206 and not start:
        response.close()
        raise InputError(f"{url}: the server sent a part of the file without being asked; try again later")
    return response


def _continues(response: http.client.HTTPResponse, start: int, state: _State | None) -> bool:
    """Return whether the server's answer goes on where the part file ends."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != start:
        return False
    return match[2] == "*" or state is None or state.size in (None, int(match[2]))


def _receive(url: str, response: http.client.HTTPResponse, part: Path) -> None:
    """Write the answer behind what is there already (206), or afresh (200), and check the size."""
    start = part.stat().st_size if response.status == 206 else 0
    length = response.headers.get("Content-Length")
    size = start + int(length) if length and length.isdigit() else None
    _check_room(part, 0 if size is None else size - start)
    with part.open("r+b" if start else "wb") as file:
        # Only now, when old bytes of another version are gone, may the state speak of the new version.
        _write_state(part, _State(url, size, _validator(response)))
        file.seek(start)
        arrived = start
        with _progress() as progress:
            task = progress.add_task(part.name.removesuffix(".part"), total=size, completed=start)
            try:
                while block := response.read(_BLOCK):
                    file.write(block)
                    arrived += len(block)
                    progress.update(task, completed=arrived)
            except _CUT:
                raise InputError(f"{url}: {_cut_short(arrived, size)}; {_AGAIN}") from None
        file.flush()
        os.fsync(file.fileno())
    if size is not None and arrived != size:
        raise InputError(f"{url}: {_cut_short(arrived, size)}; {_AGAIN}")


def _cut_short(arrived: int, size: int | None) -> str:
    return f"the connection was cut after {arrived:,} of {'unknown' if size is None else f'{size:,}'} bytes"


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise InputError(
            f"{part.parent}: the download needs {needed:,} more bytes and {free:,} are free; "
            f"make room, then {_AGAIN}"
        )


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,  # a file gets nothing but an error
    )


def _refusal(url: str, error: urllib.error.HTTPError) -> str:
    if error.code in (404, 410):
        return f"{url}: there is no such file (the server answered {error.code}); check the address"
    if error.code in (401, 403):
        return f"{url}: the server does not give the file away (it answered {error.code}); check the address"
    return f"{url}: the server answered {error.code} {error.reason}; try again later"


def _unreachable(url: str, reason: object) -> str:
    if isinstance(reason, socket.gaierror):
        return f"{url}: the host was not found; check the address and the network"
    if isinstance(reason, ConnectionRefusedError):
        return f"{url}: the host refused the connection; check the address, or try again later"
    if isinstance(reason, TimeoutError):
        return f"{url}: no answer within {TIMEOUT:g} seconds; check the network, or try again later"
    return f"{url}: cannot be reached ({' '.join(str(reason).split())}); check the address and the network"


def _validator(response: http.client.HTTPResponse) -> str | None:
    """Return the server's name for this version of the file; a weak ETag may not be used to continue."""
    tag = response.headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else response.headers.get("Last-Modified")


def _state_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _write_state(part: Path, state: _State) -> None:
    _state_path(part).write_text(json.dumps(state._asdict()), encoding="utf-8")


def _read_state(part: Path) -> _State | None:
    """Return what was written beside the part file; None if it is missing or unreadable."""
    try:
        content = json.loads(_state_path(part).read_text(encoding="utf-8"))
        state = _State(content["url"], content["size"], content["validator"])
    except (OSError, ValueError, TypeError, KeyError):
        return None
    good = (
        isinstance(state.url, str)
        and isinstance(state.size, int | None)
        and isinstance(state.validator, str | None)
    )
    return state if good else None
