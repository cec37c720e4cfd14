"""The parser of the commands beside train.py."""

import argparse
from typing import NoReturn

from leo_lightning.errors import InputError


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, but it says what is wrong, and the usage only when it is asked for."""

    def error(self, message: str) -> NoReturn:
        """Raise the message.

        Raises:
            InputError: always.
        """
        raise InputError(f"{message}; see {self.prog} --help")
