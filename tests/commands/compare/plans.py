"""Tiny plans on synthetic features, for the tests of the comparison."""

from pathlib import Path
from typing import Any

import yaml

from tests.places import ROOT

QUICKSTART = str(ROOT / "configs" / "leo.yaml")
CENTROID = str(ROOT / "configs" / "methods" / "nearest_centroid.yaml")
TINY = {
    "trainer.accelerator": "cpu",
    "trainer.logger": False,
    "data.steps_per_epoch": 20,
    "data.batch_size": 2,
    "data.val_tasks": 8,
}


def write_plan(folder: Path, **fields: Any) -> Path:
    """Write a plan that takes no time but for its fields; the file."""
    table: dict[str, Any] = {
        "out": str(folder / "out"),
        "root": "synthetic",
        "query": 5,
        "steps": 40,
        "tasks": 60,
        "plot_tasks": 10,
        "set": TINY,
        "methods": {"LEO": tiny_leo(), "nearest centroid": CENTROID},
    }
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(table | fields, sort_keys=False))
    return path


def tiny_leo(**changes: Any) -> dict[str, Any]:
    return {"config": QUICKSTART, "set": {"model.learner.num_latents": 4, **changes}}
