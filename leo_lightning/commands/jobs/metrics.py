"""How far a run has come, by its metrics.csv."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from leo_lightning.common.csv_files import read_rows


@dataclass(frozen=True)
class Far:
    """How far a run has come."""

    step: int = 0
    """Steps taken when it last wrote a line."""
    validations: tuple[tuple[float, int], ...] = ()
    """Scores, and the steps taken until then."""


class RunMetrics:
    """Metrics of a run, read again when its files have changed.

    Args:
        root: folder of the run folders; the newest counts.
        metric: name of the score.
    """

    def __init__(self, root: Path, metric: str) -> None:
        self.root = root
        self.metric = metric
        self._seen: tuple[Path, int, int] | None = None
        self._far = Far()

    def far(self) -> Far:
        """Return how far the run has come.

        Raises:
            InputError: its metrics.csv is damaged.
        """
        newest = max(self._files(), key=lambda one: one[1], default=None)
        if newest is not None and newest != self._seen:
            rows = read_rows(newest[0])
            scores = [(float(row[self.metric]), int(row["step"]) + 1) for row in rows if row.get(self.metric)]
            self._far = Far(max((int(row["step"]) + 1 for row in rows), default=0), tuple(scores))
            self._seen = newest
        return self._far

    def _files(self) -> Iterator[tuple[Path, int, int]]:
        for path in self.root.glob("*/metrics.csv"):
            state = path.stat()
            yield path, state.st_mtime_ns, state.st_size
