"""Command: a parsed command line, with the checkpoint and the configuration that it implies."""

import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from jsonargparse import Namespace

from leo_lightning.common.arguments import ArgumentParser
from leo_lightning.common.errors import InputError
from leo_lightning.common.program import called
from leo_lightning.common.yaml_files import read_table
from leo_lightning.runs.folder import checkpoint_at, find_checkpoint, newest_checkpoint
from leo_lightning.runs.loggers.wandb_artifact import SCHEME, fetch
from leo_lightning.runs.parser import Parser
from leo_lightning.runs.recorded_config import fields_of, ignored_file, recorded_config, trusted_classes_only

SECTIONS = ("seed_everything", "run", "trainer", "model", "data")
"""Fields of config.yaml: enough to replay the run."""


class Program(NamedTuple):
    """A program that trains and evaluates."""

    name: str
    """Words before the verb: `pretrain `, or none."""
    verbs: tuple[str, ...]
    fits: tuple[str, ...]
    """Verbs that train."""
    parser: Callable[[str], Parser]
    """The fields of a verb."""
    read_checkpoint: Callable[[Path], dict[str, Any]]
    evaluated: tuple[str, ...]
    """Fields that an evaluation takes from the configuration of the training."""
    completed: Callable[[dict[str, Any] | None, dict[str, Any]], dict[str, Any] | None]
    """The configuration of a training, completed from its checkpoint; None if that tells too little."""
    start: Callable[[str | None], Path | None]
    """Configuration to train with if none is named, for a value of `data.root`."""


class Command(NamedTuple):
    """A parsed command line: handed on to everything that carries it out."""

    program: Program
    verb: str
    config: Namespace
    """All fields."""
    parser: Parser
    """The parser of these fields, which also builds the objects that they describe."""
    path: Path | None
    """The checkpoint."""
    checkpoint: dict[str, Any] | None
    """Its content."""
    record: dict[str, Any]
    """The configuration of its training, as far as the command uses it; {} without a checkpoint."""
    ignored: str = ""
    """A line about a config.yaml beside the checkpoint that says otherwise."""
    started: Path | None = None
    """The configuration of `Program.start`, if the command starts from it."""

    @property
    def fitting(self) -> bool:
        """Whether it trains."""
        return self.verb in self.program.fits

    @property
    def stage(self) -> str:
        """Lightning's name of the first thing to do."""
        return "fit" if self.fitting else self.verb

    def to_save(self) -> dict[str, Any]:
        """The fields as config.yaml holds them.

        Raises:
            InputError: an argument of a callback or transform is an object that YAML cannot hold.
        """
        try:
            text = self.parser.dump(self.config.clone(), skip_unset=False)
        except ValueError as error:
            text = f"Unable to serialize ({error})"
        if "Unable to serialize" in text:
            raise InputError(
                "an argument cannot be written to config.yaml, which replays the run: set simple values "
                "only (in place of Timer: --trainer.max_time)"
            )
        content = yaml.safe_load(text)
        return {name: content[name] for name in SECTIONS}


