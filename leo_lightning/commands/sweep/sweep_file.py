"""The sweep file: what is searched for which command, in the format of `wandb sweep`.

The format: docs.wandb.ai/guides/sweeps/define-sweep-configuration. W&B's keys that only its server obeys
(name, description, project, entity, run_cap) are left to it.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.common.yaml_files import check_config

KEYS = (
    "program", "method", "metric", "command", "parameters", "early_terminate",
    "name", "description", "project", "entity", "run_cap",
)  # fmt: skip
METHODS = ("bayes", "random", "grid")
METRICS: dict[str, Literal["maximize", "minimize"]] = {"val/accuracy": "maximize", "val/mse": "minimize"}
"""Of classification, and of regression."""
ARGS, PROGRAM = "${args}", "${program}"
DISTRIBUTIONS = (
    "constant", "categorical", "uniform", "int_uniform", "log_uniform_values", "q_uniform",
    "q_log_uniform_values",
)  # fmt: skip


@dataclass(frozen=True)
class EarlyEnd:
    """When trials are ended that are worse than others: successive halving, which W&B calls hyperband.

    Li, Jamieson, Rostamizadeh et al.: A System for Massively Parallel Hyperparameter Tuning. MLSys 2020.

    Attributes:
        min_iter: validations after which a trial is first compared with those that came as far.
        eta: the best of so many go on; and they are compared again after so many times the validations.
    """

    min_iter: int
    eta: int


@dataclass(frozen=True)
class Sweep:
    """A sweep file that was read and checked.

    Attributes:
        path: the file.
        method: bayes, random or grid.
        metric: the score of a trial, as validation logs it.
        command: arguments of train.py, one word per flag; `${args}` stands for those of a trial.
        constants: parameters with one value.
        space: the others, each with what its values are drawn from.
        early_end: when trials are ended early; None: never.
    """

    path: Path
    method: str
    metric: str
    command: tuple[str, ...]
    constants: dict[str, Any]
    space: dict[str, BaseDistribution]
    early_end: EarlyEnd | None = None

    @property
    def trains(self) -> bool:
        """False where there is nothing to train, and a trial is a validation alone."""
        return self.command[0] == "fit"

    @property
    def goal(self) -> Literal["maximize", "minimize"]:
        """Maximize or minimize."""
        return METRICS[self.metric]

    def arguments(self, values: Mapping[str, Any]) -> list[str]:
        """The command line of train.py that has these values, composed as W&B's agent does."""
        flags = [f"--{name}={_text(value)}" for name, value in {**self.constants, **values}.items()]
        return [word for part in self.command for word in (flags if part == ARGS else [part])]

    def points(self) -> Iterator[dict[str, Any]]:
        """All combinations of a space that has only `values`."""
        choices = [
            drawn.choices for drawn in self.space.values() if isinstance(drawn, CategoricalDistribution)
        ]
        for values in itertools.product(*choices):
            yield dict(zip(self.space, values, strict=True))


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        InputError: says which field is wrong, and what to write.
    """
    check_config(path, "configs/sweeps has examples")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))  # 1e-4 is text here, as for W&B's agent
    except ValueError as error:  # what looks like a date
        raise InputError(f"{path}: not valid YAML ({one_line(error)}); mend it") from None
    try:
        return _sweep(path, content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _sweep(path: Path, content: dict[str, Any]) -> Sweep:
    if unknown := [key for key in content if key not in KEYS]:
        raise InputError(f"unknown field {_shown(unknown[0])}; known are {', '.join(KEYS)}")
    method = content.get("method")
    if method not in METHODS:
        raise InputError(f"method is {_shown(method)}: it must be one of {', '.join(METHODS)}")
    metric = content.get("metric")
    known = [{"name": name, "goal": goal} for name, goal in METRICS.items()]
    if not isinstance(metric, dict) or metric not in known:
        either = " or ".join(f"{{name: {name}, goal: {goal}}}" for name, goal in METRICS.items())
        raise InputError(f"metric: it must be {either}")
    parameters = content.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise InputError("parameters: it must be a table with a line for each hyperparameter")
    constants: dict[str, Any] = {}
    space: dict[str, BaseDistribution] = {}
    for name, given in parameters.items():
        drawn = _distribution(str(name), given)
        if isinstance(drawn, CategoricalDistribution) and len(drawn.choices) == 1:
            constants[str(name)] = drawn.choices[0]
        else:
            space[str(name)] = drawn
    if not space:
        raise InputError(
            "parameters: each has one value only, so there is nothing to search; give one of them several"
        )
    ranges = [name for name, drawn in space.items() if not isinstance(drawn, CategoricalDistribution)]
    if method == "grid" and ranges:
        raise InputError(f"{ranges[0]}: a grid needs `values`; list some, or choose another method")
    command, early_end = _command(content.get("command")), _early_end(content.get("early_terminate"))
    return Sweep(path, method, metric["name"], command, constants, space, early_end)


def _early_end(given: object) -> EarlyEnd | None:
    """W&B's `early_terminate`, of which the form with max_iter is not known here."""
    if given is None:
        return None
    fields = {"eta": 3, "strict": True, **given} if isinstance(given, dict) else {}
    least = {"min_iter": 1, "eta": 2}
    numbers = [fields.get(name) for name in least]
    if (
        fields.keys() != {"type", "min_iter", "eta", "strict"}
        or fields["type"] != "hyperband"
        or any(type(number) is not int for number in numbers)
        or any(fields[name] < number for name, number in least.items())
    ):
        raise InputError(
            f"early_terminate is {_shown(given)}: it must be like {{type: hyperband, min_iter: 3, eta: 3}}, "
            "counted in validations"
        )
    return EarlyEnd(fields["min_iter"], fields["eta"])


