"""The search: trials, some at a time, in this process and any other that works on the same study."""

import fcntl
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from leo_lightning.commands.sweep.sweep_file import Sweep
from leo_lightning.commands.sweep.trial import reason, resolve, run_command, validations
from leo_lightning.common.errors import InputError, one_line

AGAIN = "begun again"
"""Mark of a trial whose process was ended; another one has its values."""

VALIDATIONS = 10
"""Per trial, if it is said how long it is."""


@dataclass(frozen=True)
class Search:
    """A search in a folder.

    Attributes:
        sweep: what is searched.
        out: folder of the study, the runs and the report.
        study: all trials, kept in out/study.db.
        flags: arguments for all trials: features, shots and steps that were asked for.
        base: the configuration that the search starts from, resolved.
        first: the values that the base configuration has: the first trial.
        seed: of the sampler.
    """

    sweep: Sweep
    out: Path
    study: optuna.Study
    flags: list[str]
    base: dict[str, Any]
    first: dict[str, Any]
    seed: int

    @property
    def data(self) -> dict[str, Any]:
        """The base configuration's fields of its data module."""
        return _arguments(self.base["data"])

    def trials(self) -> list[FrozenTrial]:
        """Trials that count: those that are over or run now."""
        return [
            trial
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state != TrialState.WAITING and AGAIN not in trial.user_attrs
        ]

    def completed(self) -> list[FrozenTrial]:
        """Trials that have a score, the best one first."""
        done = [trial for trial in self.trials() if trial.state == TrialState.COMPLETE]
        sign = -1 if self.sweep.goal == "maximize" else 1
        return sorted(done, key=lambda trial: (sign * score(trial), trial.number))

    def base_trial(self) -> FrozenTrial | None:
        """The trial with the base configuration's values, if it has a score."""
        return next((trial for trial in self.completed() if trial.params == self.first), None)

    def folder(self, trial: FrozenTrial | Trial) -> Path:
        """Where a trial's run and what it printed is."""
        return self.out / "runs" / f"trial-{trial.number:04d}"

    def run(self, trials: int, ended: Callable[[FrozenTrial], None], jobs: int = 1) -> None:
        """Run trials until there are so many.

        Args:
            trials: how many, those counted that other processes run, and those of earlier calls.
            ended: called after each trial of this process, while no other one changes the folder.
            jobs: trials that run at a time.
        """
        stop = threading.Event()
        with ThreadPoolExecutor(jobs) as pool:
            workers = [pool.submit(self._work, trials, ended, stop) for _ in range(jobs)]
            try:
                for worker in as_completed(workers):
                    worker.result()
            except BaseException:
                stop.set()
                pool.shutdown()  # waits for the trials' ends
                with locked(self.out / ".lock"):
                    self._revive()
                raise

    def _work(self, trials: int, ended: Callable[[FrozenTrial], None], stop: threading.Event) -> None:
        """Run trials one after the other."""
        try:
            while not stop.is_set() and (begun := self._begin(trials)) is not None:
                trial, lock = begun
                try:
                    if self._run(trial, stop):
                        with locked(self.out / ".lock"):
                            self._drop_checkpoints()
                            ended(self.study.get_trials(deepcopy=False)[trial.number])
                finally:
                    lock.close()
        finally:
            self.study._storage.remove_session()

    def _begin(self, trials: int) -> tuple[Trial, Any] | None:
        """The next trial and the file whose lock says that it is being run; None if there are enough."""
        with locked(self.out / ".lock"):
            self._revive()
            if len(self.trials()) >= trials:
                return None
            if self.sweep.method == "grid" and not self._enqueue_grid(trials):
                return None
            self.study.sampler = self._sampler()
            trial = self.study.ask(self.sweep.space)
            self.folder(trial).mkdir(parents=True, exist_ok=True)
            lock = (self.folder(trial) / ".lock").open("w")
            fcntl.flock(lock, fcntl.LOCK_EX)
            return trial, lock

    def _sampler(self) -> BaseSampler:
        """What a trial draws depends on the seed, its number and the trials before, not on the process."""
        number = len(self.study.get_trials(deepcopy=False))
        seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0])
        return TPESampler(seed=seed) if self.sweep.method == "bayes" else RandomSampler(seed=seed)

    def _enqueue_grid(self, trials: int) -> bool:
        """Put the points of a grid that were not tried in the queue; whether anything is in it."""
        known = [trial.params or trial.system_attrs["fixed_params"] for trial in self.study.get_trials()]
        for point in self.sweep.points():
            if len(known) >= trials:
                break
            if point not in known:
                self.study.enqueue_trial(point)
                known.append(point)
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _revive(self) -> None:
        """Begin trials anew whose process was ended: nobody holds their lock."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            folder = self.folder(frozen)
            if not is_locked(folder / ".lock"):
                Trial(self.study, frozen._trial_id).set_user_attr(AGAIN, True)
                self.study.tell(frozen.number, state=TrialState.FAIL)
                self.study.enqueue_trial({**frozen.system_attrs.get("fixed_params", {}), **frozen.params})
                shutil.rmtree(folder, ignore_errors=True)

    def _run(self, trial: Trial, stop: threading.Event) -> bool:
        """Train, and tell the study how it went; False if it was stopped, and did not go anywhere."""
        folder, start = self.folder(trial), time.monotonic()
        arguments = [
            *self.sweep.arguments(trial.params),
            *self.flags,
            f"--run.root={folder.parent}",
            f"--run.name={folder.name}",
            "--run.wandb=off",
            "--run.pictures_every=0",
            "--trainer.logger=false",
        ]
        worse, reported = False, 0

        def over() -> bool:
            """Whether others are better by its last validation; the base configuration is let finish."""
            nonlocal worse, reported
            if self.sweep.early_end is not None and not worse:
                for value, _ in self._validations(trial)[reported:]:
                    reported += 1
                    trial.report(value, reported)
                    worse = worse or (trial.should_prune() and trial.params != self.first)
            return worse or stop.is_set()

        code = run_command(arguments, folder / "output.txt", folder / "errors.txt", over)
        # Ctrl-C reaches the trial before it reaches the search
        if stop.wait(5 if code in (-signal.SIGINT, 128 + signal.SIGINT) else 0):
            return False
        found = self._validations(trial)
        trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
        if found and (code == 0 or worse):
            best = max if self.sweep.goal == "maximize" else min
            value, step = best(found, key=lambda one: one[0])
            trial.set_user_attr("step", step if self.sweep.trains else 0)
            if not worse:
                self.study.tell(trial, value)
                return True
            said = (
                f"ended early after validation {len(found)}, step {found[-1][1]}: others are better by then"
            )
            (folder / "ended-early.txt").write_text(f"{said}\n", encoding="utf-8")
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            why = reason(code, folder / "errors.txt") if code else "there was no validation"
            trial.set_user_attr("error", why)
            self.study.tell(trial, state=TrialState.FAIL)
        return True

    def _validations(self, trial: Trial) -> list[tuple[float, int]]:
        return next((validations(run, self.sweep.metric) for run in self.folder(trial).glob("*/")), [])

    def _drop_checkpoints(self) -> None:
        """Keep the checkpoints of the best trial and of the base configuration's, and of those that run."""
        kept = [trial.number for trial in (*self.completed()[:1], self.base_trial()) if trial]
        for trial in self.trials():
            if trial.state != TrialState.RUNNING and trial.number not in kept:
                for checkpoints in self.folder(trial).glob("*/checkpoints"):
                    shutil.rmtree(checkpoints, ignore_errors=True)


