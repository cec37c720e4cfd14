"""What reading a hostile file may not do: run anything, write elsewhere, hang, or fill the memory."""

import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from leo_lightning.common.errors import InputError

SECONDS = 10  # of the processor's time, which other processes do not lengthen; six times that on the clock
MEMORY = 2**30
FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.kill",
    "os.chown", "os.symlink", "os.link", "subprocess.Popen", "pty.spawn", "socket.connect",
    "socket.bind", "urllib.Request", "ctypes.dlopen", "pickle.find_class", "webbrowser.open",
)  # fmt: skip
EXPECTED = [("git",), ("libnvidia-ml.so.1",)]  # results.json names the commit and the GPU
CHANGES = ("os.remove", "os.rmdir", "os.mkdir", "os.rename", "os.truncate", "os.chmod", "shutil.")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_folder: Path | None = None  # writing is expected here; None: not watching
_seen: list[str] = []


class Hang(BaseException):
    """Reading took too long. No product code catches it."""


def _inside(path: object) -> bool:
    if isinstance(path, int) or path is None:
        return True
    return Path(os.fsdecode(path)).absolute().is_relative_to(_folder or "/")  # pyright: ignore


def _audit(event: str, arguments: tuple) -> None:
    if _folder is None:
        return
    bad = event.startswith(FORBIDDEN) and arguments[:1] not in EXPECTED
    if event == "open":
        path, _, flags = arguments
        bad = bool((flags or 0) & WRITES) and not _inside(path)
    elif event.startswith(CHANGES):
        within = arguments[-1]  # of rmtree: the open folder that the name is in
        bad = not _inside(arguments[0]) and not (isinstance(within, int) and within >= 0)
    if bad:
        _seen.append(f"{event} {arguments!r:.200}")


sys.addaudithook(_audit)


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Fail if what runs here executes something, writes outside `folder`, hangs, or grows by a GiB.

    The memory is the greatest that the process ever held, so all examples together must keep the limit.
    """
    global _folder

    def hang(*_: object) -> None:
        raise Hang(f"still reading after {SECONDS} s")

    before = {number: signal.signal(number, hang) for number in (signal.SIGPROF, signal.SIGALRM)}
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    # a safety net for the machine that tests; what counts is measured below
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 8 * MEMORY, limits[1]))
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)
    _folder, old_temporary, tempfile.tempdir = folder.absolute(), tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        _folder, tempfile.tempdir = None, old_temporary
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        seen = _seen.copy()
        _seen.clear()
    assert not seen, seen
    assert time.process_time() - started < SECONDS
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) * 1024
    assert grown < MEMORY, f"{grown / 2**20:.0f} MiB"


def outcome(read: Callable[[], object], folder: Path) -> object | InputError:
    """What `read` returns, or its InputError, which is one line that a terminal can show."""
    with watched(folder):
        try:
            return read()
        except InputError as error:
            refusal = error
    text = str(refusal)
    assert text, "an empty line"
    assert text.splitlines() == [text], repr(text)
    assert text.isprintable(), repr(text)
    assert len(text) < 2000, len(text)
    text.encode()
    return refusal
