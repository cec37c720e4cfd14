"""Bad input of `python -m leo_lightning sweep`, for test_refusals.py."""

from collections.abc import Callable
from typing import Any

import optuna
from optuna.storages import RDBStorage

from tests.commands.sweep.sweeps import tiny_sweep, write
from tests.refusals import Case, World, text

RUN = "sweep --config sweep.yaml --out out"
LOG = {"distribution": "log_uniform_values"}
Q = {"distribution": "q_uniform"}
RATE = {"model.learning_rate": {**LOG, "min": 1e-4, "max": 1e-2}}


def refused(word: str, parameters: object = {"a": {"min": 1, "max": 2}}, **fields: Any) -> Case:
    """A sweep file that is refused as it is read."""
    return Case(RUN, f"sweep.yaml: {word}", lambda world: write(world.folder, parameters, **fields))


def parameter(word: str, given: object) -> Case:
    """One parameter that is refused."""
    return refused(f"a: {word}", {"a": given})


def sweep(parameters: dict[str, Any] = RATE, *more: str) -> Callable[[World], object]:
    """A good sweep file of tiny runs, but for these parameters and flags."""
    return lambda world: tiny_sweep(world.folder, parameters, *more)


def base(word: str, parameters: dict[str, Any] = RATE, *more: str) -> Case:
    """A sweep whose base configuration is refused."""
    return Case(RUN, f"sweep.yaml: {word}", sweep(parameters, *more))


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


def elsewhere(world: World) -> None:
    """A folder whose search has a storage of its own."""
    sweep()(world)
    (world.folder / "out").mkdir()
    text("out/.search", "0")(world)


