"""Backbone: images as they lie on disk to embeddings, as its recipe says."""

from contextlib import suppress

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from leo_lightning.common.errors import InputError, one_line
from leo_lightning.data.bank import listed
from leo_lightning.images.backbones.networks import build_network, check_blocks
from leo_lightning.images.backbones.recipe import FINAL, Recipe


class _Reached(Exception):
    """What the layers beyond would make is not needed."""


class Backbone(nn.Module):
    """A network, the normalisation before it and the pooling behind one of its layers.

    Args:
        recipe: which of all that.
        network: the network; None builds it with fresh weights.

    Raises:
        InputError: the network has no such layer, or cannot be built.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, recipe: Recipe, network: nn.Module | None = None) -> None:
        super().__init__()
        self.recipe = recipe
        if network is None:
            network = build_network(recipe.backbone, recipe.channels, recipe.options)
        if recipe.backbone == "resnet-12":
            check_blocks(network, recipe.image_size)
        self.network = network
        for name, values in (("mean", recipe.mean), ("std", recipe.std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)
        layers = dict(self.network.named_modules())
        if recipe.layer != FINAL and recipe.layer not in layers:
            ends = [name for name in layers if name.count(".") < 2 and name]
            raise InputError(
                f"backbone {recipe.backbone} has no layer {recipe.layer!r}; "
                f"it has {listed([FINAL, *ends], 40)}"
            )
        # Channels are last in maps of some of timm's networks, such as Swin.
        self._channels_last = getattr(self.network, "output_fmt", None) == "NHWC"
        self._prefix = getattr(self.network, "num_prefix_tokens", 0)

    def forward(self, images: UInt8[Tensor, "n channels S S"]) -> Float[Tensor, "n E"]:
        """Embed images."""
        dtype = next(self.network.parameters()).dtype
        x = (images.to(dtype) / 255 - self.mean.to(dtype)) / self.std.to(dtype)
        if self.recipe.layer == FINAL:
            return self._pooled(self.network(x))
        return self._pooled(self._until_layer(x))

    def embedding_size(self) -> int:
        """E: what a first image shows; nothing is learned from it, and no random number drawn."""
        recipe, training = self.recipe, self.training
        image = torch.zeros(1, recipe.channels, recipe.image_size, recipe.image_size, dtype=torch.uint8)
        device = self.mean.device
        self.eval()
        try:
            with torch.no_grad():
                return self(image.to(device)).shape[1]
        except InputError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            size = recipe.image_size
            raise InputError(
                f"backbone {recipe.backbone} takes no images of {size} × {size} pixels "
                f"({one_line(error):.120}); choose another image size"
            ) from None
        finally:
            self.train(training)

    def _until_layer(self, x: Tensor) -> Tensor:
        """What comes out of the recipe's layer; the rest is not computed."""
        found: list[object] = []

        def keep(module: nn.Module, inputs: object, output: object) -> None:
            found.append(output)
            raise _Reached

        handle = self.network.get_submodule(self.recipe.layer).register_forward_hook(keep)
        try:
            with suppress(_Reached):
                self.network(x)
        finally:
            handle.remove()
        if found and isinstance(found[0], Tensor) and found[0].dim() in (2, 3, 4):
            return found[0]
        raise InputError(
            f"layer {self.recipe.layer!r} of backbone {self.recipe.backbone} gives no maps, tokens or "
            "vectors; choose another"
        )

    def _pooled(self, output: Tensor) -> Float[Tensor, "n E"]:
        """One vector for each image."""
        if output.dim() == 4 and self._channels_last:
            output = output.permute(0, 3, 1, 2)
        if output.dim() == 3:  # (n, tokens, E); the first ones of a transformer are no places of the image
            output = output[:, self._prefix :].transpose(1, 2)
        if output.dim() == 2 or self.recipe.pooling == "flatten":
            return output.flatten(1)
        return output.flatten(2).mean(2)
