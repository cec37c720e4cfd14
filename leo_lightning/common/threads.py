"""One thread for small tensors: a second one saves a fifth on an idle machine, and ruins a busy one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, unless OMP_NUM_THREADS is set or torch.set_num_threads was used.

    torch does not say where its number comes from. One that it would choose by itself counts as its own, also
    if somebody has set it.
    """
    before = torch.get_num_threads()
    if "OMP_NUM_THREADS" in os.environ or before not in _numbers_of_torch():
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _numbers_of_torch() -> set[int]:
    """Numbers that torch may choose by itself: cores of this process or, with MKL, physical cores."""
    if not hasattr(os, "sched_getaffinity"):
        return {os.cpu_count() or 1}
    cores = os.sched_getaffinity(0)
    siblings = [Path(f"/sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list") for n in cores]
    return {len(cores), len({path.read_text() if path.is_file() else path for path in siblings})}
