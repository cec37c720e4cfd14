"""Measures every row once per round, so that a slow minute of the machine slows all rows alike."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Row(NamedTuple):
    """Work to be timed."""

    name: str
    label: str
    seconds: Callable[[], float]
    """Does the work and returns the seconds of one unit. The first call is a warm-up."""
    tasks: int = 0
    """Tasks in a unit; 0 if tasks per second would be meaningless."""
    rounds: int | None = None
    """Number of rounds that measure it, without a warm-up; None: all of them."""


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
        """Distance between the quartiles divided by the median."""
        return (self.q3 - self.q1) / self.median


@dataclass
class Measurement:
    """Seconds of a row in each round, and their ratios to the unit of the same round."""

    row: Row
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)


@dataclass
class Repeated:
    """Calls `work` for about `budget` seconds; the first measurement fixes the number of calls."""

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
        rows: the work.
        rounds: number of measurements.
        progress: called with a description of the next step.
    """
    for row in rows:
        if row.rounds is None:
            progress(f"warm-up: {row.label}")
            row.seconds()
    measurements = {row.name: Measurement(row) for row in rows}
    for number in range(rounds):
        gc.collect()
        for row in rows:
            if row.rounds is not None and number >= row.rounds:
                continue
            progress(f"round {number + 1} of {rounds}: {row.label}")
            measurement, unit = measurements[row.name], measurements[rows[0].name]
            measurement.seconds.append(row.seconds())
            measurement.ratios.append(measurement.seconds[-1] / unit.seconds[-1])
    return measurements


def calls_of_progress(rows: list[Row], rounds: int) -> int:
    """Number of times that `measure` calls `progress`."""
    return sum(rounds + 1 if row.rounds is None else min(row.rounds, rounds) for row in rows)
