"""The flags of a run: jsonargparse's parser, with errors of one line."""

import difflib
import inspect
import math
import pydoc
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace, set_loader

from leo_lightning import learners
from leo_lightning.common.errors import InputError, nearest, printable
from leo_lightning.common.shipped import found
from leo_lightning.common.yaml_files import load_yaml
from leo_lightning.learners.catalogue import methods
from leo_lightning.runs.folder import RunOptions

METHOD = "model.learner"
"""The flag that takes a method."""


def _load(text: str) -> object:
    """Parse a flag's value or a file, and import the methods that it names.

    jsonargparse takes the short name of a class that was imported.
    """
    for name in set(re.findall(r"\w+", text)) & set(learners.__all__):
        getattr(learners, name)
    return load_yaml(text)


set_loader("yaml", _load, (yaml.YAMLError,))


class ConfigFile(ActionConfigFile):
    """jsonargparse's `--config`, which also finds the configurations of the package."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Apply a file."""
        super().__call__(parser, cfg, str(found(Path(values))), option_string)


class Parser(ArgumentParser):
    """jsonargparse's parser, with errors of one line and a help that lists the fields of default classes."""

    def error(self, message: str, ex: Exception | None = None) -> None:  # pyright: ignore
        """Raise the message on one line; after an unknown field, with the one that was probably meant.

        Raises:
            InputError: always.
        """
        text = one_line(message)
        if match := re.search(r"unrecognized arguments: (?:--)?([^ =]+)|[Oo]ption '([^']+)'", text):
            name = match[1] or match[2]
            raise InputError(f"unknown field {printable(name)}{nearest(name, self._fields())}")
        if match := re.search(r"Expected a dot import path string: (\S+)", text):
            field, advice = text.split(":")[0], "give it as MODULE.CLASS"
            if field.strip("-").startswith(METHOD):
                known = {name.lower(): name for name in learners.__all__}
                like = difflib.get_close_matches(match[1].lower(), known, n=1)
                advice = (
                    f"did you mean {known[like[0]]}?"
                    if like
                    else "list the methods with --model.learner.help"
                )
            raise InputError(f"{printable(f'{field}: {match[1]}')} is not the path of a class; {advice}")
        raise InputError(printable(text))

    def parse_args(self, args: Sequence[str] | None = None, **kwargs: Any) -> Namespace:  # pyright: ignore
        """Parse flags, and complete what they say of classes.

        Raises:
            InputError: a field is unknown or takes no such value.
        """
        words = list(sys.argv[1:] if args is None else args)
        defaults = {f"{name}.help": path for name, path in self._default_classes()}
        for action in self._actions:  # without a class, the help is that of the default one
            action.const = defaults.get(action.dest, action.const)
        if asked := [i for i, word in enumerate(words, 1) if re.match(r"--[\w.]+\.help(=|$)", word)]:
            end = asked[-1]  # later flags would be taken for fields of the class
            words = words[: end + (end < len(words) and not words[end].startswith("-"))]
            if words[-1] == f"--{METHOD}.help" and f"{METHOD}.help" in defaults:
                print("\n".join(f"{method.name:21} {method.summary}" for method in methods()))
                self.exit()
            _load(words[-1])
        with self._denied_imports():
            config = super().parse_args(words, **kwargs)
        assert isinstance(config, Namespace)
        _check_finite("", config)
        for field in ("data", "model.learner"):
            if isinstance(chosen := config.get(field), Namespace) and "class_path" in chosen:
                _complete(field, chosen)
        return config

    def parse_object(self, *args: Any, **kwargs: Any) -> Namespace:  # pyright: ignore
        """Parse a configuration.

        Raises:
            InputError: a field is unknown or takes no such value.
        """
        with self._denied_imports():
            return super().parse_object(*args, **kwargs)

    @contextmanager
    def _denied_imports(self) -> Iterator[None]:
        """For fields that take no class, jsonargparse lets this error through."""
        try:
            yield
        except ImportError as error:
            self.error(str(error))

    def format_help(self) -> str:
        """Add the fields of the default method and data: a flag that takes any class lists none."""
        text = super().format_help()
        for name, path in self._default_classes():
            fields = _class_parser(name, path).format_help()
            text += f"\nFields of {path}:\n{fields[fields.index(f'  --{name}.') :]}"
        return text

    def _default_classes(self) -> Iterator[tuple[str, str]]:
        """Flags that take any class, with the path of their default class."""
        for action in self._actions:
            if isinstance(action.default, Namespace) and "class_path" in action.default:
                yield action.dest, action.default.class_path

    def _fields(self) -> set[str]:
        parsers = [self, *(_class_parser(name, path) for name, path in self._default_classes())]
        return {action.dest for parser in parsers for action in parser._actions}


