"""The exceptions that a user can fix, and checks that raise them in one line."""

import difflib
import importlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence

# also halves of characters, which UTF-8 does not have
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class InputError(ValueError):
    """Bad input: says in one line what is wrong, where, and what to do.

    Commands print the message without a traceback and exit with code 2.
    """


class DivergedError(RuntimeError):
    """Training was stopped because loss or gradients stayed NaN or infinite."""


class Finished(Exception):
    """There is nothing left to do, as was said already; not an error, and so it ends with exit code 0."""


class FolderTaken(Exception):
    """Another run has just made the folder that this one was going to make; a second try takes another."""


class Interrupted(BaseException):
    """A signal, by its number, ended the run; not an error, and so not an Exception."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


def one_line(error: BaseException) -> str:
    """Return the message of `error` on one short line."""
    return printable(" ".join(str(error).split()) or type(error).__name__)


def printable(text: str) -> str:
    """Return text from somebody's file for a message: short, on one line, without control characters."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text[:201])
    return shown if len(shown) <= 200 else shown[:197] + "..."


def without_controls(text: str) -> str:
    """Return a name from somebody's file with ? for what a terminal would obey, and for ends of lines."""
    return text if text.isprintable() else _CONTROLS.sub("?", text)


def disk_line(error: OSError) -> str:
    """Return the file and what the disk refuses, on one line."""
    if error.strerror is None or error.filename is None:  # raised by a library, in its own words
        return error.strerror or one_line(error)
    return f"{error.filename}: {error.strerror}"


def check_least(least: int, values: Mapping[str, int | float | None]) -> None:
    """Raise an InputError that names the first setting below `least`, or infinite; None means not set."""
    for name, value in values.items():
        if value is not None and not least <= value < math.inf:
            limit = "finite" if value == math.inf else f"at least {least}"
            raise InputError(f"{name} is {value}: it must be {limit}")


def check_positive(values: Mapping[str, float | None]) -> None:
    """Raise an InputError that names the first setting not above 0, or infinite; None means not set."""
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} is {value}: it must be a number above 0")


def check_utf8(name: str) -> None:
    """Raise an InputError for the name of a file that no library, table or page can hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{printable(name)}: the name is not UTF-8; rename the file or folder") from None


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise an InputError unless a setting is one of the choices."""
    if value not in choices:
        raise InputError(f"{name} is {value!r}: it must be {' or '.join(choices)}")


def check_known(kind: str, name: object, known: Sequence[str]) -> None:
    """Raise an InputError unless a name is known; it suggests a similar name, or lists them all."""
    if name not in known:
        hint = nearest(str(name), known, f"known are {', '.join(known)}")
        raise InputError(f"{kind} {name} is unknown{hint}")


def require(package: str, reason: str) -> None:
    """Raise an InputError that says how to install an optional package, unless it can be imported."""
    try:
        importlib.import_module(package)
    except ImportError:
        raise InputError(f"{reason} needs the package {package}: pip install {package}") from None


def nearest(name: str, known: Iterable[str], otherwise: str = "see --help") -> str:
    """Return the end of a message about an unknown name: the known name most like it, or other advice."""
    known = [key for key in known if "." in key or "." not in name]  # not a section for a field in it
    similar = [key for key in known if name in (short := _initials(key), short.rsplit(".", 1)[-1])][:1]
    similar = similar or difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    if not similar:  # right name, wrong section
        leaves = {key.rsplit(".", 1)[-1]: key for key in known}
        leaf = difflib.get_close_matches(name.rsplit(".", 1)[-1], leaves, n=1, cutoff=0.8)
        similar = [leaves[key] for key in leaf]
    return f"; did you mean {similar[0]}?" if similar else f"; {otherwise}"


def _initials(key: str) -> str:
    """Shorten the last part of a name: `model.learning_rate` to `model.lr`."""
    section, _, leaf = key.rpartition(".")
    return f"{section}.{''.join(word[:1] for word in leaf.split('_'))}".removeprefix(".")
