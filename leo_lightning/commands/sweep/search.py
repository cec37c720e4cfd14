"""The search: trials run at the same time, by this process and others that work on the same study.

A process that runs a trial holds the lock in its folder, and the system releases the lock if it is killed.
The next process therefore sees at once which trials were left, and runs them again with their number and
values. Optuna's heartbeat would let them wait for a grace period and give them new numbers, which changes
what later trials draw; and it needs `Study.optimize`, which cannot count the trials of several processes.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
from optuna.pruners import NopPruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from leo_lightning.commands.child_runs import failure, run_child
from leo_lightning.commands.sweep.sweep_file import Sweep
from leo_lightning.common.csv_files import read_rows
from leo_lightning.common.errors import InputError, one_line
from leo_lightning.common.file_lock import file_lock
from leo_lightning.common.program import called
from leo_lightning.common.yaml_files import read_table

VALIDATIONS = 10
"""Validations of a trial whose length is given on the command line."""


@dataclass(frozen=True)
class Search:
    """A search in a folder."""

    sweep: Sweep
    out: Path
    """Folder of the study, the runs and the report."""
    study: optuna.Study
    """All trials, stored in out/study.db."""
    flags: list[str]
    """Arguments of all trials: features, shots and steps."""
    base: dict[str, Any]
    """The configuration that the search starts from, resolved."""
    first: dict[str, Any]
    """Values of the base configuration, for the first trial."""
    seed: int

    @property
    def data(self) -> dict[str, Any]:
        """The data module's fields in the base configuration."""
        return fields_of(self.base["data"])

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states, by default those that have begun."""
        begun = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        return self.study.get_trials(deepcopy=False, states=states or begun)

    def completed(self) -> list[FrozenTrial]:
        """Return the trials that have a score, the best first."""
        sign = -1 if self.sweep.goal == "maximize" else 1
        return sorted(self.trials(TrialState.COMPLETE), key=lambda one: (sign * score(one), one.number))

    def base_trial(self) -> FrozenTrial | None:
        """Return the trial with the base configuration's values, if it has a score."""
        return next((trial for trial in self.completed() if trial.params == self.first), None)

    def folder(self, trial: FrozenTrial | Trial) -> Path:
        """Return the folder of a trial's run and of what it printed."""
        return self.out / "runs" / f"trial-{trial.number:04d}"

    def words(self, trial: FrozenTrial | Trial, folder: Path) -> list[str]:
        """Return the command line of train.py for a trial's values, with runs in a folder."""
        return [
            *self.sweep.arguments(trial.params),
            *self.flags,
            f"--run.root={folder.parent}",
            f"--run.name={folder.name}",
            "--run.wandb=off",
            "--run.pictures_every=0",
            "--trainer.logger=false",
        ]

    def run(self, trials: int, ended: Callable[[FrozenTrial], None], jobs: int = 1) -> None:
        """Run trials until there are so many, with those of other processes and earlier calls.

        `ended` is called after each trial of this process, while no other process changes the folder.
        """
        stop = threading.Event()
        with ThreadPoolExecutor(jobs) as pool:
            workers = [pool.submit(self._work, trials, ended, stop) for _ in range(jobs)]
            try:
                for worker in as_completed(workers):
                    worker.result()
            finally:
                stop.set()  # after Ctrl-C, the pool waits for the end of its trials

    def _work(self, trials: int, ended: Callable[[FrozenTrial], None], stop: threading.Event) -> None:
        while not stop.is_set():
            with self._next_trial(trials) as trial:
                if trial is None:
                    return
                self._run(trial, stop)
                with file_lock(self.out / ".lock"):
                    frozen = self.study.get_trials(deepcopy=False)[trial.number]
                    if frozen.state.is_finished():
                        self._drop_checkpoints()
                        ended(frozen)

    @contextmanager
    def _next_trial(self, trials: int) -> Iterator[Trial | None]:
        """Yield the next trial, locked: one that was left, or a new one; None if there are enough."""
        with ExitStack() as stack:
            with file_lock(self.out / ".lock"):
                trial = None
                for left in self.trials(TrialState.RUNNING):
                    with suppress(InputError):
                        stack.enter_context(self._lock(left))
                        trial = Trial(self.study, left._trial_id)
                        for name, drawn in self.sweep.space.items():
                            trial._suggest(name, drawn)  # in case it was killed while it drew its values
                        break
                if trial is None and len(self.trials()) < trials and (trial := self._ask()):
                    stack.enter_context(self._lock(trial))
            yield trial

    def _lock(self, trial: FrozenTrial | Trial) -> AbstractContextManager[None]:
        self.folder(trial).mkdir(parents=True, exist_ok=True)
        return file_lock(self.folder(trial) / ".lock", "another process runs this trial")

    def _ask(self) -> Trial | None:
        """Begin a trial; None if all points of a grid were tried.

        Its values depend on the seed, its number and the trials before it, not on the process.
        """
        known = self.study.get_trials(deepcopy=False)
        if self.sweep.method == "grid" and all(trial.state != TrialState.WAITING for trial in known):
            tried = [trial.params for trial in known]
            untried = [point for point in self.sweep.points() if point not in tried]
            if not untried:
                return None
            self.study.enqueue_trial(untried[0])
        seed = int(np.random.SeedSequence([self.seed, len(known)]).generate_state(1)[0])
        self.study.sampler = {"bayes": TPESampler}.get(self.sweep.method, RandomSampler)(seed=seed)
        return self.study.ask(self.sweep.space)

    def _run(self, trial: Trial, stop: threading.Event) -> None:
        """Train, and tell the study the result; a trial that was stopped stays, for the next call."""
        folder, start = self.folder(trial), time.monotonic()
        for path in set(folder.iterdir()) - {folder / ".lock"}:  # left by a killed process
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        reported = self.study.get_trials(deepcopy=False)[trial.number].last_step or 0
        worse = False

        def over() -> bool:
            """Whether others were better after as many validations; the base configuration is let finish."""
            nonlocal worse, reported
            if self.sweep.early_end is not None and not worse:
                for value, _ in self._validations(trial)[reported:]:
                    reported += 1
                    trial.report(value, reported)
                    worse = worse or (trial.should_prune() and trial.params != self.first)
            return worse or stop.is_set()

        code = run_child(self.words(trial, folder), folder / "output.txt", folder / "errors.txt", over)
        if stop.is_set():
            return
        values = self._validations(trial)
        trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
        if not values or (code and not worse):
            reason = failure(code, folder / "errors.txt") if code else "there was no validation"
            trial.set_user_attr("error", reason)
            self.study.tell(trial, state=TrialState.FAIL)
            return
        best, step = (max if self.sweep.goal == "maximize" else min)(values, key=lambda one: one[0])
        trial.set_user_attr("step", step if self.sweep.trains else 0)
        if not worse:
            self.study.tell(trial, best)
            return
        line = f"ended early after validation {len(values)}, step {values[-1][1]}: others are better by then"
        (folder / "ended-early.txt").write_text(f"{line}\n", encoding="utf-8")
        self.study.tell(trial, state=TrialState.PRUNED)

    def _validations(self, trial: Trial) -> list[tuple[float, int]]:
        """Return the scores of a trial's validations so far, and the steps trained until then."""
        metric, scores = self.sweep.metric, []
        for path in self.folder(trial).glob("*/metrics.csv"):
            scores += [
                (float(row[metric]), int(row["step"]) + 1) for row in read_rows(path) if row.get(metric)
            ]
        return scores

    def _drop_checkpoints(self) -> None:
        """Keep only the checkpoints of the best trial, the base configuration's and those that run."""
        finished = self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        kept = [trial.number for trial in (*self.completed()[:1], self.base_trial()) if trial]
        for trial in finished:  # without those that finish just now, and may be the best
            if trial.number not in kept:
                for checkpoints in self.folder(trial).glob("*/checkpoints"):
                    shutil.rmtree(checkpoints, ignore_errors=True)


