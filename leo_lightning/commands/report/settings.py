"""Settings as a flat table: what differs between runs, or from the defaults."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from leo_lightning.common.errors import InputError, one_line

LONGEST = 2**20
"""Characters of a configuration."""
TRAINER = "pytorch_lightning.trainer.trainer.Trainer"
OURS = {"trainer.enable_model_summary": False, "trainer.num_sanity_val_steps": 0}
"""Lightning's defaults that every command of ours sets otherwise."""
LENGTH = {True: {"trainer.max_steps": 100_000}, False: {"trainer.max_epochs": 100}}
"""Of training, and of pre-training."""


class Row(NamedTuple):
    """A setting, and its value in each run."""

    name: str
    values: list[str]
    default: str | None
    """None where it is not known."""

    @property
    def differs(self) -> bool:
        """Between the runs."""
        return len(set(self.values)) > 1

    @property
    def changed(self) -> bool:
        """From the default, in some run."""
        return self.default is not None and any(value != self.default for value in self.values)


class _Loader(yaml.SafeLoader):
    """Without references: a few lines of these can say something endless."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it refers to itself")
        return super().compose_node(parent, index)


def read_config(path: Path) -> dict[str, Any]:
    """A configuration that a run has saved.

    Raises:
        InputError: it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if len(text) > LONGEST:
            raise yaml.YAMLError(f"it is longer than {LONGEST} characters")
        config = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid YAML ({one_line(error)}); mend it") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: holds no table of fields; restore the file")
    return config


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Settings by their full names, without `class_path` and `init_args`, as on a command line."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            if key in ("class_path", "init_args") and name:
                yield from flat(inner, name)
            else:
                yield from flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, shown(value)


def shown(value: Any) -> str:
    """A value as YAML would have it, near enough."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def table(configs: Sequence[dict[str, Any]], defaults: Mapping[str, str] | None = None) -> list[Row]:
    """All settings of several configurations, in the order in which they come."""
    columns = [dict(flat(config)) for config in configs]
    names = dict.fromkeys(name for column in columns for name in column)
    known = defaults or {}
    return [Row(name, [column.get(name, "") for column in columns], known.get(name)) for name in names]


def changes(before: dict[str, Any], after: dict[str, Any]) -> list[Row]:
    """What a later configuration of a run has otherwise."""
    return [row for row in table([before, after]) if row.differs]


def defaults(config: dict[str, Any]) -> dict[str, str]:
    """What the settings of a configuration would be, had nobody set them, where that is known."""
    found: dict[str, Any] = {"seed_everything": 0}
    named = {"trainer": TRAINER, "run": "leo_lightning.runs.folder.RunOptions"}
    if trains_learner(config):
        named["model"] = "leo_lightning.training.meta_learner.MetaLearner"
    for name, path in named.items():
        found |= {f"{name}.{key}": value for key, value in _arguments(path).items()}
    found |= OURS | LENGTH[trains_learner(config)]
    for name, part in _chosen(config):
        found |= {f"{name}.{key}": value for key, value in _arguments(str(part["class_path"])).items()}
    return {name: shown(value) for name, value in found.items()}


def trains_learner(config: dict[str, Any]) -> bool:
    """Whether it is a configuration of train.py, and not of pre-training."""
    model = config.get("model")
    return isinstance(model, dict) and "learner" in model


def _chosen(value: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Parts of a configuration that name a class."""
    if isinstance(value, dict):
        if "class_path" in value:
            yield name, value
        for key, inner in value.items():
            if key == "init_args":
                yield from _chosen(inner, name)
            else:
                yield from _chosen(inner, f"{name}.{key}" if name else str(key))


@cache
def _arguments(path: str) -> dict[str, Any]:
    """Defaults of a class's arguments, out of its source: to import it would take seconds, and run it."""
    *modules, name = path.split(".")
    package = modules[0] if modules else ""
    if package not in ("leo_lightning", "pytorch_lightning") or not all(map(str.isidentifier, modules)):
        return {}
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent.joinpath(*modules[1:]).with_suffix(".py")
    if not source.is_file():
        return {}
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    return dict(_literals(method.args))
    return {}


def _literals(arguments: ast.arguments) -> Iterator[tuple[str, Any]]:
    named = arguments.args[len(arguments.args) - len(arguments.defaults) :]
    both = [
        *zip(named, arguments.defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    for argument, default in both:
        try:
            if default is not None:
                yield argument.arg, ast.literal_eval(default)
        except ValueError:  # an expression
            continue
