"""What every command that trains has: LightningCLI with run folders, checkpoints, signals, short errors."""

import os
import re
import shlex
import signal
import sys
import traceback
import warnings
from abc import abstractmethod
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from rich.console import Console

from leo_lightning.common.errors import DivergedError, InputError, Interrupted, disk_line, one_line
from leo_lightning.common.files import whole_file
from leo_lightning.common.quiet import quiet
from leo_lightning.common.yaml_files import check_config
from leo_lightning.runs.callbacks.checkpoints import BestCheckpoint, LastCheckpoint, WholeCheckpoints
from leo_lightning.runs.callbacks.progress import RunProgress
from leo_lightning.runs.callbacks.stop_signals import StopSignals
from leo_lightning.runs.callbacks.throughput import Throughput
from leo_lightning.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    RunOptions,
    differences,
    find_checkpoint,
    folder_of,
    fresh_folder,
    git_commit,
    newest_checkpoint,
    remove_folders,
    written,
)
from leo_lightning.runs.implied_flags import flag_values
from leo_lightning.runs.loggers.choice import run_loggers
from leo_lightning.runs.loggers.wandb_run import FALLBACK, WandbRun
from leo_lightning.runs.parser import Parser, essence
from leo_lightning.runs.trainer_checks import check_trainer

SECTIONS = ("seed_everything", "run", "trainer", "model", "data")
"""What a saved configuration holds: enough to replay the run, and read by every subcommand."""


