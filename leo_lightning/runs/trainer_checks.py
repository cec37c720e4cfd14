"""Flags of Lightning's Trainer that cannot do here what they say: refused before anything is written."""

from jsonargparse import Namespace

from leo_lightning.common.errors import InputError, check_least

PRECISIONS = {"32", "32-true", "64", "64-true", "16", "16-mixed", "bf16", "bf16-mixed"}


def check_trainer(flags: Namespace, split: str, epoch: int) -> None:
    """Refuse settings with which Lightning does nothing, or fails when the run has begun.

    Args:
        flags: those of the Trainer.
        split: what the command goes through: train, val, test or predict.
        epoch: training steps of an epoch.

    Raises:
        InputError: says what to set instead.
    """
    if flags.enable_checkpointing is False or flags.barebones:
        name = "barebones" if flags.barebones else "enable_checkpointing"
        raise InputError(f"trainer.{name}: a run is made of its checkpoints and logs; leave it out")
    if flags.precision is not None and str(flags.precision) not in PRECISIONS:
        raise InputError(
            f"trainer.precision is {flags.precision}: inner loop, standard deviations and KL need float32; "
            "take bf16-mixed, 16-mixed, 32-true or 64-true"
        )
    if isinstance(flags.strategy, str) and any(
        word in flags.strategy for word in ("spawn", "fork", "notebook")
    ):
        raise InputError(
            f"trainer.strategy is {flags.strategy}: the processes could not share a run; take ddp"
        )
    chosen = flags.callbacks or []
    for callback in chosen if isinstance(chosen, list) else [chosen]:
        if callback.class_path.endswith(".StochasticWeightAveraging"):
            raise InputError(
                "trainer.callbacks: StochasticWeightAveraging changes the weights after the last checkpoint; "
                "take EMAWeightAveraging, whose averages the checkpoints hold"
            )
    for name in (f"limit_{split}_batches", *(("max_steps", "max_epochs") if split == "train" else ())):
        if flags[name] == 0:
            raise InputError(f"trainer.{name} is 0: there would be nothing to do; raise it")
    positive = ("accumulate_grad_batches", "check_val_every_n_epoch")
    check_least(1, {f"trainer.{name}": flags[name] for name in positive})
    limit, interval = flags.limit_train_batches, flags.val_check_interval
    if limit is not None:
        epoch = min(epoch, limit) if isinstance(limit, int) else int(epoch * limit)
        if epoch == 0:
            raise InputError(f"trainer.limit_train_batches is {limit}: that is no whole step; raise it")
    if isinstance(interval, int) and interval > epoch and flags.check_val_every_n_epoch is not None:
        raise InputError(
            f"trainer.val_check_interval is {interval}: an epoch has {epoch} steps; "
            "lower it, or raise --data.steps_per_epoch"
        )
