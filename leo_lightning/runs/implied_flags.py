"""What may be left out on a command line: the subcommand and the configuration."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from leo_lightning.common.errors import InputError, nearest
from leo_lightning.common.yaml_files import check_config, load_yaml
from leo_lightning.data.new_classes import MISSING
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from leo_lightning.runs.folder import CONFIG, find_checkpoint, folder_of
from leo_lightning.runs.loggers.wandb_artifact import SCHEME, fetch
from leo_lightning.runs.parser import NEW_CLASSES_PATH
from leo_lightning.training.checkpoint import builder, read_checkpoint, stored_learner

QUICKSTART = Path(__file__).resolve().parents[2] / "configs" / "quickstart.yaml"


def with_defaults(
    args: list[str],
    commands: Collection[str],
    fits: Collection[str] = ("fit_test", "fit"),
    start: Path | None = QUICKSTART,
    name: str = QUICKSTART.stem,
) -> list[str]:
    """The command line spelled out.

    Without a subcommand it is the first that trains. Without a configuration, training starts from a given
    one, and what has a checkpoint, be it evaluation or resumed training, takes what was saved beside that.
    With `data.support` it is new classes that are predicted, for which a checkpoint alone suffices.

    Args:
        args: what was typed after the program.
        commands: names of its subcommands.
        fits: those that train.
        start: configuration that training starts from, if there is one.
        name: of a run that has no other.

    Raises:
        InputError: there is no such subcommand, or no checkpoint to go on from.
    """
    if args and not args[0].startswith("-") and args[0] not in commands:
        raise InputError(f"unknown command {args[0]}{nearest(args[0], commands)}")
    command, *rest = args if args and args[0] in commands else [next(iter(fits)), *args]
    rest = _fetched(rest)
    new_classes = bool(flag_values(rest, "--data.support"))
    query = _value(rest, "--data.query") or "0"
    if command == "predict" and not new_classes and not query.isdigit():
        raise InputError(MISSING.format(name="support", what="a few labelled examples"))
    if new_classes and command != "predict":
        raise InputError(f"data.support is for `predict`, not for `{command}`; leave it out")
    configs = flag_values(rest, "--config", "-c")
    if configs and not all(configs):
        return [command, *rest]
    if configs:
        # in front, so that flags win over them wherever they stand
        rest = _without(rest, "--config", "-c")
        return [command, *(f"--config={path}" for path in configs), *_chosen(rest, new_classes), *rest]
    fitting = command in fits
    wanted = _value(rest, "--ckpt_path")
    if fitting and wanted is None and _value(rest, "--resume") == "auto":
        wanted = "last"
    if wanted is not None:
        root, name = _value(rest, "--run.root") or "runs", _value(rest, "--run.name") or name
        path = find_checkpoint(Path(root), name, wanted) if wanted in ("best", "last") else Path(wanted)
        if folder := folder_of(path):
            _check_kind(folder, path, start)
            beside = backbone_of(folder) if new_classes else None
            found = [] if beside is None else [f"--data.backbone={beside}"]
            return [command, "--config", str(folder / CONFIG), *_chosen(rest, new_classes), *found, *rest]
        if new_classes and path.is_file():
            return [command, *_learner_in(path), *_chosen(rest, new_classes), *rest]
    if fitting and start:
        return [command, "--config", str(start), *rest]
    return [command, *_chosen(rest, new_classes), *rest]


def _chosen(rest: list[str], new_classes: bool) -> list[str]:
    """What puts new classes in place of the data of a configuration; a checkpoint says how to normalise."""
    if not new_classes:
        return []
    recorded = ["--data.normalize=null", "--data.root=null"] if _value(rest, "--ckpt_path") else []
    return [f"--data={NEW_CLASSES_PATH}", "--data.query=null", *recorded]


def backbone_of(folder: Path) -> Path | None:
    """The backbone beside the features that a run was trained on, if it is there, for images."""
    data = _section(folder, "data")
    root = data.get("init_args", data).get("root")
    path = Path(root or ".", BACKBONE_FILE)
    return path if root and path.is_file() else None


def _check_kind(folder: Path, path: Path, start: Path | None) -> None:
    """Refuse a checkpoint of pre-training where a learner's is wanted."""
    if start and "backbone" in _section(folder, "model"):
        raise InputError(
            f"{path}: is a checkpoint of pre-training; make features with it "
            "(python -m leo_lightning features extract), and train on these"
        )


def _section(folder: Path, name: str) -> dict[str, Any]:
    """A section of the configuration of a run; empty where it has none.

    Raises:
        InputError: the file is damaged.
    """
    check_config(folder / CONFIG)
    config = load_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    section = config.get(name) if isinstance(config, dict) else None
    return section if isinstance(section, dict) else {}


def _learner_in(path: Path) -> list[str]:
    """The learner of a checkpoint that has no configuration beside it."""
    name, arguments = stored_learner(read_checkpoint(path))
    given = {key: value for key, value in arguments.items() if key != "embedding_size"}
    builder(name, given)  # refuses what is no learner, before the parser would import it
    if any(isinstance(value, dict) for value in given.values()):
        raise InputError(f"{path}: lies in no run folder, whose {CONFIG} builds its {name}; copy it, too")
    return [f"--model.learner={json.dumps({'class_path': name, 'init_args': given})}"]


def _fetched(args: list[str]) -> list[str]:
    """The arguments with the place that a checkpoint was downloaded to, where W&B has it."""
    wanted = _value(args, "--ckpt_path") or ""
    if not wanted.startswith(SCHEME):
        return args
    path = fetch(wanted, Path(_value(args, "--run.root") or "runs"))
    return [*_without(args, "--ckpt_path"), f"--ckpt_path={path}"]


def _value(args: list[str], flag: str) -> str | None:
    """What a flag is set to, the last time it is given; None if it is absent."""
    return next(reversed(flag_values(args, flag)), None)


def flag_values(args: list[str], *flags: str) -> list[str]:
    """What flags are set to each time one is given, in either spelling."""
    return [
        arg.partition("=")[2] if "=" in arg else following
        for arg, following in zip(args, [*args[1:], ""], strict=False)
        if arg.partition("=")[0] in flags
    ]


def _without(args: list[str], *flags: str) -> list[str]:
    """The arguments less those flags and what they are set to."""
    left, following = [], iter(args)
    for arg in following:
        if arg.partition("=")[0] not in flags:
            left.append(arg)
        elif "=" not in arg:
            next(following, None)
    return left
