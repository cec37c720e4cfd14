"""The table, the JSON, and the machine they belong to."""

import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from benchmarks.rounds import Measurement, Spread
from leo_lightning.run import git_commit


def machine(threads: int) -> dict[str, Any]:
    """What the times depend on; nothing that tells whose machine it is."""
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


def overhead(found: dict[str, Measurement], shot: int) -> Spread:
    """Share of a training step through the Trainer that is not the learner's, round by round."""
    learner, trainer = found[f"learner_{shot}shot"].seconds, found[f"trainer_{shot}shot"].seconds
    return Spread.of([1 - inner / outer for inner, outer in zip(learner, trainer, strict=True)])


def table(found: dict[str, Measurement], rounds: int) -> Table:
    """A line per row."""
    result = Table(title=f"medians of {rounds} rounds, ± half the distance of their quartiles")
    result.add_column("")
    for column in ("ms", "±", "naive steps", "±", "tasks/s"):
        result.add_column(column, justify="right")
    for measurement in found.values():
        time, ratio = Spread.of(measurement.seconds), Spread.of(measurement.ratios)
        rate = f"{measurement.row.tasks / time.median:,.0f}" if measurement.row.tasks else ""
        several = len(measurement.seconds) > 1
        result.add_row(
            measurement.row.label,
            f"{1000 * time.median:,.1f}",
            f"{50 * time.relative:.0f}%" if several else "",
            f"{ratio.median:.3f}",
            f"{50 * ratio.relative:.0f}%" if several else "",
            rate,
        )
    return result


def as_json(
    found: dict[str, Measurement], memory: int, settings: dict[str, Any], described: dict[str, Any]
) -> str:
    """Everything that was measured, each round included."""
    rows = {
        name: {
            "label": measurement.row.label,
            "tasks": measurement.row.tasks,
            "seconds": Spread.of(measurement.seconds)._asdict(),
            "naive_steps": Spread.of(measurement.ratios)._asdict(),
            "rounds": {"seconds": measurement.seconds, "naive_steps": measurement.ratios},
        }
        for name, measurement in found.items()
    }
    report = {
        "machine": described,
        "commit": git_commit(),
        "settings": settings,
        "rows": rows,
        "lightning_share": {f"{shot}shot": overhead(found, shot)._asdict() for shot in (1, 5)},
        "training_peak_resident_bytes": memory,
    }
    return json.dumps(report, indent=2) + "\n"