def parse(program: Program, verb: str, arguments: list[str]) -> Command:
    """Parse a command line.

    Flags win over files named with --config, wherever they stand. If no file is named, a command with a
    checkpoint starts from the configuration that the checkpoint records, and a training from `program.start`.

    Args:
        program: its fields.
        verb: one of its verbs.
        arguments: what was typed after the verb.

    Raises:
        InputError: a field is unknown or takes no such value, or the checkpoint is missing or damaged.
    """
    early = ArgumentParser(prog=f"{called()} {program.name}{verb}", add_help=False, allow_abbrev=False)
    early.add_argument("-c", "--config", action="append", default=[], type=Path)
    early.add_argument("--ckpt_path")
    early.add_argument("--resume", choices=["auto"])
    early.add_argument("--run.root", dest="root", type=Path)
    early.add_argument("--run.name", dest="name")
    early.add_argument("--data.root", dest="features")
    early.add_argument("--model.learner", dest="method")
    typed, rest = early.parse_known_args(arguments)
    fitting, named, parser = verb in program.fits, bool(typed.config), program.parser(verb)
    places, start = {"root": typed.root, "name": typed.name}, program.start(typed.features)
    run = {name: parser.get_default(f"run.{name}") for name in places}
    for path in typed.config or ([start] if start else []):
        section = read_table(path).get("run")
        run |= section if isinstance(section, dict) else {}
    new = start and not named and typed.ckpt_path in (None, "last", "best")
    if new and typed.method and re.fullmatch(r"[\w.]+", typed.method):
        # runs of another method are not those of the start
        run["name"] = places["name"] = places["name"] or typed.method.rpartition(".")[2].lower()
    run |= {name: value for name, value in places.items() if value is not None}
    if typed.resume and not fitting:
        raise InputError(f"--resume continues training; name the checkpoint to {verb} with --ckpt_path")
    path = _checkpoint(
        typed.ckpt_path, bool(typed.resume), fitting, named, Path(str(run["root"])), str(run["name"])
    )
    checkpoint = None if path is None else program.read_checkpoint(path)
    base, record, ignored, started = None, {}, "", None
    if checkpoint is not None and path is not None:
        source, record = record_of(program, checkpoint, path, fitting, needed=not named)
        if not named:
            with trusted_classes_only():
                base = _parsed(parser, record, source)
            ignored = ignored_file(record, path) if source == path else ""
    elif start is not None and fitting and not named:
        started = start
        base = _parsed(parser, read_table(started), started)
    flags = [f"--run.{name}={value}" for name, value in places.items() if value is not None]
    flags += [] if typed.method is None else [f"--model.learner={typed.method}"]
    features = [] if typed.features is None else [f"--data.root={typed.features}"]
    config = parser.parse_args(
        [*(f"--config={path}" for path in typed.config), *flags, *rest, *features], namespace=base
    )
    config.resume = typed.resume
    for section in SECTIONS[1:]:
        if not isinstance(config[section], Namespace):
            raise InputError(f"{section}: expected fields, got {config[section]!r:.99}")
    return Command(program, verb, config, parser, path, checkpoint, record, ignored, started)


def _parsed(parser: Parser, config: dict[str, Any], source: Path) -> Namespace:
    """The fields of a configuration.

    Raises:
        InputError: names the file.
    """
    try:
        return parser.parse_object(deepcopy(config))  # which it changes
    except InputError as error:
        if match := re.search(r"Importing '([^']*)' is not allowed", str(error)):
            raise InputError(
                f"{source}: names {match[1]}, which only a file that you name with --config may do"
            ) from None
        raise InputError(f"{source}: {error}") from None


def record_of(
    program: Program, checkpoint: dict[str, Any], path: Path, fitting: bool, needed: bool
) -> tuple[Path, dict[str, Any]]:
    """Return the configuration of a checkpoint's training, or its part for an evaluation, after its file.

    Args:
        program: the program that trained it.
        checkpoint: its content.
        path: its file.
        fitting: whether the training is to be resumed.
        needed: whether to refuse a checkpoint that tells too little; otherwise that is {}.

    Raises:
        InputError: the checkpoint tells too little, or its record is damaged.
    """
    source, config = recorded_config(checkpoint, path)
    if config is not None and not fitting:
        config = fields_of(config, program.evaluated)
    if config is not None or not fitting:
        config = program.completed(config, checkpoint)
    if config is None and needed:
        raise InputError(
            f"{path}: records no configuration to {'resume' if fitting else 'evaluate it'} with; name the "
            "config.yaml of its training with --config"
        )
    return source, config or {}


def _checkpoint(
    wanted: str | None, resume: bool, fitting: bool, configured: bool, root: Path, name: str
) -> Path | None:
    """The checkpoint that flags ask for; None if they ask for none.

    Raises:
        InputError: it is missing.
    """
    if wanted is None and resume:  # a named configuration is something to start with if there is none
        return newest_checkpoint(root, name, "last") if configured else find_checkpoint(root, name, "last")
    if wanted is None:
        return None
    if wanted.startswith(SCHEME):
        return fetch(wanted, root)
    if wanted in ("last", "best"):
        return find_checkpoint(root, name, wanted)
    return checkpoint_at(Path(wanted), "last" if fitting else "best")
