"""`python -m benchmarks.logging`: the cost of logging at default settings, as a fraction of the training.

One training alternates, every few steps, between logging each step and logging none, so that a slow minute of
the machine slows both. Pictures are drawn now and then. Both costs are counted in training steps that do not
log, and then combined as in the default settings: a line every 50 steps, and pictures after every tenth
validation, which come every 1,000 steps.
"""

import argparse
import os
import resource
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from rich.console import Console
from rich.table import Column, Table

from benchmarks.sizes import Sizes, save_features
from benchmarks.steps import learner
from leo_lightning.common.quiet import quiet
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.runs.callbacks.throughput import Throughput
from leo_lightning.runs.folder import RunOptions
from leo_lightning.runs.loggers.metrics_csv import MetricsCSV
from leo_lightning.runs.pictures.callback import Pictures
from leo_lightning.runs.process import keep_freed_memory
from leo_lightning.training.meta_learner import MetaLearner

SEGMENT = 20
"""Steps between two changes."""
PAIRS = 10
"""Pairs of segments between two drawings of the pictures."""
LINE_EVERY, EPOCH = 50, 1000
"""Steps between two log lines, and between two validations, by default."""


class Alternate(Callback):
    """Logs every step of every second segment, and no other; measures the time of each segment."""

    def __init__(self) -> None:
        self.seconds: dict[bool, list[float]] = {False: [], True: []}
        self._logs = False
        self._since = self._validating = 0.0

    def on_train_start(self, trainer: Any, pl_module: pl.LightningModule) -> None:
        trainer.log_every_n_steps = 0
        self._since = time.perf_counter()

    def on_validation_start(self, *args: Any) -> None:
        self._validating = time.perf_counter()

    def on_validation_end(self, *args: Any) -> None:
        """Leave validation and pictures out of the segment."""
        self._since += time.perf_counter() - self._validating

    def on_train_batch_start(
        self, trainer: Any, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End a segment when the next step begins, because a step's log line is written after its end."""
        step = trainer.global_step
        if step == 0 or step % SEGMENT:
            return
        _wait(pl_module)
        self.seconds[self._logs].append((time.perf_counter() - self._since) / SEGMENT)
        self._logs = not self._logs
        trainer.log_every_n_steps = int(self._logs)
        self._since = time.perf_counter()


class TimedPictures(Pictures):
    """Measures the time of pictures, in steps without a line."""

    def __init__(self, folder: Path, clock: Alternate) -> None:
        super().__init__(folder, every=1)
        self.clock = clock
        self.steps: list[float] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _wait(pl_module)
        start = time.perf_counter()
        super().on_validation_end(trainer, pl_module)
        self.steps.append((time.perf_counter() - start) / statistics.median(self.clock.seconds[False][-10:]))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do nothing, because the end may be in the middle of a segment."""


class Cost(NamedTuple):
    """Cost of logging."""

    step: float
    """Seconds of a step that does not log."""
    line: float
    """Cost of a log line, in steps."""
    pictures: float
    """Cost of drawing all pictures once, in steps."""
    memory: int
    """Peak memory of this process in bytes, above the same training before it logged anything."""

    @property
    def shares(self) -> tuple[float, float]:
        """Fractions of the training time at default settings: lines, and pictures."""
        return self.line / LINE_EVERY, self.pictures / (EPOCH * RunOptions().pictures_every)


def measure(data: EpisodeDataModule, folder: Path, sizes: Sizes, pairs: int, wandb: bool) -> Cost:
    """Train, and log in every second segment.

    Args:
        data: pictures are drawn after each epoch of it.
        folder: for the logs.
        sizes: of the learner.
        pairs: of segments; the first is a warm-up.
        wandb: log to Weights & Biases offline as well.
    """
    before = train(data, folder, sizes, 2, [], [])
    loggers: list[Logger] = [MetricsCSV(folder), TensorBoardLogger(folder, name="", version="tensorboard")]
    if wandb:
        loggers.append(WandbLogger(name="benchmark", save_dir=folder, offline=True))
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            os.environ.setdefault("WANDB_SILENT", "true")
            logger._wandb_init.pop("anonymous", None)  # Lightning's default, of which W&B warns
        logger.log_hyperparams({})  # makes its file, as the command line does before it trains
    clock = Alternate()
    pictures = TimedPictures(folder, clock)
    # the clock last, so that it measures the others
    after = train(data, folder, sizes, pairs, loggers, [pictures, Throughput(), clock])
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()
    silent, logged = clock.seconds[False][1:], clock.seconds[True][1:]
    lines = [b / a - 1 for a, b in zip(silent, logged, strict=False)]
    medians = map(statistics.median, (silent, lines, pictures.steps))
    return Cost(*medians, after - before)


def train(
    data: EpisodeDataModule,
    folder: Path,
    sizes: Sizes,
    pairs: int,
    loggers: list[Logger],
    callbacks: list[Callback],
) -> int:
    """Train for so many pairs of segments; the peak memory of this process so far, in bytes."""
    trainer = pl.Trainer(
        max_steps=2 * SEGMENT * pairs + 1,
        logger=loggers,
        callbacks=callbacks,
        devices=1,
        default_root_dir=folder,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(MetaLearner(learner(sizes)), datamodule=data)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(found: dict[str, Cost]) -> Table:
    """Table of the costs."""
    heads = ("a step", "a line", "all pictures", "lines", "pictures", "together", "memory")
    result = Table("logging to", *(Column(head, justify="right") for head in heads))
    for name, cost in found.items():
        lines, pictures = cost.shares
        result.add_row(
            name, f"{1e3 * cost.step:.1f} ms", f"{cost.line:.2f} steps", f"{cost.pictures:.0f} steps",
            f"{lines:.2%}", f"{pictures:.2%}", f"{lines + pictures:.2%}", f"+ {cost.memory / 2**20:.0f} MiB",
        )  # fmt: skip
    return result


def _wait(module: pl.LightningModule) -> None:
    """Wait until a GPU has finished its work."""
    if module.device.type == "cuda":
        torch.cuda.synchronize()


def main(argv: list[str] | None = None, sizes: Sizes | None = None) -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.logging", description=__doc__)
    options.add_argument("--shot", type=int, default=1, metavar="K", help="default: 1")
    options.add_argument("--pairs", type=int, default=40, metavar="N", help="of segments (default: 40)")
    chosen = options.parse_args(argv)
    quiet()
    keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found, sizes = {}, sizes or Sizes()
    with TemporaryDirectory(prefix="leo-logging-") as name:
        save_features(Path(name) / "features", sizes)
        data = EpisodeDataModule(
            f"{name}/features", way=sizes.way, shot=chosen.shot, query=sizes.query, batch_size=sizes.tasks,
            steps_per_epoch=2 * SEGMENT * min(PAIRS, chosen.pairs), val_tasks=sizes.eval_tasks,
        )  # fmt: skip
        for place, wandb in (("CSV, TensorBoard", False), ("and W&B offline", True)):
            folder = Path(name) / ("wandb" if wandb else "default")
            folder.mkdir()
            found[place] = measure(data, folder, sizes, chosen.pairs, wandb)
    console = Console()
    console.width = max(console.width, 110)
    console.print(table(found))


if __name__ == "__main__":
    main()
