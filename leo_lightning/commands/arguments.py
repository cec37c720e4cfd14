"""What the commands beside train.py share: their parser, and how they end."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from leo_lightning.common.errors import InputError, Interrupted, disk_line


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, but it says what is wrong, and the usage only when it is asked for."""

    def error(self, message: str) -> NoReturn:
        """Raise the message.

        Raises:
            InputError: always.
        """
        raise InputError(f"{message}; see {self.prog} --help")


def exit_code(command: Callable[[], int | None], interrupted: str = "interrupted") -> int:
    """Run a command; what a user can mend becomes one line.

    Args:
        command: returns an exit code, or None for 0.
        interrupted: what is said after Ctrl-C.

    Returns:
        Its code; 2 after a user's mistake, 128 + n if signal n ended it.
    """
    try:
        return command() or 0
    except InputError as error:
        return _ended(f"error: {' '.join(str(error).split())}", 2)
    except OSError as error:
        return _ended(f"error: {disk_line(error)}", 2)
    except Interrupted as stop:
        return _ended(interrupted, 128 + stop.signal)
    except KeyboardInterrupt as stop:
        return _ended(str(stop) or interrupted, 130)


def _ended(line: str, code: int) -> int:
    print(line, file=sys.stderr)
    return code
