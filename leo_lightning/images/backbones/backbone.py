"""Backbone: images as they are on disk to embeddings, as a recipe says."""

from contextlib import suppress

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from leo_lightning.common.errors import InputError, one_line
from leo_lightning.data.bank import listed
from leo_lightning.images.backbones.networks import build_network, check_blocks
from leo_lightning.images.backbones.recipe import FINAL, Recipe


class _LayerReached(Exception):
    """Ends a forward pass: the layers beyond are not needed."""


class Backbone(nn.Module):
    """A network, the normalization before it and the pooling behind one of its layers.

    Args:
        recipe: names and configures them.
        network: the network; None builds it with fresh weights.

    Raises:
        InputError: the network cannot be built, or has no such layer.
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
        layers = [name for name, _ in network.named_modules()]
        if recipe.layer not in (FINAL, *layers):
            outer = listed([FINAL, *(name for name in layers if name and name.count(".") < 2)], 40)
            raise InputError(f"backbone {recipe.backbone} has no layer {recipe.layer!r}; it has {outer}")
        # Some of timm's networks, such as Swin, have maps whose channels come last.
        self._channels_last = getattr(network, "output_fmt", None) == "NHWC"
        self._prefix_tokens = getattr(network, "num_prefix_tokens", 0)

    def forward(self, images: UInt8[Tensor, "n channels S S"]) -> Float[Tensor, "n E"]:
        """Embed images."""
        dtype = next(self.network.parameters()).dtype
        x = (images.to(dtype) / 255 - self.mean.to(dtype)) / self.std.to(dtype)
        return self._pool(self.network(x) if self.recipe.layer == FINAL else self._layer_output(x))

    def embedding_size(self) -> int:
        """Return E, found by embedding one image; no weight changes, and no random number is drawn.

        Raises:
            InputError: the network does not take images of the recipe's size.
        """
        recipe, training = self.recipe, self.training
        size = recipe.image_size
        image = torch.zeros(1, recipe.channels, size, size, dtype=torch.uint8, device=self.mean.device)
        self.eval()
        try:
            with torch.no_grad():
                return self(image).shape[1]
        except InputError:
            raise
        except (RuntimeError, AssertionError, ValueError) as error:
            raise InputError(
                f"backbone {recipe.backbone} does not take images of {size} × {size} pixels "
                f"({one_line(error):.120}); choose another image size"
            ) from None
        finally:
            self.train(training)

    def _layer_output(self, x: Tensor) -> Tensor:
        """Return the output of the recipe's layer without computing the layers beyond."""
        outputs: list[object] = []

        def keep(module: nn.Module, inputs: object, output: object) -> None:
            outputs.append(output)
            if not torch.compiler.is_compiling():  # an export traces to the end, and drops what is not used
                raise _LayerReached

        handle = self.network.get_submodule(self.recipe.layer).register_forward_hook(keep)
        try:
            with suppress(_LayerReached):
                self.network(x)
        finally:
            handle.remove()
        if outputs and isinstance(outputs[0], Tensor) and outputs[0].dim() in (2, 3, 4):
            return outputs[0]
        raise InputError(
            f"layer {self.recipe.layer!r} of backbone {self.recipe.backbone} does not return maps, tokens or "
            "vectors; choose another"
        )

    def _pool(self, output: Tensor) -> Float[Tensor, "n E"]:
        """Return one vector per image."""
        if output.dim() == 4 and self._channels_last:
            output = output.permute(0, 3, 1, 2)
        if output.dim() == 3:  # (n, tokens, E); a transformer's first tokens are not positions of the image
            output = output[:, self._prefix_tokens :].transpose(1, 2)
        if output.dim() == 2 or self.recipe.pooling == "flatten":
            return output.flatten(1)
        return output.flatten(2).mean(2)
