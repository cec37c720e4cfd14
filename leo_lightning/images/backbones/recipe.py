"""Recipe: everything except the weights that an image's embedding depends on."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

from leo_lightning.common.errors import InputError, check_least

Crop = Literal["center", "multiview"]
Pooling = Literal["mean", "flatten"]
Interpolation = Literal["bicubic", "bilinear"]

FINAL = "final"
BACKBONE_FILE = "backbone.safetensors"
"""File name of a backbone beside the features that it made."""
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_LISTS = ("mean", "std")


@dataclass(frozen=True)
class Recipe:
    """The way from images to embeddings.

    Attributes:
        backbone: wrn-28-10, resnet-12, conv-4, or the name of a timm model; empty if only the preparation of
            images matters.
        options: arguments of the network's class.
        channels: 1 for gray images, 3 for color.
        image_size: S, side of the square that the network sees, in pixels.
        resize: shorter side of an image after resizing, before it is cropped, in pixels.
        interpolation: filter for resizing.
        mean: subtracted from each channel of values in [0, 1].
        std: divisor of each channel after that.
        layer: name of the module whose output becomes the embedding; `final`: the input of the network's own
            classifier.
        pooling: mean over the positions of a feature map, or flatten them.
        crop: center, or multiview: the mean over ten views, center and corners and their mirror images.

    Raises:
        InputError: the numbers do not fit together.
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
        if self.channels not in (1, 3):
            raise InputError(f"channels is {self.channels}: it must be 1 (gray) or 3 (color)")
        check_least(1, {"image_size": self.image_size})
        check_least(self.image_size, {"resize": self.resize})
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != self.channels:
                raise InputError(f"{name} has {len(values)} numbers for {self.channels} channels")
        if not all(value > 0 for value in self.std):
            raise InputError(f"std is {list(self.std)}: its numbers must be above 0")
        if self.crop == "multiview" and self.resize == self.image_size:
            raise InputError(
                f"resize is {self.resize}, as image_size: all ten views would be the same; raise resize to "
                f"{round(self.image_size * 8 / 7)}, for example"
            )

    @property
    def preparation(self) -> str:
        """The way from a file to the numbers that the network sees, on one line."""
        mean, std = (" ".join(f"{number:.4g}" for number in values) for values in (self.mean, self.std))
        return (
            f"shorter side to {self.resize} pixels ({self.interpolation}), {self.crop} crop of "
            f"{self.image_size} × {self.image_size}, mean {mean}, std {std}"
        )

    def adapted(self, **changes: Any) -> "Recipe":
        """Change some fields; those that depend on them follow: resize on size, mean and std on channels."""
        if changes.get("channels") == 1 and self.channels == 3:
            gray = {name: (sum(getattr(self, name)) / 3,) for name in _LISTS}
            changes = gray | changes
        if "image_size" in changes and "resize" not in changes:
            changes["resize"] = round(changes["image_size"] * self.resize / self.image_size)
        return replace(self, **changes)

    def dumps(self) -> str:
        """Return the recipe as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str, source: str) -> "Recipe":
        """Read the JSON that `dumps` returns; see `of`."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        return cls.of(content, source)

    @classmethod
    def of(cls, content: object, source: str) -> "Recipe":
        """Make a recipe of the fields in somebody's file.

        Raises:
            InputError: they are not a recipe; the message begins with `source`.
        """
        if not isinstance(content, Mapping) or not _is_recipe(content):
            raise InputError(f"{source}: does not say how images become embeddings; make it again")
        fields: dict[str, Any] = {**content, **{name: tuple(content[name]) for name in _LISTS}}
        return cls(**fields)


def _is_recipe(content: Mapping[Any, Any]) -> bool:
    """Compare the fields, and the types of their values, with the fields of a recipe."""
    example = asdict(Recipe(""))
    if content.keys() != example.keys() or not all(type(content[name]) in (list, tuple) for name in _LISTS):
        return False
    return (
        all(type(content[name]) is type(value) for name, value in example.items() if name not in _LISTS)
        and all(type(number) in (int, float) for name in _LISTS for number in content[name])
        and content["interpolation"] in get_args(Interpolation)
        and content["pooling"] in get_args(Pooling)
        and content["crop"] in get_args(Crop)
    )
