"""Small backbones to test with."""

from typing import Any

import torch

from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.recipe import Recipe

SMALL = {"image_size": 28, "resize": 32}


def conv4(seed: int = 0, **changes: Any) -> Backbone:
    """A Conv-4 of 8 channels, E = 8, with random weights, ready to embed images of 28 × 28 pixels."""
    options: dict[str, Any] = {"hidden_size": 8} | changes.pop("options", {})
    return random_backbone(Recipe("conv-4", options=options, **(SMALL | changes)), seed)


def random_backbone(recipe: Recipe, seed: int = 0) -> Backbone:
    """A backbone with random weights and batch statistics."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = Backbone(recipe)
        for name, value in backbone.network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                value.normal_()
    return backbone.eval()


def images(n: int, size: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Random images."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, size, size), dtype=torch.uint8, generator=generator)
