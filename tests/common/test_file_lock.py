"""The lock of a file, between processes and between threads."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.common.file_lock import file_lock
from tests.places import ROOT

HOLDER = """
import os, sys, time
from pathlib import Path
from leo_lightning.common.file_lock import file_lock
with file_lock(Path(sys.argv[1])):
    started, told = os.pipe()
    worker = os.fork()
    if worker:
        os.read(started, 1)
        print("held", worker, flush=True)
    else:
        os.write(told, b"!")
    time.sleep(60)
"""


def test_a_killed_process_releases_its_lock(tmp_path: Path):
    """Catches a lock that nobody heeds, and one that a kill leaves behind, or leaves to a loader worker."""
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, path], cwd=ROOT, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        held, worker = holder.stdout.readline().split()
        assert held == b"held"
        who = rf"^in use \(process {holder.pid} on {socket.gethostname()}\)$"
        with pytest.raises(InputError, match=who), file_lock(path, "in use"):
            pass
        holder.kill()
        holder.wait()
        try:
            with file_lock(path, "in use"):
                pass
        finally:
            os.kill(int(worker), signal.SIGKILL)
    assert not path.exists()


def test_a_lock_is_waited_for(tmp_path: Path):
    """Catches two threads that both hold it, one in a file that is removed, and a wait that never ends."""
    path, held, order = tmp_path / "lock", threading.Event(), []

    def second() -> None:
        held.wait()
        with file_lock(path):
            order.append("second")
            with pytest.raises(InputError, match=r"^in use \("), file_lock(path, "in use"):
                order.append("third")

    thread = threading.Thread(target=second)
    thread.start()
    with file_lock(path):
        held.set()
        thread.join(0.2)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert not path.exists()


def test_an_error_of_the_work_is_not_taken_for_a_held_lock(tmp_path: Path):
    """Catches a BlockingIOError of the caller's own that becomes "in use"."""
    with pytest.raises(BlockingIOError), file_lock(tmp_path / "lock", "in use"):
        raise BlockingIOError
