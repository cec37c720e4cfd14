"""The flags of `python -m leo_lightning features extract`.

Slow imports are inside the functions, so that `--help` answers at once.
"""

import argparse
import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leo_lightning.common.errors import InputError
from leo_lightning.images.backbones.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import Console

    from leo_lightning.data.bank import FeatureBank

# Flags that are fields of the recipe, by name
_FIELDS = ("layer", "crop", "channels", "image_size", "resize", "interpolation", "mean", "std", "pooling")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags. The weights' own recipe has the defaults of its fields."""
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
        help="wrn-28-10, resnet-12, conv-4 or a timm model (default: the file's)",
    )
    add(
        "--weights",
        required=True,
        metavar="FILE|pretrained",
        help="pre-training checkpoint, backbone.safetensors or state dict; `pretrained` for a timm model, "
        "`pretrained:DATASET` for learn2learn's networks, such as `pretrained:mini-imagenet`",
    )
    add("--layer", metavar="NAME", help="module whose output is the embedding; final: the whole network")
    add("--crop", choices=("center", "multiview"), help="the center, or the mean over ten views")
    add("--channels", type=int, choices=(1, 3), help="1: gray, 3: color")
    add("--image-size", type=int, metavar="S", help="side of the square that the network sees, in pixels")
    add("--resize", type=int, metavar="R", help="shorter side before cropping (default: in proportion to S)")
    add("--interpolation", choices=("bicubic", "bilinear"), help="filter for resizing")
    add("--mean", type=float, nargs="+", metavar="M", help="subtracted from values in [0, 1], per channel")
    add("--std", type=float, nargs="+", metavar="D", help="divisor after that, per channel")
    add("--pooling", choices=("mean", "flatten"), help="mean over positions, or all of them in a row")
    add(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="argument of the network's class, such as img_size=84 for a transformer; may be repeated",
    )
    add("--dtype", choices=("float16", "float32"), default="float32", help="of the features")
    add("--batch-size", type=int, default=32, metavar="B", help="images per forward pass (default: 32)")
    add("--workers", type=int, metavar="W", help="threads that read images (default: one per core)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: a GPU if there is one")
    add(
        "--precision",
        choices=("float32", "bf16"),
        default="float32",
        help="bf16: faster on a GPU, three digits",
    )
    add(
        "--on-error",
        choices=("refuse", "skip"),
        default="refuse",
        help="what to do with damaged images, and files that are not images (default: refuse)",
    )
    add("--overwrite", action="store_true", help="replace features in DST, or start over with other settings")


def run(arguments: argparse.Namespace, console: "Console") -> "dict[str, FeatureBank]":
    """Extract features: see `leo_lightning.images.extraction.extract`."""
    from leo_lightning.images.backbones.weights import is_published, load_backbone, weights_name
    from leo_lightning.images.decode import quiet_pillow
    from leo_lightning.images.extraction.embedder import Embedder
    from leo_lightning.images.extraction.extract import extract
    from leo_lightning.images.extraction.shards import check_free, may_be_finished
    from leo_lightning.images.folder import OnBadFiles, find_splits, refuse_files, skip_files

    def note(line: str) -> None:
        console.print(f"note: {line}", markup=False, highlight=False, soft_wrap=True)

    quiet_pillow()
    if not may_be_finished(arguments.out):  # whether this command made them is known only when all is read
        check_free(arguments.out, arguments.overwrite)
    on_bad_files: OnBadFiles = partial(refuse_files, flag="--on-error")
    if arguments.on_error == "skip":
        on_bad_files = partial(skip_files, report=note)
    with console.status("looking for images ..."):
        splits = find_splits(arguments.images, on_bad_files)
    # downloads have bars of their own
    with nullcontext() if is_published(arguments.weights) else console.status("loading the backbone ..."):
        backbone = load_backbone(recipe_of(arguments), arguments.weights, note)
        embedder = Embedder(
            backbone, arguments.batch_size, arguments.workers, arguments.device, arguments.precision
        )
    console.print(f"images: {backbone.recipe.preparation}", markup=False, highlight=False, soft_wrap=True)
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
    """Return the weights' own recipe, changed by the flags."""
    from leo_lightning.images.backbones.weights import known_recipe

    known = known_recipe(arguments.backbone, arguments.weights)
    changes: dict[str, Any] = {
        name: getattr(arguments, name) for name in _FIELDS if getattr(arguments, name) is not None
    }
    for name in ("mean", "std"):
        if name in changes:
            changes[name] = tuple(changes[name])
    options = dict(_option(text) for text in arguments.option)
    return known.adapted(**changes, options=known.options | options)


def _option(text: str) -> tuple[str, Any]:
    """Split KEY=VALUE; a value that is not JSON is text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise InputError(f"--option {text}: write KEY=VALUE, such as img_size=84")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
