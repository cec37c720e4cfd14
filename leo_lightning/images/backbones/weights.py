"""Sources of a backbone's weights: a file, a pre-training run, or what others have published.

A backbone's own file is safetensors: its weights and, in the header, its recipe. It is written beside the
features that it made, so that new images get the same embeddings.
"""

import hashlib
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from leo_lightning.common.download import download
from leo_lightning.common.errors import InputError, nearest, one_line, printable
from leo_lightning.common.learn2learn import learn2learn_module
from leo_lightning.common.torch_files import load_torch
from leo_lightning.common.web_page import refuse_page
from leo_lightning.common.zenodo import zenodo_md5
from leo_lightning.data.feature_file import sort_header
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.recipe import BACKBONE_FILE, Recipe
from leo_lightning.images.backbones.state_dicts import Sections, fitting, sections

FORMAT, FORMAT_VERSION = "leo-lightning backbone", "1"
RUN_RECIPE = "recipe"
"""Name of the recipe among the hyperparameters of a pre-training checkpoint."""
_PRETRAINED = "pretrained"
_LEARN2LEARN = {"wrn-28-10": "wrn28", "resnet-12": "resnet12", "conv-4": "cnn4"}
_SMALL = ("cifar-fs", "fc100")  # 32 × 32 pixels, which learn2learn's benchmarks do not normalize
# learn2learn's normalization `lee2019`, for its other benchmarks
_LEE_MEAN = (120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255)
_LEE_STD = (70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255)


def is_published(weights: str) -> bool:
    """Tell whether `--weights` asks for published weights, not for a file."""
    return weights.partition(":")[0] == _PRETRAINED and not Path(weights).exists()


def known_recipe(name: str | None, weights: str) -> Recipe:
    """Return the recipe that comes with weights (see `load_backbone`), or else with their network.

    Raises:
        InputError: the weights do not say which network they belong to, or name another one.
    """
    published = is_published(weights)
    recipe = None if published else _read(_located(weights)[0])[0]
    if recipe is None:
        if name is None:
            raise InputError(f"{weights}: does not say which network it belongs to; add --backbone NAME")
        if published:
            return _published_recipe(name, weights)
        return Recipe(name) if name in _LEARN2LEARN else _timm_recipe(name)
    if name not in (None, recipe.backbone):
        raise InputError(
            f"{weights}: holds weights of {printable(recipe.backbone)}, not of {name}; leave out --backbone"
        )
    return recipe


def print_note(line: str) -> None:
    """Print a line that the user should read."""
    print(f"note: {line}", file=sys.stderr)


def load_backbone(recipe: Recipe, weights: str, report: Callable[[str], None] = print_note) -> Backbone:
    """Build a backbone with its weights, ready to embed.

    Args:
        recipe: of the backbone.
        weights: `pretrained` for a timm model's weights, `pretrained:DATASET` for learn2learn's; or a file: a
            pre-training checkpoint, what `save_backbone` wrote, or the network's state dict as torch or
            safetensors write it; `FILE:SECTION` for one section of it. Nothing in a file is executed.
        report: prints a line about a choice among the weights in a file.

    Raises:
        InputError: they are not available, or do not fit the network.
    """
    place = ""
    if not is_published(weights):
        path, place = _located(weights)
        _, found = _read(path)
    elif recipe.backbone in _LEARN2LEARN:
        found = _learn2learn_weights(recipe.backbone, weights.partition(":")[2])
    else:
        return Backbone(recipe, _timm_network(recipe)).eval()
    backbone = Backbone(recipe)
    source = weights.removesuffix(f":{place}") if place else weights
    tensors, note = fitting(backbone.network.state_dict(), found, place, source, recipe.backbone)
    backbone.network.load_state_dict(tensors)
    if note:
        report(note)
    return backbone.eval()


def read_backbone(path: Path) -> Backbone:
    """Build the backbone in a file that holds its recipe, ready to embed.

    Raises:
        InputError: there is no such file, it is damaged, or it holds no recipe.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; name the {BACKBONE_FILE} beside the training's features")
    return load_backbone(known_recipe(None, str(path)), str(path))


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write a backbone's own file; a full disk raises an OSError."""
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "recipe": backbone.recipe.dumps()}
    weights = backbone.network.state_dict()
    path.write_bytes(save({name: value.cpu().contiguous() for name, value in weights.items()}, header))
    sort_header(path)


def weights_name(backbone: Backbone, weights: str) -> str:
    """Return the name of weights for the record: their publisher's, or the file name without its folder."""
    if not is_published(weights):
        return Path(weights).name
    if backbone.recipe.backbone in _LEARN2LEARN:
        return f"learn2learn {weights.partition(':')[2]}"
    config: Any = backbone.network.pretrained_cfg
    return f"timm {config['architecture']}.{config['tag']}"


