"""Parts of the Trainer of a run: which flags it may have, and our callbacks beside the user's."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from jsonargparse import Namespace
from pytorch_lightning.callbacks import Callback

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.runs.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from leo_lightning.runs.callbacks.progress import RunProgress
from leo_lightning.runs.callbacks.stop_signals import StopSignals
from leo_lightning.runs.callbacks.throughput import Throughput
from leo_lightning.runs.console import RunConsole
from leo_lightning.runs.folder import CHECKPOINTS, RunOptions

PRECISIONS = {"32", "32-true", "64", "64-true", "16", "16-mixed", "bf16", "bf16-mixed"}


class Measure(NamedTuple):
    """How a run is measured."""

    score: str
    """The validation score that chooses the best checkpoint."""
    mode: Literal["max", "min"]
    """Whether a larger or a smaller score is better."""
    counted: str
    """Items of a batch: tasks or images."""
    validates: bool
    """Whether there is a validation."""
    protocol: dict[str, Any]
    """Settings for which validation scores hold."""


def run_callbacks(
    measure: Measure,
    options: RunOptions,
    folder: Path,
    config: dict[str, Any],
    console: RunConsole,
    fitting: bool,
    progress: bool,
) -> tuple[list[Callback], LastCheckpoint | None]:
    """Callbacks of every run: signals, progress and, if it trains, throughput and checkpoints.

    Args:
        measure: how the run is measured.
        options: options of the run.
        folder: the run folder.
        config: what its config.yaml holds.
        console: where progress is shown.
        fitting: whether it trains.
        progress: whether progress is shown.

    Returns:
        The callbacks, and the one among them that writes last.ckpt.
    """
    signals = StopSignals()
    console.stop = signals.receive
    callbacks: list[Callback] = [signals]
    if progress:
        better = max if measure.mode == "max" else min
        callbacks.append(RunProgress(console, measure.score, better, measure.counted))
    if not fitting:
        return callbacks, None
    callbacks.append(Throughput(measure.counted))
    if measure.validates:
        callbacks.append(BestCheckpoint(folder / CHECKPOINTS, measure.score, measure.mode, measure.protocol))
    # after the best one, whose score it holds
    last = LastCheckpoint(folder / CHECKPOINTS / "last.ckpt", options.checkpoint_every, signals, config)
    return [*callbacks, last], last


def check_flags(flags: Namespace, split: str) -> None:
    """Refuse flags that Lightning accepts, and with which a run would not be what it seems.

    Args:
        flags: arguments of the Trainer as they were parsed.
        split: the split that the command goes through first: train, val, test or predict.

    Raises:
        InputError: says what to set instead.
    """
    for name, refused in (("enable_checkpointing", False), ("barebones", True)):
        if flags[name] is refused:
            raise InputError(f"trainer.{name}: a run consists of its checkpoints and logs; leave it out")
    if flags.default_root_dir is not None:
        raise InputError(
            f"trainer.default_root_dir is {flags.default_root_dir}: runs go to <run.root>/<run.name>; "
            "set --run.root instead"
        )
    if flags.precision is not None and str(flags.precision) not in PRECISIONS:
        raise InputError(
            f"trainer.precision is {flags.precision}: inner loop, standard deviations and KL need float32; "
            "take bf16-mixed, 16-mixed, 32-true or 64-true"
        )
    if any(word in str(flags.strategy) for word in ("spawn", "fork", "notebook")):
        raise InputError(f"trainer.strategy is {flags.strategy}: its processes cannot share a run; take ddp")
    for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
        check_least(1, {f"trainer.{name}": flags[name]})
    if any(each.class_path.endswith(".StochasticWeightAveraging") for each in listed(flags.callbacks)):
        raise InputError(
            "trainer.callbacks: StochasticWeightAveraging changes the weights after the last checkpoint; "
            "take EMAWeightAveraging, whose averages the checkpoints hold"
        )
    for name in (f"limit_{split}_batches", *(("max_steps", "max_epochs") if split == "train" else ())):
        if flags[name] == 0:
            raise InputError(f"trainer.{name} is 0: there would be nothing to do; raise it")


def listed(value: Any) -> list[Any]:
    """One thing, a list of things, or None, as a list."""
    return [] if value is None else list(value) if isinstance(value, list) else [value]
