"""Run a verb of `python -m leo_lightning` in a process of its own.

Children are forked from a server that has imported everything, so they start at once. A child has its own
session: Ctrl-C in the terminal reaches only its parent, which stops it. A child ends with its parent.
"""

import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType

from leo_lightning.__main__ import main
from leo_lightning.common.errors import Interrupted, printable
from leo_lightning.common.shipped import PACKAGE

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["leo_lightning.commands.train"])

LOOK = 0.5
"""Seconds between two looks at a child."""
PATIENCE = 60.0
"""Seconds that a child has to stop, and to save what it has, before it is killed."""


def run_child(
    words: Sequence[str], output: Path, errors: Path, over: Callable[[], bool] = lambda: False
) -> int:
    """Run a verb to its end; return its exit code, or -n if signal n ended it.

    An exception, such as Ctrl-C, stops the child like `over` does; a second one kills it.

    Args:
        words: the verb and its arguments.
        output: file to append stdout to.
        errors: file to append stderr to; it may be `output`.
        over: called every `LOOK` seconds; True stops the child with SIGTERM.
    """
    child = _processes.Process(target=_run, args=(words, os.getcwd(), output, errors))
    child.start()
    try:
        while child.is_alive() and not over():
            child.join(LOOK)
    finally:
        try:
            if child.is_alive():
                child.terminate()
                child.join(PATIENCE)
        finally:
            child.kill()
            child.join()
    code = child.exitcode
    child.close()
    assert code is not None
    return code


def _run(words: Sequence[str], folder: str, output: Path, errors: Path) -> None:
    os.setsid()
    # Lightning starts the processes of further devices by it; in a wheel it is the command that was typed
    script = in_clone if (in_clone := PACKAGE.parent / "train.py").is_file() else Path(sys.argv[0]).absolute()
    os.chdir(folder)
    for path, stream in ((output, 1), (errors, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, stream)
        os.close(file)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)  # in order with stderr
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.argv = [str(script), *words]
    sys.exit(main(words))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def failure(code: int, errors: Path) -> str:
    """Why a child failed: its last line, or the signal that ended it."""
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return last_line(errors).removeprefix("error: ") or f"ended with exit code {code}"


def last_line(path: Path) -> str:
    """Return the last line of a file that is not blank, short; empty if there is none."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), ""))


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise `Interrupted`, so that it stops children like Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
