"""Where a backbone's weights come from: a file, a training run, or what others have published.

A backbone's own file is safetensors: its weights and, in the header, its recipe. Features have the one that
made them beside them, so that new images get the same embeddings.
"""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from leo_lightning.common.download import download
from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.common.learn2learn import learn2learn_module
from leo_lightning.common.torch_files import load_torch
from leo_lightning.data.bank import listed
from leo_lightning.data.feature_file import sort_header
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.networks import check_timm
from leo_lightning.images.backbones.recipe import BACKBONE_FILE, Recipe

FORMAT, FORMAT_VERSION = "leo-lightning backbone", "1"
PRETRAINED = "pretrained"
RUN_RECIPE = "recipe"
"""Name of the recipe among the hyperparameters of a checkpoint of pre-training."""
_LEARN2LEARN = {"wrn-28-10": "wrn28", "resnet-12": "resnet12", "conv-4": "cnn4"}
_PREFIXES = ("", "module.", "backbone.network.", "backbone.", "features.", "encoder.", "model.", "network.")
_INSIDE = ("state_dict", "model", "params")
_SMALL = ("cifar-fs", "fc100")  # 32 × 32 pixels, which learn2learn's benchmarks do not normalise
# learn2learn's normalisation `lee2019` for its other benchmarks
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
    if is_published(weights):
        if name is None:
            raise InputError(f"--weights {weights} needs --backbone NAME")
        return _published_recipe(name, weights)
    stored = _stored_recipe(Path(weights))
    if stored is None:
        _check_kind(Path(weights))
        if name is None:
            raise InputError(f"{weights}: does not say of which network it is; add --backbone NAME")
        return Recipe(name)
    if name not in (None, stored.backbone):
        raise InputError(
            f"{weights}: holds weights of {printable(stored.backbone)}, not of {name}; leave out --backbone"
        )
    return stored


def is_published(weights: str) -> bool:
    """Whether `--weights` asks for what others have published, and not for a file."""
    return weights.partition(":")[0] == PRETRAINED and not Path(weights).exists()


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
    if not is_published(weights):
        content = _read(Path(weights))
    elif recipe.backbone in _LEARN2LEARN:
        content = _learn2learn(recipe.backbone, weights.partition(":")[2])
    else:
        return Backbone(recipe, _timm(recipe, weights)).eval()
    return _filled(Backbone(recipe), content, weights).eval()


def read_backbone(path: Path) -> Backbone:
    """Build the backbone in a file that says of which network it is, ready to embed.

    Raises:
        InputError: there is no such file, it is damaged, or does not say that.
    """
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; name the {BACKBONE_FILE} beside the features of the training"
        )
    return load_backbone(known_recipe(None, str(path)), str(path))


def save_backbone(backbone: Backbone, path: Path) -> None:
    """Write a backbone's own file.

    Raises:
        OSError: the disk does not take it.
    """
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "recipe": backbone.recipe.dumps()}
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in backbone.network.state_dict().items()
    }
    path.touch()
    mode = path.stat().st_mode  # what the user's umask gives; safetensors lets only the owner read
    try:
        save_file(tensors, path, header)
        sort_header(path)
        path.chmod(mode)
    except SafetensorError as error:
        raise OSError(one_line(error)) from None


def weights_name(backbone: Backbone, weights: str) -> str:
    """What a record calls weights: who published them, or the file's name, never where it lies."""
    if not is_published(weights):
        return Path(weights).name
    if backbone.recipe.backbone in _LEARN2LEARN:
        return f"learn2learn {weights.partition(':')[2]}"
    config: Any = backbone.network.pretrained_cfg
    return f"timm {config['architecture']}.{config['tag']}"


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
        if header.get("format") != FORMAT:
            return None
        if header.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"{path}: has backbone format version {header.get('format_version')!r:.20}, and this release "
                f"reads version {FORMAT_VERSION!r}; make it again"
            )
        return Recipe.loads(header.get("recipe", ""), str(path))
    content = _content(path)
    settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if not isinstance(settings, Mapping) or RUN_RECIPE not in settings:
        return None
    return Recipe.of(settings[RUN_RECIPE], str(path))


