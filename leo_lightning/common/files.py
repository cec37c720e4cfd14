"""Files that appear complete or not at all, and their checksums."""

import errno
import hashlib
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from leo_lightning.common.errors import InputError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; at the end that file replaces `path`, at once and on the disk.

    Until then `path` is what it was before, whatever happens: an exception, a full disk, a kill, a power cut.

    Raises:
        InputError: the file cannot be written.
    """
    part = part_of(path)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # so that the new name survives a power cut, too
        finally:
            os.close(folder)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        with suppress(OSError):  # on a disk that has become read-only; the error above says so
            part.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Return the temporary path of a `whole_file`."""
    return path.with_name(f".{path.name}.part")


def check_place(path: Path) -> None:
    """Raise an InputError unless a file can be written; call it before the content is computed."""
    part = part_of(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        part.touch()
        part.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> InputError:
    """Return the error for a file that cannot be written."""
    return InputError(
        f"{path}: cannot be written ({error.strerror or error}); what was there before is intact"
    )


def checksum_of(stream: IO[bytes] | io.BufferedIOBase, algorithm: Literal["sha256", "md5"] = "sha256") -> str:
    """Return the checksum of the rest of a stream, in lower case."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    while block := stream.read(2**20):
        digest.update(block)
    return digest.hexdigest()
