"""Weak scaling: the same tasks per process on one process, on two, and on two that do not communicate."""

import csv
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.processes import ROOT


def weak_scaling(features: Path, runs: Path, steps: int, threads: int) -> dict[str, float]:
    """Tasks per second of one process, of two that train together, and of two that train alone.

    The difference between the two-process figures is the cost of communication.
    """
    alone = _rates(features, runs / "alone", steps, threads, processes=1, runs_at_once=1)
    together = _rates(features, runs / "together", steps, threads, processes=2, runs_at_once=1)
    apart = _rates(features, runs / "apart", steps, threads, processes=1, runs_at_once=2)
    return {"one": alone, "two": together, "two_apart": apart}


def _rates(features: Path, runs: Path, steps: int, threads: int, processes: int, runs_at_once: int) -> float:
    command = [
        sys.executable, "train.py", "fit", "--config=configs/leo.yaml", f"--data.root={features}",
        f"--trainer.max_steps={steps}", f"--run.root={runs}", "--trainer.accelerator=cpu",
        f"--trainer.devices={processes}", "--trainer.log_every_n_steps=10", "--trainer.limit_val_batches=0",
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    started = [
        subprocess.Popen([*command, f"--run.name={i}"], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        for i in range(runs_at_once)
    ]
    ends = [process.wait() for process in started]  # all of them, whatever the first one says
    if any(ends):
        raise RuntimeError(f"{' '.join(command[1:3])} failed; run it by hand to see why")
    return sum(_median_rate(path) for path in runs.glob("*/*/metrics.csv"))


def _median_rate(path: Path) -> float:
    with path.open(newline="") as file:
        rates = [row["throughput/tasks_per_second"] for row in csv.DictReader(file)]
    return statistics.median(float(rate) for rate in rates[2:] if rate)  # the first ones warm up
