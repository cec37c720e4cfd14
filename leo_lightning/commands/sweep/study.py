"""The study of a search: where its trials are kept, and which search a folder holds."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import yaml
from optuna.pruners import NopPruner, SuccessiveHalvingPruner
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from leo_lightning.commands.sweep.search import Search, base_value
from leo_lightning.commands.sweep.sweep_file import Sweep
from leo_lightning.common.errors import InputError, one_line
from leo_lightning.common.file_lock import file_lock
from leo_lightning.common.files import whole_file
from leo_lightning.common.program import called
from leo_lightning.runs.command_line import parse

VALIDATIONS = 10
"""Validations of a trial whose length is given on the command line."""
DATABASE, PLACE = "study.db", ".search"
"""Files in the folder of a search: its trials, or the mark of a folder whose trials are elsewhere."""


def open_search(
    sweep: Sweep, out: Path, flags: list[str], seed: int, steps: int | None = None, storage: str | None = None
) -> Search:
    """Open the search in a folder, or begin it: its first trial has the base configuration's values.

    The flags are for all trials; `steps` replaces the length of a trial in the sweep file; `storage` is a URL
    or the file of a journal, in place of study.db in the folder.

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
    if sweep.early_end is not None:
        settings["early_end"] = asdict(sweep.early_end)
    settings = json.loads(json.dumps(settings))
    made = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    try:
        with file_lock(out / ".lock"):
            study = _study(sweep, out, storage)
            if study.user_attrs.get("settings", settings) != settings:
                raise InputError(
                    f"{out}: holds a search with other parameters, flags or base configuration; change --out"
                )
            if not study.get_trials(deepcopy=False):
                study.set_user_attr("settings", settings)
                study.enqueue_trial(first)
    except (InputError, OSError):
        if made:
            with suppress(OSError):
                out.rmdir()
        raise
    return Search(sweep, out, study, flags, base, first, seed)


def _study(sweep: Sweep, out: Path, storage: str | None) -> optuna.Study:
    """Open the study of a folder, or begin it.

    Raises:
        InputError: it cannot be opened, or belongs to another folder.
    """
    if storage is not None and (out / DATABASE).exists():
        raise InputError(f"{out}: its search is in {DATABASE}; leave --storage out, or change --out")
    if storage is None and (out / PLACE).exists():
        raise InputError(f"{out}: its search is kept elsewhere; name it with --storage, or change --out")
    where = str(out / DATABASE) if storage is None else without_password(storage)
    name = "sweep" if storage is None else out.absolute().name
    early = sweep.early_end
    pruner = NopPruner() if early is None else SuccessiveHalvingPruner(early.min_iter, early.eta)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=_storage(storage or f"sqlite:///{out / DATABASE}"), pruner=pruner, study_name=name,
            direction=sweep.goal, load_if_exists=True,
        )  # fmt: skip
        owner = study.user_attrs.get("place")
    except (SQLAlchemyError, RuntimeError, ValueError, KeyError, ImportError) as error:
        advice = "change --out" if storage is None else "change --storage"
        raise InputError(f"{where}: is not a study ({one_line(error)}); {advice}") from None
    if storage is not None:
        mine = (out / PLACE).read_text() if (out / PLACE).is_file() else None
        if owner not in (None, mine):
            raise InputError(
                f"{where}: holds a search {name} of another folder; give --out the folder that all its "
                "processes share, or another name"
            )
        if mine is None:
            mine = uuid4().hex
            with whole_file(out / PLACE) as part:
                part.write_text(mine)
        study.set_user_attr("place", mine)
    return study


def _storage(where: str) -> BaseStorage:
    if "://" not in where:
        return JournalStorage(JournalFileBackend(where))
    # without a pool no connection outlives its transaction, even if the storage cannot be opened
    engine: dict[str, Any] = {"poolclass": NullPool}
    if where.startswith("sqlite"):
        engine["connect_args"] = {"timeout": 60}
    return RDBStorage(where, engine_kwargs=engine)


def without_password(storage: str) -> str:
    """Return a storage as it may be shown: the password of a URL is hidden."""
    if "://" not in storage:
        return storage
    try:
        return make_url(storage).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "--storage"


def resolve(words: list[str]) -> dict[str, Any]:
    """Return the resolved configuration of a command of train.py.

    Raises:
        InputError: train.py does not take the arguments.
    """
    from leo_lightning.commands.train import PROGRAM

    verb, *flags = words
    try:
        command = parse(PROGRAM, verb, flags)
    except InputError as error:
        reason = str(error).replace("see --help", f"see `{called()} fit --help`")
        raise InputError(f"train.py refuses the command: {reason}") from None
    return yaml.safe_load(command.parser.dump(command.config))


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
