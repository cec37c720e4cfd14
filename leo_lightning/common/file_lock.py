"""file_lock: one process at a time works in a folder."""

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from leo_lightning.common.errors import InputError, printable

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of file systems without locks."""
_held: set[IO[str]] = set()


@contextmanager
def file_lock(path: Path, held: str | None = None) -> Iterator[None]:
    """Hold the lock of a file. The system releases it if this process is killed.

    Args:
        path: the file, which exists while the lock is held, or if its holder was killed.
        held: what to tell the user if somebody else holds the lock, before who it is; None waits for it.

    Raises:
        InputError: somebody else holds the lock.
    """
    file = _locked(path, held)
    while not _is_in_place(file, path):  # its last holder has removed it
        file.close()
        file = _locked(path, held)
    _held.add(file)
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        _held.discard(file)
        file.close()


def _locked(path: Path, held: str | None) -> IO[str]:
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX if held is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        who = printable(file.read())
        file.close()
        raise InputError(f"{held} ({who})" if who else held) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            file.close()
            raise
    return file


def _is_in_place(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _let_go() -> None:
    """Close the files of the parent: else its locks would last as long as its loader workers."""
    for file in list(_held):
        file.close()


os.register_at_fork(after_in_child=_let_go)
