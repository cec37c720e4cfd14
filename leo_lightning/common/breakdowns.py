"""Failures of the machine, which libraries report as errors without a type of their own."""

import re
from traceback import walk_tb

from leo_lightning.common.errors import one_line

MEMORY = r"^MemoryError|Unable to allocate|you tried to allocate|out of memory"
"""Python's, NumPy's, torch's on a CPU and on a GPU."""
WORKER = r"DataLoader worker \(pid"
OTHER_PROCESS = r"gloo/|NCCL"


def breakdown(error: Exception) -> tuple[str, int] | None:
    """Say what broke down, on one line, with the exit code; None if `error` is of another kind."""
    found, words, reason = re.search, f"{type(error).__name__}: {error}", one_line(error)
    if isinstance(error, OSError | ValueError) and _through(error, "tensorboard"):
        reason = one_line(error.__cause__ or error)
        return (
            f"the log for TensorBoard cannot be written ({reason}); --trainer.logger false leaves it out",
            2,
        )
    if not isinstance(error, MemoryError | RuntimeError):
        return None
    if found(MEMORY, words):
        return f"out of memory ({reason}); lower --data.batch_size or --data.eval_batch_size", 1
    if found(WORKER, words):
        return f"a worker that loads data was killed ({reason}); lower --data.num_workers", 2
    if found(OTHER_PROCESS, words):
        return f"another process of this run has ended ({reason}); it or the system's log says why", 2
    return None


def _through(error: BaseException, package: str) -> bool:
    """Whether an error, or the one that caused it, came through the code of a package."""
    frames = [frame for each in (error, error.__cause__) if each for frame, _ in walk_tb(each.__traceback__)]
    return any(frame.f_globals.get("__name__", "").split(".")[0] == package for frame in frames)
