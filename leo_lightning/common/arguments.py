"""argparse's parser, with errors of one line."""

import argparse
from typing import NoReturn

from leo_lightning.common.errors import InputError


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser, which prints its usage only when asked to."""

    def error(self, message: str) -> NoReturn:
        """Raise the message.

        Raises:
            InputError: always.
        """
        raise InputError(f"{message}; see {self.prog} --help")
