"""The search: trials run at the same time, by this process and others that work on the same study.

A process that runs a trial holds the lock in its folder, and the system releases the lock if it is killed.
The next process therefore sees at once which trials were left, and runs them again with their number and
values. Optuna's heartbeat would let them wait for a grace period and give them new numbers, which changes
what later trials draw; and it needs `Study.optimize`, which cannot count the trials of several processes.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from leo_lightning.commands.jobs.metrics import RunMetrics
from leo_lightning.commands.jobs.progress import Row
from leo_lightning.commands.jobs.runner import Ended, Job, Runner
from leo_lightning.commands.sweep.sweep_file import Sweep
from leo_lightning.common.errors import InputError
from leo_lightning.common.file_lock import file_lock
from leo_lightning.runs.folder import CHECKPOINTS


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

    def run(self, trials: int, ended: Callable[[FrozenTrial], None], runner: Runner) -> None:
        """Run trials until there are so many, with those of other processes and earlier calls.

        `ended` is called after each trial of this process, while no other process changes the folder.
        """
        works: dict[str, _Work] = {}
        with ExitStack() as locks, runner:

            def following() -> Job | None:
                lock = locks.enter_context(ExitStack())
                trial = lock.enter_context(self._next_trial(trials))
                if trial is None:
                    return None
                work = _Work(self, trial, lock)
                works[work.job.name] = work
                self._prepare(work.job, trial, runner)
                return work.job

            for end in runner.run(following):
                work = works.pop(end.job.name)
                work.tell(end)
                with file_lock(self.out / ".lock"):
                    frozen = self.study.get_trials(deepcopy=False)[work.trial.number]
                    self._drop_checkpoints()
                    ended(frozen)
                work.lock.close()

    def _prepare(self, job: Job, trial: Trial, runner: Runner) -> None:
        """Add the row of a trial; remove what a killed process has left of it and nobody can continue."""
        steps = self.base["trainer"]["max_steps"] if self.sweep.trains else 0
        better = max if self.sweep.goal == "maximize" else min
        runner.progress.rows[job.name] = Row(str(trial.number), None, steps, better)
        if not runner.launcher.continues(runner.folder, job.name):
            for path in self.folder(trial).glob("*/"):
                if path.is_dir() and not (path / CHECKPOINTS / "last.ckpt").is_file():
                    shutil.rmtree(path)

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

    def _drop_checkpoints(self) -> None:
        """Keep only the checkpoints of the best trial, the base configuration's and those that run."""
        finished = self.trials(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
        kept = [trial.number for trial in (*self.completed()[:1], self.base_trial()) if trial]
        for trial in finished:  # without those that finish just now, and may be the best
            if trial.number not in kept:
                for checkpoints in self.folder(trial).glob("*/checkpoints"):
                    shutil.rmtree(checkpoints, ignore_errors=True)


class _Work:
    """A trial that this process runs, and whose lock it holds."""

    def __init__(self, search: Search, trial: Trial, lock: ExitStack) -> None:
        self.search = search
        self.trial = trial
        self.lock = lock
        self.worse = False
        self._reported = search.study.get_trials(deepcopy=False)[trial.number].last_step or 0
        folder = search.folder(trial)
        words = search.words(trial, folder) + (["--resume=auto"] if search.sweep.trains else [])
        metrics = RunMetrics(folder, search.sweep.metric)
        output, errors = folder / "output.txt", folder / "errors.txt"
        self.job = Job(folder.name, words, metrics, output, errors, self.over)

    def over(self) -> bool:
        """Whether others were better after as many validations; the base configuration is let finish."""
        search, trial = self.search, self.trial
        if search.sweep.early_end is not None and not self.worse:
            for value, _ in self.job.metrics.far().validations[self._reported :]:
                self._reported += 1
                trial.report(value, self._reported)
                self.worse = self.worse or (trial.should_prune() and trial.params != search.first)
        return self.worse

    def tell(self, end: Ended) -> None:
        """Tell the study the result."""
        search, trial, values = self.search, self.trial, self.job.metrics.far().validations
        trial.set_user_attr("seconds", round(end.seconds, 1))
        if not values or end.reason:
            trial.set_user_attr("error", end.reason or "there was no validation")
            search.study.tell(trial, state=TrialState.FAIL)
            return
        best, step = (max if search.sweep.goal == "maximize" else min)(values, key=lambda one: one[0])
        trial.set_user_attr("step", step if search.sweep.trains else 0)
        if not self.worse:
            search.study.tell(trial, best)
            return
        line = f"ended early after validation {len(values)}, step {values[-1][1]}: others are better by then"
        (search.folder(trial) / "ended-early.txt").write_text(f"{line}\n", encoding="utf-8")
        search.study.tell(trial, state=TrialState.PRUNED)


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
