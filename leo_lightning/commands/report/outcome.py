"""What runs came to: their scores, in words and tables."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from leo_lightning.commands.report.run_folder import RunFolder
from leo_lightning.commands.report.tables import finite


class Line(NamedTuple):
    """What a run came to."""

    headline: str
    """Its score; empty if there is none."""
    interval: str
    about: str
    """What the score is of."""
    best: str
    """Its best validation; empty before the first."""
    difference: str
    """From the first run, on the same test tasks; empty if that cannot be said."""


def outcomes(runs: Sequence[RunFolder]) -> list[Line]:
    """One for each run."""
    return [_line(run, runs[0]) for run in runs]


def _line(run: RunFolder, first: RunFolder) -> Line:
    found, best = finite(run.results.get(run.score)), run.best
    when = f" at step {best.step:,}" if best is not None and run.trained else ""
    validated = "" if best is None else scored(run.score, best.score, best.ci95) + when
    if run.tested and found is not None:
        interval, about = _interval(run), _tasks(run.results)
        difference = "" if run is first else _difference(run, first)
        return Line(scored(run.score, found), interval, f"{_word(run.score)}, {about}", validated, difference)
    if best is not None:
        about = (
            f"{_word(run.score)}, best validation,{when}" if when else f"{_word(run.score)} of a validation"
        )
        interval = "" if best.ci95 is None else _width(run.score, best.ci95)
        return Line(scored(run.score, best.score), interval, about, validated, "")
    return Line("", "", "no score yet", "", "")


def stages(runs: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    """Stages of adaptation and baselines: name, and the score of each run."""
    tested = [run.results.get("stages", {}) if run.tested else {} for run in runs]
    names = dict.fromkeys(name for found in tested for name in found)
    table = []
    for name in names:
        cells = []
        for run, found in zip(runs, tested, strict=True):
            numbers = found.get(name)
            numbers = numbers if isinstance(numbers, dict) else {}
            value = finite(numbers.get(run.score))
            cells.append("" if value is None else scored(run.score, value, finite(numbers.get("ci95"))))
        learners = {str(run.results["learner"]) for run in runs if "learner" in run.results}
        final = learners.pop() if len(learners) == 1 else "the method"
        table.append((final if name == "final" else name.replace("_", " "), cells))
    return table


def warnings(runs: Sequence[RunFolder]) -> list[str]:
    """Why the scores of several runs may not be compared."""
    found = [run.results for run in runs if run.tested]
    said = []
    for key, what in (("protocol", "by different protocols"), ("data", "on different data")):
        if len({str(results.get(key)) for results in found}) > 1:
            said.append(f"These runs were tested {what}: their scores cannot be compared.")
    return said


def protocol(results: dict[str, Any]) -> str:
    """How a test was made, in words."""
    facts = dict(results.get("protocol", {}))
    words = [f"{facts.pop(key)}-{key}" for key in ("way", "shot") if key in facts]
    said = " ".join(words)
    rest = [f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()]
    return "; ".join([said, *rest] if said else rest)


def scored(score: str, value: float, ci95: float | None = None) -> str:
    """A score, with the half width of its interval if that is known."""
    said = f"{100 * value:.2f}" if score == "accuracy" else f"{value:.3f}"
    said += "" if ci95 is None else f" {_width(score, ci95)}"
    return f"{said} %" if score == "accuracy" else said


def _width(score: str, ci95: float) -> str:
    return f"± {100 * ci95:.2f}" if score == "accuracy" else f"± {ci95:.3f}"


def _interval(run: RunFolder) -> str:
    width = finite(run.results.get("ci95"))
    if width is not None:
        return _width(run.score, width)
    ends = run.results.get("wilson95")
    low, high = map(finite, ends) if isinstance(ends, list) and len(ends) == 2 else (None, None)
    return "" if low is None or high is None else f"({100 * low:.2f} to {100 * high:.2f})"


def _tasks(results: dict[str, Any]) -> str:
    tasks = results.get("tasks")
    if "queries" in results:
        return f"{results['queries']} queries of one task"
    return f"mean of {tasks:,} test tasks" if isinstance(tasks, int) else "test"


def _difference(run: RunFolder, first: RunFolder) -> str:
    """The mean difference task by task, which is known better than either score."""
    same = all(run.results.get(key) == first.results.get(key) for key in ("protocol", "data", "eval_seed"))
    if (
        not same
        or not first.tested
        or run.score != first.score
        or run.per_task.keys() != first.per_task.keys()
    ):
        return ""
    differences = np.array([value - first.per_task[task] for task, value in run.per_task.items()])
    if len(differences) < 2 or not np.isfinite(differences).all():
        return ""
    mean, width = differences.mean(), 1.96 * differences.std(ddof=1) / math.sqrt(len(differences))
    if run.score == "accuracy":
        return f"{100 * mean:+.2f} ± {100 * width:.2f} points".replace("-", "−")
    return f"{mean:+.3f} ± {width:.3f}".replace("-", "−")


def _word(score: str) -> str:
    return {"mse": "squared error"}.get(score, score)