def open_search(sweep: Sweep, out: Path, flags: list[str], seed: int, steps: int | None = None) -> Search:
    """Open the search in a folder, or begin it: its first trial has the base configuration's values.

    The flags are for all trials; `steps` replaces the length of a trial in the sweep file.

    Raises:
        InputError: the base configuration cannot be searched, or the folder holds another search.
    """
    try:
        base = resolve([*sweep.arguments({}), *flags])
        if steps is not None:
            flags = [*flags, *_flags_for(steps, base)]
            base = resolve([*sweep.arguments({}), *flags])
        first = _first_values(sweep, base)
    except InputError as error:
        raise InputError(f"{sweep.path}: {error}") from None
    settings = {"base": base, "method": sweep.method, "space": {k: repr(v) for k, v in sweep.space.items()}}
    pruner = NopPruner()
    if sweep.early_end is not None:
        settings["early_end"] = asdict(sweep.early_end)
        pruner = SuccessiveHalvingPruner(sweep.early_end.min_iter, sweep.early_end.eta)
    settings = json.loads(json.dumps(settings))
    out.mkdir(parents=True, exist_ok=True)
    path = out / "study.db"
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with file_lock(out / ".lock"):
        try:
            # without a pool no connection outlives its transaction, even if the storage cannot be opened
            engine = {"connect_args": {"timeout": 60}, "poolclass": NullPool}
            storage = RDBStorage(f"sqlite:///{path}", engine_kwargs=engine)
            study = optuna.create_study(
                storage=storage, pruner=pruner, study_name="sweep", direction=sweep.goal,
                load_if_exists=True,
            )  # fmt: skip
        except (SQLAlchemyError, RuntimeError) as error:
            raise InputError(f"{path}: is not a study ({one_line(error)}); change --out") from None
        if study.user_attrs.get("settings", settings) != settings:
            raise InputError(
                f"{out}: holds a search with other parameters, flags or base configuration; change --out"
            )
        if not study.get_trials(deepcopy=False):
            study.set_user_attr("settings", settings)
            study.enqueue_trial(first)
    return Search(sweep, out, study, flags, base, first, seed)


