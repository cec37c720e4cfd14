"""The sweep file: parameters to search for a command of train.py, in the format of `wandb sweep`.

The format: docs.wandb.ai/guides/sweeps/define-sweep-configuration. Fields that only W&B's server reads (name,
description, project, entity, run_cap) are accepted and ignored.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from leo_lightning.common.errors import InputError, check_known, one_line
from leo_lightning.common.yaml_files import read_table

KEYS = (
    "program", "method", "metric", "command", "parameters", "early_terminate",
    "name", "description", "project", "entity", "run_cap",
)  # fmt: skip
METHODS = ("bayes", "random", "grid")
METRICS: dict[str, Literal["maximize", "minimize"]] = {"val/accuracy": "maximize", "val/mse": "minimize"}
"""Goals of classification and of regression."""
ARGS, PROGRAM = "${args}", "${program}"
RANGE = {"min", "max"}
FIELDS = {
    "constant": {"value"}, "categorical": {"values"}, "uniform": RANGE, "int_uniform": RANGE,
    "log_uniform_values": RANGE, "q_uniform": RANGE, "q_log_uniform_values": RANGE,
}  # fmt: skip
"""Required fields of each distribution. Those named q_ also take `q`, by default 1."""


@dataclass(frozen=True)
class EarlyEnd:
    """Successive halving, which W&B calls hyperband: worse trials end early.

    Li, Jamieson, Rostamizadeh et al.: A System for Massively Parallel Hyperparameter Tuning. MLSys 2020.

    """

    min_iter: int
    """Validations until a trial is first compared with those that came as far."""
    eta: int
    """One in `eta` trials continues, until `eta` times as many validations."""


@dataclass(frozen=True)
class Sweep:
    """A sweep file, checked."""

    path: Path
    method: str
    metric: str
    """The score of a trial, by its name in metrics.csv."""
    command: tuple[str, ...]
    """Arguments of train.py, one word per flag; `${args}` stands for a trial's."""
    constants: dict[str, Any]
    """Parameters with one value."""
    space: dict[str, BaseDistribution]
    """Distributions of the other parameters."""
    early_end: EarlyEnd | None = None

    @property
    def trains(self) -> bool:
        """Whether a trial trains; otherwise it only validates."""
        return self.command[0] == "fit"

    @property
    def goal(self) -> Literal["maximize", "minimize"]:
        """Direction of the metric."""
        return METRICS[self.metric]

    def arguments(self, values: Mapping[str, Any]) -> list[str]:
        """Compose the command line of train.py with these values, as W&B's agent does."""
        texts = {k: "null" if v is None else str(v) for k, v in {**self.constants, **values}.items()}
        flags = [f"--{name}={text}" for name, text in texts.items()]
        return [word for part in self.command for word in (flags if part == ARGS else [part])]

    def points(self) -> Iterator[dict[str, Any]]:
        """Iterate over all combinations of a space that has only `values`."""
        choices = [one.choices for one in self.space.values() if isinstance(one, CategoricalDistribution)]
        for values in itertools.product(*choices):
            yield dict(zip(self.space, values, strict=True))


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        InputError: a field is unknown, missing or has a bad value.
    """
    content = read_table(path, "configs/sweeps has examples")
    try:
        return _sweep(path, content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _sweep(path: Path, content: dict[str, Any]) -> Sweep:
    for key in content:
        check_known("field", key, KEYS)
    method, metric = content.get("method"), content.get("metric")
    if method not in METHODS:
        raise InputError(f"method is {method!r}: it must be one of {', '.join(METHODS)}")
    known = [{"name": name, "goal": goal} for name, goal in METRICS.items()]
    if metric not in known:
        raise InputError(f"metric is {metric!r}: it must be one of {known}")
    parameters = content.get("parameters")
    if not isinstance(parameters, dict):
        raise InputError("parameters: expected a table with a line for each hyperparameter")
    constants, space = dict[str, Any](), dict[str, BaseDistribution]()
    for name, given in parameters.items():
        drawn = _distribution(str(name), given)
        if isinstance(drawn, CategoricalDistribution) and len(drawn.choices) == 1:
            constants[str(name)] = drawn.choices[0]
        elif method == "grid" and not isinstance(drawn, CategoricalDistribution):
            raise InputError(f"{name}: a grid needs `values`; list some, or choose another method")
        else:
            space[str(name)] = drawn
    if not space:
        raise InputError("parameters: there is nothing to search; give one of them several values")
    command, early_end = _command(content.get("command")), _early_end(content.get("early_terminate"))
    return Sweep(path, method, metric["name"], command, constants, space, early_end)


def _early_end(given: object) -> EarlyEnd | None:
    """Read W&B's `early_terminate`, without its form with max_iter."""
    match given:
        case None:
            return None
        case {"type": "hyperband", "min_iter": int(first), **rest} if rest.keys() <= {"eta", "strict"}:
            eta = rest.get("eta", 3)
            if first >= 1 and isinstance(eta, int) and eta >= 2:
                return EarlyEnd(first, eta)
    raise InputError(f"early_terminate is {given!r}: it must be like {{type: hyperband, min_iter: 3}}")


