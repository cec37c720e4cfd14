"""A process that is killed at a given moment."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Step = Callable[..., None]
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")


@contextmanager
def forked() -> Iterator[int]:
    """Fork: yield the child's process id in the parent, 0 in the child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about threads, which have ended
        child = os.fork()
    try:
        yield child
    finally:
        if child == 0:
            os._exit(0)


def killed(at: int, work: Callable[[Step], object]) -> bool:
    """Work in a child that is killed before step number `at`, a change to the disk or a call of the argument.

    Returns:
        Whether it was killed; otherwise it has finished.
    """
    steps = 0

    def one_more(*_: object) -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple) -> None:
        writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or event in CHANGES:
            one_more()

    with forked() as child:
        if child == 0:
            sys.addaudithook(audit)
            work(one_more)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)
