"""`python -m leo_lightning pretrain`: the command line of pre-training."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser
from torch import Tensor

from leo_lightning.commands.pretrain.data import ImageDataModule
from leo_lightning.commands.pretrain.pretraining import Pretraining
from leo_lightning.common.errors import InputError
from leo_lightning.common.torch_files import load_torch
from leo_lightning.images.backbones.recipe import Recipe
from leo_lightning.images.backbones.weights import RUN_RECIPE
from leo_lightning.runs.folder import CHECKPOINTS
from leo_lightning.runs.implied_flags import with_defaults
from leo_lightning.runs.run_command import RunCommand, trainer_exit_code


class PretrainCommand(RunCommand):
    """Pre-train a backbone on the images of the training classes, or validate one."""

    program = "python -m leo_lightning pretrain"
    counted = "images"
    unused = frozenset({"pictures_every"})

    def __init__(self, args: list[str]) -> None:
        defaults = {"max_epochs": 100, "enable_model_summary": False, "num_sanity_val_steps": 0}
        super().__init__(
            args,
            model_class=Pretraining,
            datamodule_class=ImageDataModule,
            trainer_defaults=defaults,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's, but for those that need test images."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
            "validate": {"model", "dataloaders", "datamodule", "verbose", "weights_only"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What the images say goes to the model."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults({"run.name": "pretrain"})
        parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
        parser.link_arguments("data.preparation", "model.preparation", apply_on="instantiate")

    def look_at(self, config: Namespace) -> int:
        """See `RunCommand`."""
        self.trained = True
        self.fitting = self.subcommand == "fit"
        self.stage = str(self.subcommand)
        endless = config.trainer.max_epochs == -1 == config.trainer.max_steps
        if endless and config.model.schedule != "constant":
            raise InputError(f"model.schedule {config.model.schedule} needs an end: set --trainer.max_epochs")
        return 2**31  # not known before the images are counted; Lightning then says what does not fit

    def read_checkpoint(self, path: Path, config: Namespace) -> dict[str, Any]:
        """See `RunCommand`."""
        content = load_torch(path)
        settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
        if not isinstance(content, dict) or not isinstance(settings, Mapping) or RUN_RECIPE not in settings:
            raise InputError(f"{path}: no checkpoint of pre-training; name a best.ckpt or last.ckpt of one")
        return content

    def judged_by(self) -> tuple[str, Literal["max", "min"]]:
        """See `RunCommand`."""
        return "accuracy", "max"

    def check_fits(self) -> None:
        """See `RunCommand`."""
        self.datamodule.setup(self.stage)
        self.model.queries(self.datamodule.splits["val"])
        if self.fitting:
            self.datamodule.train_dataloader().stream.batch(0)
        if self.checkpoint is not None:
            self._check_weights(self.checkpoint)

    def _check_weights(self, checkpoint: Mapping[str, Any]) -> None:
        """Refuse a checkpoint of another network, or of other classes, by name."""
        path = str(self._get(self.config, "ckpt_path"))
        stored = Recipe.of(checkpoint["hyper_parameters"][RUN_RECIPE], path)
        mine = self.model.backbone.recipe
        changed = [name for name, value in asdict(mine).items() if asdict(stored)[name] != value]
        if changed:
            raise InputError(
                f"{path}: was trained with another {' and '.join(changed)}; use the config.yaml of its run"
            )
        weights = checkpoint.get("state_dict")
        wanted = {name: value.shape for name, value in self.model.state_dict().items()}
        found = {
            str(name): value.shape if isinstance(value, Tensor) else None
            for name, value in (weights.items() if isinstance(weights, Mapping) else ())
        }
        if wanted != found:
            different = [name for name in wanted if found.get(name) != wanted[name]]
            if different and all(name.startswith("head.") for name in different):
                raise InputError(f"{path}: was trained on other classes; give it those images")
            raise InputError(f"{path}: its weights do not fit this network; take another checkpoint")

    def provenance(self) -> dict[str, str]:
        """See `RunCommand`."""
        return {"images": str(self.datamodule.root), "backbone": self.model.backbone.recipe.backbone}

    def tags(self) -> list[str]:
        """Data set, network, and that this is pre-training."""
        return [self.datamodule.root.name, self.model.backbone.recipe.backbone, "pre-training"]

    def banner(self) -> list[str]:
        """See `RunCommand`."""
        model, data = self.model, self.datamodule
        recipe = model.backbone.recipe
        parameters = sum(p.numel() for p in model.backbone.parameters())
        train, val = data.splits["train"], data.splits["val"]
        return [
            f"network {recipe.backbone}, {parameters:,} parameters, embeddings of size "
            f"{model.head.in_features}, images of {recipe.image_size} × {recipe.image_size}",
            f"data    {data.root}: {len(train):,} images of {len(train.class_names)} classes to learn, "
            f"judged by {model.val_tasks:,} tasks of {len(val.class_names)} others",
        ]

    def next_commands(self) -> list[str]:
        """See `RunCommand`."""
        folder = self.folder / CHECKPOINTS
        best = next((path for path in (folder / "best.ckpt", folder / "last.ckpt") if path.is_file()), None)
        if best is None:
            return []
        words = ["--images", str(self.datamodule.root), "--weights", str(best), "--out", "data/features"]
        return [f"python -m leo_lightning features extract {shlex.join(words)}"]


def main(argv: list[str] | None = None) -> int:
    """Run a command; see `trainer_exit_code`."""
    return trainer_exit_code(lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(args: list[str]) -> None:
    if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
        raise InputError("name a command, fit or validate, before the flags; see --help")
    if args[0] not in ("-h", "--help"):
        args = with_defaults(args, PretrainCommand.subcommands(), PretrainCommand.fits, None, "pretrain")
    PretrainCommand(args)
