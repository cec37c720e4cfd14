"""A run on Weights & Biases."""

import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from leo_lightning.errors import InputError, one_line


class WandbRun(WandbLogger):
    """The W&B run of a run folder, which has all its files.

    Args:
        folder: of the run.
        kwargs: those of Lightning's WandbLogger.
    """

    def __init__(self, folder: Path, **kwargs: Any) -> None:
        run_id = f"{folder.parent.name}-{folder.name}"
        ours = {"dir": str(folder), "id": run_id, "name": run_id, "project": "leo-lightning"}
        super().__init__(save_dir=None, **ours | kwargs)  # pyright: ignore[reportArgumentType]

    @classmethod
    def like(cls, logger: WandbLogger, folder: Path) -> "WandbRun":
        """The same for `--trainer.logger WandbLogger`: what was set there, and ours for the rest."""
        lightnings = {"dir": ".", "project": "lightning_logs", "resume": "allow"}
        given = {key: value for key, value in logger._wandb_init.items() if value != lightnings.get(key)}
        given.pop("anonymous", None)
        return cls(folder, offline=logger._offline, **given)

    def start(self) -> str:
        """Begin the run; the address at which it can be seen, empty if there is none.

        Raises:
            InputError: it cannot be begun.
        """
        from wandb.errors import Error  # takes long, and most runs do without

        os.environ.setdefault("WANDB_SILENT", "true")  # it says much; where the run is, is said below
        self._wandb_init.pop("anonymous", None)  # Lightning's default, of which W&B warns
        try:
            return self.experiment.url or ""
        except Error as error:
            reason = one_line(error).rstrip(".")
            raise InputError(f"W&B: {reason}; or log offline: --run.wandb offline") from None