def _command(given: object) -> tuple[str, ...]:
    """The arguments of train.py in a W&B command, `--flag value` written as `--flag=value`."""
    words = [str(word) for word in given] if isinstance(given, list) else []
    verbs = words[words.index(PROGRAM) + 1 :][:1] if PROGRAM in words else []
    if words.count(ARGS) != 1 or verbs not in (["fit"], ["validate"]):
        raise InputError(
            f"command: it must be a list like [${{env}}, python, {PROGRAM}, fit, --config, FILE, {ARGS}], "
            "with validate in place of fit for what is not trained"
        )
    joined: list[str] = []
    for word in words[words.index(PROGRAM) + 1 :]:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and word != ARGS:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    if not any(word.startswith("--config=") for word in joined):
        raise InputError("command: names no base configuration; add --config, FILE")
    return tuple(joined)


def _distribution(name: str, given: object) -> BaseDistribution:
    """What a parameter's values are drawn from; a constant is one choice."""
    if not isinstance(given, dict):
        raise InputError(
            f"{name} is {_shown(given)}: it must be a table, like {{value: 3}} or {{values: [1, 2]}}"
        )
    kind = given.get("distribution", _inferred(given))
    if kind not in DISTRIBUTIONS:
        raise InputError(
            f"{name}: distribution {_shown(kind)} is not known here; use one of {', '.join(DISTRIBUTIONS)}"
            if kind is not None
            else f"{name}: give `value`, `values`, or `min` and `max`"
        )
    fields = {"constant": {"value"}, "categorical": {"values"}}.get(kind, {"min", "max"})
    optional = {"q"} if kind.startswith("q_") else set()
    if missing := fields - given.keys():
        raise InputError(f"{name}: {kind} needs {' and '.join(f'`{field}`' for field in sorted(missing))}")
    if unknown := given.keys() - fields - optional - {"distribution"}:
        raise InputError(f"{name}: {kind} takes no `{printable(str(min(unknown, key=str)))}`; leave it out")
    if kind in ("constant", "categorical"):
        return _categorical(name, [given["value"]] if kind == "constant" else given["values"])
    low, high, q = (_number(name, field, given.get(field, 1)) for field in ("min", "max", "q"))
    if not low < high:
        raise InputError(f"{name}: min is {low} and max is {high}: min must be below max")
    return _range(name, kind, low, high, q)


def _inferred(given: Mapping[Any, Any]) -> str | None:
    """W&B's rule for a parameter that names no distribution."""
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical"
    if not {"min", "max"} <= given.keys():
        return None
    return "int_uniform" if all(type(given[field]) is int for field in ("min", "max")) else "uniform"


def _categorical(name: str, values: object) -> CategoricalDistribution:
    if not isinstance(values, list) or not values:
        raise InputError(f"{name}: values is {_shown(values)}: it must be a list with something in it")
    for value in values:
        if not isinstance(value, str | int | float | None):
            raise InputError(f"{name}: {_shown(value)} is no single value; a list or table cannot be tried")
    of_type = [(type(value), value) for value in values]
    if len(set(of_type)) < len(of_type):
        twice = max(values, key=lambda value: of_type.count((type(value), value)))
        raise InputError(f"{name}: values has {_shown(twice)} twice; leave one of them out")
    return CategoricalDistribution(values)


def _range(name: str, kind: str, low: int | float, high: int | float, q: int | float) -> BaseDistribution:
    if "log" in kind and not low > 0:
        raise InputError(f"{name}: min is {low}: on a logarithmic scale it must be above 0")
    if kind == "uniform":
        return FloatDistribution(low, high)
    if kind == "log_uniform_values":
        return FloatDistribution(low, high, log=True)
    whole = all(float(number).is_integer() for number in (low, high, q))
    if kind == "int_uniform" or kind == "q_log_uniform_values":
        if not whole or q != 1:
            raise InputError(
                f"{name}: {kind} is for whole numbers here; use whole min and max without q, or "
                f"{'uniform' if kind == 'int_uniform' else 'log_uniform_values'}"
            )
        return IntDistribution(int(low), int(high), log="log" in kind)
    if not q > 0 or not math.isclose((high - low) / q, round((high - low) / q), abs_tol=1e-9):
        raise InputError(f"{name}: q is {q}: it must be above 0 and divide max - min")
    return (
        IntDistribution(int(low), int(high), step=int(q)) if whole else FloatDistribution(low, high, step=q)
    )


def _number(name: str, field: str, value: object) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        hint = " (in YAML, 1.0e-4 is one, and 1e-4 is text)" if isinstance(value, str) else ""
        raise InputError(f"{name}: {field} is {_shown(value)}: it must be a finite number{hint}")
    return value


def _text(value: object) -> str:
    return "null" if value is None else str(value)


def _shown(value: object) -> str:
    return printable(repr(value))
