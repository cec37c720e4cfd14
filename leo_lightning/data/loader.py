"""Loaders of batches that are functions of their number, so that a run can go on anywhere."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from leo_lightning.common.errors import InputError


class Stream(IterableDataset, ABC):
    """Batches by number.

    A process's batches go to its workers in turn, the order in which a DataLoader collects them again, so
    that neither processes nor workers change what is seen.
    """

    first = 0
    """Number of the batch to begin with, among this process's batches."""

    @property
    @abstractmethod
    def batches(self) -> int:
        """Batches of this process; those of an epoch, if the stream is endless."""

    @abstractmethod
    def batch(self, number: int) -> Any | None:
        """A batch of this process; None behind the last one."""

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, stride = (self.first, 1) if worker is None else (self.first + worker.id, worker.num_workers)
        while (made := self.batch(number)) is not None:
            yield made
            number += stride


class EpisodeStream(Stream):
    """Meta-batches of consecutive tasks.

    Batch i of process r (of `world`) holds tasks (i · world + r) · batch_size and following. They carry
    indices, never embeddings.

    Args:
        sample: task numbers to rows, or to whatever a batch is.
        batch_size: tasks per batch and process.
        tasks: number of tasks, None for an endless stream.
        length: number of batches that count as an epoch of an endless stream.
        rank, world: this process among all.
    """

    def __init__(
        self,
        sample: Callable[[range], Any],
        batch_size: int,
        tasks: int | None = None,
        length: int | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.sample = sample
        self.batch_size = batch_size
        self.tasks = tasks
        self.length = length
        self.rank = rank
        self.world = world

    @property
    def batches(self) -> int:
        """See `Stream`."""
        if self.tasks is None:
            assert self.length is not None
            return self.length
        batches = -(-self.tasks // self.batch_size)
        return len(range(self.rank, batches, self.world))

    def batch(self, number: int) -> Any | None:
        """See `Stream`."""
        start = (number * self.world + self.rank) * self.batch_size
        stop = start + self.batch_size if self.tasks is None else min(start + self.batch_size, self.tasks)
        return self.sample(range(start, stop)) if start < stop else None


class StreamLoader:
    """Batches of a stream, beginning where training stands.

    Every iteration begins with the batch whose number `position` returns, so that an epoch goes on where the
    last one, or the checkpoint, ended. `state_dict` holds nothing, since the position is the trainer's to
    keep; it tells Lightning that the loader can resume in the middle of an epoch.

    It holds a DataLoader and is none, and the stream has no `len`: Lightning gives every DataLoader a sampler
    when it overfits batches, and mistrusts the length of an IterableDataset.
    """

    def __init__(
        self, stream: Stream, num_workers: int = 0, position: Callable[[], int] | None = None
    ) -> None:
        self.stream = stream
        self.num_workers = num_workers
        self.position = position

    def __len__(self) -> int:
        return self.stream.batches

    def __iter__(self) -> Iterator[Any]:
        if self.position is not None:
            self.stream.first = self.position()
        if self.num_workers == 0:
            yield from self.stream
            return
        # a generator of its own, or every iteration would take a number from torch's global one
        options = {"num_workers": self.num_workers, "generator": torch.Generator()}
        try:
            yield from DataLoader(self.stream, batch_size=None, **options)
        except InputError as error:  # out of a worker, with its traceback in the message
            line = str(error).rstrip().rpartition("\n")[2]
            raise InputError(line.partition("InputError: ")[2] or line) from None

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Nothing to restore."""
