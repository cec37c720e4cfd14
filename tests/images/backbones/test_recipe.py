"""Recipes survive being stored; other content is refused."""

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
def test_recipes_survive_being_stored(recipe: Recipe):
    """Catches a field that is not stored, and lists in place of tuples."""
    assert Recipe.loads(recipe.dumps(), "file") == recipe
    assert Recipe.of(asdict(recipe), "file") == recipe
    assert "\n" not in recipe.dumps()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"channels": 2}, "channels is 2: it must be 1 (gray) or 3 (color)"),
        ({"image_size": 0}, "image_size is 0: it must be at least 1"),
        ({"image_size": 100}, "resize is 96: it must be at least 100"),
        ({"mean": (0.5,)}, "mean has 1 numbers for 3 channels"),
        ({"channels": 1, "mean": (0.5,)}, "std has 3 numbers for 1 channels"),
        ({"std": (1.0, 0.0, 1.0)}, "std is [1.0, 0.0, 1.0]: its numbers must be above 0"),
        ({"std": (1.0, float("nan"), 1.0)}, "std is [1.0, nan, 1.0]: its numbers must be above 0"),
        (
            {"resize": 84, "crop": "multiview"},
            "resize is 84, as image_size: all ten views would be the same; raise resize to 96, for example",
        ),
    ],
)
def test_refusals(changes: dict[str, Any], line: str):
    """Catches settings without an image, or with ten equal views."""
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
def test_other_fields_are_refused(changes: dict[str, Any]):
    """Catches a traceback, and an embedding by other settings than a file says."""
    content = asdict(Recipe("conv-4")) | changes
    content = {name: value for name, value in content.items() if value is not None}
    with pytest.raises(InputError, match=r"^file: does not say how images become embeddings; make it again$"):
        Recipe.loads(json.dumps(content), "file")


@pytest.mark.parametrize("text", ["", "[1]", "{", "null", "[" * 100_000])
def test_other_texts_are_refused(text: str):
    """Catches a traceback for damaged, hostile or other JSON."""
    with pytest.raises(InputError, match=r"^file: does not say"):
        Recipe.loads(text, "file")
