"""RunFolder: a run folder as the report reads it. Nothing but config.yaml has to exist."""

import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from leo_lightning.commands.report.pictures import read_albums
from leo_lightning.commands.report.tables import Curve, read_curves
from leo_lightning.common.csv_files import damaged, read_rows
from leo_lightning.common.errors import InputError
from leo_lightning.common.yaml_files import read_table
from leo_lightning.runs.folder import CHECKPOINTS, CONFIG, PICTURES

_NUMBER = (int, float, type(None))
_KINDS = {
    **dict.fromkeys(("accuracy", "mse", "ci95", "tasks"), _NUMBER),
    **dict.fromkeys(("learner", "command"), str),
    **dict.fromkeys(("stages", "protocol", "data"), dict),
    "seconds": (int, float),
}
"""Kinds of the results that are more than text on the page."""
STAMP = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(-\d+)?")


class State(NamedTuple):
    """Progress of a run."""

    finished: bool
    sentence: str


class Best(NamedTuple):
    """The best validation."""

    score: float
    ci95: float | None
    step: int


class RunFolder:
    """Everything that a run has written so far.

    Raises:
        InputError: a file in it is damaged.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self.config = read_table(folder / CONFIG)
        self.earlier = _earlier(folder)
        self.curves = read_curves(folder / "metrics.csv")
        self.results = _results(folder / "results.json")
        self.per_task = _per_task(folder / "per_task.csv")
        self.albums = read_albums(folder)
        self.last_checkpoint = folder / CHECKPOINTS / "last.ckpt"
        self.state = self._state()

    @property
    def trained(self) -> bool:
        """Whether the run trained, and not only tested a checkpoint of another run."""
        logged = any(name.startswith("train/") for name in self.curves)
        return logged or self.last_checkpoint.parent.is_dir()

    @cached_property
    def training(self) -> dict[str, Curve]:
        """Metrics of training and validation by name; those of a test are one point, and not a curve."""
        return {name: curve for name, curve in self.curves.items() if not name.startswith("test/")}

    @cached_property
    def score(self) -> str:
        """The metric that checkpoints are chosen by: accuracy or mse."""
        return "mse" if "val/mse" in self.curves or "mse" in self.results else "accuracy"

    @cached_property
    def best(self) -> Best | None:
        """The best validation so far; None before the first."""
        steps, values = self.curves.get(f"val/{self.score}", ((), ()))
        finite = [i for i, value in enumerate(values) if np.isfinite(value)]
        if not finite:
            return None
        choose = min if self.score == "mse" else max
        best = choose(finite, key=lambda i: values[i])
        widths = dict(zip(*self.curves.get(f"val/{self.score}_ci95", ((), ())), strict=True))
        width = float(widths.get(steps[best], np.nan))
        return Best(float(values[best]), width if np.isfinite(width) else None, int(steps[best]))

    @property
    def tested(self) -> bool:
        """Whether the results are of the training as far as it has come."""
        here = any(name.startswith("test/") for name in self.curves)
        return bool(self.results) and (here or not self.training)

    def _state(self) -> State:
        done = max((int(steps[-1]) for steps, _ in self.training.values()), default=0)
        if self.tested:
            took = f" in {self.results['seconds']:.0f} s" if "seconds" in self.results else ""
            if self.training:
                return State(True, f"trained {done:,} steps, then tested{took}")
            return State(True, f"tested{took}: {self.results.get('checkpoint') or 'nothing to train'}")
        if self.curves and not self.trained:
            return State(True, "validated")
        stored, checkpoint = self._checkpoint()
        done = max(done, stored)
        limit = (self.config.get("trainer") or {}).get("max_steps") or 0
        if 0 < limit <= done:
            return State(True, f"trained {done:,} steps; not tested")
        parts = [f"unfinished: step {done:,}" + (f" of {limit:,}" if limit > 0 else "")]
        if self.training:
            parts.append(f"last line {_age(self.folder / 'metrics.csv')}")
        else:
            parts.append("nothing logged yet")
        if self.results:
            parts.append("its result is from before training continued")
        return State(False, "; ".join([*parts, checkpoint]))

    def _checkpoint(self) -> tuple[int, str]:
        """Steps in the last checkpoint, and words for it."""
        if not self.last_checkpoint.is_file():
            return 0, "no checkpoint"
        written = _age(self.last_checkpoint)
        from leo_lightning.training.checkpoint import read_checkpoint

        try:
            step = read_checkpoint(self.last_checkpoint)["global_step"]
        except InputError:  # pre-training has checkpoints of another kind
            return 0, f"checkpoint written {written}"
        return step, f"checkpoint of step {step:,} written {written}"


def read_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Read runs, and name them so that they can be told apart.

    Raises:
        InputError: a folder is not a run folder, is named twice, or holds a damaged file.
    """
    for folder in folders:
        if not (folder / CONFIG).is_file():
            like = max((path.parent for path in folder.glob(f"*/{CONFIG}")), default="runs/leo/DATE_TIME")
            problem = f"holds no {CONFIG}" if folder.exists() else "no such folder"
            raise InputError(f"{folder}: {problem}; name a run folder, like {like}")
        for path in (*folder.iterdir(), *(folder / PICTURES).rglob("*")):
            if path.is_symlink() and path.is_file() and path.suffix in (".yaml", ".json", ".csv", ".png"):
                raise InputError(
                    f"{path}: is a link, so a file of yours would be on the page; put a copy here"
                )
    paths = [folder.resolve() for folder in folders]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]}: is named twice; name each run once")
    return [RunFolder(folder, name) for folder, name in zip(folders, _names(paths), strict=True)]


def _names(paths: Sequence[Path]) -> list[str]:
    """Names of the experiments; if that is ambiguous, with the names of the folders, or whole paths."""
    short = [path.parent.name if STAMP.fullmatch(path.name) else path.name for path in paths]
    long = [f"{path.parent.name}/{path.name}" for path in paths]
    return next((names for names in (short, long) if len(set(names)) == len(names)), [*map(str, paths)])


def _earlier(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    """Configurations before the run was resumed with changes, with the step at which each ended."""
    steps = {
        int(match[1]): path
        for path in folder.glob("config-until-step-*.yaml")
        if (match := re.fullmatch(r"config-until-step-(\d{1,12})\.yaml", path.name))
    }
    return [(step, read_table(path)) for step, path in sorted(steps.items())]


def _results(path: Path) -> dict[str, Any]:
    """Results of the test; empty before one."""
    if not path.is_file():
        return {}
    with damaged(path):
        results = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(results, dict):
            raise ValueError("not a table of results")
        for name, value in results.items():
            if not isinstance(value, _KINDS.get(name, object)):
                raise ValueError(f"'{name}' is a {type(value).__name__}")
        for scores in results.get("stages", {}).values():
            if not isinstance(scores, dict) or not all(isinstance(one, _NUMBER) for one in scores.values()):
                raise ValueError("'stages' are not tables of scores")
        return results


def _per_task(path: Path) -> dict[int, float]:
    """Final score of each test task, by its number."""
    rows = read_rows(path)
    with damaged(path):
        return {int(row["task"]): float(row["final"]) for row in rows}


def _age(path: Path) -> str:
    """The time since a file was written, in words."""
    seconds = time.time() - path.stat().st_mtime
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds / length)
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "less than a minute ago"
