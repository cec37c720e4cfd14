"""The one exception for anything a user can mend."""


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
