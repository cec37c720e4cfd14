"""`python -m leo_lightning features extract`: its flags, and what they mean.

What takes long to import is imported inside the functions, so that `--help` answers at once.
"""

import argparse
import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leo_lightning.common.errors import InputError
from leo_lightning.images.backbones.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import Console

    from leo_lightning.data.bank import FeatureBank

# Flags that are fields of the recipe, by name
_FIELDS = (*("layer", "crop", "channels", "image_size", "resize", "interpolation", "mean", "std", "pooling"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags. What is not given is as the weights' own recipe has it."""
    add = parser.add_argument
    add(
        "--images",
        type=Path,
        required=True,
        metavar="DIR",
        help="{train,val,test}/CLASS/IMAGE, or {train,val,test}.csv (filename,label) and images/",
    )
    add("--out", type=Path, required=True, metavar="DST", help="folder for the feature files")
    add(
        "--backbone",
        metavar="NAME",
        help="wrn-28-10, resnet-12, conv-4 or a model of timm (default: what the weights' file says)",
    )
    add(
        "--weights",
        required=True,
        metavar="FILE|pretrained",
        help="checkpoint of pre-training, backbone.safetensors or a state dict; `pretrained` for a model of "
        "timm, `pretrained:mini-imagenet` and others for learn2learn's",
    )
    add("--layer", metavar="NAME", help="module whose output is the embedding; final: all of the network")
    add("--crop", choices=("center", "multiview"), help="the middle, or the mean over ten views")
    add("--channels", type=int, choices=(1, 3), help="1: grey, 3: colour")
    add("--image-size", type=int, metavar="S", help="side of what the network sees, in pixels")
    add(
        "--resize",
        type=int,
        metavar="R",
        help="shorter side before that is cut out (default: in proportion to S)",
    )
    add("--interpolation", choices=("bicubic", "bilinear"), help="how pixels are made when resizing")
    add("--mean", type=float, nargs="+", metavar="M", help="subtracted from values in [0, 1], per channel")
    add("--std", type=float, nargs="+", metavar="D", help="what they are then divided by")
    add("--pooling", choices=("mean", "flatten"), help="over the places of an image, or all of them in a row")
    add(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="argument of the network's class, such as img_size=84 for a transformer; may be repeated",
    )
    add(
        "--dtype",
        choices=("float16", "float32"),
        default="float32",
        help="of the features",
    )
    add("--batch-size", type=int, default=32, metavar="B", help="images at once (default: 32)")
    add("--workers", type=int, metavar="W", help="threads that read images (default: one per core)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one")
    add(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="bf16: products in bfloat16, faster on a GPU, three digits (default: float32)",
    )
    add(
        "--on-error",
        choices=("refuse", "skip"),
        default="refuse",
        help="of files that are no whole images (default: refuse)",
    )
    add("--overwrite", action="store_true", help="replace features in DST, or begin anew with other settings")


def run(arguments: argparse.Namespace, console: "Console") -> "dict[str, FeatureBank]":
    """Do what the flags say.

    Raises:
        InputError: see `leo_lightning.images.extraction.extract`.
    """
    from leo_lightning.images.backbones.weights import is_published, load_backbone, weights_name
    from leo_lightning.images.decode import quiet_pillow
    from leo_lightning.images.extraction.embedder import Embedder
    from leo_lightning.images.extraction.extract import extract
    from leo_lightning.images.extraction.shards import check_free
    from leo_lightning.images.folder import REMOVE, find_splits

    def note(line: str) -> None:
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)

    quiet_pillow()
    check_free(arguments.out, arguments.overwrite)
    with console.status("looking for images ..."):
        splits = find_splits(
            arguments.images, arguments.on_error, note, f"{REMOVE}, or leave them out: --on-error skip"
        )
    # downloads have bars of their own
    with nullcontext() if is_published(arguments.weights) else console.status("loading the backbone ..."):
        backbone = load_backbone(recipe_of(arguments), arguments.weights)
        embedder = Embedder(
            backbone, arguments.batch_size, arguments.workers, arguments.device, arguments.precision
        )
    return extract(
        splits,
        embedder,
        arguments.out,
        dataset=arguments.images.resolve().name,
        weights=weights_name(backbone, arguments.weights),
        dtype=arguments.dtype,
        on_error=arguments.on_error,
        overwrite=arguments.overwrite,
        console=console,
    )


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The weights' own recipe, but for what the flags say.

    Raises:
        InputError: the flags do not go together, or the weights do not say of which network they are.
    """
    from leo_lightning.images.backbones.weights import known_recipe

    known = known_recipe(arguments.backbone, arguments.weights)
    given: dict[str, Any] = {
        name: getattr(arguments, name) for name in _FIELDS if getattr(arguments, name) is not None
    }
    for name in ("mean", "std"):
        if name in given:
            given[name] = tuple(given[name])
        elif given.get("channels") == 1 and known.channels == 3:
            given[name] = (sum(getattr(known, name)) / 3,)
    if "image_size" in given and "resize" not in given:
        given["resize"] = round(given["image_size"] * known.resize / known.image_size)
    options = dict(_option(text) for text in arguments.option)
    return replace(known, **given, options=known.options | options)


def _option(text: str) -> tuple[str, Any]:
    """Name and value; a value that is no number, true, false, null or list is text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"--option {text}: write KEY=VALUE, such as img_size=84")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
