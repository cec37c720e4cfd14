"""How far an extraction is: a bar on a terminal, some lines elsewhere."""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 20
"""How many lines are printed where there is no terminal."""
_LINE_SECONDS = 600.0
"""… and one at least as often as this."""


class ImageProgress:
    """Counts images, and says how many there are in a second and when the last will be done.

    Args:
        console: where to print.
        total: number of all images.
        done: number of those that were done before.
    """

    def __init__(self, console: Console, total: int, done: int) -> None:
        self.console = console
        self.total = total
        self.done = self._first = done
        self._started = self._last_line = time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description:5}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=600,  # a batch of a large network takes long
        )
        self._task = self._bar.add_task("", total=total, completed=done, rate="")

    def __enter__(self) -> "ImageProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, split: str, images: int) -> None:
        """Count images of a split."""
        before, self.done = self.done, self.done + images
        now = time.monotonic()
        rate = (self.done - self._first) / max(now - self._started, 1e-6)
        shown = f"{rate:,.{0 if rate >= 100 else 1}f} images/s"
        self._bar.update(self._task, description=split, completed=self.done, rate=shown)
        due = self.done * LINES // self.total > before * LINES // self.total
        if not self.console.is_terminal and (due or now - self._last_line > _LINE_SECONDS):
            self._last_line = now
            left = _clock((self.total - self.done) / rate)
            self.console.print(
                f"{split}: {self.done:,} of {self.total:,} images, {shown}, {left} left", highlight=False
            )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
