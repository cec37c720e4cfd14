"""Progress of all runs: one live table on a terminal, plain lines elsewhere and in progress.log."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from pathlib import Path
from types import TracebackType

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from leo_lightning.commands.jobs.metrics import Far
from leo_lightning.common.clock import clock
from leo_lightning.common.errors import without_controls

LINE_EVERY = 60.0
"""Seconds between two plain lines of a run that does not validate."""
LEAST = 5.0
"""Seconds between two plain lines of a run that validates often."""
REST = 6
"""Lines of a terminal that the table leaves to others."""
OPEN = ("running", "evaluating", "preempted", "waiting")
"""States of runs that are not over, in the order in which a low terminal drops them."""


@dataclass
class Row:
    """A run, as the table shows it."""

    label: str
    seed: int | None
    steps: int
    """Steps in all; 0 if it does not train."""
    better: Callable[[float, float], float] = max
    state: str = "waiting"
    far: Far = field(default_factory=Far)
    note: str = ""
    since: tuple[float, int] | None = None
    """When its steps were first seen to grow, and how many there were."""
    ended: float | None = None
    printed: float = field(default=0.0, repr=False)
    validations: int = field(default=0, repr=False)
    """Validations that a line has told."""

    @property
    def name(self) -> str:
        """Label and seed."""
        return self.label if self.seed is None else f"{self.label}, seed {self.seed}"

    @property
    def best(self) -> float | None:
        """The best validation."""
        scores = [score for score, _ in self.far.validations]
        return reduce(self.better, scores) if scores else None

    def left(self) -> float | None:
        """Seconds until the last step, at the speed so far, start-up left out; None if nobody knows."""
        if self.state != "running" or self.since is None or not self.steps:
            return None
        started, first = self.since
        if self.far.step <= first:
            return None
        return (time.monotonic() - started) / (self.far.step - first) * max(0, self.steps - self.far.step)


class Progress:
    """The table, the lines and the file.

    Args:
        log: file to append the lines to.
        console: where the table or the lines go.
        title: heading of the labels: method or trial.
        score: heading of the best validation.
    """

    def __init__(self, log: Path, console: Console, title: str, score: str) -> None:
        self.console = console
        self.log = log
        self.title = title
        self.score = score
        self.rows: dict[str, Row] = {}
        self._live = Live(get_renderable=self.table, console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> "Progress":
        """Show the table, on a terminal."""
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the table."""
        self._live.stop()

    def say(self, line: str) -> None:
        """Print a line, above the table, and keep it in the file."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._keep(line)

    def _keep(self, line: str) -> None:
        stamp = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        with self.log.open("a", encoding="utf-8") as file:
            file.writelines(f"{stamp}  {without_controls(part)}\n" for part in line.splitlines())

    def _tell(self, row: Row, line: str) -> None:
        """Keep a line of a run; print it where no table shows it."""
        if self.console.is_terminal:
            self._keep(f"{row.name}: {line}")
        else:
            self.say(f"{row.name}: {line}")

    def began(self, row: Row, far: Far) -> None:
        """Tell that a run was started."""
        row.state, row.far, row.since = "waiting", far, None
        row.printed, row.validations = time.monotonic(), len(far.validations)
        self._tell(row, f"started at step {far.step}" if far.step else "started")

    def went_on(self, row: Row, state: str, far: Far) -> None:
        """Tell the state of a run, and a validation that is new."""
        if row.since is None and far.step > row.far.step:
            row.since = time.monotonic(), far.step
        row.far = far
        if state != row.state:
            if "preempted" in (state, row.state):
                self._tell(row, f"{'preempted' if state == 'preempted' else 'goes on'} at step {far.step}")
                row.since = None
            row.state = state
        since, new = time.monotonic() - row.printed, len(far.validations) - row.validations
        if state == "running" and (since >= LINE_EVERY or (new > 0 and since >= LEAST)):
            row.printed, row.validations = time.monotonic(), len(far.validations)
            self._tell(row, "  ".join(self._numbers(row)))

    def over(self, row: Row, state: str, far: Far) -> None:
        """Note that a run is over, which the caller tells."""
        row.state, row.far, row.ended = state, far, time.monotonic()

    def _numbers(self, row: Row) -> list[str]:
        numbers = [f"step {row.far.step:,}" + (f"/{row.steps:,}" if row.steps else "")]
        if row.far.validations and row.best is not None:
            numbers += [f"{self.score} {_shown(row.far.validations[-1][0])}", f"best {_shown(row.best)}"]
        left = row.left()
        return numbers if left is None else [*numbers, f"{clock(left)} left"]

    def table(self) -> Table:
        """Draw the table. A low terminal gets the runs that are not over, those that run first."""
        rows, room = list(self.rows.values()), max(3, self.console.height - REST)
        if len(rows) > room:
            open_ = [row for state in OPEN for row in rows if row.state == state]
            over = [row for row in rows if row.state not in OPEN]
            over.sort(key=lambda row: row.ended or 0.0, reverse=True)
            shown = {id(row) for row in [*open_, *over][:room]}
            rows = [row for row in rows if id(row) in shown]
        drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        seeds = any(row.seed is not None for row in rows)
        for title in (
            self.title,
            *(["seed"] if seeds else []),
            "step",
            "left",
            f"best {self.score}",
            "state",
        ):
            drawn.add_column(
                title, justify="left" if title in (self.title, "state") else "right", no_wrap=True
            )
        for row in rows:
            drawn.add_row(*map(Text, _cells(row, seeds)))
        if hidden := len(self.rows) - len(rows):
            drawn.caption = f"and {hidden} more: {_counts(self.rows.values())}"
        return drawn


def _cells(row: Row, seeds: bool) -> list[str]:
    left, best = row.left(), row.best
    step = f"{row.far.step:,}/{row.steps:,}" if row.steps else ""
    return [
        without_controls(row.label),
        *([] if not seeds else [""] if row.seed is None else [str(row.seed)]),
        step,
        "" if left is None else clock(left),
        "" if best is None else _shown(best),
        without_controls(f"{row.state}: {row.note}" if row.note else row.state),
    ]


def _counts(rows: Iterable[Row]) -> str:
    states = [row.state for row in rows]
    return ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))


def _shown(score: float) -> str:
    return f"{score:.4f}" if abs(score) >= 0.01 or not score else f"{score:.3g}"