def resolve(words: list[str]) -> dict[str, Any]:
    """Return the resolved configuration of a command of train.py.

    Raises:
        InputError: train.py does not take the arguments.
    """
    with TemporaryDirectory() as name:
        output, errors = Path(name) / "output.txt", Path(name) / "errors.txt"
        code = run_child([*words, "--print_config=skip_null"], output, errors)
        if code:
            reason = failure(code, errors).replace("see --help", f"see `{called()} fit --help`")
            raise InputError(f"train.py refuses the command: {reason}")
        return read_table(output)


def _flags_for(steps: int, base: dict[str, Any]) -> list[str]:
    """Flags for trials of so many steps. A schedule that ends with the training ends with the trial, too."""
    fields = {"trainer.max_steps": steps, "data.steps_per_epoch": max(1, steps // VALIDATIONS)}
    schedule = base["model"].get("lr_scheduler") or {}
    if schedule.get("init_args", {}).get("T_max") == base["trainer"]["max_steps"]:
        fields["model.lr_scheduler.init_args.T_max"] = steps
    return [f"--{name}={value}" for name, value in fields.items()]


def _first_values(sweep: Sweep, base: dict[str, Any]) -> dict[str, Any]:
    """Return the base configuration's values of the parameters, after a check that it can be searched."""
    steps, epoch = base["trainer"]["max_steps"], base_value(base, "data.steps_per_epoch")
    if base_value(base, "data.train_on_val") or (sweep.trains and 0 <= steps < epoch):
        raise InputError("there would be no validation; set data.train_on_val to false, or raise the steps")
    first = {name: base_value(base, name) for name in sweep.space}
    for name, value in first.items():
        try:
            contained = sweep.space[name]._contains(sweep.space[name].to_internal_repr(value))
        except (TypeError, ValueError):  # not a choice, or not a number
            contained = False
        if not contained:
            raise InputError(
                f"{name} is {value} in the base configuration, the first trial, which the sweep does not "
                "contain; correct the name, widen the sweep, or set another value in `command`"
            )
    return first


def base_value(base: dict[str, Any], name: str) -> Any:
    """Return the value of a flag in a resolved configuration; None if it has none."""
    value: Any = base
    for field in name.split("."):
        value = fields_of(value).get(field) if isinstance(value, dict) else None
    return value


def fields_of(section: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a section; those of a class are below `init_args`."""
    return section.get("init_args", {}) | section if "class_path" in section else section


def score(trial: FrozenTrial) -> float:
    """Return the best validation score of a completed trial."""
    assert trial.value is not None
    return trial.value
