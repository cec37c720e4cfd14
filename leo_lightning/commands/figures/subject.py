"""Subject: what a figure is about, the learner of a checkpoint and the tasks of its run."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch

from leo_lightning.commands.train import DATA_PATH
from leo_lightning.common.errors import InputError
from leo_lightning.common.yaml_files import check_config, load_yaml
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.episode import Episode
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.leo import LEO
from leo_lightning.runs.folder import CONFIG, folder_of
from leo_lightning.runs.parser import Parser
from leo_lightning.training.checkpoint import load_learner, read_checkpoint

BATCH = 50
"""Tasks that are adapted to at once."""


@dataclass(frozen=True)
class Subject:
    """A trained learner in evaluation mode and float64, so that a figure does not hang on rounding."""

    name: str
    """What messages call it: the checkpoint."""
    learner: Learner
    data: TaskDataModule

    @classmethod
    def load(cls, path: Path, root: str | None = None, like: "Subject | None" = None) -> "Subject":
        """Read a checkpoint, without executing anything, and the configuration of its run.

        Args:
            path: the checkpoint.
            root: folder of features, in place of the run's.
            like: whose tasks are taken; embeddings are normalised as this checkpoint's run has them.

        Raises:
            InputError: there is none, it is damaged, or its features are not there.
        """
        learner = load_learner(read_checkpoint(path), path).double()
        folder = folder_of(path)
        if folder is None:
            raise InputError(f"{path}: lies in no run folder, whose {CONFIG} names the data; copy it, too")
        data = _data(folder / CONFIG, root, None if like is None else like.data)
        size, needed = getattr(learner, "embedding_size", None), data.embedding_size
        if size is not None and size != needed:
            raise InputError(
                f"{path}: was trained on embeddings of size {size}, the data has size {needed}; "
                "use features of the same kind (--data.root)"
            )
        return cls(str(path), learner, data)

    @classmethod
    def of(cls, learner: Learner, data: TaskDataModule) -> "Subject":
        """A copy of a learner at hand, which itself stays as it is.

        Args:
            learner: trained.
            data: what it was trained on.
        """
        return cls("the learner", deepcopy(learner).cpu().double().eval(), data)

    def title(self) -> str:
        """The learner and its data, in a line."""
        return f"{type(self.learner).__name__}, {self.data.title()}"

    def leo(self) -> tuple[LEO, EpisodeDataModule]:
        """The learner and its data, if they are LEO and classes.

        Raises:
            InputError: they are not.
        """
        if not isinstance(self.learner, LEO) or not isinstance(self.data, EpisodeDataModule):
            raise InputError(
                f"{self.name}: holds a {type(self.learner).__name__}; the figure is about LEO for "
                "classification, so name a checkpoint of that"
            )
        return self.learner, self.data

    def episodes(self, stage: str, tasks: range) -> Iterator[Episode]:
        """The tasks of these numbers in meta-batches, in float64: those that `train.py` evaluates on.

        Args:
            stage: validate or test.
            tasks: their numbers.
        """
        self.data.setup(stage)
        for first in range(tasks.start, tasks.stop, BATCH):
            numbers = range(first, min(first + BATCH, tasks.stop))
            yield self.data.episode(numbers, stage, torch.device("cpu")).in_precision(torch.float64)


def _data(config: Path, root: str | None, like: TaskDataModule | None) -> TaskDataModule:
    """The data module of a run; of validation tasks, too, where these were trained on."""
    check_config(config)
    content = load_yaml(config.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    data = content.get("data") or {}
    if not isinstance(data, dict):
        raise InputError(f"{config}: data: expected fields, got {data!r:.40}")
    if "class_path" not in data:
        data = {"class_path": DATA_PATH, "init_args": data}
    parser = _parser()
    try:
        found = parser.parse_object({"data": data})
        settings = found["data"]["init_args"]
        if found["data"]["class_path"] == DATA_PATH:
            settings["train_on_val"] = False
            if root is not None:
                settings["root"] = root
            if isinstance(like, EpisodeDataModule):
                for name in ("way", "shot", "query", "test_query", "eval_seed"):
                    settings[name] = getattr(like, name)
                settings["root"] = None if like.root is None else str(like.root)
        return parser.instantiate_classes(found)["data"]
    except InputError as error:
        raise InputError(f"{config}: {error}") from None


def _parser() -> Parser:
    """Of the section `data` alone."""
    parser = Parser(prog="train.py", allow_abbrev=False)
    parser.add_subclass_arguments(TaskDataModule, "data", fail_untyped=False)
    return parser
