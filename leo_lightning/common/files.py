"""whole_file: a file appears under its name complete, or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from leo_lightning.common.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; what was written there then replaces `path`, at once and on the disk.

    Until then `path` is what it was before, whatever happens: an exception, a full disk, a kill, a power cut.

    Raises:
        InputError: it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the renaming, too
        finally:
            os.close(folder)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):  # on a disk that has become read-only; the error above says so
            part.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """Check that a file can be written, before what is to be in it is made.

    Raises:
        InputError: says why it cannot.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        part.touch()
        part.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); name another place with --out"
        ) from None


def cannot_write(path: Path, error: OSError) -> InputError:
    """The line for a file that the disk does not take."""
    return InputError(
        f"{path}: cannot be written ({error.strerror or error}); make room or mend the permissions. "
        "What was there before is intact"
    )
