"""OneThread: training and evaluation on a CPU use one thread."""

from contextlib import ExitStack

import pytorch_lightning as pl

from leo_lightning.common.threads import one_thread


class OneThread(pl.Callback):
    """Let torch use one thread from `setup` to the end, also if that is an exception or Ctrl-C."""

    def __init__(self) -> None:
        self._until_the_end = ExitStack()

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin, on a CPU: large networks, and a GPU's host, may use all cores."""
        if trainer.strategy.root_device.type == "cpu":
            self._until_the_end.enter_context(one_thread())

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """End."""
        self._until_the_end.close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End."""
        self._until_the_end.close()
