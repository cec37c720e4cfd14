"""The methods and what they are, read from their sources: importing them would take the seconds of torch."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from leo_lightning import learners

FIELDS = ("predicts", "trained", "transductive")
"""Attributes of `Learner` that are read."""


class Method(NamedTuple):
    """A method of this package."""

    name: str
    summary: str
    """First line of its docstring."""
    predicts: str | None
    """`classes` or `values`, as in `Learner.predicts`; None if its arguments decide."""
    trained: bool
    transductive: bool


def methods() -> list[Method]:
    """Return all methods by name."""
    sources = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("*.py")]
    nodes = [node for source in sources for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    classes = {node.name: node for node in nodes}
    found = []
    for name in sorted(set(learners.__all__) - {"Learner"}, key=str.lower):
        values = _attributes(name, classes)
        if "trained" in values:  # not the reference
            summary = (ast.get_docstring(classes[name]) or "").partition("\n")[0]
            kind = (values[field] for field in FIELDS)
            found.append(Method(name, summary, *kind))
    return found


def _attributes(name: str, classes: Mapping[str, ast.ClassDef]) -> dict[str, Any]:
    """`FIELDS` of a class, its own or inherited; None for one that has no value yet."""
    node = classes.get(name)
    values: dict[str, Any] = {}
    for base in reversed(node.bases if node else []):
        values |= _attributes(ast.unparse(base), classes)
    for line in node.body if node else []:
        if isinstance(line, ast.Assign | ast.AnnAssign):
            target = ast.unparse(line.targets[0] if isinstance(line, ast.Assign) else line.target)
            if target in FIELDS:
                values[target] = None if line.value is None else ast.literal_eval(line.value)
    return values
