"""The report of a search: trials.csv, best.yaml, a table of the best, and which parameters mattered."""

import csv
import shlex

import yaml
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from rich.table import Table

from leo_lightning.commands.sweep.search import Search, score
from leo_lightning.commands.sweep.study import resolve
from leo_lightning.common.errors import one_line
from leo_lightning.common.files import whole_file
from leo_lightning.common.program import called
from leo_lightning.common.spreadsheet import csv_cell

OF_TRIALS = (
    "--trainer.max_steps", "--data.steps_per_epoch", "--data.val_tasks", "--trainer.logger",
    "--model.lr_scheduler.init_args.T_max", "--run.root", "--run.name", "--run.wandb", "--run.wandb_project",
    "--run.pictures_every",
)  # fmt: skip
"""Flags of a sweep's command that best.yaml leaves out: they are for trials only."""


def write_trials(search: Search) -> None:
    """Write trials.csv, a line for each trial."""
    path = search.out / "trials.csv"
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer, space, noted = csv.writer(file), search.sweep.space, ("step", "seconds", "error")
        writer.writerow(["trial", "state", search.sweep.metric.replace("/", "_"), *noted, *space])
        for trial in search.trials():
            attributes = [trial.user_attrs.get(name) for name in noted]
            values = [trial.params.get(name) for name in space]
            texts = map(csv_cell, (*attributes, *values))
            writer.writerow([trial.number, trial.state.name.lower(), trial.value, *texts])


def write_best(search: Search, command: str, tested: str | None = None) -> None:
    """Write best.yaml: the base configuration, its number of steps included, with the best parameters.

    The header has the sweep's command line, and the result of the final test.
    """
    best, *_ = completed = search.completed()
    words = [*search.sweep.arguments(best.params), *search.flags]
    config = resolve([word for word in words if word.partition("=")[0] not in OF_TRIALS])
    path, trains, first = search.out / "best.yaml", search.sweep.trains, search.base_trial()
    step = f" at step {best.user_attrs['step']}" if trains else ""
    started = f"; the base configuration reached {score(first):.4f}" if first else ""
    failed, early = (len(search.trials(state)) for state in (TrialState.FAIL, TrialState.PRUNED))
    lines = [
        f"Best of a hyperparameter search, {search.sweep.path}.",
        "",
        f"Score     {metric(search)} {score(best):.4f}{step}, mean of {search.data['val_tasks']} "
        f"validation tasks{started}.",
        "          The best of many is flattered by the tasks that chose it"
        + (":" if tested else ": test it."),
        *([f"Test      {tested}."] if tested else []),
        f"Trials    {len(completed)} completed, {failed} failed, {early} ended early; {search.sweep.method}, "
        f"seed {search.seed}; this is trial {best.number}",
        f"A trial   {budget(search)}{'; this file trains as long as the base' if trains else ''}",
        f"Data      {tasks(search)}",
        f"Command   {command}",
        f"{'Train' if trains else 'Test '}     {called()} --config {shlex.quote(str(path))}",
    ]
    with whole_file(path) as part:
        header = "".join(f"# {line}".rstrip() + "\n" for line in lines)
        part.write_text(header + yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def table(search: Search, rows: int = 10) -> Table:
    """Return the best trials, one per line."""
    names, first = list(search.sweep.space), search.base_trial()
    fields = [name.rpartition(".")[2] for name in names]
    fields = fields if len(set(fields)) == len(names) else names
    drawn = Table("trial", metric(search), "step", "seconds", *fields)
    for trial in search.completed()[:rows]:
        drawn.add_row(
            f"{trial.number}{' (base)' if trial == first else ''}",
            f"{score(trial):.4f}",
            str(trial.user_attrs["step"]),
            f"{trial.user_attrs['seconds']:.0f}",
            *(_short(trial.params[name]) for name in names),
        )
    return drawn


def importance(search: Search) -> str | None:
    """Return each parameter's share in the score, by functional ANOVA; None with too few trials.

    Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter Importance. ICML 2014.
    """
    if len(search.completed()) < 4:
        return None
    try:
        shares = get_param_importances(search.study, evaluator=FanovaImportanceEvaluator(seed=0))
    except (ValueError, RuntimeError) as error:  # all trials equally good
        return f"unknown ({one_line(error)})"
    return ", ".join(f"{name} {share:.2f}" for name, share in shares.items())


def line(search: Search, trial: FrozenTrial, trials: int) -> str:
    """Return the line that is printed at the end of a trial."""
    over = sum(one.state.is_finished() for one in search.trials())
    if trial.value is None:
        result = f"failed: {trial.user_attrs['error']}"
    elif trial.state == TrialState.PRUNED:
        result = f"val {trial.value:.4f}, ended early after validation {trial.last_step}"
    else:
        best = search.completed()[0]
        step = f" at step {trial.user_attrs['step']}" if search.sweep.trains else ""
        result = f"val {trial.value:.4f}{step}  best {score(best):.4f} (trial {best.number})"
    values = "  ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
    return f"trial {trial.number:3}  {over}/{trials}  {result}  {trial.user_attrs['seconds']:.0f} s  {values}"


def verdict(search: Search) -> str:
    """Say whether the search beat its starting point."""
    best, first = search.completed()[0], search.base_trial()
    result = f"trial {best.number}, {metric(search)} {score(best):.4f}"
    if first is None:
        return f"{result}; the base configuration itself failed"
    if first.number == best.number:
        return f"{result}: nothing beat the base configuration"
    if search.sweep.goal == "maximize":
        gain = f"{100 * (score(best) - score(first)):.2f} points above"
    else:
        gain = f"{100 * (1 - score(best) / score(first)):.1f} % below"
    return f"{result}: {gain} the base configuration, {score(first):.4f}, on the same tasks"


def metric(search: Search) -> str:
    """Return the name of the score, in words."""
    return search.sweep.metric.replace("/", " ")


def tasks(search: Search) -> str:
    """Describe the tasks of the trials."""
    data = search.data
    if "way" not in data:
        return f"sines and lines, {data['shot']}-shot"
    return f"{data.get('root') or 'synthetic'}, {data['way']}-way {data['shot']}-shot"


def budget(search: Search) -> str:
    """Describe the length of a trial."""
    if not search.sweep.trains:
        return f"without training, validated on {search.data['val_tasks']} tasks"
    return (
        f"of {search.base['trainer']['max_steps']} steps, validated every {search.data['steps_per_epoch']} "
        f"steps on {search.data['val_tasks']} tasks"
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
