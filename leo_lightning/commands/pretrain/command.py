"""`pretrain fit`, `pretrain validate`: train a backbone on images of the training classes."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from leo_lightning.commands.pretrain.data import ImageDataModule
from leo_lightning.commands.pretrain.pretraining import Pretraining
from leo_lightning.common.errors import InputError
from leo_lightning.common.torch_files import load_torch
from leo_lightning.images.backbones.recipe import Recipe
from leo_lightning.images.backbones.weights import RUN_RECIPE
from leo_lightning.runs.command_line import Program, parse
from leo_lightning.runs.folder import tested_checkpoint
from leo_lightning.runs.parser import Parser, run_parser
from leo_lightning.runs.run import Run
from leo_lightning.runs.trainer_parts import Measure


def _parser(verb: str) -> Parser:
    parser = run_parser(
        f"python -m leo_lightning pretrain {verb}", {"max_epochs": 100}, unused=frozenset({"pictures_every"})
    )
    parser.add_class_arguments(Pretraining, "model", fail_untyped=False, sub_configs=True)
    parser.add_class_arguments(ImageDataModule, "data", fail_untyped=False, sub_configs=True)
    parser.set_defaults({"run.name": "pretrain"})
    parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
    parser.link_arguments("data.preparation", "model.preparation", apply_on="instantiate")
    return parser


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint of pre-training.

    Raises:
        InputError: it is something else.
    """
    content = load_torch(path)
    settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if not isinstance(content, dict) or not isinstance(settings, Mapping) or RUN_RECIPE not in settings:
        raise InputError(f"{path}: is not a checkpoint of pre-training; name a best.ckpt or last.ckpt of one")
    return content


PROGRAM = Program(
    name="python -m leo_lightning pretrain",
    verbs=("fit", "validate"),
    fits=("fit",),
    parser=_parser,
    read_checkpoint=_read_checkpoint,
    stored_config=lambda checkpoint, config: config,
    start=None,
)


def main(arguments: list[str]) -> None:
    """Pre-train a backbone, or validate one.

    Args:
        arguments: `fit` or `validate`, then flags.
    """
    if arguments[:1] in (["-h"], ["--help"]):
        print(f"usage: {PROGRAM.name} fit | validate [--FIELD VALUE ...]")
        return
    verb, *flags = arguments or [""]
    if verb not in PROGRAM.verbs:
        raise InputError("name a command, fit or validate, before the flags; see fit --help")
    command = parse(PROGRAM, verb, flags)
    if not command.fitting and command.path is None:
        raise InputError("validate needs a trained model: --ckpt_path FILE, `best` or `last`")
    trainer_flags, schedule = command.config.trainer, command.config.model.schedule
    if trainer_flags.max_epochs == -1 == trainer_flags.max_steps and schedule != "constant":
        raise InputError(f"model.schedule {schedule} needs an end: set --trainer.max_epochs")
    run = Run(command)
    data, model = run.data, run.model
    trainer = run.make_trainer(Measure("accuracy", "max", "images", validates=True), [])
    data.setup(command.stage)
    model.queries(data.splits["val"])
    if command.fitting:
        data.train_dataloader().stream.batch(0)
    if command.checkpoint is not None:
        _check_weights(model, command.checkpoint, str(command.path))
    recipe = model.backbone.recipe
    run.begin(
        _banner(model, data),
        tags=[data.root.name, recipe.backbone, "pre-training"],
        provenance={"images": str(data.root), "backbone": recipe.backbone},
    )
    with run.ending():
        path = None if command.path is None else str(command.path)
        if command.fitting:
            trainer.fit(model, datamodule=data, ckpt_path=path, weights_only=True)
        else:
            trainer.validate(
                model, datamodule=data, ckpt_path=path, weights_only=True, verbose=not run.options.quiet
            )
    run.end(_next_commands(run))


def _check_weights(model: Pretraining, checkpoint: Mapping[str, Any], path: str) -> None:
    """Refuse a checkpoint of another network, or of other classes, by name."""
    stored, mine = (
        asdict(recipe)
        for recipe in (
            Recipe.of(checkpoint["hyper_parameters"][RUN_RECIPE], path),
            model.backbone.recipe,
        )
    )
    changed = [name for name, value in mine.items() if stored[name] != value]
    if changed:
        raise InputError(
            f"{path}: was trained with another {' and '.join(changed)}; use the config.yaml of its run"
        )
    weights = checkpoint.get("state_dict")
    wanted = {name: value.shape for name, value in model.state_dict().items()}
    shapes = {
        str(name): value.shape if isinstance(value, Tensor) else None
        for name, value in (weights.items() if isinstance(weights, Mapping) else ())
    }
    if wanted != shapes:
        different = [name for name in wanted if shapes.get(name) != wanted[name]]
        if different and all(name.startswith("head.") for name in different):
            raise InputError(f"{path}: was trained on other classes; give it those images")
        raise InputError(f"{path}: its weights do not fit this network; use another checkpoint")


def _banner(model: Pretraining, data: ImageDataModule) -> list[str]:
    recipe, train, val = model.backbone.recipe, data.splits["train"], data.splits["val"]
    parameters = sum(p.numel() for p in model.backbone.parameters())
    return [
        f"network {recipe.backbone}, {parameters:,} parameters, embeddings of size {model.head.in_features}, "
        f"images of {recipe.image_size} × {recipe.image_size}",
        f"data    {data.root}: {len(train):,} images of {len(train.class_names)} classes to learn, judged by "
        f"{model.val_tasks:,} tasks of {len(val.class_names)} others",
    ]


def _next_commands(run: Run) -> list[str]:
    checkpoint = tested_checkpoint(run.folder)
    if checkpoint is None:
        return []
    words = ["--images", str(run.data.root), "--weights", str(checkpoint), "--out", "data/features"]
    return [f"python -m leo_lightning features extract {shlex.join(words)}"]
