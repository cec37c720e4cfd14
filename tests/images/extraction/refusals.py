"""Bad input of `features extract`, for test_refusals.py."""

import importlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

from leo_lightning.common.learn2learn import learn2learn_module
from leo_lightning.data.splits import claim
from leo_lightning.images.backbones.networks import build_network
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from leo_lightning.images.backbones.weights import FORMAT, save_backbone
from tests.common.server import Behaviour, serve
from tests.images.backbones.networks import conv4
from tests.images.pictures import save, tree
from tests.refusals import HELD, Case, Hostile, World, data, disk_of, text

FLAGS = "features extract --images images --out out"
EXTRACT = f"{FLAGS} --weights {BACKBONE_FILE}"
PRETRAINED = f"{FLAGS} --weights pretrained"


def good(world: World) -> None:
    """Images and a backbone."""
    tree(world.folder / "images")
    save_backbone(conv4(), world.folder / BACKBONE_FILE)


def but(change: Callable[[World], object]) -> Callable[[World], object]:
    """Good input with a change."""

    def arrange(world: World) -> None:
        good(world)
        change(world)

    return arrange


def images(word: str, change: Callable[[World], object], *flags: str, keeps: str = "") -> Case:
    """Images that are refused."""
    return Case(" ".join([EXTRACT, *flags]), word, but(change), keeps=keeps)


def table(word: str, content: str | bytes) -> Case:
    """A table that is refused."""

    def arrange(world: World) -> None:
        save_backbone(conv4(), world.folder / BACKBONE_FILE)
        save(world.folder / "images" / "images" / "1.png")
        text("images/train.csv", content)(world)

    return Case(EXTRACT, f"images/train.csv{word}", arrange)


def flags(given: str, word: str) -> Case:
    """Flags that are refused, with a good backbone."""
    return Case(f"{EXTRACT} {given}", word, good)


def weights(word: str, content: object, name: str = "a.pt", given: str = "--backbone conv-4") -> Case:
    """A file of weights that is refused, or the function that makes its content; None: no file."""

    def write(world: World) -> None:
        if isinstance(content, bytes):
            (world.folder / name).write_bytes(content)
        elif content is not None:
            torch.save(content() if callable(content) else content, world.folder / name)

    return Case(f"{FLAGS} --weights {name} {given}", word, but(write))


def published(behaviour: Behaviour) -> Callable[[World], object]:
    """A server in place of learn2learn's."""

    def arrange(world: World) -> None:
        good(world)
        world.monkeypatch.setenv("no_proxy", "*")
        world.monkeypatch.setenv("TORCH_HOME", world.stack.enter_context(tempfile.TemporaryDirectory()))
        urls = learn2learn_module("vision.models", "a test")._BACKBONE_URLS["cifar-fs"]["cnn4"]
        world.monkeypatch.setitem(urls, "default", world.stack.enter_context(serve(behaviour)))

    return arrange


def no_hub(world: World) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no network")

    good(world)
    world.monkeypatch.setattr(importlib.import_module("timm"), "create_model", fail)


def full_memory(world: World) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    good(world)
    world.monkeypatch.setattr(torch, "inference_mode", fail)


def unfinished(world: World) -> None:
    """An extraction that has a shard and other settings."""
    good(world)
    folder = world.folder / "out" / ".extract"
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text('{"backbone": "conv-4", "layer": "0"}')
    (folder / "train-000000000.safetensors").touch()


def in_use(world: World) -> None:
    good(world)
    (world.folder / "out").mkdir()
    world.stack.enter_context(claim(world.folder / "out"))


def of_another_release(world: World) -> None:
    save_file({"a": torch.ones(1)}, world.folder / "b.safetensors", {"format": FORMAT, "format_version": "9"})


def without_recipe(world: World) -> None:
    save_file({"a": torch.ones(1)}, world.folder / "b.safetensors", {"format": FORMAT, "format_version": "1"})


def damage(*names: str) -> Callable[[World], object]:
    """Empty files in place of images."""
    return lambda world: [(world.folder / "images" / name).write_bytes(b"") for name in names]


def not_finite(scale: float) -> Callable[[World], object]:
    def arrange(world: World) -> None:
        tree(world.folder / "images")
        backbone = conv4(layer="0.normalize")
        network: Any = backbone.network
        with torch.no_grad():
            network[0].normalize.weight.mul_(scale)
        save_backbone(backbone, world.folder / BACKBONE_FILE)

    return arrange


