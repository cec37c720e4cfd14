"""Rows through `pl.Trainer`, with the loggers and the progress bar that the command line gives it."""

import io
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from rich.console import Console

from benchmarks.rounds import Row
from benchmarks.sizes import Sizes
from benchmarks.steps import learner
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.runs.callbacks.progress import RunProgress
from leo_lightning.runs.callbacks.throughput import Throughput
from leo_lightning.runs.loggers.metrics_csv import MetricsCSV
from leo_lightning.training.meta_learner import MetaLearner


class Stopwatch(Callback):
    """Seconds per batch from the end of batch `skip` to the end of batch `skip + count`."""

    def __init__(self, skip: int, count: int) -> None:
        self.skip = skip
        self.count = count
        self.ends: list[float] = []

    def on_train_batch_end(self, *args: Any) -> None:
        self.ends.append(time.perf_counter())

    def on_test_batch_end(self, *args: Any) -> None:
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> float:
        return (self.ends[self.skip - 1 + self.count] - self.ends[self.skip - 1]) / self.count


class Training:
    """Trains for a few steps; seconds per step, without set-up."""

    SKIP = 5

    def __init__(
        self, shot: int, features: Path, runs: Path, sizes: Sizes, steps: int, in_memory: bool
    ) -> None:
        self.runs = runs
        self.steps = steps
        self.system = MetaLearner(learner(sizes))
        self.data = EpisodeDataModule(
            str(features),
            way=sizes.way,
            shot=shot,
            query=sizes.query,
            batch_size=sizes.tasks,
            in_memory=in_memory,
        )

    def __call__(self) -> float:
        folder = Path(mkdtemp(dir=self.runs))
        tensorboard = TensorBoardLogger(folder, name="", version="tensorboard")
        tensorboard.log_hyperparams({})  # makes the file, as the command line does before it trains
        watch = Stopwatch(self.SKIP, self.steps)
        trainer = pl.Trainer(
            # one more: what is logged at a step is written after its end
            max_steps=self.SKIP + self.steps + 1,
            limit_val_batches=0,
            logger=[MetricsCSV(folder), tensorboard],
            callbacks=[_progress(), Throughput(), watch],
            **_defaults(folder),
        )
        trainer.fit(self.system, datamodule=self.data)
        return watch.seconds


class Testing:
    """Tests a few batches of tasks; seconds per batch, without set-up."""

    def __init__(
        self, shot: int, all_queries: bool, features: Path, runs: Path, sizes: Sizes, batches: int
    ) -> None:
        self.runs = runs
        self.batches = batches
        self.system = MetaLearner(learner(sizes))
        self.data = EpisodeDataModule(
            str(features),
            way=sizes.way,
            shot=shot,
            query=sizes.query,
            test_query="all" if all_queries else None,
            eval_batch_size=sizes.pool_tasks if all_queries else sizes.eval_tasks,
            test_tasks=(sizes.pool_tasks if all_queries else sizes.eval_tasks) * (batches + 1),
        )

    def __call__(self) -> float:
        folder = Path(mkdtemp(dir=self.runs))
        watch = Stopwatch(1, self.batches)
        trainer = pl.Trainer(logger=[MetricsCSV(folder)], callbacks=[_progress(), watch], **_defaults(folder))
        trainer.test(self.system, datamodule=self.data, verbose=False)
        return watch.seconds


def training_row(
    name: str, shot: int, features: Path, runs: Path, sizes: Sizes, steps: int, in_memory: bool = True
) -> Row:
    """The whole of a training step: sampling, loading, learner, logging."""
    work = Training(shot, features, runs, sizes, steps, in_memory)
    bank = "" if in_memory else ", bank on disk"
    return Row(name, f"{shot}-shot training step, Trainer{bank}", work, sizes.tasks)


def testing_row(
    name: str, shot: int, all_queries: bool, features: Path, runs: Path, sizes: Sizes, batches: int
) -> Row:
    """The whole of a test batch, the nearest-centroid baseline included."""
    work = Testing(shot, all_queries, features, runs, sizes, batches)
    queries, tasks = ("all", sizes.pool_tasks) if all_queries else (str(sizes.query), sizes.eval_tasks)
    return Row(name, f"{shot}-shot test of {tasks}, Q = {queries}", work, tasks)


def _defaults(folder: Path) -> dict[str, Any]:
    return {
        "accelerator": "cpu",
        "devices": 1,
        "default_root_dir": folder,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }


def _progress() -> RunProgress:
    """The bars of a terminal, drawn into nothing."""
    return RunProgress(Console(file=io.StringIO(), force_terminal=True, width=100), "accuracy", max)
