"""The command line: LightningCLI with a run folder, one-line errors and a default job."""

import os
import re
import shlex
import signal
import sys
import traceback
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from rich.console import Console

from leo_lightning.checkpoints import BestCheckpoint, LastCheckpoint, WholeCheckpoints
from leo_lightning.compiling import prepare_compiler
from leo_lightning.data.new_classes import NewClasses
from leo_lightning.data.task_data import TaskDataModule
from leo_lightning.errors import (
    DivergedError,
    InputError,
    Interrupted,
    disk_line,
    one_line,
    require,
)
from leo_lightning.history import MetricsCSV
from leo_lightning.new_classes_report import NewClassesReport
from leo_lightning.parser import (
    DATA_PATH,
    LEO_PATH,
    NEW_CLASSES_PATH,
    Parser,
    check_config,
    check_nulls,
    essence,
)
from leo_lightning.predictions import ClassesCSV, PredictionsCSV, ValuesCSV
from leo_lightning.progress import RunProgress
from leo_lightning.quiet import quiet
from leo_lightning.results import ResultsReport
from leo_lightning.run import (
    CHECKPOINTS,
    CONFIG,
    RunOptions,
    differences,
    find_checkpoint,
    folder_of,
    fresh_folder,
    newest_checkpoint,
    next_commands,
    read_checkpoint,
    remove_folders,
    written,
)
from leo_lightning.shorthand import flag_values, with_defaults
from leo_lightning.stop_signals import StopSignals
from leo_lightning.system import MetaLearner
from leo_lightning.throughput import Throughput
from leo_lightning.trained import TrainedModel
from leo_lightning.trainer_flags import check_trainer
from leo_lightning.whole_file import check_place, whole_file

SECTIONS = ("seed_everything", "run", "trainer", "model", "data")
"""What a saved configuration holds: enough to replay the run, and read by every subcommand."""


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


