"""Run: one run of a command, from its folder and banner to what it leaves."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins import CheckpointIO
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from rich.console import Console

from leo_lightning.common.errors import DivergedError, InputError, Interrupted, one_line, printable
from leo_lightning.common.files import whole_file
from leo_lightning.runs import parser
from leo_lightning.runs.callbacks.checkpoints import WholeCheckpoints
from leo_lightning.runs.command_line import SECTIONS, Command
from leo_lightning.runs.folder import (
    CONFIG,
    RunOptions,
    folder_of,
    fresh_folder,
    git_commit,
    remove_folders,
    written,
)
from leo_lightning.runs.loggers.choice import run_loggers
from leo_lightning.runs.loggers.wandb_run import FALLBACK, WandbRun
from leo_lightning.runs.recorded_config import differences, fields_of
from leo_lightning.runs.trainer_parts import Measure, check_flags, listed, run_callbacks


class Run:
    """A run: its folder, its settings, its objects, and what it says.

    Args:
        command: what was typed.

    Attributes:
        data: the data module.
        model: the model.
        folder: the run folder, which `begin` makes.
    """

    def __init__(self, command: Command) -> None:
        config = command.config
        if isinstance(callbacks := config.trainer.callbacks, list):
            # a resumed command may add with += what the run's config.yaml has already
            config.trainer.callbacks = [c for i, c in enumerate(callbacks) if c not in callbacks[:i]]
        split = {"fit": "train", "validate": "val"}.get(command.stage, command.stage)
        check_flags(config.trainer, split)
        if config.seed_everything is not False:
            seed = None if config.seed_everything is True else config.seed_everything
            config.seed_everything = pl.seed_everything(seed, workers=True)
        self.command = command
        self.config = command.to_save()
        self.options = RunOptions(**config.run.as_dict())
        self.checkpoint = command.checkpoint
        self.console = Console(quiet=self.options.quiet)
        resumed = folder_of(command.path) if command.path and command.fitting else None
        self.folder = resumed or fresh_folder(Path(self.options.root), self.options.name)
        for section in (config.data.get("init_args", config.data), config.model):
            if section.get("seed", 0) is None:
                section.seed = int(config.seed_everything)
        try:
            self.objects: Any = command.parser.instantiate_classes(config)
        except (InputError, OSError):
            raise
        except Exception as error:  # whatever a class that was chosen makes of its arguments
            reason = printable(parser.one_line(str(error)))
            raise InputError(f"cannot build model and data from these settings: {reason}") from None
        self.data, self.model = self.objects.data, self.objects.model
        self.wandb_lines: list[str] = []

    def make_trainer(self, measure: Measure, callbacks: Sequence[Callback]) -> pl.Trainer:
        """Make the Trainer.

        Args:
            measure: how the run is measured.
            callbacks: callbacks of the command.

        Raises:
            InputError: Lightning refuses a flag.
        """
        flags, fitting = self.objects.trainer, self.command.fitting
        resumed_at = self.checkpoint["global_step"] if self.checkpoint and fitting else None
        every, self.last = run_callbacks(
            measure,
            self.options,
            self.folder,
            self.config,
            self.console,
            fitting,
            flags.enable_progress_bar is not False,
        )
        judged_by = (measure.score, measure.mode)
        settings: dict[str, Any] = flags.as_dict() | {
            "logger": run_loggers(flags.logger, self.options, self.folder, fitting, resumed_at, judged_by),
            "callbacks": [*listed(flags.callbacks), *callbacks, *every],
            "plugins": listed(flags.plugins),
            "default_root_dir": str(self.folder),
        }
        if not any(isinstance(plugin, CheckpointIO) for plugin in settings["plugins"]):
            settings["plugins"].append(WholeCheckpoints())
        if not measure.validates:
            settings["limit_val_batches"] = 0
        try:
            self.trainer = pl.Trainer(**settings)
        except (MisconfigurationException, ImportError, TypeError, ValueError) as error:
            raise InputError(f"trainer: {one_line(error).rstrip('.!')}; change the --trainer field") from None
        # a typing slip: each device is a process
        devices, cores = self.trainer.num_devices, os.cpu_count() or 1
        if isinstance(self.trainer.accelerator, CPUAccelerator) and devices > 4 * cores:
            raise InputError(
                f"trainer.devices is {devices}: too many processes for {cores} CPU cores; lower it"
            )
        return self.trainer

    # Begin

    def begin(
        self,
        banner: Sequence[str],
        notes: Sequence[str] = (),
        *,
        tags: Sequence[str],
        provenance: dict[str, str],
        shown_config: dict[str, Any] | None = None,
    ) -> None:
        """Make the run folder, start the loggers, and say what begins. Nothing is written before this.

        Args:
            banner: model and data, in lines.
            notes: what else is good to know.
            tags: words by which W&B finds the run.
            provenance: where the data come from, for W&B.
            shown_config: the configuration as loggers show it, if that differs from config.yaml.

        Raises:
            InputError: the folder cannot be written, or there is nothing left to train.
        """
        steps = self.checkpoint["global_step"] if self.checkpoint else 0
        if self.command.fitting and 0 < self.trainer.max_steps <= steps:
            raise InputError(
                f"{self.folder}: trained {steps} steps already; raise --trainer.max_steps to continue"
            )
        record = fields_of(self.command.record, SECTIONS if self.command.fitting else ("model", "data"))
        changes = list(differences(record, self.config))
        self._write(steps)
        self._start_loggers(shown_config or self.config, tags, provenance, bool(changes))
        if self.options.quiet:  # what was asked for and cannot be done is said all the same
            for line in (line for line in self.wandb_lines if line.startswith(FALLBACK)):
                print(f"warning: wandb {line}", file=sys.stderr)
        lines = [*banner, f"run     {self.folder}", *(f"wandb   {line}" for line in self.wandb_lines)]
        if self.checkpoint is not None:
            word = "resumed" if self.command.fitting else "model"
            lines.append(f"{word:8}{self.command.path}, step {steps}")
            lines += [f"changed {change}" for change in changes]
            notes = [*notes, self.command.ignored] if self.command.ignored else notes
        elif self.command.config.resume:
            lines.append("resumed nothing: no run of this name has a checkpoint, so this is a new one")
        self.say("\n".join([*lines, *(f"note    {note}" for note in notes)]))

    @rank_zero_only
    def say(self, text: str) -> None:
        """Print, on the first process, unless the run is quiet."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @rank_zero_only
    def _write(self, step: int) -> None:
        """Make the folder and its config.yaml; keep the old one if a run resumed at `step` changes it."""
        self._made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        path, content = self.folder / CONFIG, yaml.safe_dump(self.config, sort_keys=False).encode()
        try:
            self.folder.mkdir(parents=True, exist_ok=self.command.fitting and self.checkpoint is not None)
            if path.is_file() and path.read_bytes() != content:
                # copied, not renamed: a kill here would otherwise cost the run its settings
                with whole_file(self.folder / f"config-until-step-{step}.yaml") as part:
                    part.write_bytes(path.read_bytes())
            with whole_file(path) as part:
                part.write_bytes(content)
        except FileExistsError:
            raise InputError(f"{self.folder}: another run began here this second; run it again") from None
        except (InputError, OSError):
            remove_folders(self._made)
            raise

    @rank_zero_only
    def _start_loggers(
        self, config: dict[str, Any], tags: Sequence[str], provenance: dict[str, str], changed: bool
    ) -> None:
        try:
            for run in self._wandb():  # before the others write anything, since it may refuse its settings
                self.wandb_lines += run.start(self.command.verb, tags, changed)
        except InputError:
            remove_folders(self._made)
            raise
        for logger in self.trainer.loggers:
            more = {"provenance": provenance, "commit": git_commit()} if logger in self._wandb() else {}
            logger.log_hyperparams(config | more)

    def _wandb(self) -> list[WandbRun]:
        return [logger for logger in self.trainer.loggers if isinstance(logger, WandbRun)]

    # End

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Around the work of the Trainer: says how it ends."""
        try:
            yield
        except Interrupted as stop:
            self._say_stopped(stop)
            self._finish_wandb(128 + stop.signal)
            raise
        except Exception as error:
            self._finish_wandb(1)
            if not isinstance(error, DivergedError):
                self._forget()
            restoring = self.trainer._checkpoint_connector._loaded_checkpoint  # empty once all is restored
            if isinstance(error, InputError | DivergedError) or not restoring:
                raise
            raise InputError(
                f"{self.command.path}: cannot be restored ({one_line(error)}); use another checkpoint"
            ) from None
        self._finish_wandb(0)

    @rank_zero_only
    def _forget(self) -> None:
        """Remove the folder of a run that failed before it left anything, here or for W&B."""
        if self._made and not self._wandb() and all(kind == "config" for kind, _ in written(self.folder)):
            remove_folders(self._made)

    def end(self, next_commands: Sequence[str], elsewhere: Sequence[tuple[str, Path]] = ()) -> None:
        """Say what was written, and how to go on.

        Args:
            next_commands: what one may run next, after a training.
            elsewhere: what was written outside the run folder: kind and place.
        """
        lines = ["", *(f"{what:10} {path}" for what, path in [*written(self.folder), *elsewhere])]
        if self.command.fitting:
            lines += ["next", *(f"  {command}" for command in next_commands)]
        self.say("\n".join(lines))

    def _say_stopped(self, stop: Interrupted) -> None:
        said = f"{signal.Signals(stop.signal).name}: stopped"
        if self.last is not None and self.trainer.state.fn == TrainerFn.FITTING:
            if self.last.path.is_file():
                words = shlex.join(["--ckpt_path", str(self.last.path)])
                command = f"{self.command.program.name} {self.command.verb} {words}"
                said += f"; saved at step {self.last.saved}, continue with: {command}"
            else:
                said += f" at step {self.trainer.global_step}, before there was anything to save"
        self.say(said)

    @rank_zero_only
    def _finish_wandb(self, exit_code: int) -> None:
        fitting = self.last is not None and self.trainer.state.fn == TrainerFn.FITTING
        # a resumed run takes the steps after its last checkpoint again, and their rows may be incomplete
        through = self.last.saved if exit_code and fitting and self.last else None
        checkpoints = self.command.fitting and exit_code != 1 and self.options.wandb_checkpoints
        for run in self._wandb():
            for line in run.finish(exit_code, through, checkpoints):
                self.say(f"wandb   {line}")
