"""Tiny runs of the command line, for the tests of everything around it."""

import csv
import json
from pathlib import Path

from leo_lightning import __main__ as program

TINY = [
    "--data.root=synthetic",
    "--trainer.accelerator=cpu",
    "--trainer.max_steps=6",
    "--trainer.log_every_n_steps=1",
    "--data.steps_per_epoch=3",
    "--data.batch_size=2",
    "--data.val_tasks=8",
    "--data.test_tasks=40",
    "--data.eval_batch_size=16",
    "--model.learner.num_latents=4",
    "--run.pictures_every=0",
]


def main(argv: list[str]) -> int:
    """Run a command line in this process, which stays as it is set up; the exit code."""
    verb, *rest = argv if argv and not argv[0].startswith("-") else ["fit_test", *argv]
    return program.run(verb, rest)


def tiny(root: Path, *args: str, command: str = "fit_test", name: str = "tiny") -> int:
    """Run a command with sizes that take no time; its exit code."""
    return main([command, *TINY, f"--run.root={root}", f"--run.name={name}", *args])


def folders(root: Path, name: str = "tiny") -> list[Path]:
    """The run folders, oldest first."""
    return sorted((root / name).glob("*/"))


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files(root: Path) -> list[Path]:
    """Everything below a folder, to see whether something was left there."""
    return sorted(path for path in root.rglob("*"))
