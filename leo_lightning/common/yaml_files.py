"""YAML files, read safely: bounded, and errors that name the file."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from leo_lightning.common.errors import InputError, disk_line, one_line

MAX_YAML, MAX_DEPTH, MAX_ALIASES = 2**20, 32, 8
"""Of a configuration: its length, how deep it is nested, how often it refers to another part of itself."""


def load_yaml(text: str) -> object:
    """Parse YAML, of which a few lines can say something endless, or so deep that its parser crashes.

    Raises:
        YAMLError: the text is no YAML, or none that a configuration needs.
    """
    aliases = 0
    inside: list[str | None] = []  # anchors of the collections at hand
    if len(text) > MAX_YAML:
        raise yaml.YAMLError(f"it is longer than {MAX_YAML} characters")
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        aliases += isinstance(event, yaml.AliasEvent)
        if isinstance(event, yaml.CollectionStartEvent):
            inside.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            inside.pop()
        endless = isinstance(event, yaml.AliasEvent) and event.anchor in inside
        if len(inside) > MAX_DEPTH or aliases > MAX_ALIASES or endless:
            raise yaml.YAMLError("it is nested too deeply, or refers to itself too often")
    try:
        return _load_yaml(text)
    except (
        ValueError,
        TypeError,
        LookupError,
        OverflowError,
        AttributeError,
    ) as error:  # a tag on what it does not fit
        raise yaml.YAMLError(str(error)) from None


_load_yaml = get_loader("yaml")


def check_config(path: Path, example: str = "--print_config shows one") -> None:
    """Check that a configuration is a table of fields; what these are is left to the parser.

    Args:
        path: the file.
        example: where to see such a table.

    Raises:
        InputError: names the file, which the parser's own messages do not.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: is no regular file; name a YAML file with --config")
    try:
        with path.open(encoding="utf-8") as file:
            config = load_yaml(file.read(MAX_YAML + 1))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; name an existing one with --config") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder; name a YAML file with --config") from None
    except OSError as error:
        raise InputError(disk_line(error)) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no text, or no such date
        raise InputError(f"{path}: not valid YAML ({one_line(error)}); mend it") from None
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise InputError(f"{path}: holds no table of fields; {example}")


def read_table(path: Path) -> dict[str, Any]:
    """Read a table of fields.

    Raises:
        InputError: see `check_config`.
    """
    check_config(path)
    table = load_yaml(path.read_text(encoding="utf-8"))
    assert isinstance(table, dict)
    return table
