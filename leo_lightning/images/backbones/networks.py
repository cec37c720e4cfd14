"""Networks by name: the few-shot networks, and all models of timm.

A network maps normalized images (n, channels, S, S) to feature maps, tokens or vectors, without a classifier.
wrn-28-10 and resnet-12 are learn2learn's, without their last pooling, which fits 84 × 84 pixels only:
- wrn-28-10: Zagoruyko and Komodakis, Wide Residual Networks, BMVC 2016; as in Ye et al., CVPR 2020. The
  paper's "layer 21" (Section 4.2.2) is `layer3.1`, not counting the convolutions of shortcuts.
- resnet-12: Lee et al., Meta-Learning with Differentiable Convex Optimization, CVPR 2019.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from leo_lightning.common.errors import InputError, nearest, one_line
from leo_lightning.common.learn2learn import learn2learn_module
from leo_lightning.images.backbones.conv4 import Conv4


def build_network(name: str, channels: int, options: Mapping[str, Any]) -> nn.Module:
    """Build a network with fresh weights; `options` are arguments of its class.

    Raises:
        InputError: there is no such network, or it does not take these arguments.
    """
    build = _FEW_SHOT.get(name)
    try:
        return build(channels, **options) if build else _timm(name, channels, options)
    except InputError:
        raise
    except Exception as error:  # a network's class may stumble over a bad argument anywhere
        raise InputError(f"backbone {name} cannot be built with {dict(options)}: {one_line(error)}") from None


def check_blocks(network: nn.Module, image_size: int) -> None:
    """Refuse blocks of DropBlock larger than the maps of a ResNet-12: learn2learn would divide by zero."""
    for layer, scale in (("layer3", 8), ("layer4", 16)):
        size = image_size // scale
        for block in network.get_submodule(layer).children():
            if getattr(block, "drop_rate", 0) > 0 and getattr(block, "block_size", 0) > size:
                advice = f"set the option dropblock_size to {max(1, image_size // 16)}, or use larger images"
                raise InputError(f"resnet-12 drops blocks larger than its maps, {size} × {size}; {advice}")


def set_steps(network: nn.Module, steps: int) -> None:
    """Tell a ResNet-12 the number of training steps so far.

    It drops more and more blocks (DropBlock) by a count of its own, which no checkpoint holds and which also
    counts evaluation batches.
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


def _models() -> Any:
    return learn2learn_module("vision.models", "this backbone")


_FEW_SHOT: dict[str, Callable[..., nn.Module]] = {"wrn-28-10": _wrn, "resnet-12": _resnet12, "conv-4": Conv4}


def _timm(name: str, channels: int, options: Mapping[str, Any]) -> nn.Module:
    import timm  # takes seconds

    if not timm.is_model(name):
        advice = nearest(name, [*_FEW_SHOT, *timm.list_models()], "timm.list_models() lists them")
        raise InputError(f"there is no backbone {name!r}{advice}")
    return timm.create_model(name, pretrained=False, num_classes=0, in_chans=channels, **options)
