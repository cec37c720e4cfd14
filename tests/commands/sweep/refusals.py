"""What `python -m leo_lightning sweep` refuses, for test_refusals.py and docs/errors.md."""

from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import RDBStorage

from tests.commands.sweep.sweeps import tiny_sweep, write
from tests.refusals import Case, World, text

RUN = "sweep --config sweep.yaml --out out"
MANUAL = "see python -m leo_lightning sweep --help"
FIT_HELP = "see `python train.py fit --help`"
LIKE = (
    "command: it must be a list like [${env}, python, ${program}, fit, --config, FILE, ${args}], with "
    "validate in place of fit for what is not trained"
)
WIDEN = "which the sweep does not contain; widen it, or set another value in `command`"
OTHER_OUT = "name another folder with --out"
LOG = {"distribution": "log_uniform_values"}
Q = {"distribution": "q_uniform"}
RATE = {"model.learning_rate": {**LOG, "min": 1e-4, "max": 1e-2}}


def refused(line: str, parameters: object = {"a": {"min": 1, "max": 2}}, **fields: Any) -> Case:
    """A sweep file that is refused as it is read."""
    return Case(RUN, "sweep.yaml", lambda world: write(world.folder, parameters, **fields))


def parameter(line: str, given: object) -> Case:
    """One parameter that is refused."""
    return refused(f"a{line}", {"a": given})


def sweep(parameters: dict[str, Any] = RATE, *more: str) -> Callable[[World], object]:
    """A good sweep file of tiny runs, but for these parameters and flags."""
    return lambda world: tiny_sweep(world.folder, parameters, *more)


def base(line: str, parameters: dict[str, Any] = RATE, *more: str) -> Case:
    """A sweep whose base configuration is refused."""
    return Case(RUN, "sweep.yaml", sweep(parameters, *more))


def other_search(world: World) -> None:
    """A search of something else, in `out`."""
    sweep()(world)
    (world.folder / "out").mkdir()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = RDBStorage(f"sqlite:///{world.folder / 'out' / 'study.db'}")
    study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize")
    study.set_user_attr("settings", {"method": "grid"})
    storage.remove_session()
    storage.engine.dispose()


def no_study(world: World) -> None:
    """Something else in the study's place."""
    sweep()(world)
    (world.folder / "out").mkdir()
    text("out/study.db", "trials\n" * 100)(world)