class LEOCommand(LightningCLI):
    """Everything that `train.py` does."""

    def __init__(self, args: list[str]) -> None:
        self.console = Console()
        super().__init__(
            MetaLearner,
            TaskDataModule,
            subclass_mode_data=True,
            save_config_callback=None,
            trainer_class=Trainer,
            trainer_defaults={"max_steps": 100_000, "enable_model_summary": False, "num_sanity_val_steps": 0},
            seed_everything_default=0,
            parser_class=Parser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
        )

    # Parsing

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
        parser.usage = "train.py [command] [--field value ...]"
        parser.add_class_arguments(RunOptions, "run")
        parser.add_argument(
            "--resume",
            type=Literal["auto"],
            help="auto: continue the newest run of this name that has a last.ckpt; if there is none, start "
            "anew with the --config given",
        )
        parser.set_defaults({"model.learner": {"class_path": LEO_PATH}, "data": {"class_path": DATA_PATH}})
        parser.link_arguments(
            "data.embedding_size", "model.learner.init_args.embedding_size", apply_on="instantiate"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Look at values and configurations first, so that messages name the field, or the file."""
        assert isinstance(args, list)
        for word, following in pairwise([*args, "--"]):
            if re.fullmatch(r"--\w+(\.\w+)+", word) and following.startswith("--"):
                raise InputError(f"{word[2:]}: has no value; write {word} VALUE")
        for path in filter(None, flag_values(args, "--config", "-c")):
            check_config(Path(path))
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """Nothing. Lightning lets a checkpoint's hyperparameters silently win over the command line here."""

    # Set-up

    def before_instantiate_classes(self) -> None:
        """Find the checkpoint and the run folder, then point all that writes there."""
        assert self.subcommand is not None
        config = self.config[self.subcommand]
        for section in SECTIONS[1:]:
            if not isinstance(config[section], Namespace):
                raise InputError(f"{section}: expected fields, got {config[section]}")
        for field, chosen in (("data", config.data), ("model.learner", config.model.learner)):
            check_nulls(field, chosen)
        if isinstance(chosen := config.trainer.callbacks, list):
            # a resumed command may add with += what the run's config.yaml has already
            config.trainer.callbacks = [each for i, each in enumerate(chosen) if each not in chosen[:i]]
        try:
            self.replay = self._parser(self.subcommand).dump(config.clone(), skip_unset=False)
        except ValueError:  # jsonargparse cannot write the defaults of some of Lightning's
            raise InputError(
                "trainer.callbacks: one of them cannot be written to config.yaml; leave it out "
                "(in place of Timer: --trainer.max_time)"
            ) from None
        self.options = RunOptions(**config.run.as_dict())
        if config.model.compile:
            prepare_compiler(self.options.root)
        self.trained = _is_trained(config.model.learner.class_path)
        if not self.trained and (self.subcommand == "fit" or config.get("resume")):
            name = config.model.learner.class_path.rpartition(".")[2]
            raise InputError(f"{name} has nothing to train: use `test` or `predict`, without --resume")
        self.fitting = self.trained and self.subcommand in ("fit_test", "fit")
        self.stage = "fit" if self.fitting else self.subcommand.replace("fit_test", "test")
        split = "train" if self.fitting else self.stage.replace("validate", "val")
        check_trainer(config.trainer, split, config.data.init_args.get("steps_per_epoch", 1))
        self.out = None if config.get("out") is None else Path(config.out)
        if self.out is not None:
            check_place(self.out)
        path = self._find_checkpoint(config)
        self.checkpoint = None if path is None else read_checkpoint(path)
        config.ckpt_path = None if path is None else str(path)
        self.trained_model = None
        if path is not None and config.data.class_path == NEW_CLASSES_PATH:
            self.trained_model = TrainedModel.load(path)
            self._follow_record(path, self.trained_model, config.data.init_args)
        resumed = folder_of(path) if path and self.fitting else None
        self.folder = resumed or fresh_folder(self.options.root, self.options.name)
        config.trainer.default_root_dir = str(self.folder)
        for section in (config.data.init_args, config.model):
            if section.get("seed", 0) is None:
                section.seed = int(config.seed_everything)
        self._place_wandb(config)

    @staticmethod
    def _follow_record(path: Path, model: TrainedModel, data: Namespace) -> None:
        """Embeddings of new classes are normalised as those of the training were."""
        kind = model.record.normalization.kind
        if data.normalize not in (None, kind):
            raise InputError(
                f"data.normalize is {data.normalize}, and {path} was trained with {kind}; leave it out"
            )
        data.normalize, data.ckpt_path = kind, str(path)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise InputError(f"seed_everything: {one_line(error)}") from None

    def _place_wandb(self, config: Namespace) -> None:
        """`--run.wandb` and `--trainer.logger WandbLogger` mean the same run, kept in the run folder."""
        chosen = config.trainer.logger
        loggers = chosen if isinstance(chosen, list) else [chosen]
        for logger in loggers:
            if isinstance(logger, Namespace) and logger.class_path.endswith(".WandbLogger"):
                run_id = f"{self.options.name}-{self.folder.name}"
                ours = {
                    "save_dir": str(self.folder),
                    "id": run_id,
                    "name": run_id,
                    "project": "leo-lightning",
                }
                theirs = {"save_dir": ".", "project": "lightning_logs"}
                for key, value in ours.items():
                    if logger.init_args.get(key) in (None, theirs.get(key)):
                        logger.init_args[key] = value

    def _find_checkpoint(self, config: Namespace) -> Path | None:
        wanted = config.get("ckpt_path")
        if config.get("resume"):
            if self.subcommand not in ("fit_test", "fit"):
                raise InputError(
                    f"--resume continues training; name the checkpoint to {self.subcommand} with --ckpt_path"
                )
            if wanted is None:  # a configuration was given, so there is something to begin with
                return newest_checkpoint(self.options.root, self.options.name, "last")
        if wanted in ("last", "best"):
            return find_checkpoint(self.options.root, self.options.name, wanted)
        if wanted is None:
            if self.trained and not self.fitting:
                raise InputError(
                    f"{self.subcommand} needs a trained model: --ckpt_path FILE, `best` or `last`"
                )
            return None
        path = Path(wanted)
        if not path.is_file():
            there = ", ".join(sorted(other.name for other in path.parent.glob("*.ckpt")))
            raise InputError(f"{path}: no such checkpoint" + (f"; there is {there}" if there else ""))
        return path

    def instantiate_classes(self) -> None:
        """Make everything; what a logger or callback lacks is said in one line."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            if "Problem with given class_path" not in str(error):
                raise
            raise InputError(essence(str(error), [])) from None

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Make the trainer with our loggers and callbacks."""
        ours: dict[str, Any] = {
            "logger": self._loggers(),
            "callbacks": self._callbacks(),
            "plugins": self._plugins(),
        }
        if self.datamodule.train_on_val:
            ours["limit_val_batches"] = 0
        try:
            made = super().instantiate_trainer(**ours)
        except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
            raise InputError(
                f"trainer: {one_line(error).rstrip('.!')}; change the --trainer field that this is about"
            ) from None
        cores = os.cpu_count() or 1
        if isinstance(made.accelerator, CPUAccelerator) and made.num_devices > 4 * cores:  # a slip of the key
            raise InputError(
                f"trainer.devices is {made.num_devices}: that is too many processes for {cores} CPU cores; "
                "lower it"
            )
        return made

    def _loggers(self) -> list[Logger]:
        chosen = self._get(self.config_init, "trainer").logger
        resumed_at = self.checkpoint["global_step"] if self.checkpoint and self.fitting else None
        loggers: list[Logger] = [MetricsCSV(self.folder, resumed_at)]
        if isinstance(chosen, Logger):
            loggers.append(chosen)
        elif isinstance(chosen, list):
            loggers += chosen
        elif chosen is not False and self.fitting:
            require("tensorboard", "the log for TensorBoard (--trainer.logger false leaves it out)")
            loggers.append(TensorBoardLogger(self.folder, name="", version="tensorboard"))
        if self.options.wandb != "off":
            require("wandb", f"--run.wandb {self.options.wandb}")
            run_id = f"{self.options.name}-{self.folder.name}"
            loggers.append(
                WandbLogger(
                    name=run_id,
                    id=run_id,
                    project=self.options.wandb_project,
                    save_dir=self.folder,
                    offline=self.options.wandb == "offline",
                )
            )
        return loggers

    def _plugins(self) -> list[Any]:
        chosen = self._get(self.config_init, "trainer").plugins or []
        plugins = list(chosen) if isinstance(chosen, list) else [chosen]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpoints())
        return plugins

    def _callbacks(self) -> list[Callback]:
        chosen = self._get(self.config_init, "trainer").callbacks or []  # one, or a list of them
        signals, evaluation = StopSignals(), self.model.evaluation
        callbacks: list[Callback] = [
            *(chosen if isinstance(chosen, list) else [chosen]),
            signals,
        ]
        if self._get(self.config_init, "trainer").enable_progress_bar is not False:
            better = max if evaluation.mode == "max" else min
            callbacks.append(RunProgress(self.console, evaluation.score, better))
        if self.subcommand != "fit":
            callbacks += [ResultsReport(self.folder, self.console), self._predictions()]
        if self.fitting:
            folder = self.folder / CHECKPOINTS
            callbacks.append(Throughput())
            if not self.datamodule.train_on_val:
                callbacks.append(BestCheckpoint(folder, evaluation.score, evaluation.mode))
            # after the best one, whose score it holds
            self.last = LastCheckpoint(folder / "last.ckpt", self.options.checkpoint_every, signals)
            callbacks.append(self.last)
        return callbacks

    def _predictions(self) -> PredictionsCSV:
        path = self.out or self.folder / "predictions.csv"
        if isinstance(self.datamodule, NewClasses):
            return NewClassesReport(path, self.folder, self.console)
        return (ClassesCSV if self.model.learner.predicts == "classes" else ValuesCSV)(path)

    # Running

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Checkpoints are read without executing anything; `ResultsReport` prints what `verbose` would."""
        extra: dict[str, Any] = {} if subcommand == "fit_test" else {"weights_only": True}
        if subcommand == "test":
            extra["verbose"] = False
        if subcommand == "predict":
            extra["return_predictions"] = False  # they are in predictions.csv
        return super()._prepare_subcommand_kwargs(subcommand) | extra

    def _run_subcommand(self, subcommand: str) -> None:
        self._begin()
        try:
            super()._run_subcommand(subcommand)
        except Interrupted as stop:
            self._say_stopped(stop)
            raise
        # What Lightning keeps in a checkpoint beside the weights can be wrong in as many ways.
        except Exception as error:
            restoring = self.trainer._checkpoint_connector._loaded_checkpoint  # empty once all is restored
            if isinstance(error, InputError | DivergedError) or not restoring:
                raise
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self._get(self.config, 'ckpt_path')}: cannot be restored ({type(error).__name__}: "
                f"{reason:.200}); use another checkpoint"
            ) from None
        self._end()

    @rank_zero_only
    def _say_stopped(self, stop: Interrupted) -> None:
        said = f"{signal.Signals(stop.signal).name}: stopped"
        if self.trainer.state.fn == TrainerFn.FITTING:
            path = self.last.path
            if path.is_file():
                command = shlex.join(["python", "train.py", str(self.subcommand), "--ckpt_path", str(path)])
                said += f"; saved at step {self.last.saved}, go on with: {command}"
            else:
                said += f" at step {self.trainer.global_step}, before there was anything to save"
        self.console.print(said, highlight=False, soft_wrap=True)

    def _begin(self) -> None:
        """Refuse what cannot work before anything is written; then make the run folder."""
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
        if self.fitting and self.checkpoint and 0 < self.trainer.max_steps <= self.checkpoint["global_step"]:
            raise InputError(
                f"{self.folder}: trained {self.checkpoint['global_step']} steps already; "
                "raise --trainer.max_steps to go on"
            )
        changed = self._changes()
        self._save_config()
        self._banner(changed)

    def _changes(self) -> list[str]:
        """What a resumed run does otherwise than before."""
        if self.checkpoint is None or not self.fitting or not (self.folder / CONFIG).is_file():
            return []
        before = yaml.safe_load((self.folder / CONFIG).read_text())
        return list(differences(before, yaml.safe_load(self.replay)))

    @rank_zero_only
    def _save_config(self) -> None:
        made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=self.checkpoint is not None and self.fitting)
            config = {key: value for key, value in yaml.safe_load(self.replay).items() if key in SECTIONS}
            path, text = self.folder / CONFIG, yaml.safe_dump(config, sort_keys=False)
            if self.checkpoint and path.exists() and path.read_text() != text:  # resumed with changes
                # copied, not renamed: without a config.yaml a kill here would cost the run its settings
                with whole_file(
                    self.folder / f"config-until-step-{self.checkpoint['global_step']}.yaml"
                ) as part:
                    part.write_text(path.read_text())
            with whole_file(path) as part:
                part.write_text(text)
        except InputError:
            remove_folders(made)
            raise
        except FileExistsError:
            raise InputError(
                f"{self.folder}: another run has begun here this very second; run it again"
            ) from None
        except OSError as error:
            remove_folders(made)
            raise InputError(
                f"{self.folder}: cannot write the run folder ({error.strerror}); set --run.root"
            ) from None
        config["model"]["learner"].setdefault("init_args", {})["embedding_size"] = (
            self.datamodule.embedding_size
        )
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                self._start_wandb(logger, made)
            logger.log_hyperparams(config)

    def _start_wandb(self, logger: WandbLogger, made: list[Path]) -> None:
        from wandb.errors import Error  # takes long, and most runs do without

        os.environ.setdefault("WANDB_SILENT", "true")  # it says much; where the run is, is said below
        logger._wandb_init.pop("anonymous", None)  # Lightning's default, of which W&B warns
        try:
            url = logger.experiment.url
        except Error as error:
            remove_folders(made)
            reason = one_line(error).rstrip(".")
            raise InputError(f"W&B: {reason}; or log offline: --run.wandb offline") from None
        if url:
            self.console.print(f"wandb   {url}", highlight=False, soft_wrap=True)

    @rank_zero_only
    def _banner(self, changed: list[str]) -> None:
        data = self.datamodule
        learner = type(self.model.learner).__name__
        parameters = sum(p.numel() for p in self.model.parameters())
        world = self.trainer.world_size
        processes = f", {world} processes of {data.batch_size} tasks" if world > 1 and self.fitting else ""
        lines = [
            f"{learner:7} {data.kind()}, {parameters:,} parameters{processes}",
            f"data    {data.banner(self.stage)}",
            f"run     {self.folder}",
        ]
        if self.checkpoint is not None:
            doing = "resumed" if self.fitting else "model"
            path = self._get(self.config, "ckpt_path")
            lines.append(f"{doing:8}{path}, step {self.checkpoint['global_step']}")
            lines += [f"changed {what}" for what in changed]
        elif self._get(self.config, "resume"):
            lines.append("resumed nothing: no run of this name has a checkpoint, so this is a new one")
        trainer, epoch = self.trainer, self.datamodule.steps_per_epoch
        if (
            self.fitting
            and not data.train_on_val
            and 0 < trainer.max_steps < epoch
            and trainer.val_check_interval == 1.0
        ):
            lines.append(
                f"note    no validation in {trainer.max_steps} steps; see --data.steps_per_epoch ({epoch})"
            )
        if isinstance(data, NewClasses):
            lines += [f"note    {note}" for note in data.notes]
        self.console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)

    @rank_zero_only
    def _end(self) -> None:
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.finish()
        left = [*written(self.folder), *([("results", self.out)] if self.out else [])]
        lines = ["", *(f"{what:10} {path}" for what, path in left)]
        if self.fitting:
            lines += [
                "next",
                *(f"  {command}" for command in next_commands(self.folder, self.datamodule.longer_test)),
            ]
        self.console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _is_trained(class_path: str) -> bool:
    """Whether the learner of this name, which the parser has imported, has something to train."""
    module, _, name = class_path.rpartition(".")
    return getattr(sys.modules[module], name).trained


def main(argv: list[str] | None = None) -> int:
    """Run a command; 2 and one line for bad input, 1 if training diverged, 128 + n if signal n ended it."""
    quiet()
    try:
        LEOCommand(with_defaults(sys.argv[1:] if argv is None else argv, LEOCommand.subcommands()))
    except InputError as error:
        return _failed(str(error), 2)
    except OSError as error:
        return _failed(disk_line(error), 2)
    except (MisconfigurationException, ImportError) as error:  # what Lightning sees only when it has begun
        return _failed(f"trainer: {one_line(error)}", 2)
    except DivergedError as error:
        return _failed(str(error), 1)
    except (RuntimeError, ValueError) as error:
        if not _from_lightning(error):
            raise
        return _failed(f"trainer: {one_line(error)}", 2)
    except Interrupted as stop:
        # Lightning kills the first process if one that it has started fails
        return 128 + stop.signal if rank_zero_only.rank == 0 else 0
    return 0


def _from_lightning(error: BaseException) -> bool:
    """Whether it was raised by Lightning's own code, which so refuses what it was asked for."""
    frame = list(traceback.walk_tb(error.__traceback__))[-1][0]
    return frame.f_globals.get("__name__", "").split(".")[0] in ("pytorch_lightning", "lightning_fabric")


def _failed(line: str, code: int) -> int:
    process = f" (process {rank_zero_only.rank})" if rank_zero_only.rank else ""
    print(f"error{process}: {line}", file=sys.stderr)
    return code
