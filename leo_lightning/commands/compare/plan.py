"""Plan: what is compared, read from a YAML file and checked before anything starts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from leo_lightning.common.errors import InputError, check_least, nearest
from leo_lightning.common.yaml_files import check_config, load_yaml

Plain = int | float | str | bool | None
PLANNED = {
    "data.root": "root",
    "data.way": "way",
    "data.shot": "shot",
    "data.query": "query",
    "data.eval_seed": "eval_seed",
    "trainer.max_steps": "steps",
}
"""Fields of train.py that the plan sets for all methods alike, and what it calls them."""
OURS = ("run.root", "run.name", "config", "resume")
"""Fields and flags that the comparison needs for itself."""


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    label: str
    """What the table calls it."""
    configs: tuple[Path, ...]
    """Configurations of train.py; a later one wins over those before it."""
    changes: Mapping[str, Plain]
    """Fields of that configuration with another value: `model.learner.kl_weight: 0`."""

    @property
    def slug(self) -> str:
        """The label as the name of a file."""
        return re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")


@dataclass(frozen=True)
class Plan:
    """What is compared; a field without a value in the file takes the default that stands here."""

    methods: tuple[Method, ...]
    """In the order of the table's rows."""
    reference: str
    """Label of the method that the others are compared with; the first one unless said otherwise."""
    out: Path
    """Folder of all that is made."""
    root: Path | None = None
    """Folder of features; None for synthetic ones."""
    way: int = 5
    """N, in training and of the table."""
    shot: int = 1
    """K, in training and of the table."""
    query: int = 15
    """Q, in training, validation and test."""
    steps: int = 20_000
    """Training steps of every method that is trained."""
    tasks: int = 10_000
    """Test tasks of the table."""
    eval_seed: int = 0
    """Seed of validation and test tasks."""
    shots: tuple[int, ...] = ()
    """Shots of the figure, at the table's way."""
    ways: tuple[int, ...] = ()
    """Ways of the figure, at the table's shot."""
    plot_tasks: int = 1000
    """Test tasks of each point of the figure."""

    @property
    def runs(self) -> Path:
        """Folder of the training runs."""
        return self.out / "runs"

    def log(self, method: Method) -> Path:
        """What the training of a method printed."""
        return self.out / "logs" / f"{method.slug}.log"

    @property
    def points(self) -> list[tuple[int, int]]:
        """Way and shot of each point of the figure, once."""
        over_shots = [(self.way, shot) for shot in self.shots]
        return list(dict.fromkeys(over_shots + [(way, self.shot) for way in self.ways]))


_FILE_ONLY = "set"  # changes to all methods
_LEAST = {"way": 2, "shot": 1, "query": 1, "steps": 1, "tasks": 2, "eval_seed": 0, "plot_tasks": 2}
_LEAST_OF_AXES = {"shots": 1, "ways": 2}


def read_plan(path: Path, **given: Any) -> Plan:
    """Read a plan.

    Args:
        path: the YAML file.
        given: fields that win over the file's, unless they are None.

    Raises:
        InputError: says what is wrong in the file, and what to do.
    """
    check_config(path, "configs/compare has examples")
    table = load_yaml(path.read_text(encoding="utf-8"))
    assert isinstance(table, dict)
    table |= {name: value for name, value in given.items() if value is not None}
    try:
        return _plan(table, path.stem)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _plan(table: dict[str, Any], name: str) -> Plan:
    known = [*(field.name for field in fields(Plan)), _FILE_ONLY]
    _check_names("field", table, known)
    values: dict[str, Any] = {field: _whole(field, table[field]) for field in _LEAST if field in table}
    for field, least in _LEAST.items():
        check_least(least, {field: values.get(field)})
    values |= {
        axis: _axis(axis, table[axis], least) for axis, least in _LEAST_OF_AXES.items() if axis in table
    }
    methods = _methods(table.get("methods"), _changes("set", table.get("set")))
    labels = [method.label for method in methods]
    reference = table.get("reference", labels[0])
    if reference not in labels:
        raise InputError(f"reference: {unknown_label(reference, labels)}")
    for what in ("root", "out"):
        if not isinstance(table.get(what), str | Path | None):
            raise InputError(f"{what}: expected a folder, got {table[what]!r}")
    root, out = table.get("root"), table.get("out") or f"runs/compare/{name}"
    return Plan(
        methods=methods,
        reference=reference,
        out=Path(out),
        root=None if root is None else Path(root),
        **values,
    )


def unknown_label(label: object, labels: Sequence[str]) -> str:
    """What to say of a label that no method has."""
    known = f"there are {', '.join(labels)}"
    return f"no method is called {label!r}{nearest(str(label), labels, known)}"


def _methods(table: object, common: dict[str, Plain]) -> tuple[Method, ...]:
    if not isinstance(table, dict) or not table:
        raise InputError("methods: expected a table of label: configuration; name at least one")
    methods = [_method(str(label), entry, common) for label, entry in table.items()]
    seen: dict[str, str] = {}
    for method in methods:
        if not method.slug:
            raise InputError(f"methods: {method.label!r} has no letter or digit; give it another label")
        if other := seen.get(method.slug):
            raise InputError(
                f"methods: {other!r} and {method.label!r} would share files ({method.slug}); "
                "give one another label"
            )
        seen[method.slug] = method.label
    return tuple(methods)


def _method(label: str, entry: object, common: dict[str, Plain]) -> Method:
    where = f"methods.{label}"
    if not isinstance(entry, dict):
        entry = {"config": entry}
    given = entry.get("config")
    names = [name for name in (given if isinstance(given, list) else [given]) if isinstance(name, str)]
    if not names or (isinstance(given, list) and len(names) < len(given)):
        raise InputError(
            f"{where}: expected the path of a configuration, a list of them, or a table of config and set"
        )
    _check_names(f"field {where}.", entry, ["config", "set"])
    paths = tuple(Path(name) for name in names)
    try:
        for path in paths:
            check_config(path, "`python train.py fit --print_config` shows one")
    except InputError as error:
        raise InputError(f"{where}: {str(error).removesuffix(' with --config')}") from None
    return Method(label, paths, common | _changes(f"{where}.set", entry.get("set")))


def _changes(where: str, table: object) -> dict[str, Plain]:
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise InputError(f"{where}: expected a table of field: value")
    for name, value in table.items():
        if not isinstance(value, Plain):
            raise InputError(
                f"{where}.{name}: expected one value, got {value!r}; write whole field names, like "
                "model.learning_rate"
            )
        if name in PLANNED:
            raise InputError(
                f"{where}: {name} is the same for all methods; set `{PLANNED[name]}` at the top of the plan"
            )
        if name in OURS:
            raise InputError(f"{where}: {name} is set by the comparison; leave it out")
    return {str(name): value for name, value in table.items()}


def _check_names(what: str, table: Mapping[Any, Any], known: list[str]) -> None:
    for name in table:
        if name not in known:
            gap = "" if what.endswith(".") else " "
            hint = nearest(str(name), known, f"known are {', '.join(known)}")
            raise InputError(f"unknown {what}{gap}{name}{hint}")


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{name}: expected a whole number, got {value!r}")
    return value


def _axis(name: str, values: object, least: int) -> tuple[int, ...]:
    if not isinstance(values, list):
        raise InputError(f"{name}: expected a list of whole numbers, got {values!r}")
    numbers = sorted({_whole(name, value) for value in values})
    check_least(least, {name: min(numbers, default=None)})
    return tuple(numbers)
