"""The entry point."""

import io
import runpy
import subprocess
import sys

import pytest

from leo_lightning.__main__ import main
from tests.places import ROOT


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_terminal_will_do(encoding: str, monkeypatch: pytest.MonkeyPatch):
    """Catches a UnicodeEncodeError in place of a result, for want of an arrow or a file's name."""
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert main(["→"]) == 2
    print("81 ± 1 → n\udcffme", flush=True)
    sys.stderr.flush()
    assert b"unknown command" in sys.stderr.buffer.getvalue()  # pyright: ignore
    assert sys.stdout.buffer.getvalue().startswith(b"81 ")  # pyright: ignore


ENDS = """
import atexit, threading, time
from leo_lightning.__main__ import leave

class Cleared:
    def __del__(self):
        print("cleared")

kept = Cleared()
atexit.register(print, "exit function")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
leave(3)
"""


def test_the_end_of_the_program():
    """Catches a thread or an exit function that is cut off, lost output, and modules that are cleared."""
    ended = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, cwd=ROOT)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "thread\nexit function\n", "")


def test_whoever_runs_the_program_goes_on(monkeypatch: pytest.MonkeyPatch):
    """Catches a profiler, a debugger or a notebook that ends with the program, and so loses its results."""
    monkeypatch.setattr(sys, "argv", ["train.py", "nonsense"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")
    assert end.value.code == 2
