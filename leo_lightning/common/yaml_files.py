"""YAML files of users, read safely: bounded, and with errors that name the file."""

import difflib
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from leo_lightning.common.errors import InputError, disk_line, one_line
from leo_lightning.common.shipped import found, shipped

MAX_YAML, MAX_DEPTH, MAX_ALIASES = 2**20, 32, 8
"""Limits of a configuration: its characters, its depth of nesting, its references to parts of itself."""

_load_yaml = get_loader("yaml")


def load_yaml(text: str) -> object:
    """Parse YAML as a configuration; a few lines could be endless, or so deep that the parser crashes.

    Raises:
        YAMLError: the text is not YAML, or exceeds the limits of a configuration.
    """
    _check_bounds(text)
    try:
        return _load_yaml(text)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # `!!int x`
        raise yaml.YAMLError(str(error)) from None


def _check_bounds(text: str) -> None:
    aliases = 0
    inside: list[str | None] = []  # anchors of the collections around the current event
    if len(text) > MAX_YAML:
        raise yaml.YAMLError(f"it is longer than {MAX_YAML} characters")
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            inside.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            inside.pop()
        is_alias = isinstance(event, yaml.AliasEvent)
        aliases += is_alias
        if len(inside) > MAX_DEPTH or aliases > MAX_ALIASES or (is_alias and event.anchor in inside):
            raise yaml.YAMLError("it is nested too deeply, or refers to itself too often")


def read_table(path: Path, example: str = "--print_config shows one") -> dict[str, Any]:
    """Read a table of fields; the caller checks which fields it has.

    Raises:
        InputError: names the file, which the parser's own messages do not, and `example`, a place to see one.
    """
    path = found(path)
    if not path.is_file():  # reading a pipe would never end
        if path.exists():
            problem = "is a folder" if path.is_dir() else "is not a file"
            raise InputError(f"{path}: {problem}; name a YAML file")
        there = [str(path.with_name(other.name)) for other in path.parent.glob("*.yaml")]
        similar = difflib.get_close_matches(str(path), [*there, *shipped()], n=1, cutoff=0.8)
        advice = f"did you mean {similar[0]}?" if similar else "name a YAML file"
        raise InputError(f"{path}: no such file; {advice}")
    try:
        with path.open(encoding="utf-8") as file:
            table = load_yaml(file.read(MAX_YAML + 1))
    except OSError as error:
        raise InputError(disk_line(error)) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({one_line(error)}); fix it") from None
    if not isinstance(table, dict) or not all(isinstance(key, str) for key in table):
        raise InputError(f"{path}: holds no table of fields; {example}")
    return table