SEARCH = {
    "no such file": Case("sweep --config nowhere.yaml", "no such file"),
    "a folder": Case("sweep --config .", "is a folder"),
    "broken YAML": Case(RUN, "not valid YAML", text("sweep.yaml", "[")),
    "no text": Case(RUN, "not valid YAML", text("sweep.yaml", b"\xff")),
    "YAML that refers to itself": Case(RUN, "not valid YAML", text("sweep.yaml", "&a [*a]")),
    "no such date": Case(RUN, "not valid YAML", text("sweep.yaml", "a: 2020-99-99")),
    "no table": Case(RUN, "holds no table of fields", text("sweep.yaml", "3")),
    "unknown field": refused(
        "unknown field 'methud'; known are program, method, metric, command, parameters, early_terminate, "
        "name, description, project, entity, run_cap",
        methud="bayes",
    ),
    "unknown method": refused("method is 'tpe': it must be one of bayes, random, grid", method="tpe"),
    "another metric": refused(
        "metric: it must be {name: val/accuracy, goal: maximize} or {name: val/mse, goal: minimize}",
        metric={"name": "val/loss", "goal": "minimize"},
    ),
    "no command": refused(LIKE, command=None),
    "command of something else": refused(
        LIKE, command=["${program}", "fit_test", "--config", "a", "${args}"]
    ),
    "no base configuration": refused(
        "command: names no base configuration; add --config, FILE", command=["${program}", "fit", "${args}"]
    ),
    "no parameters": refused("parameters: it must be a table with a line for each hyperparameter", []),
    "nothing to search": refused(
        "parameters: each has one value only, so there is nothing to search; give one of them several",
        {"a": {"value": 1}},
    ),
    "an early end of another kind": refused(
        "early_terminate is {'max_iter': 27, 's': 2, 'type': 'hyperband'}: it must be like {type: hyperband, "
        "min_iter: 3, eta: 3}, counted in validations",
        early_terminate={"type": "hyperband", "max_iter": 27, "s": 2},
    ),
    "an early end after a fraction": refused(
        "early_terminate is {'min_iter': 0.5, 'type': 'hyperband'}: it must be like …",
        early_terminate={"type": "hyperband", "min_iter": 0.5},
    ),
    "an early end that keeps all": refused(
        "early_terminate is {'eta': 1, 'min_iter': 1, 'type': 'hyperband'}: it must be like …",
        early_terminate={"type": "hyperband", "min_iter": 1, "eta": 1},
    ),
    "an early end that is no table": refused(
        "early_terminate is 'hyperband': it must be like …", early_terminate="hyperband"
    ),
    "a range in a grid": refused(
        "a: a grid needs `values`; list some, or choose another method", method="grid"
    ),
    "parameter that is a number": parameter(
        " is 3: it must be a table, like {value: 3} or {values: [1, 2]}", 3
    ),
    "unknown distribution": parameter(
        ": distribution 'normal' is not known here; use one of constant, categorical, uniform, int_uniform, "
        "log_uniform_values, q_uniform, q_log_uniform_values",
        {"distribution": "normal", "mu": 0},
    ),
    "distribution that is a list": parameter(
        ": distribution ['x'] is not known here; use one of …", {"distribution": ["x"]}
    ),
    "half a range": parameter(": give `value`, `values`, or `min` and `max`", {"min": 3}),
    "half a range of a distribution": parameter(
        ": uniform needs `max`", {"distribution": "uniform", "min": 3}
    ),
    "a field too many": parameter(
        ": categorical takes no `probabilities`; leave it out",
        {"values": [1, 2], "probabilities": [0.1, 0.9]},
    ),
    "step without a distribution": parameter(
        ": uniform takes no `q`; leave it out", {"min": 0.0, "max": 1.0, "q": 0.1}
    ),
    "number that YAML reads as text": parameter(
        ": min is '1e-4': it must be a finite number (in YAML, 1.0e-4 is one, and 1e-4 is text)",
        {**LOG, "min": "1e-4", "max": 1.0},
    ),
    "infinity": parameter(
        ": max is inf: it must be a finite number", {**LOG, "min": 1.0, "max": float("inf")}
    ),
    "truth for a number": parameter(": max is True: it must be a finite number", {"min": 0.0, "max": True}),
    "logarithm of 0": parameter(
        ": min is 0: on a logarithmic scale it must be above 0", {**LOG, "min": 0, "max": 1.0}
    ),
    "range the wrong way round": parameter(
        ": min is 2 and max is 1: min must be below max", {"min": 2, "max": 1}
    ),
    "step that does not divide": parameter(
        ": q is 0.3: it must be above 0 and divide max - min", {**Q, "min": 0.0, "max": 1.0, "q": 0.3}
    ),
    "negative step": parameter(
        ": q is -1: it must be above 0 and divide max - min", {**Q, "min": 0, "max": 1, "q": -1}
    ),
    "steps on a logarithmic scale": parameter(
        ": q_log_uniform_values is for whole numbers here; use whole min and max without q, or "
        "log_uniform_values",
        {"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 8},
    ),
    "whole numbers that are none": parameter(
        ": int_uniform is for whole numbers here; use whole min and max without q, or uniform",
        {"distribution": "int_uniform", "min": 0.5, "max": 2},
    ),
    "values that are no list": parameter(
        ": values is 3: it must be a list with something in it", {"values": 3}
    ),
    "no values": parameter(": values is []: it must be a list with something in it", {"values": []}),
    "value that is a list": parameter(
        ": [1] is no single value; a list or table cannot be tried", {"values": [[1], [2]]}
    ),
    "a value twice": parameter(": values has 1 twice; leave one of them out", {"values": [2, True, 1, 0, 1]}),
    "mistyped field of train.py": base(
        "train.py refuses the command: unknown field model.lerning_rate; did you mean model.learning_rate?",
        {**RATE, "model.lerning_rate": {"value": 1}},
    ),
    "unknown field of train.py": base(
        f"train.py refuses the command: unknown field batches; {FIT_HELP}", RATE, "--batches=1"
    ),
    "parameter of no section": base(
        f"model.learner.depth.width: the base configuration has no such field; {FIT_HELP}",
        {"model.learner.depth.width": {"min": 1, "max": 2}},
    ),
    "parameter of no field": base(
        "model.learner.depth: the base configuration, the first trial, has no value for it; correct the "
        "name, or set a value in `command`",
        {"model.learner.depth": {"min": 1, "max": 2}},
    ),
    "base value out of range": base(
        f"model.learner.dropout is 0.1 in the base configuration, the first trial, {WIDEN}",
        {"model.learner.dropout": {"min": 0.2, "max": 0.5}},
    ),
    "base value not among the values": base(
        f"data.normalize is l2 in the base configuration, the first trial, {WIDEN}",
        {"data.normalize": {"values": ["none", "center_l2"]}},
    ),
    "validation tasks trained on": base(
        "data.train_on_val is true: the search needs the validation tasks; set it to false in `command`",
        RATE,
        "--data.train_on_val=true",
    ),
    "no validation": base(
        "trainer.max_steps is 4 and data.steps_per_epoch is 9: there would be no validation; set --steps, "
        "which sets both",
        RATE,
        "--data.steps_per_epoch=9",
    ),
    "another search": Case(
        RUN,
        "holds a search with other parameters, flags or base configuration",
        other_search,
        keeps="out",
    ),
    "no study": Case(RUN, "is no study", no_study, keeps="out"),
    "out is a file": Case(
        RUN,
        "cannot be written",
        lambda world: [sweep()(world), text("out", "")(world)],
    ),
    "no trial succeeds": Case(
        f"{RUN} --trials 1",
        "all trials failed",
        sweep(RATE, "--trainer.limit_val_batches=0"),
        keeps="out",
    ),
    "no sweep file named": Case("sweep", "the following arguments are required"),
    "flag without a value": Case("sweep --config", "argument --config"),
    "no such flag": Case(f"{RUN} --only 3", "--only 3"),
    "a word for a number": Case(f"{RUN} --steps x", "argument --steps"),
    "steps of what is not trained": Case(
        f"{RUN} --steps 9",
        "--steps",
        lambda world: write(
            world.folder,
            {"model.learner.C": {"values": [1, 2]}},
            command=["${program}", "validate", "--config=a.yaml", "${args}"],
        ),
    ),
    "no trials": Case(f"{RUN} --trials 0", "--trials"),
    "no jobs": Case(f"{RUN} --jobs 0", "--jobs"),
    "negative seed": Case(f"{RUN} --seed -1", "--seed"),
}
