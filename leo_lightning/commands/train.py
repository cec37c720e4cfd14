"""The command line of train.py: methods on tasks."""

import re
import sys
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from jsonargparse import Namespace
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import LightningArgumentParser

from leo_lightning.common.errors import InputError
from leo_lightning.common.files import check_place
from leo_lightning.data.new_classes import NewClasses
from leo_lightning.data.task_data import SPLITS, TaskDataModule
from leo_lightning.inference.new_classes_report import NewClassesReport
from leo_lightning.inference.trained_model import TrainedModel
from leo_lightning.runs.callbacks.predictions_csv import ClassesCSV, PredictionsCSV, ValuesCSV
from leo_lightning.runs.callbacks.results import ResultsReport
from leo_lightning.runs.folder import CHECKPOINTS, next_commands
from leo_lightning.runs.implied_flags import with_defaults
from leo_lightning.runs.parser import DATA_PATH, LEO_PATH, NEW_CLASSES_PATH, check_nulls
from leo_lightning.runs.pictures.callback import Pictures
from leo_lightning.runs.process import prepare_compiler
from leo_lightning.runs.run_command import RunCommand, trainer_exit_code
from leo_lightning.training.checkpoint import read_checkpoint
from leo_lightning.training.meta_learner import MetaLearner


class Trainer(pl.Trainer):
    """Lightning's Trainer with one more verb."""

    def fit_test(self, model: MetaLearner, datamodule: TaskDataModule, ckpt_path: str | None = None) -> None:
        """Train, then test the best checkpoint. The default. What has nothing to train is only tested.

        Args:
            model: what is trained.
            datamodule: what it is trained on.
            ckpt_path: checkpoint to resume from: a file, `last` or `best`.
        """
        if not model.learner.trained:
            self.test(model, datamodule=datamodule, verbose=False)
            return
        self.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=True)
        folder = Path(self.default_root_dir) / CHECKPOINTS
        saved = [path for path in (folder / "best.ckpt", folder / "last.ckpt") if path.is_file()]
        tested = str(saved[0]) if saved else None  # none with fast_dev_run
        tested = self.strategy.broadcast(tested)  # only the first process knows the run folder
        self.test(model, datamodule=datamodule, ckpt_path=tested, verbose=False, weights_only=True)


