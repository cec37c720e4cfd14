"""Where a backbone's weights come from: a file, a training run, or what others have published.

A backbone's own file is safetensors: its weights and, in the header, its recipe. Features have the one that
made them beside them, so that new images get the same embeddings.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from leo_lightning.backbones.backbone import Backbone
from leo_lightning.backbones.recipe import Recipe
from leo_lightning.data.bank import listed
from leo_lightning.data.download import download
from leo_lightning.data.importers.torch_files import load_torch
from leo_lightning.errors import InputError, one_line, printable
from leo_lightning.learn2learn import learn2learn_module

FORMAT, FORMAT_VERSION = "leo-lightning backbone", "1"
BACKBONE_FILE = "backbone.safetensors"
PRETRAINED = "pretrained"
RUN_RECIPE = "recipe"
"""Name of the recipe among the hyperparameters of a checkpoint of pre-training."""
_LEARN2LEARN = {"wrn-28-10": "wrn28", "resnet-12": "resnet12", "conv-4": "cnn4"}
_PREFIXES = ("", "module.", "backbone.network.", "backbone.", "features.", "encoder.", "model.", "network.")
_INSIDE = ("state_dict", "model", "params")
# learn2learn's `lee2019` normalisation, in which it trained what it published
_LEE_MEAN = (120.39586422 / 255, 115.59361427 / 255, 104.54012653 / 255)
_LEE_STD = (70.68188272 / 255, 68.27635443 / 255, 72.54505529 / 255)


def known_recipe(name: str | None, weights: str) -> Recipe:
    """How images are to be prepared for these weights, as far as they say.

    Args:
        name: of the backbone; None if the weights' file has it.
        weights: see `load_backbone`.

    Raises:
        InputError: the file is not there, is damaged, or says nothing, and no name was given; or the name is
            another than the file's.
    """
    if weights.partition(":")[0] == PRETRAINED and not Path(weights).exists():
        if name is None:
            raise InputError(f"--weights {weights} needs --backbone NAME")
        return _published_recipe(name, weights)
    stored = _stored_recipe(Path(weights))
    if stored is None:
        if name is None:
            raise InputError(f"{weights}: does not say of which network it is; add --backbone NAME")
        return Recipe(name)
    if name not in (None, stored.backbone):
        raise InputError(
            f"{weights}: holds weights of {printable(stored.backbone)}, not of {name}; leave out --backbone"
        )
    return stored


def load_backbone(recipe: Recipe, weights: str) -> Backbone:
    """Build a backbone with its weights, ready to embed.

    Args:
        recipe: of the backbone.
        weights: `pretrained` for what timm has for its models, `pretrained:DATASET` for what learn2learn has
            for its own; or a file: a checkpoint of pre-training, what `save_backbone` wrote, or the network's
            state dict as torch or safetensors write it. Nothing in a file is executed.

    Raises:
        InputError: they cannot be had, or do not fit the network.
    """
    if weights.partition(":")[0] == PRETRAINED and not Path(weights).exists():
        return Backbone(recipe, _published(recipe, weights)).eval()
    backbone = Backbone(recipe)
    content = _read(Path(weights))
    needed = backbone.network.state_dict()
    for prefix in _PREFIXES:
        found = {
            name.removeprefix(prefix): value for name, value in content.items() if name.startswith(prefix)
        }
        if needed.keys() <= found.keys():
            break
    else:
        missing = [name for name in needed if name not in content]
        raise InputError(
            f"{weights}: lacks weights of {recipe.backbone} ({listed(missing, 3)}); is it of another network?"
        )
    for name, value in needed.items():
        if found[name].shape != value.shape:
            raise InputError(
                f"{weights}: {printable(name)!r} has shape {tuple(found[name].shape)}, {recipe.backbone} "
                f"needs {tuple(value.shape)}; is it of a network with other options?"
            )
    backbone.network.load_state_dict({name: found[name] for name in needed})
    return backbone.eval()


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write a backbone's own file.

    Raises:
        OSError: the disk does not take it.
    """
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "recipe": backbone.recipe.dumps()}
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in backbone.network.state_dict().items()
    }
    save_file(tensors, path, header)


