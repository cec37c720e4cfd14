"""Run: one run of a command, from its folder and banner to what it leaves."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
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

from leo_lightning.common.errors import (
    DivergedError,
    Finished,
    FolderTaken,
    InputError,
    Interrupted,
    one_line,
    printable,
)
from leo_lightning.common.file_lock import file_lock
from leo_lightning.common.files import whole_file
from leo_lightning.common.program import program
from leo_lightning.runs import parser
from leo_lightning.runs.callbacks.checkpoints import STOPPED_BY, BestCheckpoint, WholeCheckpoints
from leo_lightning.runs.command_line import SECTIONS, Command
from leo_lightning.runs.console import RunConsole
from leo_lightning.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    RunOptions,
    folder_of,
    fresh_folder,
    git_commit,
    remove_folders,
    tested_checkpoint,
    tested_steps,
    written,
)
from leo_lightning.runs.loggers.choice import beginning, run_loggers
from leo_lightning.runs.loggers.wandb_run import FALLBACK, WandbRun
from leo_lightning.runs.recorded_config import differences, fields_of
from leo_lightning.runs.trainer_parts import Measure, check_flags, listed, run_callbacks

LOCK = ".lock"


class Run:
    """A run: its folder, its settings, its objects, and what it says.

    Args:
        command: what was typed.

    Attributes:
        data: the data module.
        model: the model.
        folder: the run folder, which `begin` makes.
        trained: whether the training was finished before, so that only the test is left.
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
        record = fields_of(command.record, SECTIONS if command.fitting else ("trainer", "model", "data"))
        self.changes = list(differences(record, self.config))
        self.options = RunOptions(**config.run.as_dict())
        self.checkpoint = command.checkpoint
        self.console = RunConsole(quiet=self.options.quiet)
        self.folder = self._resumed() or fresh_folder(Path(self.options.root), self.options.name)
        for section in (config.data.get("init_args", config.data), config.model):
            if section.get("seed", 0) is None:
                section.seed = int(config.seed_everything)
        try:
            self.objects: Any = command.parser.instantiate_classes(config)
        except (InputError, OSError):
            raise
        except Exception as error:  # whatever a class that was chosen makes of its arguments
            reason = printable(parser.one_line(str(error)))
            raise InputError(f"cannot be built from these settings: {reason}") from None
        self.data, self.model = self.objects.data, self.objects.model
        self.wandb_lines: list[str] = []
        self.trained = False
        self._made: list[Path] = []
        self.logger_notes: list[str] = []
        self._lock = ExitStack()

    def _resumed(self) -> Path | None:
        """The folder of the run to continue; None if its last.ckpt is of a later step, and so is kept."""
        path, checkpoint = self.command.path, self.checkpoint
        if not self.command.fitting or path is None or checkpoint is None:
            return None
        folder = folder_of(path)
        if folder is not None and (last := folder / CHECKPOINTS / "last.ckpt").is_file():
            with suppress(InputError):  # a damaged one is replaced
                if self.command.program.read_checkpoint(last)["global_step"] > checkpoint["global_step"]:
                    return None
        return folder

    def keep(self, *fields: str) -> None:
        """Refuse changes that a resumed training would not obey, since its checkpoint holds the optimiser.

        Args:
            fields: names of such fields, as `model.lr_scheduler`.

        Raises:
            InputError: names the change.
        """
        for change in self.changes if self.command.fitting else ():
            if any(change.startswith((f"{field}:", f"{field}.")) for field in fields):
                raise InputError(f"{change}: the optimiser in the checkpoint keeps its own; start a new run")

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
        loggers, self.logger_notes = run_loggers(
            flags.logger, self.options, self.folder, fitting, resumed_at, judged_by
        )
        settings: dict[str, Any] = flags.as_dict() | {
            "logger": loggers,
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
            InputError: the folder cannot be written, or another process trains this run.
            Finished: there is nothing left to do.
        """
        steps = self.checkpoint["global_step"] if self.checkpoint else 0
        self._check_finished(steps)
        try:
            self._write(steps)
            self._start_loggers(shown_config or self.config, tags, provenance, bool(self.changes))
            self._say_begun(banner, notes, steps)
        except BaseException:
            self._lock.close()
            remove_folders(self._made)
            raise

    def _check_finished(self, steps: int) -> None:
        """Note whether the training of a resumed run has ended. All processes must come to the same answer.

        Raises:
            Finished: the test, if one belongs to it, has ended, too.
        """
        if self.checkpoint is None or not self.command.fitting:
            return
        max_steps, max_epochs = self.trainer.max_steps, self.trainer.max_epochs or -1
        callbacks = self.trainer.early_stopping_callbacks
        if 0 < max_steps <= steps:
            advice = "raise --trainer.max_steps"
        elif 0 < max_epochs <= self.checkpoint["epoch"]:
            advice = "raise --trainer.max_epochs"
        elif self.checkpoint.get(STOPPED_BY) in [callback.state_key for callback in callbacks]:
            advice = "leave EarlyStopping out (--trainer.callbacks null)"
        else:
            return
        self.trained = True
        tested = tested_checkpoint(self.folder) if self.command.verb == "fit_test" else None
        read = self.command.program.read_checkpoint
        if tested is not None and read(tested)["global_step"] != tested_steps(self.folder):
            return
        said = f"{self.command.path}: finished at step {steps}, nothing is left to do; {advice} to train on"
        self.say("\n".join([said, *([f"note    {self.command.ignored}"] if self.command.ignored else [])]))
        raise Finished

    def _say_begun(self, banner: Sequence[str], notes: Sequence[str], steps: int) -> None:
        if self.options.quiet:  # what was asked for and cannot be done is said all the same
            for line in (line for line in self.wandb_lines if line.startswith(FALLBACK)):
                print(f"warning: wandb {line}", file=sys.stderr)
        lines = [*banner, f"run     {self.folder}", *(f"wandb   {line}" for line in self.wandb_lines)]
        if self.checkpoint is not None:
            word = "trained" if self.trained else "resumed" if self.command.fitting else "model"
            lines.append(f"{word:8}{self.command.path}, step {steps}")
            lines += [f"changed {change}" for change in self.changes]
            notes = [*notes, self.command.ignored] if self.command.ignored else notes
            best = [one for one in self.trainer.checkpoint_callbacks if isinstance(one, BestCheckpoint)]
            if not all(one.continues(self.checkpoint) for one in best):
                notes = [*notes, "validation has changed: best.ckpt starts anew, whatever its score before"]
        elif self.command.config.resume:
            lines.append("resumed nothing: no run of this name has a checkpoint, so this is a new one")
        self.say("\n".join([*lines, *(f"note    {note}" for note in [*notes, *self.logger_notes])]))

    @rank_zero_only
    def say(self, text: str) -> None:
        """Print, on the first process, unless the run is quiet."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @rank_zero_only
    def _write(self, step: int) -> None:
        """Make the folder and its config.yaml; keep the old one if a run resumed at `step` changes it."""
        path, fitting = self.folder / CONFIG, self.command.fitting
        self._made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=fitting and self.checkpoint is not None)
        except FileExistsError:
            if not self.folder.is_dir():  # a link that leads nowhere is in the way
                raise
            self._made = []
            raise FolderTaken from None
        if fitting:
            held = f"{self.folder}: another process trains this run; wait for it, or stop it"
            self._lock.enter_context(file_lock(self.folder / LOCK, held))
            self._check_unchanged()
        if self.command.ignored and path.is_file():  # edited, it may be all that somebody has
            with whole_file(self.folder / "config-unused.yaml") as part:
                part.write_bytes(path.read_bytes())
        files = {CONFIG: self.config}
        if fitting and self.changes and step:
            files = {f"config-until-step-{step}.yaml": self.command.record, **files}
        for name, content in files.items():
            with whole_file(self.folder / name) as part:
                part.write_text(yaml.safe_dump(content, sort_keys=False))

    def _check_unchanged(self) -> None:
        """Refuse a checkpoint that another process has replaced after it was read here."""
        if self.command.path is not None and self.checkpoint is not None:
            now = self.command.program.read_checkpoint(self.command.path)["global_step"]
            if now != self.checkpoint["global_step"]:
                raise InputError(f"{self.command.path}: another process has just trained on; run this again")

    @rank_zero_only
    def _start_loggers(
        self, config: dict[str, Any], tags: Sequence[str], provenance: dict[str, str], changed: bool
    ) -> None:
        for run in self._wandb():  # before the others write anything, since it may refuse its settings
            self.wandb_lines += run.start(self.command.verb, tags, changed)
        for logger in self.trainer.loggers:
            more = {"provenance": provenance, "commit": git_commit()} if logger in self._wandb() else {}
            with beginning(logger):
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
        else:
            self._finish_wandb(0)
        finally:
            self._lock.close()

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
        if self.last is not None:
            if self.last.path.is_file():
                words = shlex.join(["--ckpt_path", str(self.last.path)])
                command = f"{program()} {self.command.program.name}{self.command.verb} {words}"
                # 0 if all was trained before: only the test was stopped
                saved = self.last.saved or (self.checkpoint or {})["global_step"]
                said += f"; saved at step {saved}, continue with: {command}"
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
