"""Failures of the machine are told from errors of the program."""

import os
import signal
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from leo_lightning.common.breakdowns import breakdown


class Killed(Dataset[int]):
    """Its worker is killed, as the system does where memory is short."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return index


def raised(fail: Callable[[], object]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        fail()
    return caught.value


def raises(error: Exception) -> None:
    raise error


@pytest.mark.parametrize(
    ("fail", "line", "code"),
    [
        (lambda: torch.empty(10**16), "out of memory", 1),
        (lambda: np.empty(10**16), "out of memory", 1),
        (lambda: raises(MemoryError()), "out of memory (MemoryError); lower --data.batch_size", 1),
        (lambda: raises(torch.OutOfMemoryError("CUDA out of memory. Tried")), "out of memory (CUDA", 1),
        (lambda: list(DataLoader(Killed(), num_workers=1)), "a worker that loads data was killed", 2),
        (
            lambda: raises(RuntimeError("[gloo/transport/tcp/pair.cc:545] Connection reset by peer")),
            "another process of this run has ended",
            2,
        ),
    ],
)
def test_the_cause_is_named(fail: Callable[[], object], line: str, code: int):
    """Raised by the libraries. Catches words of theirs that change, and so a traceback for the user."""
    broken = breakdown(raised(fail))
    assert broken is not None
    assert (broken[0].startswith(line), broken[1]) == (True, code)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), KeyError("x")])
def test_a_bug_is_not_hidden(error: Exception):
    """Catches a traceback of ours that nobody sees."""
    assert breakdown(error) is None
