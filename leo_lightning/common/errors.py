"""The exceptions that a user can mend, and how they and those of other libraries become one line."""

import difflib
import errno
import importlib
from collections.abc import Iterable, Mapping, Sequence


class InputError(ValueError):
    """Bad input: says in one line what is wrong, where, and what to do.

    Commands print the message without a traceback and exit with code 2.
    """


class DivergedError(RuntimeError):
    """Training was stopped because its steps kept being not finite."""


class Interrupted(BaseException):
    """A signal ended the run; no error, and so no Exception.

    Args:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


def one_line(error: BaseException) -> str:
    """Return the message of `error` on one short line."""
    return printable(" ".join(str(error).split()) or type(error).__name__)


def printable(text: str) -> str:
    """Return text out of somebody's file for a message: short, on one line, nothing that a terminal obeys."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:201])
    return shown if len(shown) <= 200 else shown[:197] + "..."


def disk_line(error: OSError) -> str:
    """Return what the disk or its rights refuse, where, and what to do, on one line."""
    if error.strerror is None:  # raised by a library, in its own words
        return one_line(error)
    advice = {
        errno.ENOSPC: "; make room, then run it again",
        errno.EDQUOT: "; make room, then run it again",
        errno.EFBIG: "; write to a disk that takes larger files",
        errno.EACCES: "; name another place, or ask for the rights",
        errno.EPERM: "; name another place, or ask for the rights",
        errno.EROFS: "; name another place",
    }.get(error.errno or 0, "")
    where = "" if error.filename is None else f"{error.filename}: "
    return f"{where}{error.strerror}{advice}"


def check_least(least: int, values: Mapping[str, int | float | None]) -> None:
    """Check that no setting is too small; one that is None is not set.

    Args:
        least: the smallest value allowed.
        values: settings by the names that a configuration calls them.

    Raises:
        InputError: names the first that is smaller.
    """
    for name, value in values.items():
        if value is not None and not value >= least:
            raise InputError(f"{name} is {value}: it must be at least {least}")


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Check that a setting is one of those there are.

    Raises:
        InputError: says which there are.
    """
    if value not in choices:
        raise InputError(f"{name} is {value!r}: it must be {' or '.join(choices)}")


def require(package: str, reason: str) -> None:
    """Check that a package can be imported that only some runs need.

    Raises:
        InputError: says how to install it.
    """
    try:
        importlib.import_module(package)
    except ImportError:
        raise InputError(f"{reason} needs the package {package}: pip install {package}") from None


def nearest(name: str, known: Iterable[str], otherwise: str = "see --help") -> str:
    """Return what to say after an unknown name: the known one that looks like it, or where to look.

    Args:
        name: the unknown one.
        known: what it may have been meant to be.
        otherwise: what to say if it looks like none of them.
    """
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if not near:  # right name, wrong section
        leaves = {key.rsplit(".", 1)[-1]: key for key in known}
        near = [
            leaves[leaf]
            for leaf in difflib.get_close_matches(name.rsplit(".", 1)[-1], leaves, n=1, cutoff=0.8)
        ]
    return f"; did you mean {near[0]}?" if near else f"; {otherwise}"
