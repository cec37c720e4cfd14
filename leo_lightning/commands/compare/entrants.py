"""Entrant: a method with its configuration as train.py understands it, and the features it is given."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch

from leo_lightning.commands.compare.plan import Method, Plan
from leo_lightning.commands.train import train_parser
from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.splits import SPLITS, load_split, present_splits
from leo_lightning.data.synthetic import synthesize
from leo_lightning.learners.learner import Learner

_NO_MATTER = {
    "data": (
        "root",
        "test_query",
        "test_tasks",
        "predict_tasks",
        "eval_batch_size",
        "num_workers",
        "in_memory",
    ),
    "trainer": ("max_steps", "logger", "log_every_n_steps", "enable_progress_bar", "default_root_dir"),
}
"""Fields that have no part in what is learned; of `data.root`, what lies there has."""


@dataclass(frozen=True)
class Entrant:
    """A method, ready to be trained and evaluated."""

    method: Method
    flags: tuple[str, ...]
    """What follows `train.py fit`."""
    config: dict[str, Any]
    """All fields, by section."""
    learner: Learner
    """As the configuration makes it; not trained."""
    digest: str
    """Of all that training depends on, but for its length."""

    @property
    def run_name(self) -> str:
        """Another configuration, or other features, make another run."""
        return f"{self.method.slug}.{self.digest[:12]}"


def enter(method: Method, plan: Plan, features: str) -> Entrant:
    """Understand a method's configuration.

    Args:
        method: the method.
        plan: the plan that it belongs to.
        features: digest of the features.

    Raises:
        InputError: a field is unknown or has a value that it does not take.
    """
    flags = _flags(method, plan)
    parser = train_parser()
    try:
        parsed = parser.parse_args(list(flags))
        config = parsed.clone().as_dict()
        config["data"] = config["data"]["init_args"]
        with torch.random.fork_rng(devices=[]):
            made = parser.instantiate_classes(parsed)
    except InputError as error:
        line = str(error).replace("see --help", "see `python train.py fit --help`")
        raise InputError(f"methods.{method.label}: {line}") from None
    return Entrant(method, flags, config, made["model"].learner, _digest([_matters(config), features]))


def _flags(method: Method, plan: Plan) -> tuple[str, ...]:
    values: dict[str, Any] = {
        **method.changes,
        "data.root": None if plan.root is None else str(plan.root),
        "data.way": plan.way,
        "data.shot": plan.shot,
        "data.query": plan.query,
        "data.eval_seed": plan.eval_seed,
        "trainer.max_steps": plan.steps,
    }
    shown = (value if isinstance(value, str) else json.dumps(value) for value in values.values())
    return (
        *(f"--config={path}" for path in method.configs),
        *(f"--{name}={value}" for name, value in zip(values, shown, strict=True)),
    )


def _matters(config: dict[str, Any]) -> dict[str, Any]:
    sections = {name: dict(config[name]) for name in ("model", "data", "trainer")}
    for section, names in _NO_MATTER.items():
        for name in names:
            sections[section].pop(name, None)
    return sections | {"seed_everything": config["seed_everything"]}


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def banks_of(plan: Plan) -> dict[str, FeatureBank]:
    """The splits of the plan's features.

    Raises:
        InputError: there are none, no test split among them, or one is damaged.
    """
    if plan.root is None:
        return {split: synthesize()[split] for split in SPLITS}
    return {
        split: load_split(plan.root, split) for split in dict.fromkeys([*present_splits(plan.root), "test"])
    }


def digest_of(banks: dict[str, FeatureBank]) -> str:
    """Digest of the embeddings and labels of all splits, wherever they lie."""
    found = hashlib.sha256()
    for split, bank in banks.items():
        found.update(f"{split} {tuple(bank.embeddings.shape)} {bank.embeddings.dtype}".encode())
        for tensor in (bank.labels, bank.embeddings):
            for chunk in tensor.split(2**15):
                found.update(chunk.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def check_sizes(plan: Plan, banks: dict[str, FeatureBank], training: bool) -> None:
    """Check that all tasks of the plan can be drawn.

    Args:
        plan: the plan.
        banks: its features.
        training: whether a method is trained, on train and val.

    Raises:
        InputError: names the field of the plan that is too large.
    """
    for split in SPLITS if training else ["test"]:
        if split not in banks and plan.root is not None:
            load_split(plan.root, split)  # which says what is missing
        _check_size(banks[split], plan.way, plan.shot, plan.query, "way", "shot")
    for way, shot in plan.points:
        names = ("way" if way == plan.way else "ways", "shot" if shot == plan.shot else "shots")
        _check_size(banks["test"], way, shot, plan.query, *names)


def _check_size(bank: FeatureBank, way: int, shot: int, query: int, way_field: str, shot_field: str) -> None:
    if bank.num_classes < way:
        raise InputError(
            f"{bank.source}: {bank.num_classes} classes are too few for {way}-way tasks; lower {way_field}"
        )
    fewest = int(bank.counts.min())
    if fewest < shot + query:
        raise InputError(
            f"{bank.source}: a class has {fewest} images, {shot}-shot tasks with {query} queries need "
            f"{shot + query}; lower {shot_field} or query"
        )