def _command(given: object) -> tuple[str, ...]:
    """Return the arguments of train.py in a W&B command, `--flag value` written as `--flag=value`."""
    words = [str(word) for word in given] if isinstance(given, list) else []
    arguments = words[words.index(PROGRAM) + 1 :] if PROGRAM in words else []
    joined: list[str] = []
    for word in arguments:
        if joined and joined[-1].startswith("--") and "=" not in joined[-1] and word != ARGS:
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    named = any(word.startswith("--config=") for word in joined)
    if arguments[:1] not in (["fit"], ["validate"]) or joined.count(ARGS) != 1 or not named:
        raise InputError(
            f"command: it must be a list like [${{env}}, python, {PROGRAM}, fit, --config, FILE, {ARGS}], or "
            "with validate in place of fit"
        )
    return tuple(joined)


def _distribution(name: str, given: object) -> BaseDistribution:
    """Return the distribution of a parameter; a constant is one choice."""
    if not isinstance(given, dict):
        raise InputError(f"{name}: expected a table, like {{value: 3}} or {{values: [1, 2]}}")
    fields = given.keys() - {"distribution"}
    numbers = "int_uniform" if {type(given.get(field)) for field in RANGE} == {int} else "uniform"
    inferred = "constant" if "value" in fields else "categorical" if "values" in fields else numbers
    kind = given.get("distribution", inferred)  # W&B infers it in the same way
    if not isinstance(kind, str) or kind not in FIELDS:
        raise InputError(f"{name}: distribution is {kind!r}: it must be one of {', '.join(FIELDS)}")
    if fields - ({"q"} if kind.startswith("q_") else set()) != FIELDS[kind]:
        wanted = " and ".join(sorted(FIELDS[kind]))
        raise InputError(f"{name}: {kind} takes {wanted}, not {', '.join(map(str, fields)) or 'nothing'}")
    try:
        if FIELDS[kind] == RANGE:
            return _range(kind, given["min"], given["max"], given.get("q", 1))
        values = given["values"] if "values" in fields else [given["value"]]
        if not isinstance(values, list) or any(isinstance(value, list | dict) for value in values):
            raise InputError(f"values is {values!r}: it must be a list of single values")
        return CategoricalDistribution(values)
    except ValueError as error:
        raise InputError(f"{name}: {one_line(error)}") from None


def _range(kind: str, low: Any, high: Any, q: Any) -> BaseDistribution:
    numbers = [x for x in (low, high, q) if type(x) in (int, float) and math.isfinite(x)]
    if len(numbers) < 3:
        raise InputError(f"min, max and q must be finite numbers, got {low!r}, {high!r} and {q!r}")
    low, high, q = numbers
    whole = all(float(number).is_integer() for number in numbers)
    if kind == "uniform" or kind == "log_uniform_values":
        return FloatDistribution(low, high, log=kind != "uniform")
    if kind == "q_uniform" and not whole:
        return FloatDistribution(low, high, step=q)
    if not whole:
        raise InputError(f"{kind} takes whole numbers only; uniform and log_uniform_values take others")
    return IntDistribution(int(low), int(high), log="log" in kind, step=int(q))
