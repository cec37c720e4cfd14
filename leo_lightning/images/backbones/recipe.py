"""Recipe: all that has to be the same for an image to get the same embedding again, except the weights."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from leo_lightning.common.errors import InputError, check_least

Crop = Literal["center", "multiview"]
Pooling = Literal["mean", "flatten"]
Interpolation = Literal["bicubic", "bilinear"]

FINAL = "final"
BACKBONE_FILE = "backbone.safetensors"
"""What the file of a backbone is called that lies beside the features that it made."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preparation:
    """What a network sees of an image: see `Recipe`.

    Raises:
        InputError: the numbers do not fit together.
    """

    channels: int = 3
    image_size: int = 84
    resize: int = 96
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels}: it must be 1 (grey) or 3 (colour)")
        check_least(1, {"image_size": self.image_size})
        check_least(self.image_size, {"resize": self.resize})
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise InputError(
                    f"{name} has {len(values)} numbers for {self.channels} channels; give one for each"
                )
        if not all(value > 0 for value in self.std):
            raise InputError(f"std is {list(self.std)}: each must be above 0")


@dataclass(frozen=True)
class Recipe:
    """How images become embeddings.

    Attributes:
        backbone: wrn-28-10, resnet-12, conv-4, or the name of a timm model.
        options: arguments of the network's class.
        channels: 1 for grey images, 3 for colour.
        image_size: S, side of the square that the network sees, in pixels.
        resize: shorter side that images are resized to before they are cropped, in pixels.
        interpolation: how pixels are made of others in that.
        mean: subtracted from each channel, of values in [0, 1].
        std: which each channel is then divided by.
        layer: name of the module whose output becomes the embedding; `final`: what the network's own
            classifier would see.
        pooling: mean over the places of an image, or all of them one after the other.
        crop: the middle of an image, or the mean over ten views: middle and corners, and their mirror images.
    """

    backbone: str
    options: dict[str, Any] = field(default_factory=dict)
    channels: int = 3
    image_size: int = 84
    resize: int = 96
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    layer: str = FINAL
    pooling: Pooling = "mean"
    crop: Crop = "center"

    def __post_init__(self) -> None:
        Preparation(self.channels, self.image_size, self.resize, self.mean, self.std)  # checks them
        if self.crop == "multiview" and self.resize == self.image_size:
            raise InputError(
                f"resize is {self.resize}, as image_size: the ten views would coincide; raise resize, to "
                f"{round(self.image_size * 8 / 7)} for example"
            )

    def dumps(self) -> str:
        """The recipe as JSON, on one line."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str, source: str) -> "Recipe":
        """Read what `dumps` wrote.

        Raises:
            InputError: it is something else; the message begins with `source`.
        """
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        return cls.of(content, source)

    @classmethod
    def of(cls, content: object, source: str) -> "Recipe":
        """Check what somebody's file holds, and make a recipe of it.

        Raises:
            InputError: it is none; the message begins with `source`.
        """
        if not isinstance(content, Mapping) or not _is_recipe(content):
            raise InputError(f"{source}: does not say how images become embeddings; make it again")
        values: dict[str, Any] = dict(content)
        for name in ("mean", "std"):
            values[name] = tuple(values[name])
        return cls(**values)


def _is_recipe(content: Mapping[Any, Any]) -> bool:
    """Whether the fields and their types are those of a recipe."""
    if set(content) != {each.name for each in fields(Recipe)}:
        return False
    numbers = [*content["mean"], *content["std"]] if _are_lists(content) else ["no"]
    return (
        all(isinstance(content[name], str) for name in ("backbone", "layer"))
        and all(type(content[name]) is int for name in ("channels", "image_size", "resize"))
        and all(isinstance(number, int | float) for number in numbers)
        and isinstance(content["options"], dict)
        and content["interpolation"] in get_args(Interpolation)
        and content["pooling"] in get_args(Pooling)
        and content["crop"] in get_args(Crop)
    )


def _are_lists(content: Mapping[Any, Any]) -> bool:
    return all(isinstance(content[name], list | tuple) for name in ("mean", "std"))