def digest(backbone: Backbone) -> str:
    """Return the SHA-256 of the weights, whatever file they came from."""
    total = hashlib.sha256()
    for name, value in sorted(backbone.network.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def run_recipe(checkpoint: object, source: str) -> Recipe | None:
    """Return the recipe in a pre-training checkpoint, None in another file; messages begin with `source`."""
    settings = checkpoint.get("hyper_parameters") if isinstance(checkpoint, Mapping) else None
    if not isinstance(settings, Mapping) or RUN_RECIPE not in settings:
        return None
    return Recipe.of(settings[RUN_RECIPE], source)


def _located(weights: str) -> tuple[Path, str]:
    """Split FILE:SECTION; a file may have a colon in its name."""
    name, _, section = weights.rpartition(":")
    return (
        (Path(name), section)
        if name and not Path(weights).exists() and Path(name).exists()
        else (Path(weights), "")
    )


def _read(path: Path) -> tuple[Recipe | None, Sections]:
    """Return the recipe in a file, if it has one, and its tensors."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
            return _header_recipe(header, path), sections(load_file(path))
        except (SafetensorError, OSError) as error:
            refuse_page(path, str(path))
            raise InputError(f"{path}: cannot be read ({one_line(error)}); name another file") from None
    content = load_torch(path)
    recipe = run_recipe(content, str(path))
    if isinstance(content, Mapping) and (found := sections(content)):
        return recipe, found
    raise InputError(f"{path}: does not hold the state dict of a network; save network.state_dict()")


def _header_recipe(header: Mapping[str, str], path: Path) -> Recipe | None:
    if header.get("format") != FORMAT:
        return None
    if (version := header.get("format_version")) != FORMAT_VERSION:
        raise InputError(
            f"{path}: has backbone format version {version!r:.20}, but this release reads version "
            f"{FORMAT_VERSION!r}; make it again"
        )
    return Recipe.loads(header.get("recipe", ""), str(path))


def _published_recipe(name: str, weights: str) -> Recipe:
    if name in _LEARN2LEARN:
        if weights.partition(":")[2] in _SMALL:
            return Recipe(name, image_size=32, resize=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        return Recipe(name, image_size=84, resize=84, mean=_LEE_MEAN, std=_LEE_STD)
    if weights != _PRETRAINED:
        raise InputError(f"--weights {weights}: for a timm model write `pretrained`, and --backbone NAME.TAG")
    import timm  # takes seconds

    architecture, _, tag = name.partition(".")
    tags: dict[str, list[str]] = {}
    for model in timm.list_pretrained():
        tags.setdefault(model.partition(".")[0], []).append(model)
    if architecture not in tags:
        advice = nearest(architecture, tags, "name a file with --weights")
        raise InputError(f"timm has no pretrained weights of {name}{advice}")
    if tag and name not in tags[architecture]:
        raise InputError(f"timm has no weights {name}; it has {', '.join(tags[architecture])}")
    return _timm_recipe(name)


def _timm_recipe(name: str) -> Recipe:
    """Return the preparation of images that timm has for one of its models."""
    import timm.data  # takes seconds
    import timm.models

    try:
        published = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:  # no such tag
        raise InputError(f"backbone {name}: {one_line(error)}") from None
    if published is None:
        return Recipe(name)  # `build_network` says that there is no such network
    config = timm.data.resolve_data_config(pretrained_cfg=published.to_dict())
    channels, size, _ = config["input_size"]
    return Recipe(
        name,
        channels=channels,
        image_size=size,
        resize=max(size, int(size / config["crop_pct"])),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _timm_network(recipe: Recipe) -> nn.Module:
    import timm.models

    timm.models.set_pretrained_check_hash(True)  # a download that was cut short is not kept
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it reports every attempt
    try:
        return timm.create_model(
            recipe.backbone, pretrained=True, num_classes=0, in_chans=recipe.channels, **recipe.options
        )
    except Exception as error:  # hub, proxy, file system, hash, …, each with exceptions of its own
        raise InputError(
            f"{recipe.backbone}: cannot get its pretrained weights ({one_line(error):.150}); check the "
            "network, or download them elsewhere and name the file with --weights"
        ) from None


def _learn2learn_weights(backbone: str, dataset: str) -> Sections:
    """Return the weights that learn2learn has published; they are cached where learn2learn looks for them."""
    urls = learn2learn_module("vision.models", "this backbone")._BACKBONE_URLS
    model = _LEARN2LEARN[backbone]
    available = [name for name, models in urls.items() if model in models]
    if dataset not in available:
        raise InputError(
            f"learn2learn has weights of {backbone} for {' and '.join(available)}; write "
            f"--weights {_PRETRAINED}:{available[0]}"
        )
    url = urls[dataset][model]["default"]
    path = Path(torch.hub.get_dir()) / "learn2learn" / "pretrained_models" / dataset / f"{model}.pth"
    download(url, path, md5=None if path.is_file() else zenodo_md5(url), fault=_fault)
    return _read(path)[1]


def _fault(path: Path) -> str | None:
    """Return why a downloaded file cannot be used."""
    try:
        _read(path)
    except InputError:
        return "it holds no weights"