def digest(backbone: Backbone) -> str:
    """SHA-256 of the weights, whatever file they came from."""
    total = hashlib.sha256()
    for name, value in sorted(backbone.network.state_dict().items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, by name."""
    content = _content(path)
    if isinstance(content, Mapping):
        for key in _INSIDE:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
        if content and all(isinstance(value, Tensor) for value in content.values()):
            return cast(dict[str, Tensor], dict(content))
    raise InputError(f"{path}: holds no state dict of a network; save network.state_dict()")


def _stored_recipe(path: Path) -> Recipe | None:
    """The recipe in a file of ours; None in another's."""
    if path.suffix == ".safetensors":
        header = _header(path)
        return Recipe.loads(header.get("recipe", ""), str(path)) if header.get("format") == FORMAT else None
    content = _content(path)
    settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if not isinstance(settings, Mapping) or RUN_RECIPE not in settings:
        return None
    return Recipe.of(settings[RUN_RECIPE], str(path))


def _content(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights; --weights takes one, or `pretrained`")
    if path.suffix != ".safetensors":
        return load_torch(path)
    _header(path)
    return load_file(path)


def _header(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights; --weights takes one, or `pretrained`")
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError:
        raise InputError(f"{path}: is no whole safetensors file; copy or make it again") from None


def _published_recipe(name: str, weights: str) -> Recipe:
    if name in _LEARN2LEARN:
        return Recipe(name, mean=_LEE_MEAN, std=_LEE_STD, image_size=84, resize=84)
    import timm.data  # takes seconds

    config = timm.data.resolve_model_data_config(_timm_config(name))
    channels, size, _ = config["input_size"]
    return Recipe(
        name, channels=channels, image_size=size, resize=max(size, int(size / config["crop_pct"])),
        mean=tuple(config["mean"]), std=tuple(config["std"]),
    )  # fmt: skip


def _timm_config(name: str) -> Any:
    import timm

    Backbone(Recipe(name))  # says what is wrong with the name
    return timm.create_model(name, pretrained=False, num_classes=0)


def _published(recipe: Recipe, weights: str) -> nn.Module:
    if recipe.backbone in _LEARN2LEARN:
        return _learn2learn(recipe, weights.partition(":")[2])
    import timm

    if weights != PRETRAINED:
        raise InputError(
            f"--weights {weights}: for a model of timm write `pretrained`; NAME.TAG chooses its weights"
        )
    try:
        return timm.create_model(
            recipe.backbone, pretrained=True, num_classes=0, in_chans=recipe.channels, **recipe.options
        )
    # hub, proxy, file system, hash, … each with exceptions of its own
    except Exception as error:
        raise InputError(
            f"{recipe.backbone}: its pretrained weights cannot be had ({one_line(error):.150}); check the "
            "network, or fetch them elsewhere and name the file with --weights"
        ) from None


def _learn2learn(recipe: Recipe, dataset: str) -> nn.Module:
    models = learn2learn_module("vision.models", "this backbone")
    model = _LEARN2LEARN[recipe.backbone]
    there = [name for name, urls in models._BACKBONE_URLS.items() if model in urls]
    if dataset not in there:
        raise InputError(
            f"learn2learn has weights of {recipe.backbone} for {' and '.join(there)}; write "
            f"--weights {PRETRAINED}:{there[0]}"
        )
    root = Path(torch.hub.get_dir()) / "learn2learn"
    path = root / "pretrained_models" / dataset / f"{model}.pth"
    download(models._BACKBONE_URLS[dataset][model]["default"], path)
    load_torch(path)  # refuses what is more than weights, or less
    theirs = models.get_pretrained_backbone(model, dataset, root=str(root))
    network = Backbone(recipe).network
    network.load_state_dict(theirs.state_dict())
    return network
