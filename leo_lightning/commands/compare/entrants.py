"""Entrant: a method with its configuration as train.py understands it, and the features that it is given."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leo_lightning.commands.compare.plan import SHARED, Method, Plan
from leo_lightning.commands.train import train_parser
from leo_lightning.common.errors import InputError
from leo_lightning.common.program import called
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.roots import features_folder
from leo_lightning.data.splits import load_split, load_splits
from leo_lightning.data.synthetic import synthesize
from leo_lightning.learners.learner import Learner

_IRRELEVANT = {
    "data": (
        "root", "test_query", "unknown", "query_dirichlet", "test_tasks", "predict_tasks", "eval_batch_size",
        "num_workers", "in_memory",
    ),
    "trainer": ("max_steps", "logger", "log_every_n_steps", "enable_progress_bar", "default_root_dir"),
}  # fmt: skip
"""Fields that do not change what is learned. `data.root` counts by the features that it holds."""


@dataclass(frozen=True)
class Entrant:
    """A method with a seed, ready to be trained and evaluated."""

    method: Method
    seed: int | None
    """Seed of the training; None for a method without one."""
    flags: list[str]
    """Arguments of `train.py fit`."""
    config: dict[str, Any]
    """All fields of train.py, by section."""
    learner: Learner
    """Untrained, as the configuration makes it."""
    features: str
    """Digest of the features."""
    digest: str
    """Digest of everything that training depends on, except for its seed and the most steps."""

    @property
    def recipe(self) -> str:
        """Name of its training runs, without the seed: it changes with configuration and features."""
        return f"{self.method.slug}.{self.digest[:12]}"

    @property
    def run_name(self) -> str:
        """Name of its training runs."""
        return f"{self.recipe}.seed{self.seed}"

    @property
    def name(self) -> str:
        """Name of files about it."""
        return self.method.slug if self.seed is None else f"{self.method.slug}.seed{self.seed}"

    @property
    def title(self) -> str:
        """Name for people."""
        return self.method.label if self.seed is None else f"{self.method.label}, seed {self.seed}"


def enter(method: Method, plan: Plan, features: str) -> list[Entrant]:
    """Parse the configuration of a plan's method, for features with this digest, once for each seed.

    Raises:
        InputError: train.py does not take a field or its value.
    """
    shared = {field: getattr(plan, name) for field, name in SHARED.items() if name != "seeds"}
    values = {**method.changes, **shared}
    texts = {name: str(v) if isinstance(v, str | Path) else json.dumps(v) for name, v in values.items()}
    flags = [f"--config={path}" for path in method.configs]
    flags += [f"--{name}={text}" for name, text in texts.items()]
    if plan.patience is not None:
        stops = {"": "EarlyStopping", ".monitor": "val/accuracy", ".mode": "max", ".patience": plan.patience}
        stops[".strict"] = "false"  # so few steps that there is no validation are no mistake
        flags += [f"--trainer.callbacks{'+' * (not name)}{name}={value}" for name, value in stops.items()]
    parser = train_parser()
    try:
        parsed = parser.parse_args(flags)
        config = parsed.clone().as_dict()
        config["data"] = config["data"]["init_args"]
        with torch.random.fork_rng(devices=[]):
            learner = parser.instantiate_classes(parsed)["model"].learner
    except InputError as error:
        line = str(error).replace("see --help", f"see `{called()} fit --help`")
        raise InputError(f"methods.{method.label}: {line}") from None
    relevant = {
        section: {k: v for k, v in config[section].items() if k not in _IRRELEVANT.get(section, ())}
        for section in ("model", "data", "trainer")
    }
    content = json.dumps([relevant, features], sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()
    if not learner.trained:
        return [Entrant(method, None, flags, config, learner, features, digest)]
    return [
        Entrant(method, seed, [*flags, f"--seed_everything={seed}"], config, learner, features, digest)
        for seed in plan.seeds
    ]


def load_banks(plan: Plan) -> dict[str, FeatureBank]:
    """Load the splits of the plan's features; they must have a test split."""
    folder = features_folder(plan.root)
    if folder is None:
        return dict(synthesize())
    banks = load_splits(folder)
    return banks if "test" in banks else banks | {"test": load_split(folder, "test")}  # which says so


def digest_of(banks: dict[str, FeatureBank]) -> str:
    """Digest of the embeddings and labels of all splits, wherever they lie."""
    digest = hashlib.sha256()
    for split, bank in banks.items():
        digest.update(f"{split} {tuple(bank.embeddings.shape)} {bank.embeddings.dtype}".encode())
        for tensor in (bank.labels, bank.embeddings):
            for chunk in tensor.split(2**15):
                digest.update(chunk.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
