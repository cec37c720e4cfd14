"""A run folder as the report reads it: nothing in it needs to be there but config.yaml."""

import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from leo_lightning.commands.report.pictures import Album, read_albums
from leo_lightning.commands.report.settings import read_config
from leo_lightning.commands.report.tables import Curve, finite, number, read_curves, read_rows, whole_number
from leo_lightning.common.errors import InputError, one_line

CONFIG = "config.yaml"  # run.py has its name, too, and takes seconds to import
LAST = Path("checkpoints", "last.ckpt")
STAMP = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(-\d+)?")


class State(NamedTuple):
    """How far a run has come."""

    finished: bool
    sentence: str


class Best(NamedTuple):
    """The best validation."""

    score: float
    ci95: float | None
    step: int


class RunFolder:
    """What a run has left so far.

    Args:
        folder: it must hold a config.yaml.
        name: what the report calls it.
        now: when the folder is read, seconds since 1970.

    Raises:
        InputError: a file in it is damaged.
    """

    def __init__(self, folder: Path, name: str, now: float) -> None:
        self.folder = folder
        self.name = name
        self.config = read_config(folder / CONFIG)
        self.earlier = _earlier(folder)
        self.curves = read_curves(folder / "metrics.csv")
        self.results = _results(folder / "results.json")
        self.per_task = _per_task(folder / "per_task.csv")
        self.albums: dict[str, Album] = read_albums(folder)
        self.state = self._state(now)

    @property
    def trained(self) -> bool:
        """Whether it trained, and not only tested what others had."""
        logged = any(name.startswith("train/") for name in self.curves)
        return logged or (self.folder / LAST.parent).is_dir()

    @cached_property
    def training(self) -> dict[str, Curve]:
        """What was logged of training and validation, by name; a test is one point, and no curve."""
        return {name: curve for name, curve in self.curves.items() if not name.startswith("test/")}

    @cached_property
    def score(self) -> str:
        """What checkpoints are chosen by: accuracy, or mse."""
        found = [name[4:-5] for name in self.curves if name.startswith("val/") and name.endswith("_ci95")]
        known = ("accuracy", "mse")
        return next(iter(found), "") or next((name for name in known if name in self.results), known[0])

    @cached_property
    def best(self) -> Best | None:
        """The best validation so far; None before the first."""
        steps, values = self.curves.get(f"val/{self.score}", ((), ()))
        finite = [i for i, value in enumerate(values) if np.isfinite(value)]
        if not finite:
            return None
        choose = min if self.score == "mse" else max
        at = choose(finite, key=lambda i: values[i])
        widths = dict(zip(*self.curves.get(f"val/{self.score}_ci95", ((), ())), strict=True))
        width = float(widths.get(steps[at], np.nan))
        return Best(float(values[at]), width if np.isfinite(width) else None, int(steps[at]))

    @property
    def tested(self) -> bool:
        """Whether it has a result of the training as far as it has come."""
        here = any(name.startswith("test/") for name in self.curves)
        return bool(self.results) and (here or not self.training)

    def _state(self, now: float) -> State:
        done = max((int(steps[-1]) for steps, _ in self.training.values()), default=0)
        if self.tested:
            seconds = finite(self.results.get("seconds"))
            took = "" if seconds is None else f" in {seconds:.0f} s"
            if self.training:
                return State(True, f"trained {done:,} steps, then tested{took}")
            return State(True, f"tested{took}: {self.results.get('checkpoint') or 'nothing to train'}")
        if self.curves and not self.trained:
            return State(True, "validated")
        saved, said = self._last_checkpoint(now)
        done = max(done, saved)
        limit = _field(self.config, "trainer", "max_steps")
        if isinstance(limit, int) and 0 < limit <= done:
            return State(True, f"trained {done:,} steps; not tested")
        end = f" of {limit:,}" if isinstance(limit, int) and limit > 0 else ""
        parts = [f"unfinished: step {done:,}{end}"]
        if self.training:
            written = (self.folder / "metrics.csv").stat().st_mtime
            parts.append(f"last line {_ago(now - written)}")
        else:
            parts.append("nothing logged yet")
        if self.results:
            parts.append("its result is of a test before training went on")
        return State(False, "; ".join([*parts, said]))

    def _last_checkpoint(self, now: float) -> tuple[int, str]:
        """Steps that it holds, and what is to be said of it."""
        path = self.folder / LAST
        if not path.is_file():
            return 0, "no checkpoint"
        written = _ago(now - path.stat().st_mtime)
        from leo_lightning.training.checkpoint import read_checkpoint

        try:
            step = read_checkpoint(path)["global_step"]
        except InputError:  # of pre-training, whose checkpoints are others
            return 0, f"checkpoint written {written}"
        return step, f"checkpoint of step {step:,} written {written}"


def read_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Runs under names that tell them apart.

    Raises:
        InputError: one is no run folder, is named twice, or holds a damaged file.
    """
    seen: set[Path] = set()
    for folder in folders:
        if not folder.exists():
            raise InputError(f"{folder}: no such folder; name a run folder, like runs/leo/DATE_TIME")
        if not (folder / CONFIG).is_file():
            like = max((path.parent for path in folder.glob(f"*/{CONFIG}")), default="runs/leo/DATE_TIME")
            raise InputError(f"{folder}: is no run folder, which holds a {CONFIG}; name one, like {like}")
        if folder.resolve() in seen:
            raise InputError(f"{folder}: is named twice; name each run once")
        seen.add(folder.resolve())
    return [RunFolder(*each, time.time()) for each in zip(folders, _names(folders), strict=True)]


def _names(folders: Sequence[Path]) -> list[str]:
    """Of each run: that of its experiment, its folder's if need be, its whole path if they are alike."""
    paths = [folder.resolve() for folder in folders]
    short = [path.parent.name if STAMP.fullmatch(path.name) else path.name for path in paths]
    longer = [f"{path.parent.name}/{path.name}" for path in paths]
    for names in (short, longer):
        if max(Counter(names).values()) == 1:
            return names
    return [str(path) for path in paths]


def _field(config: dict[str, Any], section: str, name: str) -> object:
    part = config.get(section)
    return part.get(name) if isinstance(part, dict) else None


def _earlier(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    """Configurations that were changed as the run was resumed, with the step until which they held."""
    found = []
    for path in folder.glob("config-until-step-*.yaml"):
        if match := re.fullmatch(r"config-until-step-(\d{1,12})\.yaml", path.name):
            found.append((int(match[1]), read_config(path)))
    return sorted(found, key=lambda each: each[0])


def _results(path: Path) -> dict[str, Any]:
    """What a test found; empty before one."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({one_line(error)}); test again") from None
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key, kind()), kind)
        for key, kind in (("stages", dict), ("protocol", dict), ("data", dict), ("steps", int))
    ):
        raise InputError(f"{path}: is no result of a test; test again")
    return found


def _per_task(path: Path) -> dict[int, float]:
    """The final score of each test task, by its number."""
    rows = read_rows(path)
    if not rows or "task" not in rows[0] or "final" not in rows[0]:
        return {}
    return {
        whole_number(path, line, row["task"]): number(path, line, row["final"])
        for line, row in enumerate(rows, start=2)
    }


def _ago(seconds: float) -> str:
    """A time in words, roughly."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds / length)
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "less than a minute ago"
