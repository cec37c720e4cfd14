"""Weights to start from: their network and their preparation of images become the run's settings.

So config.yaml and the checkpoints hold all of it, and the file is needed once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from leo_lightning.commands.pretrain.pretraining import Pretraining
from leo_lightning.common.errors import InputError
from leo_lightning.images.backbones.weights import known_recipe, load_backbone

_FIELDS = ("channels", "image_size", "resize", "interpolation", "mean", "std")
"""Fields of `data` that belong to a recipe."""


def complete_settings(model: Any, data: Any) -> list[str]:
    """Fill the fields that were left open as the weights were trained.

    Args:
        model: settings of the run, which change.
        data: settings of the run, which change.

    Returns:
        A line for each field that was given, and differs.

    Raises:
        InputError: the weights are missing, or belong to another network.
    """
    with _flags_of_pretrain():
        known = known_recipe(model.backbone, model.weights)
    given = {name: data[name] for name in _FIELDS if data[name] is not None}
    lists = {name: tuple(given[name]) for name in ("mean", "std") if name in given}
    try:
        recipe = known.adapted(**given | lists)
    except InputError as error:
        raise InputError(f"data.{error}") from None
    model.backbone = recipe.backbone
    if model.options is None:
        model.options = dict(recipe.options) or None
    notes = []
    for name in _FIELDS:
        value, own = getattr(recipe, name), getattr(known, name)
        data[name] = list(value) if isinstance(value, tuple) else value
        if name in given and value != own:
            shown = list(own) if isinstance(own, tuple) else own
            notes.append(f"data.{name} is {data[name]}, but the weights were trained with {shown}")
    return notes


def load_weights(model: Pretraining, weights: str) -> list[str]:
    """Load the weights into the backbone; return lines that the user should read.

    Raises:
        InputError: they do not fit.
    """
    notes: list[str] = []
    with _flags_of_pretrain():
        backbone = load_backbone(model.backbone.recipe, weights, notes.append)
    model.backbone.load_state_dict(backbone.state_dict())
    return notes


@contextmanager
def _flags_of_pretrain() -> Iterator[None]:
    """Name the flags in a message as this command has them."""
    try:
        yield
    except InputError as error:
        line = str(error).replace("--backbone", "--model.backbone")
        raise InputError(line.replace("--weights", "--model.weights")) from None