class LEOCommand(RunCommand):
    """Everything that `train.py` does."""

    program = "python train.py"
    fits = ("fit_test", "fit")

    def __init__(self, args: list[str]) -> None:
        super().__init__(
            args,
            model_class=MetaLearner,
            datamodule_class=TaskDataModule,
            subclass_mode_data=True,
            trainer_class=Trainer,
            trainer_defaults={"max_steps": 100_000, "enable_model_summary": False, "num_sanity_val_steps": 0},
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, and `fit_test`."""
        evaluation = {"model", "dataloaders", "datamodule", "return_predictions", "verbose", "weights_only"}
        fit = {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"}
        return {
            "fit_test": fit,
            "fit": fit,
            "validate": evaluation,
            "test": evaluation,
            "predict": evaluation,
        }

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":
            parser.add_argument(
                "--out",
                metavar="FILE",
                type=str | None,
                help="where predictions go, in place of predictions.csv in the run folder",
            )
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our sections and the links between the others."""
        super().add_arguments_to_parser(parser)
        parser.usage = "train.py [command] [--field value ...]"
        parser.set_defaults({"model.learner": {"class_path": LEO_PATH}, "data": {"class_path": DATA_PATH}})
        parser.link_arguments(
            "data.embedding_size", "model.learner.init_args.embedding_size", apply_on="instantiate"
        )

    def look_at(self, config: Namespace) -> int:
        """See `RunCommand`."""
        assert self.subcommand is not None
        for field, chosen in (("data", config.data), ("model.learner", config.model.learner)):
            check_nulls(field, chosen)
        if config.model.compile:
            prepare_compiler(self.options.root)
        self.trained = _is_trained(config.model.learner.class_path)
        if not self.trained and (self.subcommand == "fit" or config.get("resume")):
            name = config.model.learner.class_path.rpartition(".")[2]
            raise InputError(f"{name} has nothing to train: use `test` or `predict`, without --resume")
        self.fitting = self.trained and self.subcommand in self.fits
        self.stage = "fit" if self.fitting else self.subcommand.replace("fit_test", "test")
        self.out = None if config.get("out") is None else Path(config.out)
        if self.out is not None:
            check_place(self.out)
        self.trained_model: TrainedModel | None = None
        return config.data.init_args.get("steps_per_epoch", 1)

    def read_checkpoint(self, path: Path, config: Namespace) -> dict[str, Any]:
        """See `RunCommand`."""
        checkpoint = read_checkpoint(path)
        if config.data.class_path == NEW_CLASSES_PATH:
            self.trained_model = TrainedModel.load(path)
            self._follow_record(path, self.trained_model, config.data.init_args)
        return checkpoint

    @staticmethod
    def _follow_record(path: Path, model: TrainedModel, data: Namespace) -> None:
        """Embeddings of new classes are normalised as those of the training were."""
        kind = model.record.normalization.kind
        if data.normalize not in (None, kind):
            raise InputError(
                f"data.normalize is {data.normalize}, and {path} was trained with {kind}; leave it out"
            )
        data.normalize, data.ckpt_path = kind, str(path)

    def judged_by(self) -> tuple[str, Literal["max", "min"]]:
        """See `RunCommand`."""
        evaluation = self.model.evaluation
        return evaluation.score, evaluation.mode

    def validates(self) -> bool:
        """See `RunCommand`."""
        return not self.datamodule.train_on_val

    def more_callbacks(self) -> list[Callback]:
        """What a training, a test or a prediction leaves."""
        found: list[Callback] = []
        if self.fitting and self.validates() and self.options.pictures_every:
            found.append(Pictures(self.folder, self.options.pictures_every))
        if self.subcommand != "fit":
            found += [ResultsReport(self.folder, self.console), self._predictions()]
        return found

    def _predictions(self) -> PredictionsCSV:
        path = self.out or self.folder / "predictions.csv"
        if isinstance(self.datamodule, NewClasses):
            return NewClassesReport(path, self.folder, self.console)
        return (ClassesCSV if self.model.learner.predicts == "classes" else ValuesCSV)(path)

    # Running

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """`ResultsReport` prints what `verbose` would."""
        extra: dict[str, Any] = {}
        if subcommand == "test":
            extra["verbose"] = False
        if subcommand == "predict":
            extra["return_predictions"] = False  # they are in predictions.csv
        return super()._prepare_subcommand_kwargs(subcommand) | extra

    def check_fits(self) -> None:
        """See `RunCommand`."""
        assert self.subcommand is not None
        learner, data = self.model.learner, self.datamodule
        if learner.predicts != data.asks:
            raise InputError(
                f"{type(learner).__name__} predicts {learner.predicts}, and the tasks of "
                f"{type(data).__name__} ask for {data.asks}; choose another --model.learner or --data"
            )
        for stage in dict.fromkeys((self.stage, self.subcommand.replace("fit_test", "test"))):
            self.datamodule.setup(stage)
        self.model.check_trainer(self.trainer)
        if self.trained_model is not None:
            self.trained_model.check_size(data.examples)
        if self.checkpoint is not None:
            self.model.check_fits(self.checkpoint)

    def logged_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """With the size of the embeddings, which the features say."""
        arguments = config["model"]["learner"].setdefault("init_args", {})
        arguments["embedding_size"] = self.datamodule.embedding_size
        return config

    def provenance(self) -> dict[str, str]:
        """See `RunCommand`."""
        return self.datamodule.provenance(SPLITS[self.stage])

    def tags(self) -> list[str]:
        """Data set, way, shot and method."""
        of_tasks = re.findall(r"\d+-\w+", self.datamodule.kind())
        dataset = self.provenance().get("dataset", "")
        return [dataset, *of_tasks, type(self.model.learner).__name__]

    def banner(self) -> list[str]:
        """See `RunCommand`."""
        data = self.datamodule
        learner = type(self.model.learner).__name__
        parameters = sum(p.numel() for p in self.model.parameters())
        world = self.trainer.world_size
        processes = f", {world} processes of {data.batch_size} tasks" if world > 1 and self.fitting else ""
        return [
            f"{learner:7} {data.kind()}, {parameters:,} parameters{processes}",
            f"data    {data.banner(self.stage)}",
        ]

    def notes(self) -> list[str]:
        """See `RunCommand`."""
        if isinstance(self.datamodule, NewClasses):
            return [f"note    {note}" for note in self.datamodule.notes]
        trainer, epoch = self.trainer, self.datamodule.steps_per_epoch
        if (
            self.fitting
            and self.validates()
            and 0 < trainer.max_steps < epoch
            and trainer.val_check_interval == 1.0
        ):
            return [
                f"note    no validation in {trainer.max_steps} steps; see --data.steps_per_epoch ({epoch})"
            ]
        return []

    def elsewhere(self) -> list[tuple[str, Path]]:
        """See `RunCommand`."""
        return [("results", self.out)] if self.out else []

    def next_commands(self) -> list[str]:
        """See `RunCommand`."""
        return list(next_commands(self.folder, self.datamodule.longer_test))


def _is_trained(class_path: str) -> bool:
    """Whether the learner of this name, which the parser has imported, has something to train."""
    module, _, name = class_path.rpartition(".")
    return getattr(sys.modules[module], name).trained


def main(argv: list[str] | None = None) -> int:
    """Run a command; see `trainer_exit_code`."""
    args = sys.argv[1:] if argv is None else argv
    return trainer_exit_code(lambda: LEOCommand(with_defaults(args, LEOCommand.subcommands())))
