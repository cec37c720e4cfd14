"""Verb in a job: what submitit pickles, and calls in a Python of its own.

Slow imports are inside the methods, so that a job that is not wanted any more ends at once.
"""

import atexit
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from submitit.core.utils import DelayedSubmission

AFTER_SIGTERM = 30.0
"""Seconds that a stopped SLURM job waits for SIGUSR2: SIGTERM comes first, of a preemption or of scancel."""


class VerbJob:
    """Runs a verb of `python -m leo_lightning` when it is called, and returns its exit code.

    A run that a signal has stopped ends the process and so leaves no result. If the signal was SLURM's, for a
    job that must make room or whose time is up, the job is requeued first: the run has saved its last step.

    Args:
        words: the verb and its arguments.
        program: first word of the command line.
        folder: working folder.
        output: file to append stdout to.
        errors: file to append stderr to; it may be `output`.
        local: whether the job ends with the process that started it, which holds the other end of its stdin.
        devices: CUDA_VISIBLE_DEVICES of a local job, which submitit replaces; None if it was not set.
    """

    def __init__(
        self,
        words: Sequence[str],
        program: str,
        folder: str,
        output: str,
        errors: str,
        local: bool,
        devices: str | None = None,
    ) -> None:
        self.words = list(words)
        self.program = program
        self.folder = folder
        self.output = output
        self.errors = errors
        self.local = local
        self.devices = devices
        self._left = False

    def __call__(self) -> int:
        """Run the verb."""
        atexit.register(self._leave)  # first, and so called last
        requeue = signal.getsignal(signal.SIGUSR2)  # submitit's, until a training listens
        if self.local:
            threading.Thread(target=_end_with_parent, daemon=True).start()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # which submitit ignores
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if self.devices is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self.devices
        os.chdir(self.folder)
        with _redirected(Path(self.output), Path(self.errors)):
            gc.disable()  # until all is imported
            from leo_lightning.__main__ import main

            # Lightning starts the processes of further devices by them
            sys.argv = [self.program, *self.words]
            sys.modules["__main__"].__spec__ = find_spec("leo_lightning.__main__")
            try:
                code = main(self.words)
            except Exception:  # a bug: its last line is the reason that is shown
                traceback.print_exc()
                code = 1
        if code == 128 + signal.SIGTERM and not self.local:
            signal.signal(signal.SIGUSR2, requeue)
            time.sleep(AFTER_SIGTERM)
        if code == 128 + signal.SIGUSR2 and callable(requeue):
            requeue(signal.SIGUSR2, None)
        if code > 128:
            sys.exit(code)
        self._left = True
        return code

    def _leave(self) -> None:
        """End the process once its result is written, without clearing torch's modules, which takes long."""
        if self._left:
            sys.stdout.flush()
            os._exit(0)

    def checkpoint(self) -> DelayedSubmission:
        """Return what the requeued job calls: the same, since it resumes by itself."""
        return DelayedSubmission(self)


def _end_with_parent() -> None:
    while os.read(0, 1):  # nothing is ever written
        pass
    os._exit(1)


@contextmanager
def _redirected(output: Path, errors: Path) -> Iterator[None]:
    """Append stdout and stderr to files, and leave them to submitit again at the end."""
    kept = {stream: os.dup(stream) for stream in (1, 2)}
    for path, stream in ((output, 1), (errors, 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, stream)
        os.close(file)
    try:
        yield
    finally:
        for stream, file in kept.items():
            os.dup2(file, stream)
            os.close(file)
