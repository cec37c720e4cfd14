"""Subject: the learner of a checkpoint and the tasks of its run, which figures are about."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from leo_lightning.commands.train import DATA_PATH, PROGRAM
from leo_lightning.common.errors import InputError
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.episode import Episode
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.leo import LEO
from leo_lightning.runs.command_line import record_of
from leo_lightning.runs.folder import checkpoint_at
from leo_lightning.runs.parser import Parser
from leo_lightning.runs.recorded_config import trusted_classes_only
from leo_lightning.training.checkpoint import load_learner, read_checkpoint

BATCH = 50  # tasks adapted to at once


@dataclass(frozen=True)
class Subject:
    """A trained learner in evaluation mode and float64, so that figures do not depend on rounding."""

    name: str  # the name in messages: the checkpoint
    learner: Learner
    data: TaskDataModule

    @classmethod
    def load(cls, path: Path, root: str | None = None, like: "Subject | None" = None) -> "Subject":
        """Read a checkpoint, without executing anything, and the configuration of its run.

        Args:
            path: the checkpoint.
            root: folder of features, if not the run's.
            like: take the tasks of this subject; embeddings are normalised as in the checkpoint's own run.

        Raises:
            InputError: the checkpoint is missing or damaged, or its features are missing.
        """
        path = checkpoint_at(path, "best")
        checkpoint = read_checkpoint(path)
        learner = load_learner(checkpoint, path).double()
        source, record = record_of(PROGRAM, checkpoint, path, fitting=False, needed=True)
        data = _data(source, record.get("data") or {}, root, None if like is None else like.data)
        size, needed = getattr(learner, "embedding_size", None), data.embedding_size
        if size is not None and size != needed:
            raise InputError(
                f"{path}: was trained on embeddings of size {size}, the data has size {data.embedding_size}; "
                "use features of the same kind (--data.root)"
            )
        if (record := type(data).__name__) in checkpoint:
            data.load_state_dict(checkpoint[record])
        return cls(str(path), learner, data)

    @classmethod
    def of(cls, learner: Learner, data: TaskDataModule) -> "Subject":
        """A copy of a learner in memory and the data it was trained on; the learner itself is not changed."""
        return cls("the learner", deepcopy(learner).cpu().double().eval(), data)

    def title(self) -> str:
        """The learner and its data on one line."""
        return f"{type(self.learner).__name__}, {self.data.title()}"

    def leo(self) -> tuple[LEO, EpisodeDataModule]:
        """The learner and its data.

        Raises:
            InputError: they are not LEO and classes.
        """
        if not isinstance(self.learner, LEO) or not isinstance(self.data, EpisodeDataModule):
            raise InputError(
                f"{self.name}: holds a {type(self.learner).__name__}; this figure is about LEO for "
                "classification: name a checkpoint of that"
            )
        return self.learner, self.data

    def episodes(self, stage: str, tasks: range) -> Iterator[Episode]:
        """Tasks of a stage, validate or test, as `train.py` evaluates them, in meta-batches and float64."""
        self.data.setup(stage)
        for first in tasks[::BATCH]:
            numbers = range(first, min(first + BATCH, tasks.stop))
            yield self.data.episode(numbers, stage, torch.device("cpu")).in_precision(torch.float64)


def _data(source: Path, data: Any, root: str | None, like: TaskDataModule | None) -> TaskDataModule:
    """The data module of a run; its validation tasks, too, if the run trained on their classes."""
    if "class_path" not in data:
        data = {"class_path": DATA_PATH, "init_args": data}
    parser = Parser(prog="train.py", allow_abbrev=False)
    parser.add_subclass_arguments(TaskDataModule, "data", fail_untyped=False)
    try:
        with trusted_classes_only():
            parsed = parser.parse_object({"data": data})
        module = parser.instantiate_classes(parsed)["data"]
        if not isinstance(module, EpisodeDataModule):
            return module
        settings = parsed["data"]["init_args"].as_dict() | {"train_on_val": False, "query_dirichlet": 0}
        if isinstance(like, EpisodeDataModule):
            names = ("way", "shot", "query", "test_query", "unknown", "eval_seed")
            settings |= {name: getattr(like, name) for name in names}
            root = like.hparams["root"]
        if root is not None or like is not None:
            settings["root"] = root
        return EpisodeDataModule(**settings)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
