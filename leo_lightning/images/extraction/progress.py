"""Progress of an extraction: a bar on a terminal, a few lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from leo_lightning.common.clock import clock

LINES = 20
"""Number of lines without a terminal."""
_LINE_SECONDS = 600.0
"""Longest time between two lines."""


@contextmanager
def image_progress(console: Console, total: int, done: int) -> Iterator[Callable[[str, int], None]]:
    """Show how many images are done, of which `done` were before, their rate and the time left.

    Yields:
        A function that counts images of a split.
    """
    done_before, started = done, time.monotonic()
    last_line = started
    bar = Progress(
        TextColumn("{task.description:5}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        speed_estimate_period=600,  # a batch of a large network takes long
    )
    task = bar.add_task("", total=total, completed=done, rate="")

    def advance(split: str, images: int) -> None:
        nonlocal done, last_line
        line_due = (done + images) * LINES // total > done * LINES // total
        done += images
        now = time.monotonic()
        rate = (done - done_before) / max(now - started, 1e-6)
        shown = f"{rate:,.{0 if rate >= 100 else 1}f} images/s"
        bar.update(task, description=split, completed=done, rate=shown)
        if not console.is_terminal and (line_due or now - last_line > _LINE_SECONDS):
            last_line = now
            left = clock((total - done) / rate)
            console.print(f"{split}: {done:,} of {total:,} images, {shown}, {left} left", highlight=False)

    with bar:
        yield advance
