"""Sweep files, for the tests of the search."""

from pathlib import Path
from typing import Any

import yaml

from tests.places import ROOT

COMMAND = ["${env}", "python", "${program}", "fit", "--config", "configs/leo.yaml", "${args}"]
TINY = [
    "--trainer.accelerator=cpu",
    "--trainer.max_steps=4",
    "--data.root=synthetic",
    "--data.steps_per_epoch=2",
    "--data.way=2",
    "--data.query=3",
    "--data.batch_size=2",
    "--data.val_tasks=8",
    "--data.test_tasks=20",
    "--model.learner.num_latents=2",
    "--run.pictures_every=0",
]


def write(folder: Path, parameters: Any, **fields: Any) -> Path:
    """A sweep file; a field that is None is left out."""
    content = {
        "program": "train.py",
        "method": "random",
        "metric": {"name": "val/accuracy", "goal": "maximize"},
        "command": COMMAND,
        "parameters": parameters,
        **fields,
    }
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


def tiny_sweep(folder: Path, parameters: dict[str, Any], *more: str, method: str = "bayes") -> Path:
    """A sweep file of runs that take no time, from any folder."""
    config = ["--config", str(ROOT / "configs" / "leo.yaml")]
    return write(folder, parameters, method=method, command=[*COMMAND[:4], *config, *TINY, *more, "${args}"])
