"""The parser of the command line: help that shows the learner's fields, errors of one line."""

import importlib
import inspect
import re
import sys
from inspect import Parameter
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace, set_loader
from pytorch_lightning.cli import LightningArgumentParser

from leo_lightning.common.errors import InputError, nearest
from leo_lightning.common.yaml_files import load_yaml
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.learners.generated_mlp import MLPRegressor
from leo_lightning.learners.leo import LEO

LEO_PATH = f"{LEO.__module__}.{LEO.__name__}"
DATA_PATH = f"{EpisodeDataModule.__module__}.{EpisodeDataModule.__name__}"
NEW_CLASSES_PATH = "leo_lightning.inference.new_images.NewImages"
BASE_PATH = f"{MLPRegressor.__module__}.{MLPRegressor.__name__}"
CHOSEN = {
    "data": ("data module", DATA_PATH),
    "model.learner": ("method", LEO_PATH),
    "model.learner.base": ("base learner", BASE_PATH),
}
"""Fields that take the path of a class: what it is, and an example."""


set_loader("yaml", load_yaml, (yaml.YAMLError,))


MAX_LINE = 1000
"""Of an error: what was wrong may be quoted in it, and be endless."""


class Parser(LightningArgumentParser):
    """LightningCLI's parser, made readable."""

    def add_lightning_class_args(
        self, lightning_class: Any, nested_key: str, subclass_mode: bool = False, required: bool = True
    ) -> list[str]:
        """See `LightningArgumentParser`. With a default in place of None, a class of data is not optional."""
        if nested_key != "data" or not subclass_mode:
            return super().add_lightning_class_args(lightning_class, nested_key, subclass_mode, required)
        default = {"class_path": DATA_PATH}
        self.add_subclass_arguments(
            lightning_class, nested_key, fail_untyped=False, required=required, default=default
        )
        return [nested_key]

    def format_help(self) -> str:
        """Add the fields of LEO and its data: those two flags take any class, and list none by themselves."""
        text = super().format_help()
        if "--model.learner " not in text:
            return text
        shown = [("learner", "model.learner", LEO), ("data", "data", EpisodeDataModule)]
        if "--out " in text:  # of predict
            shown.append(("data", "data", _new_classes()))
        for what, name, default in shown:
            parser = ArgumentParser(add_help=False)
            parser.add_class_arguments(default, name, skip={"embedding_size"} if default is LEO else None)
            fields = parser.format_help()
            path = f"{default.__module__}.{default.__name__}"
            text += f"\nThe {what}, if it is {path}:\n{fields[fields.index(f'  --{name}.') :]}"
        return text

    def error(self, message: str, ex: Exception | None = None) -> None:  # pyright: ignore
        """Raise what is essential in the message.

        Raises:
            InputError: always.
        """
        text = essence(message, sorted(_known(self)))
        raise InputError("".join(letter if letter.isprintable() else "?" for letter in text)[:MAX_LINE])

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:
        """See `ArgumentParser.parse_args`.

        Raises:
            InputError: a configuration is no text.
        """
        try:
            return super().parse_args(*args, **kwargs)
        except UnicodeDecodeError:
            self.error("the configuration is not text in UTF-8; mend the file named with --config")
            raise


def check_nulls(field: str, chosen: Namespace) -> None:
    """Refuse null for an argument of a chosen class that has another default: jsonargparse lets it pass.

    Args:
        field: where the class was chosen.
        chosen: class_path and init_args.

    Raises:
        InputError: names the argument.
    """
    module, _, name = chosen.class_path.rpartition(".")
    arguments = inspect.signature(getattr(sys.modules[module], name)).parameters
    for name, value in vars(chosen.get("init_args", Namespace())).items():
        if isinstance(value, Namespace) and "class_path" in value:
            check_nulls(f"{field}.{name}", value)
        elif value is None and name in arguments and arguments[name].default not in (None, Parameter.empty):
            kind = re.sub(r".*\.", "", inspect.formatannotation(arguments[name].annotation))
            if not re.search(r"\bNone\b", inspect.formatannotation(arguments[name].annotation)):
                raise InputError(f"{field}.{name}: expected {kind}, got None")