def _check_kind(path: Path) -> None:
    """Refuse what this application writes and is no backbone."""
    if path.suffix == ".safetensors":
        if "class_names" in _header(path):
            raise InputError(f"{path}: holds features, and no network; name a file of weights")
        return
    content = _content(path)
    settings = content.get("hyper_parameters") if isinstance(content, Mapping) else None
    if isinstance(settings, Mapping) and "learner" in settings:
        raise InputError(
            f"{path}: holds a few-shot learner, and no network for images; name a checkpoint of pre-training"
        )


def _content(path: Path) -> Any:
    _check_file(path)
    if path.suffix != ".safetensors":
        return load_torch(path)
    _header(path)
    return load_file(path)


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; name a file of weights in it")
    if not path.is_file():
        raise InputError(f"{path}: no such file of weights; --weights takes one, or `pretrained`")


def _header(path: Path) -> dict[str, str]:
    _check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except SafetensorError:
        raise InputError(f"{path}: is no whole safetensors file; copy or make it again") from None


def _published_recipe(name: str, weights: str) -> Recipe:
    if name in _LEARN2LEARN:
        if weights.partition(":")[2] in _SMALL:
            return Recipe(name, image_size=32, resize=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        return Recipe(name, image_size=84, resize=84, mean=_LEE_MEAN, std=_LEE_STD)
    check_timm(name)
    import timm.data  # takes seconds
    import timm.models

    architecture, _, tag = name.partition(".")
    there = timm.list_pretrained(f"{architecture}.*") or timm.list_pretrained(architecture)
    if not there:
        raise InputError(f"timm has no pretrained weights of {name}; name a file with --weights")
    if tag and name not in there:
        raise InputError(f"timm has no weights {name}; it has {', '.join(there)}")
    published = timm.models.get_pretrained_cfg(name)
    assert published is not None
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


def _timm(recipe: Recipe, weights: str) -> nn.Module:
    import timm.models

    if weights != PRETRAINED:
        raise InputError(
            f"--weights {weights}: for a model of timm write `pretrained`; NAME.TAG chooses its weights"
        )
    timm.models.set_pretrained_check_hash(True)  # so that no file stays that was cut short
    hub = logging.getLogger("huggingface_hub")  # tells of each attempt
    level = hub.level
    hub.setLevel(logging.ERROR)
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
    finally:
        hub.setLevel(level)


def _learn2learn(backbone: str, dataset: str) -> dict[str, Tensor]:
    """What learn2learn has published; it lies where learn2learn would look for it."""
    urls = learn2learn_module("vision.models", "this backbone")._BACKBONE_URLS
    model = _LEARN2LEARN[backbone]
    there = [name for name, models in urls.items() if model in models]
    if dataset not in there:
        raise InputError(
            f"learn2learn has weights of {backbone} for {' and '.join(there)}; write "
            f"--weights {PRETRAINED}:{there[0]}"
        )
    url = urls[dataset][model]["default"]
    path = Path(torch.hub.get_dir()) / "learn2learn" / "pretrained_models" / dataset / f"{model}.pth"
    download(url, path)
    try:
        return _read(path)
    except InputError:
        path.unlink(missing_ok=True)
        raise InputError(
            f"{url}: the server sent something else than weights; try again later, or name a file with "
            "--weights"
        ) from None


def _filled(backbone: Backbone, content: Mapping[str, Tensor], source: str) -> Backbone:
    """Put weights into a backbone; what is in front of their names, and more than it has, does not matter."""
    name = backbone.recipe.backbone
    needed = backbone.network.state_dict()
    for prefix in _PREFIXES:
        found = {key.removeprefix(prefix): value for key, value in content.items() if key.startswith(prefix)}
        if needed.keys() <= found.keys():
            break
    else:
        missing = [key for key in needed if key not in content]
        raise InputError(
            f"{source}: lacks weights of {name} ({listed(missing, 3)}); is it of another network?"
        )
    for key, value in needed.items():
        if found[key].shape != value.shape:
            raise InputError(
                f"{source}: {key!r} has shape {tuple(found[key].shape)}, {name} needs "
                f"{tuple(value.shape)}; is it of a network with other options?"
            )
    backbone.network.load_state_dict({key: found[key] for key in needed})
    return backbone
