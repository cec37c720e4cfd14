"""What a terminal shows while a run goes on: bars with loss, score and time left, or plain lines."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

LINES = 20
"""How many lines a run prints where there is no terminal."""

WINDOW = 5
"""Of those lines, how many the time left is estimated from: the first steps are slow, and not for long."""

REFRESHES = 2
"""Drawings of the bars per second: each takes some milliseconds from the training."""

WIDE = 64
"""Columns of a terminal below which bars leave out what can be done without."""


class Bars(Progress):
    """Bars, and below them the numbers of the training, as many lines of them as there must be.

    Args:
        console: the terminal.
    """

    def __init__(self, console: Console) -> None:
        wide = console.width >= WIDE
        self.numbers: list[str] = []
        super().__init__(
            TextColumn("{task.description:10}"),
            *([BarColumn(bar_width=min(24, console.width - WIDE + 16))] if wide else []),
            MofNCompleteColumn(),
            *([TimeElapsedColumn()] if wide else []),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("left"),
            console=console,
            refresh_per_second=REFRESHES,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """See `Progress`. A number stays with its name: a narrow terminal has several rows of them."""
        yield from super().get_renderables()
        if self.numbers:
            yield Columns([Text(number, no_wrap=True) for number in self.numbers], padding=(0, 2))


class RunProgress(ProgressBar):
    """One bar for all training steps, one for each evaluation.

    Lightning's own bar counts the batches of an epoch and so cannot tell when training will be over.

    Args:
        console: where to print; plain lines if it is no terminal.
        score: what is logged of training and validation and shown.
        better: which of two scores is, `max` or `min`.
        counted: what a batch is made of, whose number per second is shown.
    """

    def __init__(
        self,
        console: Console,
        score: str,
        better: Callable[[float, float], float],
        counted: str = "tasks",
    ) -> None:
        super().__init__()
        self.console = console
        self.score = score
        self.better = better
        self.counted = counted
        self._progress: Bars | None = None
        self._training: TaskID | None = None
        self._evaluation: TaskID | None = None
        self._best: float | None = None
        self._times: deque[tuple[float, int]] = deque(maxlen=WINDOW)
        self._said = 0
        self._total_steps = math.inf
        self._enabled = True

    @property
    def is_enabled(self) -> bool:
        """Only the first process prints, and nothing if all is quiet."""
        first = self._trainer is not None and self.trainer.is_global_zero
        return first and self._enabled and not self.console.quiet

    def disable(self) -> None:
        """Called by Lightning on all but the first process."""
        self._enabled = False

    def enable(self) -> None:
        """Counterpart of `disable`."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print above the bars."""
        self.console.print(*args)

    # Training

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._total_steps = float(trainer.estimated_stepping_batches)
        if self._open():
            assert self._progress is not None
            self._training = self._progress.add_task(
                "training",
                total=None if math.isinf(self._total_steps) else self._total_steps,
                completed=trainer.global_step,
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, a few times a second at most."""
        step = trainer.global_step
        if self._progress is not None and self._training is not None:
            if step % 10 == 0 or step == self._total_steps:
                self._progress.numbers = self._numbers()
                self._progress.update(self._training, completed=step)
        elif self.is_enabled:
            if not self._times:  # when the first step is over, which is slower than the others
                self._times.append((time.monotonic(), step))
            if self._is_line_due(step):
                self._print_line(step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar, or print the last line, which has the last validation."""
        if self._progress is None and self.is_enabled:
            self._print_line(trainer.global_step)
        self._close()

    # Evaluation

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing: it is over at once."""

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open a bar."""
        if not trainer.sanity_checking:
            self._evaluation_start("validation", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, *args: Any) -> None:
        """Move the bar."""
        self._evaluation_step()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away; remember the best score."""
        self._evaluation_end()
        found = trainer.callback_metrics.get(f"val/{self.score}")
        if not trainer.sanity_checking and found is not None:
            self._best = found.item() if self._best is None else self.better(self._best, found.item())
            if self._progress is not None:
                self._progress.numbers = self._numbers()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open a bar."""
        self._evaluation_start("test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *args: Any) -> None:
        """Move the bar."""
        self._evaluation_step()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self._evaluation_end()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open a bar."""
        self._evaluation_start("prediction", sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, *args: Any) -> None:
        """Move the bar."""
        self._evaluation_step()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self._evaluation_end()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal as it was."""
        self._close()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the terminal as it was."""
        self._close()

    # Parts

    def _open(self) -> bool:
        if not self.is_enabled or not self.console.is_terminal:
            return False
        if self._progress is None:
            self._progress = Bars(self.console)
            self._progress.start()
        return True

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._training = self._evaluation = None

    def _evaluation_start(self, name: str, batches: int | float) -> None:
        if self._open():
            assert self._progress is not None
            self._evaluation = self._progress.add_task(name, total=None if math.isinf(batches) else batches)

    def _evaluation_step(self) -> None:
        if self._progress is not None and self._evaluation is not None:
            self._progress.advance(self._evaluation)

    def _evaluation_end(self) -> None:
        if self._progress is not None and self._evaluation is not None:
            self._progress.remove_task(self._evaluation)
            self._evaluation = None
            if self._training is None:
                self._close()

    def _is_line_due(self, step: int) -> bool:
        total = self._total_steps
        every = max(1, int(total / LINES)) if math.isfinite(total) else 1000
        # accumulated gradients leave a step as it is; the last line waits for the last validation
        return step % every == 0 and step < total and step != self._said

    def _print_line(self, step: int) -> None:
        self._said = step
        of = "" if math.isinf(self._total_steps) else f"/{self._total_steps:.0f}"
        numbers = [f"step {step}{of}", *self._numbers(), *self._time_left(step)]
        self.console.print("  ".join(numbers), highlight=False, soft_wrap=True)

    def _time_left(self, step: int) -> list[str]:
        """What the last lines say of it; nothing if there are none yet, or no end."""
        now = time.monotonic()
        self._times.append((now, step))
        before, since = self._times[0]
        if since == step or math.isinf(self._total_steps):
            return []
        return [f"{_clock((now - before) / (step - since) * (self._total_steps - step))} left"]

    def _numbers(self) -> list[str]:
        metrics = self.trainer.callback_metrics
        shown = []
        score = self.score
        for name, key in (("loss", "train/loss"), (score, f"train/{score}"), ("val", f"val/{score}")):
            if key in metrics:
                shown.append(f"{name} {metrics[key].item():.3f}")
        if self._best is not None:
            shown.append(f"best {self._best:.3f}")
        rate = metrics.get(f"throughput/{self.counted}_per_second")
        if rate is not None:
            shown.append(f"{rate.item():,.{0 if rate >= 10 else 1}f} {self.counted}/s")
        return shown


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
