"""What a search leaves: trials.csv, best.yaml, a table of the best, and which parameters mattered."""

import csv
import shlex
from pathlib import Path
from typing import Any

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from leo_lightning.commands.sweep.search import Search, score
from leo_lightning.commands.sweep.trial import resolve
from leo_lightning.common.errors import one_line
from leo_lightning.common.files import whole_file

BUDGET = (
    "--trainer.max_steps", "--data.steps_per_epoch", "--data.val_tasks", "--trainer.logger",
    "--model.lr_scheduler.init_args.T_max", "--run.root", "--run.name", "--run.wandb", "--run.wandb_project",
    "--run.pictures_every",
)  # fmt: skip
"""Flags of a sweep's command that are for its trials, and not for the configuration that it finds."""


def write_trials(search: Search) -> Path:
    """Write trials.csv: one line per trial that counts."""
    path = search.out / "trials.csv"
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        name = search.sweep.metric.replace("/", "_")
        writer.writerow(["trial", "state", name, "step", "seconds", "error", *search.sweep.space])
        for trial in search.trials():
            noted = [trial.user_attrs.get(name, "") for name in ("step", "seconds", "error")]
            value = "" if trial.value is None else trial.value
            values = [trial.params.get(name) for name in search.sweep.space]
            writer.writerow([trial.number, trial.state.name.lower(), value, *noted, *values])
    return path


def write_best(search: Search, command: str, tested: str | None = None) -> Path:
    """Write best.yaml: the base configuration with the best trial's parameters, for its own number of steps.

    Args:
        search: with a completed trial.
        command: the sweep's command line, for the header.
        tested: what a test has found.
    """
    best, *_ = completed = search.completed()
    flags = [flag for flag in search.flags if flag.partition("=")[0] not in BUDGET]
    words = [*search.sweep.arguments(best.params), *flags]
    config = resolve([word for word in words if word.partition("=")[0] not in BUDGET])
    data = search.data
    verb, longer = (
        ("Train", "; this file trains the base configuration's") if search.sweep.trains else ("Test ", "")
    )
    path = search.out / "best.yaml"
    first = search.base_trial()
    started = f"; the base configuration reached {score(first):.4f}" if first else ""
    states = [trial.state for trial in search.trials()]
    failed, early = states.count(TrialState.FAIL), states.count(TrialState.PRUNED)
    lines = [
        f"Best of a hyperparameter search, {search.sweep.path}.",
        "",
        f"Score     {metric(search)} {score(best):.4f}{_at_step(best)}, mean of {data['val_tasks']} "
        f"validation tasks{started}.",
        "          The best of many is flattered by the tasks that chose it"
        + (":" if tested else ": test it."),
        *([f"Test      {tested}."] if tested else []),
        f"Trials    {len(completed)} completed, {failed} failed, {early} ended early; {search.sweep.method}, "
        f"seed {search.seed}; this is trial {best.number}",
        f"A trial   {budget(search)}{longer}",
        f"Data      {tasks(search)}",
        f"Command   {command}",
        f"{verb}     python train.py --config {shlex.quote(str(path))}",
    ]
    with whole_file(path) as part:
        text = "".join(f"# {line}".rstrip() + "\n" for line in lines) + config
        part.write_text(text, encoding="utf-8")
    return path


def table(search: Search, rows: int = 10) -> Table:
    """The best trials, one per line."""
    first = search.base_trial()
    names = list(search.sweep.space)
    fields = [name.rpartition(".")[2] for name in names]
    made = Table(
        "trial", metric(search), "step", "seconds", *(fields if len(set(fields)) == len(names) else names)
    )
    for trial in search.completed()[:rows]:
        made.add_row(
            f"{trial.number}{' (base)' if trial == first else ''}",
            f"{score(trial):.4f}",
            str(trial.user_attrs["step"]),
            f"{trial.user_attrs['seconds']:.0f}",
            *(shown(trial.params[name]) for name in search.sweep.space),
        )
    return made


def importance(study: optuna.Study) -> str | None:
    """Which parameters the score hung on, by functional ANOVA; None while that cannot be said.

    Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter Importance. ICML 2014.
    """
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < 4:
        return None
    try:
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except (ValueError, RuntimeError) as error:  # all trials equally good
        return f"unknown ({one_line(error)})"
    return ", ".join(f"{name} {share:.2f}" for name, share in found.items())


def line(search: Search, trial: FrozenTrial, trials: int) -> str:
    """What is said when a trial is over."""
    over = sum(one.state.is_finished() for one in search.trials())
    said = f"trial {trial.number:3}  {over}/{trials}  "
    if trial.value is None:
        said += f"failed: {trial.user_attrs['error']}"
    elif trial.state == TrialState.PRUNED:
        said += f"val {trial.value:.4f}, ended early after validation {trial.last_step}"
    else:
        best = search.completed()[0]
        said += f"val {trial.value:.4f}{_at_step(trial)}  best {score(best):.4f} "
        said += f"(trial {best.number})"
    values = "  ".join(f"{name}={shown(value)}" for name, value in trial.params.items())
    return f"{said}  {trial.user_attrs['seconds']:.0f} s  {values}"


def metric(search: Search) -> str:
    """The name of the score, in words."""
    return search.sweep.metric.replace("/", " ")


def tasks(search: Search) -> str:
    """What the trials learn."""
    data = search.data
    if "way" not in data:
        return f"sines and lines, {data['shot']}-shot"
    return f"{data.get('root') or 'synthetic'}, {data['way']}-way {data['shot']}-shot"


def budget(search: Search) -> str:
    """How long a trial is."""
    data = search.data
    if not search.sweep.trains:
        return f"without training, validated on {data['val_tasks']} tasks"
    return (
        f"of {search.base['trainer']['max_steps']} steps, validated every {data['steps_per_epoch']} steps on "
        f"{data['val_tasks']} tasks"
    )


def early(search: Search) -> str:
    """When trials are ended that are worse than others."""
    end = search.sweep.early_end
    if end is None:
        return ""
    return (
        f"; those not among the best of {end.eta} end after validation {end.min_iter}, "
        f"{end.min_iter * end.eta}, …"
    )


def counted(number: int, what: str) -> str:
    """So many of them, in words."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def _at_step(trial: FrozenTrial) -> str:
    step = trial.user_attrs["step"]
    return f" at step {step}" if step else ""


def shown(value: Any) -> str:
    """A value, short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def verdict(search: Search) -> str:
    """Whether the search beat what it started from."""
    best, first = search.completed()[0], search.base_trial()
    said = f"trial {best.number}, {metric(search)} {score(best):.4f}"
    if first is None:
        return f"{said}; the base configuration itself failed"
    if first.number == best.number:
        return f"{said}: nothing beat the base configuration"
    if search.sweep.goal == "maximize":
        gain = f"{100 * (score(best) - score(first)):.2f} points above"
    else:
        gain = f"{100 * (1 - score(best) / score(first)):.1f} % below"
    return f"{said}: {gain} the base configuration, {score(first):.4f}, on the same tasks"