EXTRACTION = {
    # images
    "no images": Case(
        EXTRACT,
        "no such folder of images",
        lambda world: save_backbone(conv4(), world.folder / BACKBONE_FILE),
    ),
    "no splits": images(
        "images/train: is not divided into train, val and test; divide its classes with `…images divide",
        lambda world: None,
        "--images images/train",
    ),
    "folders and tables": images(
        "images: must have either folders train, val, test", text("images/val.csv", "filename,label\n")
    ),
    "images without a class": images(
        "images/train: has no class folders",
        lambda world: [
            os.rename(world.folder / f"images/train/{name}", world.folder / f"images/train/.{name}")
            for name in ("cat", "dog")
        ],
    ),
    "class without images": images(
        "images/val/new: holds no images", lambda world: (world.folder / "images" / "val" / "new").mkdir()
    ),
    "files that are not images": images(
        "images/train: not images: 'b.zip', 'cat/a.txt'; remove them, or leave them out: --on-error skip",
        lambda world: [text(f"images/train/{name}", "a")(world) for name in ("cat/a.txt", "b.zip")],
    ),
    "class in two splits": images(
        "'cat' in both 'train' and 'val'",
        lambda world: save(world.folder / "images" / "val" / "cat" / "1.png"),
    ),
    "classes in two splits": images(
        "'cat', 'dog' in both 'train' and 'test'",
        lambda world: [save(world.folder / "images" / "test" / name / "1.png") for name in ("cat", "dog")],
    ),
    "damaged image": images(
        "images/val/owl/1.png: cannot be read as an image (…--on-error skip",
        damage("val/owl/1.png"),
        keeps="out",
    ),
    "image that may not be read": Case(
        EXTRACT,
        "images/val/owl/1.png: cannot be read as an image (Permission denied)",
        good,
        locked=("images/val/owl/1.png", 0),
        keeps="out",
    ),
    "image that is a line": images(
        "images/train/cat/0.png: has 2000 × 1 pixels",
        lambda world: save(world.folder / "images/train/cat/0.png", 0, 2000, 1),
    ),
    "images that are all black": images(
        "val: all 2 embeddings are equal",
        lambda world: [
            Image.new("L", (40, 40)).save(world.folder / f"images/val/owl/{row}.png") for row in range(2)
        ],
        keeps="out",
    ),
    "class of damaged images": images(
        "images/val: no image of class 'owl' can be read",
        damage("val/owl/0.png", "val/owl/1.png"),
        "--on-error skip",
        keeps="out",
    ),
    # tables
    "table of other columns": table(": has no column filename or", "a,b\n1,2\n"),
    "table of two labels": table(": has more than one column label or", "path,class,species\n1.png,a,b\n"),
    "table that is not text": table(": is not a table in UTF-8", b"filename,label\n\xff,a\n"),
    "empty table": table(": names no images", "filename,label\n"),
    "row without a label": table(", line 2: has no label", "filename,label\n1.png\n"),
    "row outside": table(", line 2: '../../a.png' is outside of images", "filename,label\n../../a.png,a\n"),
    "row twice": table(", line 3: '1.png' comes twice", "filename,label\n1.png,a\n1.png,a\n"),
    "table of other images": table(
        ": none of its images exists, such as images/images/2.png", "filename,label\n2.png,a\n"
    ),
    "rows without files": table(
        ": missing: 'images/2.png', 'images/3.png'; add them, or remove their lines, or leave them out",
        "filename,label\n1.png,a\n2.png,a\n3.png,a\n",
    ),
    # the backbone
    "pretrained, but which network": Case(PRETRAINED, "add --backbone NAME", good),
    "weights of an unknown network": weights(
        "a.pt: does not say which network it belongs to", {"a": torch.ones(1)}, given=""
    ),
    "weights of another network than said": flags(
        "--backbone resnet-12", f"{BACKBONE_FILE}: holds weights of conv-4, not of resnet-12"
    ),
    "no such backbone": weights(
        "there is no backbone 'conv4'; did you mean conv-4?",
        {"a": torch.ones(1)},
        given="--backbone conv4",
    ),
    "no such tag": weights(
        "backbone resnet18.mine: Invalid pretrained tag",
        {"a": torch.ones(1)},
        given="--backbone resnet18.mine",
    ),
    "option that the network does not take": flags(
        "--option depth=3", "backbone conv-4 cannot be built with"
    ),
    "option without a value": flags("--option depth", "--option depth: write KEY=VALUE"),
    "no such layer": flags("--layer layer3", "backbone conv-4 has no layer 'layer3'; it has 'final', '0'"),
    "layer without vectors": weights(
        "layer 'blocks.0.attn.attn_drop' of backbone test_vit does not return maps",
        lambda: build_network("test_vit", 3, {}).state_dict(),
        given="--backbone test_vit --layer blocks.0.attn.attn_drop --image-size 160",
    ),
    "images too small for the network": flags("--image-size 8", "does not take images of 8 × 8 pixels"),
    "no pixels": flags("--image-size 0", "image_size is 0"),
    "resized to less than the crop": flags("--resize 20", "resize is 20: it must be at least 28"),
    "mean of one channel": flags("--mean 0.5", "mean has 1 numbers for 3 channels"),
    "deviation of nothing": flags("--std 1 0 1", "std is [1.0, 0.0, 1.0]"),
    "ten equal views": flags("--crop multiview --resize 28", "all ten views would be the same"),
    # weights
    "no such file of weights": weights("a.pt: No such file", None),
    "no such safetensors": weights("b.safetensors: cannot be read (No such file", None, "b.safetensors"),
    "weights that are a folder": Case(
        f"{FLAGS} --weights a --backbone conv-4",
        "a: Is a directory",
        but(lambda world: (world.folder / "a").mkdir()),
    ),
    "features in place of weights": Case(
        f"{FLAGS} --weights data/test.safetensors --backbone conv-4",
        "data/test.safetensors: does not fit conv-4",
        but(lambda world: data(world)),
    ),
    "weights that are cut short": weights("a.pt: is n", b"PK"),
    "weights with code": weights("a.pt: holds posix.mkdir", {"a": Hostile()}),
    "not weights": weights("a.pt: does not hold the state dict of a network", {"epoch": 3}),
    "weights of another network": weights("a.pt: does not fit conv-4", {"fc.weight": torch.ones(1)}),
    "weights of a wider network": weights(
        "a.pt: does not fit conv-4…has the shape (8,), not (64,)", lambda: conv4().network.state_dict()
    ),
    "a section that a file lacks": weights(
        "a.pt: has no weights of conv-4 in 'ema'; it has 'model'",
        {"model": {"fc.weight": torch.ones(1)}},
        given="--weights a.pt:ema --backbone conv-4",
    ),
    "damaged safetensors": weights("b.safetensors: cannot be read (", b"x", "b.safetensors"),
    "backbone of a later release": Case(
        f"{FLAGS} --weights b.safetensors",
        "has backbone format version '9', but this release reads version '1'",
        but(of_another_release),
    ),
    "backbone without a recipe": Case(
        f"{FLAGS} --weights b.safetensors",
        "does not say how images become embeddings",
        but(without_recipe),
    ),
    "learn2learn has others": Case(
        f"{PRETRAINED}:omniglot --backbone conv-4",
        "learn2learn has weights of conv-4 for cifar-fs and fc100",
        good,
    ),
    "learn2learn's file is gone": Case(
        f"{PRETRAINED}:cifar-fs --backbone conv-4",
        "//127.0.0.1",
        published(Behaviour(status=404)),
    ),
    "learn2learn's file is cut": Case(
        f"{PRETRAINED}:cifar-fs --backbone conv-4",
        "//127.0.0.1",
        published(Behaviour(cut_after=5000)),
    ),
    "learn2learn's file is a page": Case(
        f"{PRETRAINED}:cifar-fs --backbone conv-4",
        "the server sent a web page, not a file",
        published(Behaviour(b"<html>")),
    ),
    "timm has none": Case(
        f"{PRETRAINED} --backbone test_vit4",
        "timm has no pretrained weights of test_vit4; did you mean test_vit",
        good,
    ),
    "timm has others": Case(
        f"{PRETRAINED} --backbone test_vit.mine",
        "timm has no weights test_vit.mine; it has test_vit.r160_in1k",
        good,
    ),
    "timm's weights of a data set": Case(
        f"{PRETRAINED}:mini-imagenet --backbone test_vit", "for a timm model write `pretrained`", good
    ),
    "timm's weights without a network": Case(
        f"{PRETRAINED} --backbone test_vit", "cannot get its pretrained weights (no network)", no_hub
    ),
    # settings
    "no flags": Case("features extract", "the following arguments are required"),
    "no such crop": flags("--crop corner", "argument --crop: invalid choice: 'corner'"),
    "word for a batch": flags("--batch-size many", "argument --batch-size: invalid int value: 'many'"),
    "empty batch": flags("--batch-size 0", "batch_size is 0: it must be at least 1"),
    "no GPU": Case(
        f"{EXTRACT} --device cuda",
        "device is cuda, but torch finds no GPU",
        but(lambda world: world.monkeypatch.setattr(torch.cuda, "is_available", lambda: False)),
    ),
    "full memory": Case(EXTRACT, "cpu is out of memory", full_memory),
    "too large for half precision": Case(
        f"{EXTRACT} --dtype float16",
        "its embedding is not finite; use --dtype float32",
        not_finite(1e6),
    ),
    "weights that are not finite": Case(
        EXTRACT,
        "its embedding is not finite; the weights may be damaged",
        not_finite(float("nan")),
    ),
    # the destination
    "extraction into features": Case(
        EXTRACT.replace("out out", "out data"), HELD, lambda world: [good(world), data(world)]
    ),
    "extraction beside a backbone": Case(
        EXTRACT.replace("out out", "out ."), f"already holds {BACKBONE_FILE}", good
    ),
    "extraction into a file": Case(EXTRACT.replace("out out", f"out {BACKBONE_FILE}"), "is a file", good),
    "extraction below a file": Case(
        EXTRACT.replace("out out", f"out {BACKBONE_FILE}/a"), "Not a directory", good
    ),
    "other settings": Case(
        EXTRACT,
        "holds an unfinished extraction with other settings (…); use the same settings",
        unfinished,
        keeps="out",
    ),
    "two extractions": Case(
        EXTRACT,
        "another import or extraction is at work here",
        in_use,
        keeps="out",
    ),
    "no room for anything": Case(EXTRACT, "out/.extract/", disk_of(100, good)),
    "no room for the backbone": Case(EXTRACT, "out/.extract/", disk_of(4000, good)),
}
