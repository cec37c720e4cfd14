"""Settings as a flat table: differences between runs, and from the defaults."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

TRAINER = "pytorch_lightning.trainer.trainer.Trainer"
OURS = {"trainer.enable_model_summary": False, "trainer.num_sanity_val_steps": 0}
"""Defaults of Lightning that all our commands change."""
LENGTH = {True: {"trainer.max_steps": 100_000}, False: {"trainer.max_epochs": 100}}
"""Default length of training (True) and of pre-training (False)."""


class Row(NamedTuple):
    """A setting, and its value in each run."""

    name: str
    values: list[str]
    default: str | None
    """None if it is not known."""

    @property
    def differs(self) -> bool:
        """Whether the runs differ."""
        return len(set(self.values)) > 1

    @property
    def changed(self) -> bool:
        """Whether some run differs from the default."""
        return self.default is not None and any(value != self.default for value in self.values)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Settings by their names on the command line, which lack `class_path` and `init_args`."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flat(inner, _joined(name, key, ("class_path", "init_args")))
    else:
        yield name, shown(value)


def shown(value: Any) -> str:
    """A value, roughly as YAML writes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def table(configs: Sequence[dict[str, Any]], defaults: Mapping[str, str] | None = None) -> list[Row]:
    """All settings of several configurations, in their order of appearance."""
    columns = [dict(flat(config)) for config in configs]
    names = dict.fromkeys(name for column in columns for name in column)
    known = defaults or {}
    return [Row(name, [column.get(name, "") for column in columns], known.get(name)) for name in names]


def defaults(config: dict[str, Any]) -> dict[str, str]:
    """Defaults of the settings of a configuration, as far as they are known."""
    values: dict[str, Any] = {"seed_everything": 0}
    classes = [("trainer", TRAINER), ("run", "leo_lightning.runs.folder.RunOptions"), *_classes(config)]
    if trains_learner(config):
        classes.insert(0, ("model", "leo_lightning.training.meta_learner.MetaLearner"))
    for name, path in classes:
        values |= {f"{name}.{key}": value for key, value in _arguments(path).items()}
    values |= OURS | LENGTH[trains_learner(config)]
    return {name: shown(value) for name, value in values.items()}


def trains_learner(config: dict[str, Any]) -> bool:
    """True for a configuration of train.py, False for one of pre-training."""
    return "learner" in (config.get("model") or {})


def _classes(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Class paths in a configuration, with the names of their settings."""
    if isinstance(value, dict):
        if "class_path" in value:
            yield name, str(value["class_path"])
        for key, inner in value.items():
            yield from _classes(inner, _joined(name, key, ("init_args",)))


def _joined(name: str, key: str, omitted: tuple[str, ...]) -> str:
    return name if name and key in omitted else f"{name}.{key}" if name else key


@cache
def _arguments(path: str) -> dict[str, Any]:
    """Default arguments of a class, read from its source: importing it would take seconds, and run it."""
    *modules, name = path.split(".")
    ours = modules[:1] in (["leo_lightning"], ["pytorch_lightning"]) and all(map(str.isidentifier, modules))
    spec = find_spec(modules[0]) if ours else None
    if spec is None or spec.origin is None:
        return {}
    source = Path(spec.origin).parent.joinpath(*modules[1:]).with_suffix(".py")
    tree = ast.parse(source.read_text(encoding="utf-8") if source.is_file() else "")
    defaults: list[tuple[str, ast.expr | None]] = []
    body = next((part.body for part in tree.body if isinstance(part, ast.ClassDef) and part.name == name), [])
    for node in body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=field), value=default):  # of a dataclass
                defaults.append((field, default))
            case ast.FunctionDef(name="__init__", args=arguments):
                last = zip(reversed(arguments.args), reversed(arguments.defaults), strict=False)
                pairs = [*last, *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
                defaults += [(argument.arg, default) for argument, default in pairs]
    values = {}
    for argument, default in defaults:
        with suppress(ValueError):  # an expression
            if default is not None:
                values[argument] = ast.literal_eval(default)
    return values