class RunCommand(LightningCLI):
    """A command that trains, or evaluates what was trained, in a run folder.

    What is trained on what is a subclass's to say.

    Args:
        args: what was typed after the name of the program.
        kwargs: those of LightningCLI.
    """

    program: ClassVar[str]
    """How it is called."""
    counted: ClassVar[str] = "tasks"
    """What a batch is made of."""
    unused: ClassVar[frozenset[str]] = frozenset()
    """Fields of `RunOptions` that mean nothing to it."""
    fits: ClassVar[tuple[str, ...]] = ("fit",)
    """Subcommands that train."""
    trained: bool
    """Whether the model has something to train; set by `look_at`, as the next two."""
    fitting: bool
    """Whether this command trains it."""
    stage: str
    """Lightning's name of what is done, and done first if it is two things."""

    def __init__(self, args: list[str], **kwargs: Any) -> None:
        self.console = Console()
        super().__init__(
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"prog": self.program, "description": self.__doc__},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
            **kwargs,
        )

    # What a subclass says

    @abstractmethod
    def look_at(self, config: Namespace) -> int:
        """Refuse settings before anything is made; set what it is about.

        Returns:
            The number of steps of an epoch.
        """

    @abstractmethod
    def judged_by(self) -> tuple[str, Literal["max", "min"]]:
        """What of a validation chooses the best checkpoint, and whether more of it is better."""

    @abstractmethod
    def read_checkpoint(self, path: Path, config: Namespace) -> dict[str, Any]:
        """What a checkpoint holds; settings that hang on it are set.

        Raises:
            InputError: it is none of this command's.
        """

    @abstractmethod
    def check_fits(self) -> None:
        """Refuse model, data, trainer and checkpoint that do not fit together, before anything is written."""

    @abstractmethod
    def banner(self) -> list[str]:
        """What is trained on what, in lines."""

    @abstractmethod
    def next_commands(self) -> list[str]:
        """What one can do with a finished run."""

    def elsewhere(self) -> list[tuple[str, Path]]:
        """What is written outside the run folder, because it was asked for: kind and place."""
        return []

    def validates(self) -> bool:
        """Whether there is a validation."""
        return True

    def logged_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """The configuration as loggers show it."""
        return config

    def provenance(self) -> dict[str, str]:
        """Where the data come from, for W&B."""
        return {}

    def tags(self) -> list[str]:
        """By which a run can be found on W&B."""
        return []

    def more_callbacks(self) -> list[Callback]:
        """Callbacks of the subcommand at hand."""
        return []

    # Parsing

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add our sections."""
        parser.usage = f"{self.program} [command] [--field value ...]"
        parser.add_class_arguments(RunOptions, "run", skip=set(self.unused))
        parser.add_argument(
            "--resume",
            type=Literal["auto"],
            help="auto: continue the newest run of this name that has a last.ckpt; if there is none, start "
            "anew with the --config given",
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
        if isinstance(chosen := config.trainer.callbacks, list):
            # a resumed command may add with += what the run's config.yaml has already
            config.trainer.callbacks = [each for i, each in enumerate(chosen) if each not in chosen[:i]]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.replay = self._parser(self.subcommand).dump(config.clone(), skip_unset=False)
        except ValueError:  # jsonargparse cannot write the defaults of some of Lightning's
            raise InputError(
                "trainer.callbacks: one of them cannot be written to config.yaml; leave it out "
                "(in place of Timer: --trainer.max_time)"
            ) from None
        if match := re.search(r"(\S+): Unable to serialize instance (\S+)", self.replay):
            # its type is a vague one in the code of others, such as `numbers.Number` in torchvision
            raise InputError(
                f"{match[1]} {match[2]}: config.yaml could not replay it; write a list of two numbers"
            )
        self.options = RunOptions(**config.run.as_dict())
        self.console.quiet = self.options.quiet
        epoch = self.look_at(config)
        split = "train" if self.fitting else self.stage.replace("validate", "val")
        check_trainer(config.trainer, split, epoch)
        path = self._find_checkpoint(config)
        self.checkpoint = None if path is None else self.read_checkpoint(path, config)
        config.ckpt_path = None if path is None else str(path)
        resumed = folder_of(path) if path and self.fitting else None
        self.folder = resumed or fresh_folder(self.options.root, self.options.name)
        config.trainer.default_root_dir = str(self.folder)
        for section in (config.data.get("init_args", config.data), config.model):
            if section.get("seed", 0) is None:
                section.seed = int(config.seed_everything)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise InputError(f"seed_everything: {one_line(error)}") from None

    def _find_checkpoint(self, config: Namespace) -> Path | None:
        wanted = config.get("ckpt_path")
        if config.get("resume"):
            if self.subcommand not in self.fits:
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
        if path.is_dir():
            raise InputError(f"{path}: is a folder; name a checkpoint in it, such as checkpoints/best.ckpt")
        if not path.is_file():
            there = ", ".join(sorted(other.name for other in path.parent.glob("*.ckpt")))
            advice = f"there is {there}" if there else "name a best.ckpt or last.ckpt of a run"
            raise InputError(f"{path}: no such checkpoint; {advice}")
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
        if not self.validates():
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
        return run_loggers(chosen, self.options, self.folder, self.fitting, resumed_at, self.judged_by())

    def _plugins(self) -> list[Any]:
        chosen = self._get(self.config_init, "trainer").plugins or []
        plugins = list(chosen) if isinstance(chosen, list) else [chosen]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(WholeCheckpoints())
        return plugins

    def _callbacks(self) -> list[Callback]:
        chosen = self._get(self.config_init, "trainer").callbacks or []  # one, or a list of them
        signals, (score, mode) = StopSignals(), self.judged_by()
        callbacks: list[Callback] = [
            *(chosen if isinstance(chosen, list) else [chosen]),
            signals,
        ]
        if self._get(self.config_init, "trainer").enable_progress_bar is not False:
            better: Callable[[float, float], float] = max if mode == "max" else min
            callbacks.append(RunProgress(self.console, score, better, self.counted))
        callbacks += self.more_callbacks()
        if self.fitting:
            folder = self.folder / CHECKPOINTS
            callbacks.append(Throughput(self.counted))
            if self.validates():
                callbacks.append(BestCheckpoint(folder, score, mode))
            # after the best one, whose score it holds
            self.last = LastCheckpoint(folder / "last.ckpt", self.options.checkpoint_every, signals)
            callbacks.append(self.last)
        return callbacks

    # Running

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Checkpoints are read without executing anything."""
        extra = {} if subcommand == "fit_test" else {"weights_only": True}
        if subcommand == "validate":
            extra["verbose"] = not self.options.quiet
        return super()._prepare_subcommand_kwargs(subcommand) | extra

    def _run_subcommand(self, subcommand: str) -> None:
        self._begin()
        try:
            super()._run_subcommand(subcommand)
        except Interrupted as stop:
            self._say_stopped(stop)
            self._finish_wandb(128 + stop.signal)
            raise
        # What Lightning keeps in a checkpoint beside the weights can be wrong in as many ways.
        except Exception as error:
            self._finish_wandb(1)
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
                command = self.resume_command(path)
                said += f"; saved at step {self.last.saved}, go on with: {command}"
            else:
                said += f" at step {self.trainer.global_step}, before there was anything to save"
        self.console.print(said, highlight=False, markup=False, soft_wrap=True)

    def resume_command(self, path: Path) -> str:
        """What goes on from a checkpoint."""
        return f"{self.program} {self.subcommand} {shlex.join(['--ckpt_path', str(path)])}"

    def _begin(self) -> None:
        """Refuse what cannot work before anything is written; then make the run folder."""
        self.check_fits()
        if self.fitting and self.checkpoint and 0 < self.trainer.max_steps <= self.checkpoint["global_step"]:
            raise InputError(
                f"{self.folder}: trained {self.checkpoint['global_step']} steps already; "
                "raise --trainer.max_steps to go on"
            )
        self.changed, self.wandb_lines = self._changes(), []
        self._save_config()
        self._banner()

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
        self._start_loggers(self.logged_config(config), made)

    def _start_loggers(self, config: dict[str, Any], made: list[Path]) -> None:
        runs = [logger for logger in self.trainer.loggers if isinstance(logger, WandbRun)]
        for run in runs:  # before the others write anything, since it may refuse what was set
            try:
                self.wandb_lines += run.start(str(self.subcommand), self.tags(), bool(self.changed))
            except InputError:
                remove_folders(made)
                raise
        more = {"provenance": self.provenance(), "commit": git_commit()} if runs else {}
        for logger in self.trainer.loggers:
            logger.log_hyperparams(config | more if logger in runs else config)

    @rank_zero_only
    def _banner(self) -> None:
        if self.options.quiet:  # what was asked for and is not done is said all the same
            for line in self.wandb_lines:
                if line.startswith(FALLBACK):
                    print(f"warning: wandb {line}", file=sys.stderr)
        lines = [*self.banner(), f"run     {self.folder}", *(f"wandb   {line}" for line in self.wandb_lines)]
        if self.checkpoint is not None:
            doing = "resumed" if self.fitting else "model"
            path = self._get(self.config, "ckpt_path")
            lines.append(f"{doing:8}{path}, step {self.checkpoint['global_step']}")
            lines += [f"changed {what}" for what in self.changed]
        elif self._get(self.config, "resume"):
            lines.append("resumed nothing: no run of this name has a checkpoint, so this is a new one")
        self.console.print("\n".join([*lines, *self.notes()]), highlight=False, markup=False, soft_wrap=True)

    def notes(self) -> list[str]:
        """What else is to be known before a run."""
        return []

    @rank_zero_only
    def _finish_wandb(self, exit_code: int) -> None:
        # a run that goes on from the last checkpoint takes later steps, whose rows may not be whole, again
        through = self.last.saved if exit_code and self.trainer.state.fn == TrainerFn.FITTING else None
        checkpoints = self.fitting and exit_code != 1 and self.options.wandb_checkpoints
        for logger in self.trainer.loggers:
            if isinstance(logger, WandbRun):
                for line in logger.finish(exit_code, through, checkpoints):
                    self.console.print(f"wandb   {line}", highlight=False, markup=False, soft_wrap=True)

    @rank_zero_only
    def _end(self) -> None:
        self._finish_wandb(0)
        left = [*written(self.folder), *self.elsewhere()]
        lines = ["", *(f"{what:10} {path}" for what, path in left)]
        if self.fitting:
            lines += ["next", *(f"  {command}" for command in self.next_commands())]
        self.console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def trainer_exit_code(run: Callable[[], object]) -> int:
    """Run a command; 2 and one line for bad input, 1 if training diverged, 128 + n if signal n ended it."""
    quiet()
    try:
        run()
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
