"""file_lock: one process at a time works in a folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leo_lightning.common.errors import InputError


@contextmanager
def file_lock(path: Path, held: str | None = None) -> Iterator[None]:
    """Hold the lock of a file. The system releases it if this process is killed.

    Args:
        path: the file, created if it is missing and removed at the end.
        held: what to tell the user if somebody else holds the lock; None waits for it.

    Raises:
        InputError: somebody else holds the lock.
    """
    while True:
        with path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX if held is None else fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(held) from None
            if not _is_at(path, file.fileno()):  # its last holder has removed it
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