SEARCH = {
    "no such file": Case("sweep --config nowhere.yaml", "no such file"),
    "a folder": Case("sweep --config .", "is a folder"),
    "broken YAML": Case(RUN, "not valid YAML", text("sweep.yaml", "[")),
    "no text": Case(RUN, "not valid YAML", text("sweep.yaml", b"\xff")),
    "YAML that refers to itself": Case(RUN, "not valid YAML", text("sweep.yaml", "&a [*a]")),
    "no table": Case(RUN, "holds no table of fields", text("sweep.yaml", "3")),
    "mistyped field": refused("field methud is unknown; did you mean method?", methud="bayes"),
    "unknown field": refused("field colour is unknown", colour="bayes"),
    "unknown method": refused("method is 'tpe': it must be one of bayes, random, grid", method="tpe"),
    "another metric": refused("metric is", metric={"name": "val/loss", "goal": "minimize"}),
    "no command": refused("command: ", command=None),
    "command of something else": refused(
        "command: ", command=["${program}", "fit_test", "--config", "a", "${args}"]
    ),
    "no base configuration": refused("command: ", command=["${program}", "fit", "${args}"]),
    "no parameters": refused("parameters: expected a table", []),
    "nothing to search": refused("parameters: there is nothing to search", {"a": {"value": 1}}),
    "an early end of another kind": refused(
        "early_terminate is", early_terminate={"type": "hyperband", "max_iter": 27, "s": 2}
    ),
    "an early end after a fraction": refused(
        "early_terminate is", early_terminate={"type": "hyperband", "min_iter": 0.5}
    ),
    "an early end that keeps all": refused(
        "early_terminate is", early_terminate={"type": "hyperband", "min_iter": 1, "eta": 1}
    ),
    "an early end that is no table": refused("early_terminate is", early_terminate="hyperband"),
    "a range in a grid": refused("a: a grid needs `values`", method="grid"),
    "parameter that is a number": parameter("expected a table", 3),
    "unknown distribution": parameter(
        "distribution is 'normal': it must be one of constant", {"distribution": "normal", "mu": 0}
    ),
    "distribution that is a list": parameter("distribution is ['x']", {"distribution": ["x"]}),
    "half a range": parameter("uniform takes max and min, not min", {"min": 3}),
    "a field too many": parameter(
        "categorical takes values, not", {"values": [1, 2], "probabilities": [0.1, 0.9]}
    ),
    "step without a distribution": parameter(
        "uniform takes max and min, not", {"min": 0.0, "max": 1.0, "q": 0.1}
    ),
    "text for a number": parameter("…must be finite numbers", {**LOG, "min": "small", "max": 1.0}),
    "infinity": parameter("…must be finite numbers", {**LOG, "min": 1.0, "max": float("inf")}),
    "truth for a number": parameter("…must be finite numbers", {"min": 0.0, "max": True}),
    "logarithm of 0": parameter("…low > 0", {**LOG, "min": 0, "max": 1.0}),
    "range the wrong way round": parameter("…low=2, high=1", {"min": 2, "max": 1}),
    "negative step": parameter("…step=-1", {**Q, "min": 0, "max": 1, "q": -1}),
    "steps on a logarithmic scale": parameter(
        "…log", {"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 8}
    ),
    "whole numbers that are none": parameter(
        "int_uniform takes whole numbers only", {"distribution": "int_uniform", "min": 0.5, "max": 2}
    ),
    "values that are no list": parameter("values is 3", {"values": 3}),
    "no values": parameter("…one or more elements", {"values": []}),
    "value that is a list": parameter("values is [[1], [2]]", {"values": [[1], [2]]}),
    "mistyped field of train.py": base(
        "train.py refuses the command: …lerning_rate", {**RATE, "model.lerning_rate": {"value": 1}}
    ),
    "unknown field of train.py": base("train.py refuses the command: …batches", RATE, "--batches=1"),
    "parameter of no section": base(
        "model.learner.depth.width is None", {"model.learner.depth.width": {"min": 1, "max": 2}}
    ),
    "parameter of no field": base(
        "model.learner.depth is None", {"model.learner.depth": {"min": 1, "max": 2}}
    ),
    "base value out of range": base(
        "model.learner.dropout is 0.1 in the base configuration",
        {"model.learner.dropout": {"min": 0.2, "max": 0.5}},
    ),
    "base value not among the values": base(
        "data.normalize is l2 in the base configuration",
        {"data.normalize": {"values": ["none", "center_l2"]}},
    ),
    "validation tasks trained on": base("there would be no validation", RATE, "--data.train_on_val=true"),
    "no validation": base("there would be no validation", RATE, "--data.steps_per_epoch=9"),
    "another search": Case(
        RUN,
        "holds a search with other parameters, flags or base configuration",
        other_search,
        keeps="out",
    ),
    "no study": Case(RUN, "is not a study", no_study, keeps="out"),
    "out is a file": Case(
        RUN,
        "out: File exists",
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
    "a flag of SLURM's without SLURM": Case(
        f"{RUN} --launcher.partition fast", "--launcher.partition is for --launcher slurm", sweep()
    ),
    "no SLURM": Case(f"{RUN} --launcher slurm", "--launcher slurm: sbatch was not found", sweep()),
    "no time": Case(f"{RUN} --launcher slurm --launcher.time 0", "--launcher.time is 0", sweep()),
    "no option of sbatch": Case(
        f"{RUN} --launcher slurm --launcher.set =low",
        "--launcher.set '=low': it must be like qos=low",
        sweep(),
    ),
    "an unknown database": Case(
        f"{RUN} --storage nothing://host/name", "nothing://host/name: is not a study", sweep(), keeps="out"
    ),
    "no journal": Case(
        f"{RUN} --storage trials.log",
        "trials.log: is not a study",
        lambda world: [sweep()(world), text("trials.log", "trials\n")(world)],
        keeps="out",
    ),
    "a journal in no folder": Case(f"{RUN} --storage no/trials.log", "no/", sweep(), keeps="out"),
    "a search that is kept elsewhere": Case(
        RUN, "its search is kept elsewhere; name it with --storage", elsewhere, keeps="out"
    ),
    "a search that is kept here": Case(
        f"{RUN} --storage trials.log",
        "its search is in study.db; leave --storage out",
        other_search,
        keeps="out",
    ),
}