def one_line(message: str) -> str:
    """jsonargparse's message on one line, without the types that it tried and the value that it quotes."""
    text = " ".join(message.split())
    text = re.sub(r"Does not validate against any of the Union subtypes .*? Errors: - ", "", text)
    text = text.replace(" - Expected a <class 'NoneType'>", "")
    text = re.sub(r"Problem with given class_path '\S*\.(\w+)': (.*?)( - Expected a .*|$)", r"\1: \2", text)
    text = re.sub(r" Given value(?: type)?: .*", "", text)
    text = re.sub(r"<class '([^']+)'>|typing\.(Literal)", r"\1\2", text)
    return re.sub(r'Parser key "([^"]+)":', r"\1:", text)


def _class_parser(name: str, path: str) -> ArgumentParser:
    """A parser of the arguments of one class, below a flag's name."""
    parser = ArgumentParser(add_help=False)
    parser.add_class_arguments(pydoc.locate(path), name, skip={"embedding_size"})  # pyright: ignore
    return parser


def _complete(field: str, chosen: Namespace) -> None:
    """Name a chosen class by its module, and refuse null where it takes none.

    jsonargparse prefers the shortest path of a class, which may change, and takes null for a missing value.
    """
    kind: Any = pydoc.locate(chosen.class_path)
    chosen.class_path = f"{kind.__module__}.{kind.__qualname__}"
    parameters = inspect.signature(kind).parameters
    for name, value in vars(chosen.get("init_args", Namespace())).items():
        annotation = inspect.formatannotation(parameters[name].annotation) if name in parameters else "None"
        if isinstance(value, Namespace) and "class_path" in value:
            _complete(f"{field}.{name}", value)
        elif value is None and parameters[name].default is not None and "None" not in annotation:
            raise InputError(f"{field}.{name}: Expected {annotation}. Got value: None")


def _check_finite(name: str, value: object) -> None:
    """Refuse NaN and infinity: no setting takes them, and as a rate or a limit they do harm unnoticed."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{name.replace('.init_args', '')} is {value}: it must be finite")
    for key, part in vars(value).items() if isinstance(value, Namespace) else ():
        _check_finite(f"{name}.{key}".strip("."), part)
    for part in value if isinstance(value, list) else ():
        _check_finite(name, part)


def run_parser(
    program: str, trainer_defaults: dict[str, Any], unused: frozenset[str | int] = frozenset()
) -> Parser:
    """The fields of every run; the caller adds `model` and `data`.

    Args:
        program: how it is called.
        trainer_defaults: arguments of the Trainer with other defaults than Lightning's.
        unused: fields of `RunOptions` that mean nothing to the program.
    """
    parser = Parser(prog=program, usage=f"{program} [--FIELD VALUE ...]", allow_abbrev=False)
    parser.add_argument("-c", "--config", action=ConfigFile, help="YAML file; flags win over it")
    parser.add_argument(
        "--ckpt_path",
        type=str | None,
        help="checkpoint to evaluate or to resume: a file, `best` or `last` of the newest run of this name, "
        "or wandb:ARTIFACT",
    )
    parser.add_argument(
        "--resume",
        type=Literal["auto"] | None,
        help="auto: continue the newest run of this name that has a last.ckpt; with --config, start anew if "
        "there is none",
    )
    parser.add_argument("--seed_everything", type=bool | int, default=0, help="seed of everything random")
    parser.add_class_arguments(RunOptions, "run", instantiate=False, skip=set(unused))
    parser.add_class_arguments(pl.Trainer, "trainer", instantiate=False, fail_untyped=False)
    defaults = {"enable_model_summary": False, "num_sanity_val_steps": 0, **trainer_defaults}
    parser.set_defaults({f"trainer.{name}": value for name, value in defaults.items()})
    return parser
