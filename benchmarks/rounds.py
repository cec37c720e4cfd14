"""Measuring: every row once per round, so that a slow minute of the machine slows all rows alike."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Row(NamedTuple):
    """Something to be timed."""

    name: str
    label: str
    seconds: Callable[[], float]
    """Does the work; seconds that one unit of it took. Its first call is a warm-up."""
    tasks: int = 0
    """Tasks in a unit, where tasks per second mean something."""
    rounds: int | None = None
    """Measured in the first so many rounds only, without a warm-up; None: in all."""


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, samples: list[float]) -> "Spread":
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        q1, median, q3 = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, q1, q3)

    @property
    def relative(self) -> float:
        """Distance of the quartiles by the median."""
        return (self.q3 - self.q1) / self.median


@dataclass
class Measurement:
    """What the rounds found for a row, and the ratio to the unit of the same round."""

    row: Row
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)


@dataclass
class Repeated:
    """Calls `work` for about `budget` seconds; the first time fixes how often."""

    work: Callable[[], object]
    budget: float
    calls: int = 0

    def __call__(self) -> float:
        if not self.calls:
            self._time(3)
            self.calls = max(1, round(self.budget / self._time(3)))
        return self._time(self.calls)

    def _time(self, calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            self.work()
        return (time.perf_counter() - start) / calls


def measure(rows: list[Row], rounds: int, progress: Callable[[str], None]) -> dict[str, Measurement]:
    """Time all rows; the first one is the unit.

    Args:
        rows: what to time.
        rounds: how often.
        progress: is told what comes next.
    """
    for row in rows:
        if row.rounds is None:
            progress(f"warm-up: {row.label}")
            row.seconds()
    found = {row.name: Measurement(row) for row in rows}
    for number in range(rounds):
        gc.collect()
        for row in rows:
            if row.rounds is not None and number >= row.rounds:
                continue
            progress(f"round {number + 1} of {rounds}: {row.label}")
            found[row.name].seconds.append(row.seconds())
            found[row.name].ratios.append(found[row.name].seconds[-1] / found[rows[0].name].seconds[-1])
    return found


def calls_of_progress(rows: list[Row], rounds: int) -> int:
    """How often `measure` calls `progress`."""
    return sum(rounds + 1 if row.rounds is None else min(row.rounds, rounds) for row in rows)
