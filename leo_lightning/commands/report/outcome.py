"""Outcomes of runs: their scores, in words and tables."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from leo_lightning.commands.report.run_folder import RunFolder
from leo_lightning.common.intervals import half_width


class Line(NamedTuple):
    """Outcome of a run."""

    headline: str = ""  # its score; empty if there is none
    interval: str = ""
    about: str = "no score yet"  # the kind of score
    best: str = ""  # its best validation; empty before the first
    difference: str = ""
    """Difference from the first run on the same test tasks; empty if it cannot be computed."""


def outcomes(runs: Sequence[RunFolder]) -> list[Line]:
    """A line for each run."""
    return [_line(run, runs[0]) for run in runs]


def _line(run: RunFolder, first: RunFolder) -> Line:
    best, score = run.best, run.results.get(run.score)
    word = {"mse": "squared error"}.get(run.score, run.score)
    when = f" at step {best.step:,}" if best and run.trained else ""
    validated = scored(run.score, best.score, best.ci95) + when if best else ""
    if run.tested and score is not None:
        tasks = run.results.get("tasks")
        about = f"mean of {tasks:,} test tasks" if tasks else "test"
        return Line(
            scored(run.score, score),
            _width(run.score, run.results.get("ci95")),
            f"{word}, {about}",
            validated,
            "" if run is first else _difference(run, first),
        )
    if best:
        about = f"{word}, best validation,{when}" if when else f"{word} of a validation"
        return Line(scored(run.score, best.score), _width(run.score, best.ci95), about, validated)
    return Line()


def stages(runs: Sequence[RunFolder]) -> list[tuple[str, list[str]]]:
    """Stages of adaptation and baselines: their names, and the score of each run."""
    tested = [run.results.get("stages", {}) if run.tested else {} for run in runs]
    learners = {run.results["learner"] for run in runs if "learner" in run.results}
    final = learners.pop() if len(learners) == 1 else "the method"
    table = []
    for name in dict.fromkeys(name for stages in tested for name in stages):
        cells = []
        for run, stages in zip(runs, tested, strict=True):
            numbers = stages.get(name, {})
            score = numbers.get(run.score)
            cells.append("" if score is None else scored(run.score, score, numbers.get("ci95")))
        table.append((final if name == "final" else name.replace("_", " "), cells))
    return table


def warnings(runs: Sequence[RunFolder]) -> list[str]:
    """Reasons why the scores of several runs cannot be compared."""
    return [
        f"These runs were tested {difference}: their scores cannot be compared."
        for key, difference in (("protocol", "by different protocols"), ("data", "on different data"))
        if len({str(_compared(run, key)) for run in runs if run.tested}) > 1
    ]


def _compared(run: RunFolder, key: str) -> Any:
    """The part of a test that two runs must share, without normalisation and unknown classes.

    The normalisation is a choice of the method's, and unknown classes change no score of the others.
    """
    value = run.results.get(key)
    if not isinstance(value, dict):
        return value
    return {name: value[name] for name in value if name not in ("normalize", "unknown")}


def protocol(results: dict[str, Any]) -> str:
    """The protocol of a test in words, like `5-way 1-shot; queries per class: 15`."""
    facts = dict(results.get("protocol", {}))
    size = " ".join(f"{facts.pop(key)}-{key}" for key in ("way", "shot") if key in facts)
    rest = [f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()]
    return "; ".join([size, *rest] if size else rest)


def data(results: dict[str, Any]) -> str:
    """The features of a test in words, like `dataset: synthetic, split: test`."""
    return ", ".join(f"{key}: {value}" for key, value in results.get("data", {}).items())


def scored(score: str, value: float, ci95: float | None = None) -> str:
    """A score, with the half-width of its interval if that is known."""
    number = f"{100 * value:.2f}" if score == "accuracy" else f"{value:.3f}"
    text = f"{number} {_width(score, ci95)}".rstrip()
    return f"{text} %" if score == "accuracy" else text


def _width(score: str, ci95: float | None) -> str:
    if ci95 is None:
        return ""
    return f"± {100 * ci95:.2f}" if score == "accuracy" else f"± {ci95:.3f}"


def _difference(run: RunFolder, first: RunFolder) -> str:
    """Mean difference task by task, whose interval is narrower than those of the scores."""
    same = all(_compared(run, key) == _compared(first, key) for key in ("protocol", "data", "eval_seed"))
    same = same and first.tested and run.score == first.score and run.per_task.keys() == first.per_task.keys()
    if not same or len(run.per_task) < 2:
        return ""
    differences = np.array([value - first.per_task[task] for task, value in run.per_task.items()])
    mean, width = differences.mean(), half_width(differences)
    if not np.isfinite(mean):
        return ""
    if run.score == "accuracy":
        return f"{100 * mean:+.2f} ± {100 * width:.2f} points".replace("-", "−")
    return f"{mean:+.3f} ± {width:.3f}".replace("-", "−")
