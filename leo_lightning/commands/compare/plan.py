"""Plan: the methods and tasks of a comparison, read from a YAML file and checked before anything starts."""

import operator
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from leo_lightning.common.errors import InputError, check_known, check_least
from leo_lightning.common.program import called
from leo_lightning.common.shipped import found
from leo_lightning.common.yaml_files import read_table
from leo_lightning.data.roots import OMNIGLOT

Plain = int | float | str | bool | None
SHARED = {
    "data.root": "root", "data.way": "way", "data.shot": "shot", "data.query": "query",
    "data.eval_seed": "eval_seed", "trainer.max_steps": "steps", "seed_everything": "seeds",
}  # fmt: skip
"""Fields of train.py that are the same for all methods, and their names in the plan."""
LEAST = {
    "way": 2, "shot": 1, "query": 1, "steps": 1, "tasks": 2, "eval_seed": 0, "plot_tasks": 2, "shots": 1,
    "ways": 2, "seeds": 0, "patience": 1, "dirichlet": 0,
}  # fmt: skip
SEVERAL = ("shots", "ways", "seeds")
"""Fields that hold several numbers."""
FOR_ALL = "set"
"""Field of the file that changes all methods."""


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    label: str
    configs: tuple[Path, ...]
    """Configurations of train.py; a later one wins over those before it."""
    changes: Mapping[str, Plain]
    """Fields of train.py with another value, such as `model.learner.kl_weight: 0`."""

    @property
    def slug(self) -> str:
        """The label as a file name."""
        return re.sub(r"[^a-z0-9]+", "-", self.label.lower()).strip("-")


@dataclass(frozen=True)
class Plan:
    """A comparison. A field that the file lacks has the default given here."""

    methods: tuple[Method, ...]
    """In the order of the table's rows."""
    reference: str
    """Label of the method that the others are compared with, by default the first."""
    out: Path
    """Folder of everything that is written."""
    root: str | None = OMNIGLOT
    """The features, as `EpisodeDataModule` takes them."""
    way: int = 5
    shot: int = 1
    query: int = 15
    steps: int = 20_000
    """The most training steps of a method."""
    patience: int | None = None
    """Validations without a better score after which training ends; None: it takes all steps."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the trainings: each method is trained once with each."""
    tasks: int = 10_000
    """Test tasks of the table."""
    eval_seed: int = 0
    """Seed of the validation and test tasks."""
    dirichlet: int = 0
    """Evaluate a second time with the queries divided unequally, `data.query_dirichlet`; 0: do not."""
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

    @property
    def points(self) -> list[tuple[int, int]]:
        """Way and shot of each point of the figure, without duplicates."""
        over_shots = [(self.way, shot) for shot in self.shots]
        return list(dict.fromkeys(over_shots + [(way, self.shot) for way in self.ways]))


def read_plan(path: Path, **flags: Any) -> Plan:
    """Read a plan. Flags that are not None win over the fields of the file.

    Raises:
        InputError: a field is unknown or has a bad value.
    """
    table = read_table(path, "configs/compare has examples")
    table |= {name: value for name, value in flags.items() if value is not None}
    try:
        return _plan(table, path.stem)
    except (InputError, TypeError) as error:
        raise InputError(f"{path}: {error}") from None


def _plan(table: dict[str, Any], name: str) -> Plan:
    for field in table:
        check_known("field", field, [*(field.name for field in fields(Plan)), FOR_ALL])
    values: dict[str, Any] = {}
    for field in LEAST.keys() & table.keys():
        several = field in SEVERAL
        try:
            numbers = [operator.index(value) for value in (table[field] if several else [table[field]])]
        except TypeError as error:
            raise InputError(f"{field}: {error}") from None
        check_least(LEAST[field], {field: min(numbers, default=None)})
        values[field] = tuple(sorted(set(numbers))) if several else numbers[0]
    if values.get("seeds") == ():
        raise InputError("seeds: expected one number at least")
    methods = _methods(table.get("methods"), _changes(FOR_ALL, table.get(FOR_ALL)))
    reference = table.get("reference", methods[0].label)
    check_known("reference:", reference, [method.label for method in methods])
    root = table.get("root", Plan.root)
    out = Path(table.get("out") or f"runs/compare/{name}")
    return Plan(methods, reference, out, None if root is None else os.fspath(root), **values)


def _methods(table: object, common: dict[str, Plain]) -> tuple[Method, ...]:
    if not isinstance(table, dict) or not table:
        raise InputError("methods: expected a table of label: configuration")
    methods = [_method(str(label), entry, common) for label, entry in table.items()]
    slugs = [method.slug for method in methods]
    for method in methods:
        if not method.slug or slugs.count(method.slug) > 1:
            raise InputError(f"methods: {method.label!r} needs letters or digits that no other label has")
    return tuple(methods)


def _method(label: str, entry: object, common: dict[str, Plain]) -> Method:
    where = f"methods.{label}"
    table: dict[Any, Any] = entry if isinstance(entry, dict) else {"config": entry}
    for field in table:
        check_known(f"field of {where}:", field, ["config", FOR_ALL])
    names = table.get("config")
    names = names if isinstance(names, list) else [names]
    paths = tuple(found(Path(name)) for name in names if isinstance(name, str))
    if not paths or len(paths) < len(names):
        raise InputError(f"{where}: expected the path of a configuration, or a list of paths")
    try:
        for path in paths:
            read_table(path, f"`{called()} fit --print_config` shows one")
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return Method(label, paths, common | _changes(f"{where}.{FOR_ALL}", table.get(FOR_ALL)))


def _changes(where: str, table: object) -> dict[str, Plain]:
    changes = {} if table is None else table
    if not isinstance(changes, dict):
        raise InputError(f"{where}: expected a table of field: value")
    for name, value in changes.items():
        if not isinstance(value, Plain):
            raise InputError(f"{where}.{name}: expected one value; write whole field names")
        if name in SHARED:
            raise InputError(f"{where}: {name} is the same for all methods; set `{SHARED[name]}` of the plan")
    return {str(name): value for name, value in changes.items()}
