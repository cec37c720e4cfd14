"""Progress of a run: bars on a terminal, plain lines elsewhere, with loss, scores and the time left."""

import math
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

from leo_lightning.common.clock import clock

LINES = 20
"""Lines that a run prints where there is no terminal."""
EVERY = 10
"""Steps between two updates of the bar."""
REFRESHES = 2
"""Drawings of the bars per second; each takes some milliseconds from the training."""
WINDOW = 600
"""Seconds of the past from which the time left is estimated, without the first and slow step."""
NAMES = {"validate": "validation", "test": "test", "predict": "prediction"}


class Bars(Progress):
    """Bars, and the numbers of the training below them; nothing is drawn where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self.numbers: list[str] = []
        super().__init__(
            TextColumn("{task.description:10}"),
            BarColumn(bar_width=max(4, min(24, console.width - 48))),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("left"),
            console=console,
            refresh_per_second=REFRESHES,
            speed_estimate_period=WINDOW,
            disable=console.quiet or not console.is_terminal,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return bars and numbers; on a narrow terminal a number stays on one line with its name."""
        yield from super().get_renderables()
        if self.numbers:
            yield Columns([Text(number, no_wrap=True) for number in self.numbers], padding=(0, 2))


class RunProgress(ProgressBar):
    """One bar for all training steps and one for each evaluation, with loss, scores and throughput.

    Lightning's own bar counts the batches of an epoch, so it cannot tell when training will end. `better` is
    `max` or `min`, whichever the score asks for; `counted` is the unit of the throughput.
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
        self._enabled = True
        self._bars = Bars(console)
        self._training: TaskID | None = None
        self._evaluation: TaskID | None = None
        self._total = math.inf
        self._printed = 0
        self._best: float | None = None

    def disable(self) -> None:
        """Show nothing: on all processes but the first, and while Lightning tries learning rates."""
        self._enabled = False

    def enable(self) -> None:
        """Undo `disable`."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._total = float(trainer.estimated_stepping_batches)
        scores = [getattr(callback, "best_model_score", None) for callback in trainer.checkpoint_callbacks]
        self._best = next((float(score) for score in scores if score is not None), None)  # of a resumed run
        self._training = self._open("training", self._total, trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar, or print a line."""
        if self._training is None:
            return
        step, total = trainer.global_step, self._total
        every = 1000 if math.isinf(total) else max(1, int(total / LINES))
        # accumulated gradients repeat a step; the last line waits for the last validation
        due = self._bars.disable and step % every == 0 and step < total and step != self._printed
        if due or step % EVERY == 0 or step in (1, total):
            self._bars.update(self._training, completed=step)
            if not self._bars.disable:
                self._bars.numbers = self._numbers()
        if due:
            self._print_line(step)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar, or print the last line."""
        if self._bars.disable and self._training is not None:
            self._print_line(trainer.global_step)
        self._close()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open a bar."""
        stage = trainer.state.stage
        if stage is not None and not trainer.sanity_checking:
            batches = getattr(trainer, f"num_{stage.dataloader_prefix}_batches")
            self._evaluation = self._open(NAMES[stage], sum(batches))

    on_validation_start = on_predict_start = on_test_start

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the bar, and remember the best score."""
        self._remove()
        score = trainer.callback_metrics.get(f"val/{self.score}")
        if not trainer.sanity_checking and score is not None:
            self._best = score.item() if self._best is None else self.better(self._best, score.item())
            self._bars.numbers = self._numbers()

    def _open(self, name: str, total: int | float, completed: int = 0) -> TaskID | None:
        if not self._enabled:
            return None
        self._bars.start()
        return self._bars.add_task(name, total=None if math.isinf(total) else total, completed=completed)

    def _advance(self, *_: Any, **__: Any) -> None:
        if self._evaluation is not None:
            self._bars.advance(self._evaluation)

    def _remove(self, *_: Any, **__: Any) -> None:
        if self._evaluation is not None:
            self._bars.remove_task(self._evaluation)
            self._evaluation = None
            if self._training is None:
                self._close()

    def _close(self, *_: Any, **__: Any) -> None:
        self._bars.stop()
        self._bars, self._training, self._evaluation = Bars(self.console), None, None

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = _advance
    on_test_end = on_predict_end = _remove
    on_exception = _close

    def _print_line(self, step: int) -> None:
        self._printed = step
        of = "" if math.isinf(self._total) else f"/{self._total:.0f}"
        seconds = self._bars.tasks[0].time_remaining  # of the training
        left = [] if seconds is None else [f"{clock(seconds)} left"]
        self.console.print(
            "  ".join([f"step {step}{of}", *self._numbers(), *left]), highlight=False, soft_wrap=True
        )

    def _numbers(self) -> list[str]:
        metrics = self.trainer.callback_metrics
        keys = {"loss": "train/loss", self.score: f"train/{self.score}", "val": f"val/{self.score}"}
        numbers = [f"{name} {_shown(metrics[key].item())}" for name, key in keys.items() if key in metrics]
        if self._best is not None:
            numbers.append(f"best {_shown(self._best)}")
        rate = metrics.get(f"throughput/{self.counted}_per_second")
        if rate is not None:
            numbers.append(f"{rate.item():,.{0 if rate >= 10 else 1}f} {self.counted}/s")
        return numbers


def _shown(number: float) -> str:
    """Three decimals; three digits for errors of values in units so large that decimals say nothing."""
    return f"{number:.3f}" if abs(number) >= 0.01 or not number else f"{number:.3g}"
