"""Measurements that need a process of their own: start-up of the command line, peak memory of training.

`python -m benchmarks.processes WHAT FEATURES STEPS` prints the peak resident memory of `WHAT` in bytes.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.rounds import Row
from benchmarks.sizes import Sizes
from benchmarks.steps import learner
from benchmarks.trainer import Training
from leo_lightning.common.quiet import quiet
from leo_lightning.data.episode import Episode
from leo_lightning.runs.process import keep_freed_memory

ROOT = Path(__file__).resolve().parents[1]


def run(*arguments: str, threads: int) -> str:
    """Start Python with these arguments, and return its output.

    Raises:
        RuntimeError: it failed; with the last line of its stderr.
    """
    result = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no output"]
        raise RuntimeError(f"python {' '.join(arguments[:2])} ended with {result.returncode}: {lines[-1]}")
    return result.stdout


def startup_row(name: str, threads: int, rounds: int) -> Row:
    """`python train.py fit --help`, which imports everything and builds the parser."""

    def seconds() -> float:
        start = time.perf_counter()
        run("train.py", "fit", "--help", threads=threads)
        return time.perf_counter() - start

    return Row(name, "start-up: train.py fit --help", seconds, rounds=rounds)


def memory_of(what: str, features: Path, steps: int, threads: int) -> int:
    """Peak memory, in bytes, of a process that does one of the things of `main`."""
    return int(
        run("-m", "benchmarks.processes", what, str(features), str(steps), threads=threads).split()[-1]
    )


def peak_resident() -> int:
    """Peak memory of this process in bytes, from /proc, because getrusage may include the parent's."""
    status = Path("/proc/self/status")
    if status.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(peak[1]) * 1024
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(what: str, features: str, steps: str) -> None:
    """Import torch and Lightning, train 1-shot through the Trainer, or do one large step. Print the peak."""
    quiet()
    keep_freed_memory()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if what == "training":
        with tempfile.TemporaryDirectory() as runs:
            Training(1, Path(features), Path(runs), Sizes(), int(steps))()
    elif what == "20way_10shot":
        leo = learner(Sizes())
        support, query = torch.randn(12, 20, 10, 640), torch.randn(12, 20, 15, 640)
        leo(Episode(support, query), range(12)).loss.backward()
    print(peak_resident())


if __name__ == "__main__":
    main(*sys.argv[1:])
