"""The loader of tasks: the same tasks for any number of workers and processes, and wherever it starts."""

import multiprocessing
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import EpisodeRows
from leo_lightning.data.loader import EpisodeStream, StreamLoader
from tests.child import start

# Two workers more than a machine has cores are slow, and no mistake.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


def rows_of(tasks: range) -> EpisodeRows:
    """Return rows that tell their task; 2-way, 1-shot, 3 queries."""
    task = torch.tensor(list(tasks))
    return EpisodeRows(
        task, task.view(-1, 1, 1).expand(-1, 2, 1) * 10, task.view(-1, 1, 1).expand(-1, 2, 3) * 100
    )


def tasks_of(loader: Iterator[EpisodeRows]) -> list[list[int]]:
    """Return the task numbers of every batch."""
    return [batch.task.tolist() for batch in loader]


@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("rank", [0, 1])
def test_workers_change_nothing(num_workers: int, rank: int):
    """Catches tasks that every worker repeats, are left out, or come in another order."""
    stream = EpisodeStream(rows_of, 4, tasks=46, rank=rank, world=2)
    alone, shared = list(StreamLoader(stream)), list(StreamLoader(stream, num_workers))
    assert len(alone) == len(shared) == 6
    for a, b in zip(alone, shared, strict=True):
        assert isinstance(b, EpisodeRows)
        assert all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))


@pytest.mark.parametrize("num_workers", [1, 3])
def test_workers_change_nothing_in_training(num_workers: int):
    """Catches workers of an endless stream that start at the same batch, or forget the position."""
    loader = StreamLoader(EpisodeStream(rows_of, 4, length=10), num_workers, lambda: 7)
    assert tasks_of(islice(loader, 5)) == [list(range(4 * i, 4 * i + 4)) for i in range(7, 12)]


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("tasks", [1, 46, 48, 49])
def test_processes_share_the_tasks(world: int, tasks: int):
    """Catches a task evaluated twice, or by nobody, when the number of tasks does not divide evenly."""
    streams = [EpisodeStream(rows_of, 4, tasks=tasks, rank=rank, world=world) for rank in range(world)]
    seen = [task for stream in streams for batch in tasks_of(iter(stream)) for task in batch]
    assert sorted(seen) == list(range(tasks))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_an_endless_stream(world: int):
    """Catches processes that train on the same tasks: the gradient of one, at the price of many."""
    streams = [EpisodeStream(rows_of, 4, length=5, rank=rank, world=world) for rank in range(world)]
    seen = [task for stream in streams for batch in tasks_of(islice(stream, 5)) for task in batch]
    assert sorted(seen) == list(range(4 * 5 * world))


@pytest.mark.parametrize(
    ("tasks", "world", "rank", "length"),
    [(46, 1, 0, 12), (48, 1, 0, 12), (1, 1, 0, 1), (46, 3, 0, 4), (46, 2, 1, 6), (9, 2, 0, 2), (9, 2, 1, 1)],
)
def test_length_is_the_number_of_batches(tasks: int, world: int, rank: int, length: int):
    """Catches a progress bar that is wrong, and an evaluation that stops before its last batch."""
    stream = EpisodeStream(rows_of, 4, tasks=tasks, rank=rank, world=world)
    loader = StreamLoader(stream)
    assert stream.batches == len(loader) == len(list(loader)) == length


