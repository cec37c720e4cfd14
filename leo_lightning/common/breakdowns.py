"""Failures of the machine, which libraries report as errors without a type of their own."""

import re

from leo_lightning.common.errors import one_line

MEMORY = r"^MemoryError|Unable to allocate|you tried to allocate|out of memory"
"""Python's, NumPy's, torch's on a CPU and on a GPU."""
WORKER = r"DataLoader worker \(pid"
OTHER_PROCESS = r"gloo/|NCCL"


def breakdown(error: Exception) -> tuple[str, int] | None:
    """Say what broke down, on one line, with the exit code; None if `error` is of another kind."""
    if not isinstance(error, MemoryError | RuntimeError):
        return None
    found, words, reason = re.search, f"{type(error).__name__}: {error}", one_line(error)
    if found(MEMORY, words):
        return f"out of memory ({reason}); lower --data.batch_size or --data.eval_batch_size", 1
    if found(WORKER, words):
        return (
            f"a worker that loads data was killed ({reason}); lower --data.num_workers if memory is short",
            2,
        )
    if found(OTHER_PROCESS, words):
        return (
            f"another process of this run has ended; its own message or the system's log says why ({reason})",
            2,
        )
    return None
