"""Runs on this machine: processes that submitit starts, and that end with this one."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from submitit import Job, LocalExecutor
from submitit.core.utils import UncompletedJobError

from leo_lightning.commands.jobs.verb_job import VerbJob
from leo_lightning.common.shipped import PACKAGE

MINUTES = 60 * 24 * 365 * 10
"""Time of a local job: submitit's own default is two minutes."""
GRACE = 5.0
"""Seconds that a job has to end after its lifeline was cut."""


class LocalLauncher:
    """Starts runs as processes of this machine."""

    def start(self, folder: Path, name: str, words: Sequence[str], output: Path, errors: Path) -> "LocalRun":
        """Start a run.

        Args:
            folder: folder of submitit.
            name: name of the run.
            words: the verb and its arguments.
            output: file to append stdout to.
            errors: file to append stderr to; it may be `output`.
        """
        executor = LocalExecutor(folder)
        executor.update_parameters(timeout_min=MINUTES)
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        files = [str(path.absolute()) for path in (output, errors)]
        verb = VerbJob(words, called_as(), os.getcwd(), *files, local=True, devices=devices)
        end, lifeline = os.pipe()
        try:
            with undisturbed(), importable(), _stdin(end):
                job = executor.submit(verb)
        finally:
            os.close(end)
        return LocalRun(job, lifeline)

    def continues(self, folder: Path, name: str) -> bool:
        """Return False: no run outlives the command that has started it."""
        return False


class LocalRun:
    """A verb in a process, which stops with SIGTERM.

    Its stdin is a pipe, the lifeline: the process ends at once when nobody holds the other end any more.
    """

    def __init__(self, job: "Job[int]", lifeline: int) -> None:
        self._job = job
        self._lifeline = lifeline

    def state(self) -> str:
        """`running` or `over`."""
        return "over" if self._job.done() else "running"

    def code(self) -> int | None:
        """Exit code of a run that is over; None if it left none, since it was stopped or killed."""
        return result(self._job) if self._job.paths.result_pickle.exists() else None

    def end(self) -> str:
        """Why a run that is over left no exit code."""
        return "it was killed"

    def stop(self) -> None:
        """Ask it to stop, and to save what it has."""
        if not self._job.done():
            os.kill(int(self._job.job_id), signal.SIGTERM)  # submitit hands it on

    def kill(self) -> None:
        """End it at once."""
        self.close()
        deadline = time.monotonic() + GRACE
        while not self._job.done() and time.monotonic() < deadline:
            time.sleep(0.05)
        if not self._job.done():
            os.kill(int(self._job.job_id), signal.SIGKILL)
        self._job.wait()

    def close(self) -> None:
        """Cut the lifeline, after which it cannot be running."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def result(job: "Job[int]") -> int | None:
    """Return the exit code in submitit's result; None if the verb ended with an exception."""
    try:
        return job.result()
    except UncompletedJobError:
        return None


def called_as() -> str:
    """Return the first word of a run's command line: this process's own, but the script's in a clone."""
    in_clone = PACKAGE.parent / "train.py"
    return str(in_clone if in_clone.is_file() else Path(sys.argv[0]).absolute())


@contextmanager
def importable() -> Iterator[None]:
    """Let processes that are started here find the package of a clone, whatever folder they start in."""
    if not (PACKAGE.parent / "train.py").is_file():
        yield
        return
    places = [str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(places)):
        yield


@contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Ctrl-C and SIGTERM for the end, so that no process is started of which nobody knows.

    Processes that are started here never see the terminal's Ctrl-C, nor its end.
    """
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: received.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        signal.raise_signal(received[0])


@contextmanager
def _stdin(file: int) -> Iterator[None]:
    """Let processes that are started here read a file as their stdin."""
    kept = os.dup(0)
    os.dup2(file, 0)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)
