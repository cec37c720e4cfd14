"""Runner: runs side by side, so many at a time, shown in one table."""

import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType

from leo_lightning.commands.jobs.launcher import Launcher, Started
from leo_lightning.commands.jobs.metrics import Far, RunMetrics
from leo_lightning.commands.jobs.progress import Progress, Row
from leo_lightning.common.errors import Interrupted, printable

LOOK = 0.5
"""Seconds between two looks at the runs."""
PATIENCE = 60.0
"""Seconds that a run has to stop, and to save what it has, before it is killed."""


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Job:
    """A run that is to be done."""

    name: str
    """Name of its row, and of its files in out/jobs."""
    words: Sequence[str]
    """The verb and its arguments."""
    metrics: RunMetrics
    output: Path
    """File to append stdout to."""
    errors: Path
    """File to append stderr to; it may be `output`."""
    over: Callable[[], bool] = _never
    """Called at each look; True stops the run."""


@dataclass(frozen=True)
class Ended:
    """A run that is over."""

    job: Job
    code: int | None
    """Exit code; None if it was stopped or killed."""
    stopped: bool
    """Whether it was stopped because `over` said so."""
    seconds: float
    """Time since it was started."""
    reason: str
    """Why it failed, in a line; empty if it did not."""


@dataclass
class _Running:
    job: Job
    run: Started
    since: float = field(default_factory=time.monotonic)
    stopping: float | None = None
    """When it was asked to stop."""


class Runner:
    """Runs side by side. Leaving the `with` block stops those that are not over.

    Args:
        launcher: where they take place.
        jobs: how many at a time.
        out: output folder; submitit's files go to `jobs` in it.
        progress: the table, which has a row of each job's name.
    """

    def __init__(self, launcher: Launcher, jobs: int, out: Path, progress: Progress) -> None:
        self.launcher = launcher
        self.jobs = jobs
        self.folder = out / "jobs"
        self.progress = progress
        self._running: list[_Running] = []
        self._ended: deque[Ended] = deque()
        self._next: Callable[[], Job | None] = lambda: None
        self._exhausted = True
        self._looked = 0.0
        self._trouble: Exception | None = None

    def __enter__(self) -> "Runner":
        """Begin."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what still runs, with the patience that it needs to save; a second Ctrl-C kills it."""
        try:
            if self._running:
                self.progress.say(f"stopping {len(self._running)} of the runs, which save what they have")
            for one in self._running:
                one.run.stop()
            deadline = time.monotonic() + PATIENCE
            while (running := self._still_running()) and time.monotonic() < deadline:
                time.sleep(LOOK / 5)
            self._running = running
        finally:
            for one in self._running:
                one.run.kill()
                one.run.close()

    def run(self, following: Callable[[], Job | None]) -> Iterator[Ended]:
        """Start jobs; return an iterator over those that are over, which starts the others.

        Args:
            following: gives the next job when there is room for one, or None. Then it is asked again when a
                run is over, after the iterator's user is done with that run.
        """
        self._next, self._exhausted = following, False
        self._fill()
        return self._over()

    def _over(self) -> Iterator[Ended]:
        while True:
            if self._trouble is not None:
                raise self._trouble
            if not self._ended:
                self._fill()
                self._collect()
            if self._ended:
                self._exhausted = False
                yield self._ended.popleft()
            elif self._running:
                time.sleep(LOOK)
            else:
                return

    def look(self) -> None:
        """Look at the runs and start what there is room for, in the middle of other work.

        An error is raised by the iterator of `run`: it has nothing to do with that work.
        """
        if time.monotonic() < self._looked + LOOK:
            return
        self._looked = time.monotonic()
        try:
            self._collect()
            self._fill()
        except Exception as error:
            self._trouble = error

    def _fill(self) -> None:
        while len(self._running) < self.jobs and not self._exhausted:
            job = self._next()
            if job is None:
                self._exhausted = True
                return
            run = self.launcher.start(self.folder, job.name, job.words, job.output, job.errors)
            self._running.append(_Running(job, run))
            self.progress.began(self._row(job), job.metrics.far())

    def _collect(self) -> None:
        for one in list(self._running):
            state, far = one.run.state(), one.job.metrics.far()
            if state == "over":
                self._running.remove(one)
                self._ended.append(self._end(one, far))
                continue
            self.progress.went_on(self._row(one.job), state, far)
            if one.stopping is None and one.job.over():
                one.stopping = time.monotonic()
                one.run.stop()
            elif one.stopping is not None and time.monotonic() > one.stopping + PATIENCE:
                one.stopping = math.inf  # once
                one.run.kill()

    def _still_running(self) -> list[_Running]:
        return [one for one in self._running if one.run.state() != "over"]

    def _end(self, one: _Running, far: Far) -> Ended:
        one.run.close()
        code, stopped = one.run.code(), one.stopping is not None
        if code is None:
            reason = "" if stopped else one.run.end()
        else:
            reason = failure(code, one.job.errors) if code else ""
        self.progress.over(
            self._row(one.job), "failed" if reason else "ended early" if stopped else "done", far
        )
        return Ended(one.job, code, stopped, time.monotonic() - one.since, reason)

    def _row(self, job: Job) -> Row:
        return self.progress.rows[job.name]


def failure(code: int, errors: Path) -> str:
    """Return why a run failed: its last line."""
    return last_line(errors).removeprefix("error: ") or f"ended with exit code {code}"


def last_line(path: Path) -> str:
    """Return the last line of a file that is not blank, short; empty if there is none."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return printable(next((line.strip() for line in reversed(lines) if line.strip()), ""))


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM raise `Interrupted`, so that it stops runs like Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
