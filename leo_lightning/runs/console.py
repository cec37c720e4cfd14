"""RunConsole: where a run prints, and what happens when nobody reads that any more."""

import errno
import signal
from collections.abc import Callable

from rich.console import Console

from leo_lightning.common.closed_pipe import drop_unread_output
from leo_lightning.common.errors import Interrupted


class RunConsole(Console):
    """A console whose closed end (`| head`, a closed terminal) stops the run like a signal.

    Attributes:
        stop: called with SIGPIPE when the output has no reader any more. At first it ends the run at once.
    """

    def __init__(self, quiet: bool) -> None:
        super().__init__(quiet=quiet)
        self.stop: Callable[[int], None] = _end

    def on_broken_pipe(self) -> None:
        """Print nothing more, and stop the run."""
        self.quiet = True
        drop_unread_output()
        self.stop(signal.SIGPIPE)

    def _check_buffer(self) -> None:
        try:
            super()._check_buffer()
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that was closed
                raise
            self.on_broken_pipe()


def _end(number: int) -> None:
    raise Interrupted(number)
