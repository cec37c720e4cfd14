"""Loaders whose batches are functions of their number, so that a run can continue anywhere."""

import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from leo_lightning.common.errors import InputError

START = "fork" if sys.platform == "linux" else "spawn"
"""How workers are started. Those of a fork server, Python 3.14's default, outlive a killed main process."""
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stream(IterableDataset, ABC):
    """Batches by number.

    A process deals its batches to its workers in turn, the order in which a DataLoader collects them again.
    Neither processes nor workers therefore change the batches or their order.
    """

    first = 0
    """Number of the batch to begin with, among this process's batches."""

    @property
    @abstractmethod
    def batches(self) -> int:
        """Number of batches of this process; in an epoch, if the stream is endless."""

    @abstractmethod
    def batch(self, number: int) -> Any | None:
        """Return a batch of this process; None after the last one."""

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, stride = (self.first, 1) if worker is None else (self.first + worker.id, worker.num_workers)
        while (batch := self.batch(number)) is not None:
            yield batch
            number += stride


@dataclass(eq=False)
class EpisodeStream(Stream):
    """Meta-batches of consecutive tasks, sampled by their numbers.

    Batch i of process r (of `world`) starts with task (i · world + r) · batch_size. It carries indices, never
    embeddings.
    """

    sample: Callable[[range], Any]
    batch_size: int
    """Tasks per batch and process."""
    tasks: int | None = None
    """Number of tasks; None: the stream is endless."""
    length: int | None = None
    """Number of batches in an epoch of an endless stream."""
    rank: int = 0
    world: int = 1

    @property
    def batches(self) -> int:
        """Number of batches of this process."""
        if self.tasks is None:
            assert self.length is not None
            return self.length
        return len(range(self.rank, -(-self.tasks // self.batch_size), self.world))

    def batch(self, number: int) -> Any | None:
        """Sample the tasks of a batch."""
        start = (number * self.world + self.rank) * self.batch_size
        stop = start + self.batch_size if self.tasks is None else min(start + self.batch_size, self.tasks)
        return self.sample(range(start, stop)) if start < stop else None


@dataclass(eq=False)
class StreamLoader:
    """Batches of a stream, beginning where training stands.

    Every iteration begins with the batch whose number `position` returns, so that an epoch continues where
    the last one, or the checkpoint, ended. The empty `state_dict` tells Lightning that the loader can resume
    in the middle of an epoch.

    The loader holds a DataLoader instead of being one, and the stream has no `len`: Lightning gives every
    DataLoader a sampler when it overfits batches, and mistrusts the length of an IterableDataset.
    """

    stream: Stream
    num_workers: int = 0
    position: Callable[[], int] | None = None
    prepare: Callable[[Any], Any] | None = None
    """The rest of the work on a batch. Without workers, a thread does it, and samples, one batch ahead."""

    def __len__(self) -> int:
        return self.stream.batches

    def __iter__(self) -> Iterator[Any]:
        if self.position is not None:
            self.stream.first = self.position()
        batches = iter(self.stream) if self.num_workers == 0 else self._from_workers()
        if self.prepare is not None:
            batches = map(self.prepare, batches)
            batches = one_ahead(batches) if self.num_workers == 0 else batches
        yield from batches

    def _from_workers(self) -> Iterator[Any]:
        # its own generator, or every iteration would draw a number from torch's global one
        generator = torch.Generator()
        try:
            loader = DataLoader(
                self.stream,
                batch_size=None,
                num_workers=self.num_workers,
                generator=generator,
                multiprocessing_context=START,
            )
            # a signal to the whole process group is for this process, which ends its workers itself
            before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
            try:
                batches = iter(loader)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield from batches
        except InputError as error:  # from a worker, with its traceback in the message
            line = str(error).rstrip().rpartition("\n")[2]
            raise InputError(line.partition("InputError: ")[2] or line) from None

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return nothing: the trainer keeps the position."""
        return {}

    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Restore nothing."""


def one_ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Yield items, each of which a thread has made while the one before it was in use."""
    with ThreadPoolExecutor(1, thread_name_prefix="next-batch") as thread:
        end = object()
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item


class StreamDataModule(pl.LightningDataModule):
    """A data module whose loaders are streams: it tells them their process and their position."""

    @property
    def processes(self) -> dict[str, int]:
        """Number of this process (`rank`), and of all processes (`world`)."""
        trainer = self.trainer
        if trainer is None:
            return {"rank": 0, "world": 1}
        return {"rank": trainer.global_rank, "world": trainer.world_size}

    def batches_done(self) -> int:
        """Training batches so far, over all epochs; 0 in an overfitting run, whose epochs are all alike."""
        trainer = self.trainer
        if trainer is None or trainer.overfit_batches:  # pyright: ignore[reportAttributeAccessIssue]
            return 0
        return trainer.fit_loop.epoch_loop.batch_progress.total.ready
