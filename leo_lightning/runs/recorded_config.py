"""The configuration that a checkpoint records. It was found, not written by the user, so it is data."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import _common as jsonargparse_state
from jsonargparse import set_parsing_settings

from leo_lightning.common.errors import InputError, printable
from leo_lightning.common.yaml_files import read_table
from leo_lightning.runs.folder import CONFIG, folder_of

KEY = "config"
"""Key in a checkpoint of the content of config.yaml."""
TRUSTED = [
    "leo_lightning",
    "torch.optim",
    "pytorch_lightning",
    "lightning_fabric",
    "torchvision.transforms",
    "timm.data",
]
"""Modules whose classes a configuration may name if the user did not name the configuration."""


def recorded_config(checkpoint: Mapping[str, Any], path: Path) -> tuple[Path, dict[str, Any] | None]:
    """Return the configuration of a checkpoint's training, and the file that holds it.

    The checkpoint holds it, wherever it lies. For one of an earlier release it is the config.yaml of the run
    folder. A checkpoint made in Python has none.

    Raises:
        InputError: the configuration is damaged.
    """
    folder = folder_of(path)
    if KEY in checkpoint:
        config = checkpoint[KEY]
        if not isinstance(config, dict) or not all(isinstance(section, str) for section in config):
            raise InputError(f"{path}: its record of the configuration is damaged; use another checkpoint")
        return path, config
    if folder is not None:
        return folder / CONFIG, read_table(folder / CONFIG)
    return path, None


def fields_of(config: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return some fields of a configuration, such as `data` or `model.learner`, where it has them."""
    part: dict[str, Any] = {}
    for name in names:
        section, _, field = name.partition(".")
        value = config.get(section)
        if not field and section in config:
            part[section] = value
        elif isinstance(value, dict) and field in value:
            part[section] = {**part.get(section, {}), field: value[field]}
    return part


@contextmanager
def trusted_classes_only() -> Iterator[None]:
    """Let the parser import nothing except `TRUSTED`, whatever a configuration names, at any depth."""
    verdicts = jsonargparse_state.parsing_settings["import_path_verdicts"]
    set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=TRUSTED)
    try:
        yield
    finally:
        jsonargparse_state.parsing_settings["import_path_verdicts"] = verdicts


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Settings in both of two configurations that differ, with both values, one line each."""
    for key, old in before.items():
        old = list(old) if isinstance(old, tuple) else old
        if key not in after:
            continue
        new, name = after[key], f"{prefix}{key}."
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new, prefix if key == "init_args" else name)  # as flags name them
        elif old != new:
            yield printable(f"{name[:-1]}: {old} → {new}")


def ignored_file(record: Mapping[str, Any], checkpoint: Path) -> str:
    """Return a line about a config.yaml beside a checkpoint that differs from its record; "" if none does."""
    folder = folder_of(checkpoint)
    if folder is None:
        return ""
    try:
        changes = list(differences(record, read_table(folder / CONFIG)))
    except InputError:
        changes = ["it cannot be read"]
    if not changes:
        return ""
    more = f" and {len(changes) - 1} more" if changes[1:] else ""
    return (
        f"{folder / CONFIG} is not used, since the checkpoint has a record of its own ({changes[0]}{more}); "
        "name it with --config to use it"
    )
