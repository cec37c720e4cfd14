"""Shared by the commands beside train.py: their parser, and their exit codes."""

import sys
from collections.abc import Callable

from leo_lightning.common.arguments import ArgumentParser as ArgumentParser
from leo_lightning.common.errors import InputError, Interrupted, disk_line


def exit_code(command: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Run a command; errors that a user can fix become one line.

    Args:
        command: returns an exit code, or None for 0.
        interrupted: line after Ctrl-C.

    Returns:
        The command's code; 2 after a user's mistake, 128 + n if signal n ended it.
    """
    try:
        return command() or 0
    except InputError as error:
        return _failed(f"error: {' '.join(str(error).split())}", 2)
    except OSError as error:
        return _failed(f"error: {disk_line(error)}", 2)
    except Interrupted as stop:
        return _failed(interrupted, 128 + stop.signal)
    except KeyboardInterrupt as stop:
        return _failed(str(stop) or interrupted, 130)


def _failed(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
