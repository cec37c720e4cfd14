"""The table, the JSON, and the machine they belong to."""

import json
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table

from benchmarks.floors import bytes_moved, operations
from benchmarks.rounds import Measurement, Spread
from benchmarks.sizes import Sizes
from leo_lightning.runs.folder import git_commit


def machine(threads: int) -> dict[str, Any]:
    """Describe the hardware and software that the times depend on, without naming the machine."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


class Results(NamedTuple):
    """Everything that a benchmark measured."""

    rows: dict[str, Measurement]
    memory: dict[str, int]
    """Peak resident bytes of processes that do one thing."""
    scaling: dict[str, float]
    """Tasks per second, from `weak_scaling`."""
    limits: tuple[float, float]
    """Operations per second of a large matrix product, bytes per second of a large copy."""
    sizes: Sizes
    machine: dict[str, Any]


def overhead(rows: dict[str, Measurement], shot: int) -> Spread:
    """Fraction of a training step that the Trainer adds to the learner's time, round by round."""
    learner, trainer = rows[f"learner_{shot}shot"].seconds, rows[f"trainer_{shot}shot"].seconds
    return Spread.of([1 - inner / outer for inner, outer in zip(learner, trainer, strict=True)])


def table(results: Results, rounds: int) -> Table:
    """Table with a line for each row."""
    result = Table(
        title=f"medians of {rounds} rounds, ± half the distance of their quartiles", caption_justify="left",
        caption="naive: in 1-shot training steps of the naive LEO in the same round; last: for 10,000 tasks",
    )  # fmt: skip
    result.add_column("")
    for column in ("ms", "naive", "±", "tasks/s", "10,000"):
        result.add_column(column, justify="right")
    for measurement in results.rows.values():
        time, ratio = Spread.of(measurement.seconds), Spread.of(measurement.ratios)
        tasks, several = measurement.row.tasks, len(measurement.seconds) > 1
        result.add_row(
            measurement.row.label,
            f"{1000 * time.median:,.1f}",
            f"{ratio.median:.3f}",
            f"{50 * ratio.relative:.0f}%" if several else "",
            f"{tasks / time.median:,.0f}" if tasks else "",
            f"{10_000 / tasks * ratio.median:,.0f}" if measurement.row.name.startswith("test") else "",
        )
    return result


def remarks(results: Results) -> Iterator[str]:
    """Lines for which the table has no room."""
    rows, memory, MiB = results.rows, results.memory, 2**20
    for shot in (1, 5):
        share = overhead(rows, shot)
        seconds, floors = Spread.of(rows[f"learner_{shot}shot"].seconds).median, _floors(results, shot)
        yield (
            f"{shot}-shot step: Lightning, loader and logging {share.median:.0%}; of the learner's time, "
            f"matrix products would need {floors[0] / seconds:.0%}, moving bytes {floors[1] / seconds:.0%}"
        )
    base = Spread.of(rows["learner_1shot"].seconds).median
    doubled = {
        name[-1]: Spread.of(row.seconds).median / base
        for name, row in rows.items()
        if name.startswith("growth")
    }
    yield "doubling makes the 1-shot step longer by " + ", ".join(f"{s} {x:.2f}" for s, x in doubled.items())
    imports = memory["imports"]
    yield (
        f"peak memory: 1-shot training {(memory['training_1shot'] - imports) / MiB:,.0f} MiB above the "
        f"{imports / MiB:,.0f} MiB of importing torch and Lightning; a 20-way 10-shot step of 12 tasks "
        f"{(memory['step_20way_10shot'] - imports) / MiB:,.0f} MiB above"
    )
    one, two, apart = (results.scaling[name] for name in ("one", "two", "two_apart"))
    yield (
        f"two processes: {two / one:.2f} times the tasks per second of one; without communication "
        f"{apart / one:.2f} times, which makes its share {1 - two / apart:.0%}"
    )
    yield ", ".join(f"{key} {value}" for key, value in results.machine.items())


def as_json(results: Results, effort: dict[str, Any]) -> str:
    """Everything that was measured, in every round."""
    rows = {
        name: {
            "label": measurement.row.label,
            "tasks": measurement.row.tasks,
            "seconds": Spread.of(measurement.seconds)._asdict(),
            "naive_steps": Spread.of(measurement.ratios)._asdict(),
            "rounds": {"seconds": measurement.seconds, "naive_steps": measurement.ratios},
        }
        for name, measurement in results.rows.items()
    }
    floors = {
        f"{shot}shot": {
            "operations": operations(shot, results.sizes),
            "bytes": bytes_moved(shot, results.sizes),
            "seconds_of_operations": _floors(results, shot)[0],
            "seconds_of_bytes": _floors(results, shot)[1],
        }
        for shot in (1, 5)
    }
    report = {
        "machine": results.machine,
        "commit": git_commit(),
        "settings": {**results.sizes._asdict(), **effort},
        "rows": rows,
        "lightning_share": {f"{shot}shot": overhead(results.rows, shot)._asdict() for shot in (1, 5)},
        "peak_resident_bytes": results.memory,
        "weak_scaling_tasks_per_second": results.scaling,
        "operations_per_second": results.limits[0],
        "bytes_per_second": results.limits[1],
        "floors": floors,
    }
    return json.dumps(report, indent=2) + "\n"


def _floors(results: Results, shot: int) -> tuple[float, float]:
    """Seconds that the operations and the bytes of a step take at the limits of this machine."""
    return (
        operations(shot, results.sizes) / results.limits[0],
        bytes_moved(shot, results.sizes) / results.limits[1],
    )
