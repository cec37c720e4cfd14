"""Processes for tests, forked from a server that has already imported what takes seconds.

    child = start("fit", f"--run.root={root}")      # python train.py fit --run.root=...
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate()
    assert child.returncode == 128 + signal.SIGTERM

A `Child` has the methods of `subprocess.Popen` that tests need. A test of how an interpreter starts needs
`subprocess` itself.
"""

import atexit
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from tests.places import ROOT

PROGRAM = "leo_lightning.__main__:main"
PRELOADED = ("leo_lightning.__main__", "leo_lightning.commands.train", "torch.utils.tensorboard")


class Child:
    """A process that was started by `start`.

    Attributes:
        pid: its number.
        returncode: its exit code, -n if signal n killed it; None until `poll` or `wait` has seen it end.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid = pid
        self.folder = folder
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while the process runs."""
        if self.returncode is None and (self.folder / "code").exists():
            self.returncode = int((self.folder / "code").read_text())
        return self.returncode

    def wait(self, timeout: float = 120) -> int:
        """Wait for the end; the exit code. A process that takes longer is killed, and the test fails."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"still running after {timeout} s: {self.output()}")
            time.sleep(0.005)
        return code

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """Wait for the end; what was written to stdout and stderr."""
        self.wait(timeout)
        return self.output()

    def output(self) -> tuple[str, str]:
        """What was written to stdout and stderr so far; nothing if these are a terminal."""
        files = (self.folder / "out", self.folder / "err")
        out, err = (path.read_text(errors="replace") if path.exists() else "" for path in files)
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    *arguments: str,
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    terminal: str | None = None,
    target: str = PROGRAM,
) -> Child:
    """Start a process: `python train.py ARGUMENTS`, or another function that takes them as a list.

    Args:
        arguments: of the command line.
        cwd: where it runs.
        environment: all of its variables; None: ours.
        terminal: path of a terminal to run at, in place of /dev/null and files.
        target: MODULE:FUNCTION; what the function returns is the exit code.
    """
    folder = Path(tempfile.mkdtemp(dir=_folder()))
    request = {
        "arguments": arguments,
        "cwd": str(cwd),
        "environment": dict(os.environ if environment is None else environment),
        "streams": [terminal] * 3 if terminal else ["/dev/null", str(folder / "out"), str(folder / "err")],
        "target": target,
        "folder": str(folder),
    }
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(request) + "\n")
    server.stdin.flush()
    return Child(int(server.stdout.readline()), folder)


def run(*arguments: str, **options) -> Child:
    """Start a process as `start` does, and wait for its end."""
    child = start(*arguments, **options)
    child.wait()
    return child


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="children-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.child"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,  # pytest's is a file: its position would be asked of a terminal
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests, which end the server
    )
    atexit.register(server.communicate)
    return server


def _serve() -> None:
    """Fork a child for each line of stdin, and note how each one ends; at the end of stdin kill them all."""
    from leo_lightning.runs.process import prepare_lightning, prepare_process

    prepare_process(one_thread=True)
    prepare_lightning()
    for module in PRELOADED:
        import_module(module)
    sys.modules["__main__"].__spec__ = None  # so that Lightning starts its other processes as train.py
    running: dict[int, Path] = {}
    while True:
        if select.select([sys.stdin], [], [], 0.01)[0]:
            line = sys.stdin.readline()
            if not line:
                break
            request = json.loads(line)
            pid = os.fork()
            if pid == 0:
                _become(**request)
            running[pid] = Path(request["folder"])
            print(pid, flush=True)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                folder = running.pop(pid)
                (folder / "part").write_text(str(os.waitstatus_to_exitcode(status)))
                (folder / "part").rename(folder / "code")
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def _become(
    arguments: list[str],
    cwd: str,
    environment: dict[str, str],
    streams: list[str],
    target: str,
    folder: str,
) -> NoReturn:
    """Turn a fork of the server into the process that was asked for."""
    from leo_lightning.__main__ import leave

    os.setsid()
    for number, path in enumerate(streams):
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [str(ROOT / "train.py"), *arguments]
    sys.stdout.reconfigure(line_buffering=os.isatty(1))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python starts, even in the background
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # even under nohup
    module, _, name = target.partition(":")
    try:
        code = getattr(import_module(module), name)(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    leave(code or 0)


if __name__ == "__main__":
    _serve()
