"""Run folders made by hand: what a run would have left, without one."""

import csv
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

LEO = "leo_lightning.learners.leo.LEO"
DATA = "leo_lightning.data.datamodule.EpisodeDataModule"


def make_run(
    folder: Path,
    accuracies: Sequence[float] = (),
    *,
    max_steps: int = 100,
    every: int = 20,
    logged: Mapping[str, Sequence[float | str]] | None = None,
    tasks: Sequence[float] = (),
    **changes: Any,
) -> Path:
    """Write a run folder.

    Args:
        folder: where.
        accuracies: accuracies of its validations, one every `every` steps.
        max_steps: what it was to do.
        every: steps.
        logged: other columns, a value every `every` steps; by default a loss.
        tasks: final accuracies of its test tasks; none if it was not tested.
        changes: settings of LEO, or entries of its results.
    """
    folder.mkdir(parents=True)
    init_args = {"kl_weight": 0.001, **{key: value for key, value in changes.items() if key != "results"}}
    config = {
        "seed_everything": 0,
        "trainer": {"max_steps": max_steps},
        "model": {"learner": {"class_path": LEO, "init_args": init_args}, "learning_rate": 1e-3},
        "data": {"class_path": DATA, "init_args": {"way": 5}},
        "run": {"name": folder.name},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    logged = {"train/loss": [1.0] * len(accuracies)} if logged is None else logged
    rows = []
    for i in range(max(len(accuracies), 0, *map(len, logged.values()))):
        step = every * (i + 1) - 1
        cells = {name: values[i] for name, values in logged.items() if i < len(values)}
        rows += [{"step": step, "epoch": 0, **cells}] if cells else []
        if i < len(accuracies):
            rows.append({"step": step, "epoch": 0, "val/accuracy": accuracies[i], "val/accuracy_ci95": 0.01})
    if tasks:
        rows.append({"step": len(accuracies) * every, "epoch": 1, "test/accuracy": sum(tasks) / len(tasks)})
        write_results(folder, tasks, changes.get("results", {}))
    write_csv(folder / "metrics.csv", rows)
    return folder


def write_results(folder: Path, tasks: Sequence[float], more: Mapping[str, Any]) -> None:
    """Write results.json and per_task.csv."""
    score = {"accuracy": sum(tasks) / len(tasks), "ci95": 0.0123}
    results = {
        "learner": "LEO", **score, "tasks": len(tasks), "protocol": {"way": 5, "shot": 1},
        "stages": {"before_adaptation": {"accuracy": 0.25, "ci95": 0.01}, "final": score},
        "data": {"dataset": "synthetic", "split": "test"}, "eval_seed": 0, "steps": 100, "seconds": 2.0,
        "commit": "0123abc", "command": "python train.py --run.name one", "device": "cpu",
    }  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results | dict(more)))
    write_csv(folder / "per_task.csv", [{"task": i, "final": value} for i, value in enumerate(tasks)])


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    names = dict.fromkeys(name for row in [{"step": 0, "epoch": 0}, *rows] for name in row)
    if path.name != "metrics.csv":
        names = dict.fromkeys(name for row in rows for name in row)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(names))
        writer.writeheader()
        writer.writerows(rows)


def png(grey: int, size: int = 40) -> bytes:
    """A square picture of one grey."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    pixels = zlib.compress((b"\0" + bytes([grey]) * size) * size)
    header = struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def draw(folder: Path, name: str, steps: Sequence[int]) -> None:
    """Pictures of one kind."""
    place = folder / "pictures" / name
    place.mkdir(parents=True)
    for i, step in enumerate(steps):
        (place / f"step-{step:08d}.png").write_bytes(png(i % 256))
