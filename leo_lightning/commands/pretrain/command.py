"""`pretrain fit`, `pretrain validate`: train a backbone on images of the training classes."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leo_lightning.commands.pretrain.data import ImageDataModule
from leo_lightning.commands.pretrain.pretraining import Pretraining
from leo_lightning.commands.pretrain.starting_weights import complete_settings, load_weights
from leo_lightning.common.errors import InputError, printable
from leo_lightning.common.program import called, program
from leo_lightning.common.torch_files import load_torch
from leo_lightning.images.backbones.weights import run_recipe
from leo_lightning.runs.command_line import Program, parse
from leo_lightning.runs.folder import tested_checkpoint, with_advice
from leo_lightning.runs.parser import Parser, run_parser
from leo_lightning.runs.run import Run
from leo_lightning.runs.trainer_parts import Measure


def _parser(verb: str) -> Parser:
    parser = run_parser(
        f"{called()} pretrain {verb}", {"max_epochs": 100}, unused=frozenset({"pictures_every"})
    )
    parser.add_class_arguments(Pretraining, "model", fail_untyped=False)
    parser.add_class_arguments(ImageDataModule, "data", fail_untyped=False)
    parser.set_defaults({"run.name": "pretrain"})
    parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
    parser.link_arguments("data.preparation", "model.preparation", apply_on="instantiate")
    return parser


def _read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a pre-training checkpoint.

    Raises:
        InputError: it is another file.
    """
    content = load_torch(path)
    if not isinstance(content, dict) or run_recipe(content, str(path)) is None:
        raise InputError(f"{path}: is not a pre-training checkpoint; name a best.ckpt or last.ckpt of one")
    return content


PROGRAM = Program(
    name="pretrain ",
    verbs=("fit", "validate"),
    fits=("fit",),
    parser=_parser,
    read_checkpoint=with_advice(_read_checkpoint),
    evaluated=("seed_everything", "run.name", "run.root", "trainer.precision", "model", "data"),
    completed=lambda config, checkpoint: config,
    start=lambda root: None,
)


def main(arguments: list[str]) -> None:
    """Pre-train a backbone, or validate one.

    Args:
        arguments: `fit` or `validate`, then flags.
    """
    if arguments[:1] in (["-h"], ["--help"]):
        print(f"usage: {called()} pretrain fit | validate [--FIELD VALUE ...]")
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
    # a checkpoint holds its weights, and its settings have been completed
    weights = command.config.model.weights if command.fitting and command.checkpoint is None else None
    notes = complete_settings(command.config.model, command.config.data) if weights else []
    run = Run(command)
    data, model = run.data, run.model
    run.keep(*(f"model.{name}" for name in ("weights", "freeze_epochs", "backbone_rate", "keep_statistics")))
    run.keep(*(f"model.{name}" for name in ("optimizer", "learning_rate", "weight_decay", "schedule")))
    if model.schedule != "constant":  # it ends with the run
        run.keep("model.warmup_steps", "trainer.max_epochs", "trainer.max_steps")
    trainer = run.make_trainer(
        Measure("accuracy", "max", "images", True, model.validation_protocol(data.splits["val"])), []
    )
    data.setup(command.stage)
    model.queries(data.splits["val"])
    if command.fitting:
        data.train_dataloader().stream.batch(0)
    if weights:
        notes += load_weights(model, weights)
    if command.checkpoint is not None:
        _check_weights(model, command.checkpoint, str(command.path))
    recipe = model.backbone.recipe
    run.begin(
        [*_banner(model, data), *_weights_banner(model, weights, notes)],
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
    """Refuse a checkpoint of another network, or of other classes."""
    recipe, stored = asdict(model.backbone.recipe), run_recipe(checkpoint, path)
    assert stored is not None  # _read_checkpoint has refused others
    changed = [name for name, value in asdict(stored).items() if value != recipe[name]]
    if changed:
        names = " and ".join(changed)
        raise InputError(f"{path}: was trained with other {names}; use the config.yaml of its run")
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    weights = dict(checkpoint.get("state_dict", {}))
    if {name: getattr(value, "shape", None) for name, value in weights.items()} != shapes:
        raise InputError(f"{path}: was trained on other classes; name the images of its run")


def _banner(model: Pretraining, data: ImageDataModule) -> list[str]:
    recipe, train, val = model.backbone.recipe, data.splits["train"], data.splits["val"]
    parameters = sum(p.numel() for p in model.backbone.parameters())
    return [
        f"network {recipe.backbone}, {parameters:,} parameters, embeddings of size {model.head.in_features}, "
        f"images of {recipe.image_size} × {recipe.image_size}",
        f"data    {data.root}: {len(train):,} images of {len(train.class_names)} classes to learn, validated "
        f"by {model.val_tasks:,} tasks of {len(val.class_names)} others",
    ]


def _weights_banner(model: Pretraining, weights: str | None, notes: list[str]) -> list[str]:
    if weights is None:
        return []
    return [
        f"weights {printable(weights)}; {model.backbone.recipe.preparation}",
        *(f"note    {note}" for note in notes),
    ]


def _next_commands(run: Run) -> list[str]:
    checkpoint = tested_checkpoint(run.folder)
    if checkpoint is None:
        return []
    words = ["--images", str(run.data.root), "--weights", str(checkpoint), "--out", "data/features"]
    return [f"{program()} features extract {shlex.join(words)}"]