def test_last_batch_is_short():
    """Catches the last tasks dropped, or tasks beyond the number that was asked for."""
    assert tasks_of(iter(EpisodeStream(rows_of, 4, tasks=10))) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_epoch_length_of_an_endless_stream():
    """Catches a stream that ends with its first epoch."""
    stream = EpisodeStream(rows_of, 4, length=3)
    assert len(StreamLoader(stream)) == 3
    assert tasks_of(islice(stream, 3, 5)) == [[12, 13, 14, 15], [16, 17, 18, 19]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_position_continues_where_training_stands(num_workers: int):
    """Catches an epoch that repeats the first one, and a position that is asked for only once."""
    done = 0
    loader = StreamLoader(EpisodeStream(rows_of, 2, length=3), num_workers, lambda: done)
    seen = []
    for stop in (3, 1, 4):
        seen += [task for batch in tasks_of(islice(loader, stop)) for task in batch]
        done += stop
    assert seen == list(range(2 * 8))


def test_loader_without_a_position_starts_at_the_beginning():
    """Catches a first batch left over from another iteration."""
    loader = StreamLoader(EpisodeStream(rows_of, 2, tasks=4))
    assert [tasks_of(iter(loader)) for _ in range(2)] == [[[0, 1], [2, 3]]] * 2


def test_loader_says_that_it_resumes():
    """Catches Lightning's warning, and its refusal to resume in the middle of an epoch."""
    loader = StreamLoader(EpisodeStream(rows_of, 2, length=3))
    loader.load_state_dict(loader.state_dict())
    assert loader.state_dict() == {}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_leaves_the_global_generator_alone(num_workers: int):
    """Catches a seed drawn in every iteration, as DataLoader does: evaluation would change the training."""
    state = torch.get_rng_state()
    assert len(list(StreamLoader(EpisodeStream(rows_of, 2, tasks=4), num_workers))) == 2
    assert torch.equal(torch.get_rng_state(), state)


def test_the_next_batch_is_prepared_while_one_is_in_use():
    """Catches a step that waits for its batch, batches in another order, and one that is prepared twice."""
    prepared: list[int] = []
    ready = threading.Event()

    def prepare(rows: EpisodeRows) -> int:
        prepared.append(int(rows.task[0]))
        if len(prepared) == 2:
            ready.set()
        return prepared[-1]

    batches = iter(StreamLoader(EpisodeStream(rows_of, 2, tasks=6), prepare=prepare))
    assert next(batches) == 0
    assert ready.wait(timeout=60)
    assert list(batches) == [2, 4]
    assert prepared == [0, 2, 4]


def test_an_error_of_the_preparation_reaches_the_loop():
    """Catches a thread that fails unheard."""

    def prepare(rows: EpisodeRows) -> int:
        raise InputError("test.safetensors: is cut short")

    with pytest.raises(InputError, match="is cut short"):
        next(iter(StreamLoader(EpisodeStream(rows_of, 2, tasks=6), prepare=prepare)))


def test_a_loop_that_stops_early_leaves_no_thread():
    """Catches a thread for every epoch."""
    before = threading.active_count()
    batches = iter(StreamLoader(EpisodeStream(rows_of, 2, length=3), prepare=lambda rows: rows))
    next(batches)
    batches.close()
    assert threading.active_count() == before


def two_workers(arguments: list[str]) -> None:
    """Start workers as Python 3.14 would; say so, and wait."""
    multiprocessing.set_start_method("forkserver", force=True)
    batches = iter(StreamLoader(EpisodeStream(rows_of, 2, length=3), num_workers=2))
    next(batches)
    print("started", flush=True)
    time.sleep(60)


def in_session(leader: int) -> list[str]:
    """The processes of a session, without those that have ended."""
    states = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            states.append(path.read_text().rpartition(")")[2].split())
        except OSError:  # it has just ended
            continue
    return [state[0] for state in states if int(state[3]) == leader and state[0] != "Z"]


@pytest.mark.slow
def test_workers_end_with_a_killed_process():
    """Catches the start method of Python 3.14, with which workers stay for ever, each with its memory."""
    child = start(target="tests.data.test_loader:two_workers")
    while "started" not in child.output()[0]:
        assert child.poll() is None, child.output()
        time.sleep(0.05)
    assert len(in_session(child.pid)) >= 3
    child.kill()
    deadline = time.monotonic() + 30  # a worker looks every 5 s
    while in_session(child.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