@contextmanager
def open_search(
    sweep: Sweep, out: Path, flags: list[str], seed: int, steps: int | None = None
) -> Iterator[Search]:
    """Open the search in a folder, or begin it: its first trial has the base configuration's values.

    Args:
        sweep: what is searched.
        out: the folder.
        flags: arguments for all trials.
        seed: of the sampler.
        steps: of a trial; None: what the sweep says.

    Raises:
        InputError: the base configuration is wrong or outside of what is searched, or the folder holds
            another search or cannot be written.
    """
    try:
        flags = [*flags, *_budget(sweep, flags, steps)]
        base, first = _start(sweep, flags)
    except InputError as error:
        raise InputError(f"{sweep.path}: {error}") from None
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / ".lock").touch()
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written ({error.strerror}); name another folder with --out"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = out / "study.db"
    about = {"base": base, "method": sweep.method, "space": _space_text(sweep)}
    if sweep.early_end is not None:
        about["early_end"] = asdict(sweep.early_end)
    settings = json.loads(json.dumps(about))
    with locked(out / ".lock"):
        try:
            storage = RDBStorage(f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": 60}})
            study = optuna.create_study(
                storage=storage,
                study_name="sweep",
                direction=sweep.goal,
                load_if_exists=True,
                pruner=_pruner(sweep),
            )
        except (SQLAlchemyError, RuntimeError) as error:
            raise InputError(
                f"{path}: is no study ({one_line(error)}); name another folder with --out"
            ) from None
        try:
            if study.user_attrs.setdefault("settings", settings) != settings:
                raise InputError(
                    f"{out}: holds a search with other parameters, flags or base configuration; name another "
                    "folder with --out, or remove this one"
                )
            if not study.get_trials(deepcopy=False):
                study.set_user_attr("settings", settings)
                study.enqueue_trial(first)
        except BaseException:
            storage.engine.dispose()
            raise
    try:
        yield Search(sweep, out, study, flags, base, first, seed)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _pruner(sweep: Sweep) -> BasePruner:
    if sweep.early_end is None:
        return NopPruner()
    return SuccessiveHalvingPruner(sweep.early_end.min_iter, sweep.early_end.eta)


def _budget(sweep: Sweep, flags: list[str], steps: int | None) -> list[str]:
    """Flags for trials of so many steps; a schedule that ends with the training ends with the trial, too."""
    if steps is None:
        return []
    budget = {"trainer.max_steps": steps, "data.steps_per_epoch": max(1, steps // VALIDATIONS)}
    base = yaml.safe_load(resolve([*sweep.arguments({}), *flags]))
    schedule = base["model"].get("lr_scheduler") or {}
    if schedule.get("init_args", {}).get("T_max") == base["trainer"]["max_steps"]:
        budget["model.lr_scheduler.init_args.T_max"] = steps
    return [f"--{name}={value}" for name, value in budget.items()]


def _start(sweep: Sweep, flags: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The base configuration, resolved, and its values of what is searched."""
    base = yaml.safe_load(resolve([*sweep.arguments({}), *flags]))
    _check_base(base, trained=sweep.trains)
    first = {name: base_value(base, name) for name in sweep.space}
    for name, value in first.items():
        _check_contains(sweep.space[name], name, value)
    return base, first


def _check_base(base: dict[str, Any], trained: bool) -> None:
    steps, epoch = base["trainer"]["max_steps"], base_value(base, "data.steps_per_epoch")
    if base_value(base, "data.train_on_val"):
        raise InputError(
            "data.train_on_val is true: the search needs the validation tasks; set it to false in `command`"
        )
    if trained and 0 <= steps < epoch:
        raise InputError(
            f"trainer.max_steps is {steps} and data.steps_per_epoch is {epoch}: there would be no "
            "validation; set --steps, which sets both"
        )


def _check_contains(space: BaseDistribution, name: str, value: object) -> None:
    try:
        contained = space._contains(space.to_internal_repr(value))
    except (TypeError, ValueError):  # none of the choices, or no number
        contained = False
    if not contained and value is None:
        raise InputError(
            f"{name}: the base configuration, the first trial, has no value for it; correct the name, or set "
            "a value in `command`"
        )
    if not contained:
        raise InputError(
            f"{name} is {value} in the base configuration, the first trial, which the sweep does not "
            "contain; widen it, or set another value in `command`"
        )


def base_value(base: dict[str, Any], name: str) -> Any:
    """The value of a flag in a resolved configuration; None if it has none.

    Raises:
        InputError: there is no such section.
    """
    *sections, field = name.split(".")
    inside: Any = base
    for section in sections:
        inside = _arguments(inside).get(section)
        if not isinstance(inside, dict):
            raise InputError(
                f"{name}: the base configuration has no such field; see `python train.py fit --help`"
            )
    return _arguments(inside).get(field)


def _arguments(section: dict[str, Any]) -> dict[str, Any]:
    """The fields of a section; those of a class are below `init_args`."""
    return section.get("init_args", {}) | section if "class_path" in section else section


def _space_text(sweep: Sweep) -> dict[str, str]:
    return {name: repr(space) for name, space in sweep.space.items()}


def score(trial: FrozenTrial) -> float:
    """Best validation score of a completed trial."""
    assert trial.value is not None
    return trial.value


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other process holds the lock, and hold it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock."""
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False
