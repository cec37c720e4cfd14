"""Recipes: what they refuse, and that they come back from a file as they were."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.images.backbones.recipe import Recipe

UNUSUAL = Recipe(
    backbone="test_vit",
    options={"img_size": 96, "class_token": False},
    channels=1,
    image_size=96,
    resize=100,
    interpolation="bilinear",
    mean=(0.25,),
    std=(3.0,),
    layer="blocks.1",
    pooling="flatten",
    crop="multiview",
)


@pytest.mark.parametrize("recipe", [Recipe("conv-4"), UNUSUAL])
def test_recipes_come_back(recipe: Recipe):
    """Catches a field that is not written, and lists that are no longer equal to tuples."""
    assert Recipe.loads(recipe.dumps(), "file") == recipe
    assert Recipe.of(asdict(recipe), "file") == recipe
    assert "\n" not in recipe.dumps()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"channels": 2}, "channels is 2: it must be 1 (grey) or 3 (colour)"),
        ({"image_size": 0}, "image_size is 0: it must be at least 1"),
        ({"image_size": 100}, "resize is 96: it must be at least 100"),
        ({"mean": (0.5,)}, "mean has 1 numbers for 3 channels; give one for each"),
        ({"channels": 1, "mean": (0.5,)}, "std has 3 numbers for 1 channels; give one for each"),
        ({"std": (1.0, 0.0, 1.0)}, "std is [1.0, 0.0, 1.0]: each must be above 0"),
        ({"std": (1.0, float("nan"), 1.0)}, "std is [1.0, nan, 1.0]: each must be above 0"),
        (
            {"resize": 84, "crop": "multiview"},
            "resize is 84, as image_size: the ten views would coincide; raise resize, to 96 for example",
        ),
    ],
)
def test_refusals(changes: dict[str, Any], line: str):
    """Catches settings that would make no image, or ten times the same."""
    with pytest.raises(InputError) as caught:
        Recipe("conv-4", **changes)
    assert str(caught.value) == line


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": None},
        {"backbone": 3},
        {"unknown": 1},
        {"channels": "3"},
        {"image_size": 84.0},
        {"image_size": True},
        {"mean": 0.5},
        {"mean": ["0.5", 0.5, 0.5]},
        {"options": []},
        {"crop": "corner"},
        {"pooling": "max"},
        {"interpolation": "nearest"},
    ],
)
def test_what_is_no_recipe(changes: dict[str, Any]):
    """Catches somebody's file that ends in a traceback, or in an embedding of something else."""
    content = asdict(Recipe("conv-4")) | changes
    content = {name: value for name, value in content.items() if value is not None}
    with pytest.raises(InputError, match=r"^file: does not say how images become embeddings; make it again$"):
        Recipe.loads(json.dumps(content), "file")


@pytest.mark.parametrize("text", ["", "[1]", "{", "null", "[" * 100_000])
def test_what_is_no_table(text: str):
    """Catches JSON that is damaged, hostile, or something else."""
    with pytest.raises(InputError, match=r"^file: does not say"):
        Recipe.loads(text, "file")