def essence(message: str, known: list[str]) -> str:
    """The essence of jsonargparse's message: which field, what is wrong, what was meant.

    Args:
        message: what jsonargparse says, on several lines and one inside the other.
        known: names of all fields.
    """
    text = re.sub(r"\s+", " ", message).strip()
    fields = []
    while match := re.match(r"Parser key \"([^\"]+)\": (.*)", text):
        fields.append(match[1])
        text = match[2]
    field = ".".join(fields)
    if match := re.match(r"(base): - (Expected a path.*)", text):
        field, text = f"{field}.{match[1]}", match[2]
    if match := re.search(r"(?:[Oo]ption|[Kk]ey) '([^']+)'|unrecognized arguments: --([^ =]+)", text):
        name = ".".join([*fields, (match[1] or match[2]).replace("init_args.", "")])
        return f"unknown field {name}{nearest(name, known)}"
    if match := re.match(r"unrecognized arguments: (\S+)", text):
        return f"{match[1]}: expected a field; write --FIELD VALUE"
    if match := re.search(r"unknown field ([\w.]+)(?:; did you mean ([\w.]+)\?)?", text):
        # said already, by the parser of a class within this one, which knows its own fields
        inner, meant = (
            name and (name if name.startswith(field) else f"{field}.{name}") for name in match.groups()
        )
        others = [name for name in known if not name.startswith(f"{field}.")]
        return f"unknown field {inner}" + (f"; did you mean {meant}?" if meant else nearest(inner, others))
    if match := re.match(r"([\w.]+): ((?:[Ee]xpected|\S+ is no value) .*)", text):  # as the former
        return f"{field}.{match[1]}: {match[2]}"
    if match := re.match(r"argument (?:-\w/)?--(\S+): expected one argument", text):
        return f"{match[1]}: has no value; write --{match[1]} VALUE"
    if match := re.match(r"Unable to load config '(.*?)' - ", text):
        return f"{field}: expected fields, got {match[1]}; write --{field}.FIELD VALUE"
    if match := re.search(r"Problem with given class_path '([^']+)': (.*?)(?: - Expected|$)", text):
        return f"{field + ': ' if field else ''}{match[1]} cannot be made ({match[2]})"
    if field in CHOSEN and (match := re.search(r"Expected a path but (.+?) either not accessible", text)):
        text = f"string: {match[1]}"
    if match := re.search(r"Expected a (.*?)\. Got value: (.*)", text):
        return f"{field}: expected {_type_name(match[1])}, got {match[2]}"
    if match := re.search(r"Given value: (?:Namespace\(class_path=')?([^\s']+)", text):
        return f"{field}: {match[1]} is no value that it takes; see --help"
    if match := re.search(r"arguments are required: \w+\.(data|model\.learner)$", text):
        return f"{match[1]}: is not set; give the path of a class, like {CHOSEN[match[1]][1]}"
    if match := re.search(r"arguments are required: \w+\.([\w.]+)$", text):
        return f"{match[1]}: is not set; write --{match[1]} VALUE"
    if field in CHOSEN:
        name = re.sub(r".*(?:Expected a path but|string:|value:) (\S+).*", r"\1", text)
        if field == "data" and "." not in name:
            return f"data: expected fields, got {name}; write --data.FIELD VALUE"
        what, like = CHOSEN[field]
        return f"{field}: no such {what} ({name}); give the path of a class, like {like}"
    return f"{field}: {text}" if field else text


def _type_name(text: str) -> str:
    text = re.sub(r"<class '([^']+)'>", r"\1", text)
    return re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", text)


def _new_classes() -> type:
    """The data of `predict --data.support`, imported when it is asked for."""
    module, _, name = NEW_CLASSES_PATH.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _known(parser: ArgumentParser) -> set[str]:
    """Names of all fields of the parser and of its subcommands, and of LEO and its data."""
    names = {action.dest for action in parser._actions}
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for child in action.choices.values():
                names |= _known(child)
    if "model.learner" not in names:
        return names
    modules = (EpisodeDataModule, _new_classes())
    data = {f"data.{name}" for module in modules for name in inspect.signature(module).parameters}
    return names | data | {f"model.learner.{name}" for name in LEO(1, 1).init_args()}
