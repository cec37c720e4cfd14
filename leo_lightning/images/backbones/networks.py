"""The networks by name: those of few-shot learning from learn2learn, all others from timm.

A network maps normalised images (n, channels, S, S) to feature maps, tokens or vectors, without classifier.
Networks of learn2learn are its own classes but for the last pooling, which is for 84 × 84 pixels only:
- wrn-28-10: Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016; as in Ye et al., CVPR 2020. The
  paper's "layer 21" (Section 4.2.2) is `layer3.1`, if the convolutions of shortcuts are not counted.
- resnet-12: Lee et al., Meta-Learning with Differentiable Convex Optimization, CVPR 2019.
- conv-4: Vinyals et al., Matching Networks, NeurIPS 2016.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from leo_lightning.common.errors import InputError, one_line
from leo_lightning.common.learn2learn import learn2learn_module


def build_network(name: str, channels: int, options: Mapping[str, Any]) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        name: see `Recipe.backbone`.
        channels: of the images.
        options: arguments of the network's class.

    Raises:
        InputError: there is no such network, or it does not take these arguments.
    """
    build = _FEW_SHOT.get(name)
    try:
        return build(channels, **options) if build else _timm(name, channels, options)
    except InputError:
        raise
    except Exception as error:  # a network's class may stumble over a bad argument anywhere
        given = ", ".join(f"{key} = {value!r}" for key, value in options.items()) or "no options"
        raise InputError(f"backbone {name} cannot be built with {given}: {one_line(error)}") from None


def check_blocks(network: nn.Module, image_size: int) -> None:
    """Check that the blocks that a ResNet-12 drops of its maps (DropBlock) fit into them.

    Raises:
        InputError: they are larger, of which learn2learn makes a division by zero, or numbers below it.
    """
    for layer, scale in (("layer3", 8), ("layer4", 16)):
        size = image_size // scale
        for block in network.get_submodule(layer).children():
            if getattr(block, "drop_rate", 0) > 0 and getattr(block, "block_size", 0) > size:
                raise InputError(
                    f"resnet-12 drops blocks of {block.block_size} × {block.block_size} places, and images "
                    f"of {image_size} × {image_size} pixels leave it {size} × {size}; set the option "
                    f"dropblock_size to {max(1, image_size // 16)}, or take larger images"
                )


def set_steps(network: nn.Module, steps: int) -> None:
    """Tell a ResNet-12 how many training steps it has made.

    It drops more and more of its maps (DropBlock) by a count of its own, which no checkpoint holds and which
    counts the batches of evaluation, too.
    """
    for module in network.modules():
        if isinstance(getattr(module, "num_batches_tracked", None), int):
            module.num_batches_tracked = steps  # pyright: ignore[reportArgumentType]


def _wrn(channels: int, **options: Any) -> nn.Module:
    class WideResNet(_models().WRN28Backbone):
        def forward(self, x: Tensor) -> Tensor:
            x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
            return F.relu(self.bn1(x))

    network: nn.Module = WideResNet(**options)
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
    return network


def _resnet12(channels: int, **options: Any) -> nn.Module:
    class ResNet12(_models().ResNet12Backbone):
        def forward(self, x: Tensor) -> Tensor:
            return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    return ResNet12(channels=channels, avg_pool=False, **options)


def _conv4(channels: int, **options: Any) -> nn.Module:
    class Conv4(_models().CNN4Backbone):
        forward = nn.Sequential.forward

    return Conv4(channels=channels, **options)


def _models() -> Any:
    return learn2learn_module("vision.models", "this backbone")


_FEW_SHOT: dict[str, Callable[..., nn.Module]] = {"wrn-28-10": _wrn, "resnet-12": _resnet12, "conv-4": _conv4}


def check_timm(name: str) -> None:
    """Check that timm has a model.

    Raises:
        InputError: it has none of that name; the message has some that are like it.
    """
    import timm  # takes seconds

    if not timm.is_model(name):
        near = get_close_matches(name, [*_FEW_SHOT, *timm.list_models()], n=3)
        raise InputError(
            f"there is no backbone {name!r}; take {', '.join(near or _FEW_SHOT)}, or another model of timm"
        )


def _timm(name: str, channels: int, options: Mapping[str, Any]) -> nn.Module:
    import timm

    check_timm(name)
    return timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **options)
