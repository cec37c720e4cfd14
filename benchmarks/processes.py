"""What needs a process of its own: start-up of the command line, and peak memory of training.

`python -m benchmarks.processes WHAT FEATURES STEPS` prints the peak resident memory of something in bytes.
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
    """What a Python that is started with these arguments prints.

    Raises:
        RuntimeError: it failed; with the last line of what it said.
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
        said = result.stderr.strip().splitlines() or ["nothing was said"]
        raise RuntimeError(f"python {' '.join(arguments[:2])} ended with {result.returncode}: {said[-1]}")
    return result.stdout


def startup_row(name: str, threads: int, rounds: int) -> Row:
    """`python train.py --help`, which imports everything and builds the parser."""

    def seconds() -> float:
        start = time.perf_counter()
        run("train.py", "--help", threads=threads)
        return time.perf_counter() - start

    return Row(name, "start-up: train.py --help", seconds, rounds=rounds)


def memory_of(what: str, features: Path, steps: int, threads: int) -> int:
    """Bytes that a process holds at its peak which does one thing; see `main`."""
    return int(
        run("-m", "benchmarks.processes", what, str(features), str(steps), threads=threads).split()[-1]
    )


def peak_resident() -> int:
    """Bytes of this process. Linux's own account, because getrusage there may remember the parent's."""
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
