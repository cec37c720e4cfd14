"""What `features extract` refuses, for test_refusals.py and docs/errors.md."""

import fcntl
import importlib
import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from safetensors.torch import save_file

from leo_lightning.common.learn2learn import learn2learn_module
from leo_lightning.images.backbones.networks import build_network
from leo_lightning.images.backbones.recipe import BACKBONE_FILE
from leo_lightning.images.backbones.weights import FORMAT, save_backbone
from tests.common.test_download import Behaviour, serve
from tests.images.backbones.networks import conv4
from tests.images.pictures import save, tree
from tests.refusals import HELD, Case, Hostile, World, data, disk_of, text

FLAGS = "features extract --images images --out out"
EXTRACT = f"{FLAGS} --weights {BACKBONE_FILE}"
PRETRAINED = f"{FLAGS} --weights pretrained"
HELP = "see python -m leo_lightning features extract --help"
SKIP = "remove them, or leave them out: --on-error skip"
LEAVE = "leave it out: --on-error skip"
COPY = f"remove it, or put a good copy there, or {LEAVE}"
ENDINGS = ".bmp, .gif, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp"
RENAME = "splits may not share classes, so give different classes different names"
ANOTHER = "name another folder, or give it up with --overwrite"
ELSEWHERE = "try again later, or name a file with --weights"
WHOLE = "make room or mend the permissions. What was there before is intact"


def good(world: World) -> None:
    """Images and a backbone."""
    tree(world.folder / "images")
    save_backbone(conv4(), world.folder / BACKBONE_FILE)


def but(change: Callable[[World], object]) -> Callable[[World], object]:
    """The same, changed."""

    def arrange(world: World) -> None:
        good(world)
        change(world)

    return arrange


def images(line: str, change: Callable[[World], object], *flags: str, keeps: str = "") -> Case:
    """Images that are refused."""
    return Case(" ".join([EXTRACT, *flags]), line, but(change), keeps=keeps)


def table(line: str, content: str | bytes) -> Case:
    """A table that is refused."""

    def arrange(world: World) -> None:
        save_backbone(conv4(), world.folder / BACKBONE_FILE)
        save(world.folder / "images" / "images" / "1.png")
        text("images/train.csv", content)(world)

    return Case(EXTRACT, "images/train.csv", arrange)


def flags(given: str, line: str) -> Case:
    """Flags that are refused, with a good backbone."""
    return Case(f"{EXTRACT} {given}", line, good)


def weights(line: str, content: object, name: str = "a.pt", given: str = "--backbone conv-4") -> Case:
    """A file of weights that is refused, or what makes them; None: there is none."""

    def write(world: World) -> None:
        if isinstance(content, bytes):
            (world.folder / name).write_bytes(content)
        elif content is not None:
            torch.save(content() if callable(content) else content, world.folder / name)

    return Case(f"{FLAGS} --weights {name} {given}", line, but(write))


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
    (world.folder / "out" / ".extract").mkdir(parents=True)
    lock = world.stack.enter_context((world.folder / "out" / ".extract" / "lock").open("w"))
    fcntl.flock(lock, fcntl.LOCK_EX)


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
        "images/train: has neither folders train, val, test nor tables train.csv, val.csv, test.csv; move "
        "the folders of the classes into these",
        lambda world: None,
        "--images images/train",
    ),
    "folders and tables": images(
        "images: has tables ('val') and folders ('train', 'val', 'test') of splits; keep the one or the "
        "other",
        text("images/val.csv", "filename,label\n"),
    ),
    "images without a class": images(
        "images/train: has no folders; put the images of each class into a folder of its name",
        lambda world: [
            os.rename(world.folder / f"images/train/{name}", world.folder / f"images/train/.{name}")
            for name in ("cat", "dog")
        ],
    ),
    "class without images": images(
        f"images/val/new: holds no images ({ENDINGS}); remove the folder",
        lambda world: (world.folder / "images" / "val" / "new").mkdir(),
    ),
    "file that is no image": images(
        f"images/train: not images: 'cat/a.txt'; {SKIP}", text("images/train/cat/a.txt", "a")
    ),
    "files that are no images": images(
        f"images/train: not images: 'b.zip', 'cat/a.txt'; {SKIP}",
        lambda world: [text(f"images/train/{name}", "a")(world) for name in ("cat/a.txt", "b.zip")],
    ),
    "class in two splits": images(
        f"images/val: class 'cat' in both 'train' and 'val'; {RENAME}",
        lambda world: save(world.folder / "images" / "val" / "cat" / "1.png"),
    ),
    "classes in two splits": images(
        f"images/test: classes 'cat', 'dog' in both 'train' and 'test'; {RENAME}",
        lambda world: [save(world.folder / "images" / "test" / name / "1.png") for name in ("cat", "dog")],
    ),
    "damaged image": images(
        f"images/val/owl/1.png: is no whole image (…); {COPY}", damage("val/owl/1.png"), keeps="out"
    ),
    "image that may not be read": Case(
        EXTRACT,
        "cannot be read",
        good,
        locked=("images/val/owl/1.png", 0),
        keeps="out",
    ),
    "image that is a line": images(
        "images/train/cat/0.png: has 2000 × 1 pixels, as a line has; remove it, or cut it to size, or "
        f"{LEAVE}",
        lambda world: save(world.folder / "images/train/cat/0.png", 0, 2000, 1),
    ),
    "class of damaged images": images(
        "images/val: no image of class 'owl' can be read; remove the class",
        damage("val/owl/0.png", "val/owl/1.png"),
        "--on-error skip",
        keeps="out",
    ),
    # tables
    "table of other columns": table(": has no column 'filename'; the first line is filename,label", "a,b\n"),
    "table that is no text": table(": is no table in UTF-8; save it as CSV", b"filename,label\n\xff,a\n"),
    "table of nothing": table(": names no images; a line is FILENAME,LABEL", "filename,label\n"),
    "row without a label": table(", line 2: lacks a label; mend it", "filename,label\n1.png\n"),
    "row outside": table(
        ", line 2: '../../a.png' lies outside of images; mend the table",
        "filename,label\n../../a.png,a\n",
    ),
    "row twice": table(
        ", line 3: '1.png' for the second time; mend the table", "filename,label\n1.png,a\n1.png,a\n"
    ),
    "row without a file": table(f": not there: 'images/2.png'; {SKIP}", "filename,label\n1.png,a\n2.png,a\n"),
    "rows without files": table(
        f": not there: 'images/2.png', 'images/3.png'; {SKIP}",
        "filename,label\n1.png,a\n2.png,a\n3.png,a\n",
    ),
    # the backbone
    "pretrained what": Case(PRETRAINED, "--weights pretrained", good),
    "weights of an unknown network": weights(
        "a.pt: does not say of which network it is; add --backbone NAME", {"a": torch.ones(1)}, given=""
    ),
    "weights of another network than said": flags(
        "--backbone resnet-12",
        f"{BACKBONE_FILE}: holds weights of conv-4, not of resnet-12; leave out --backbone",
    ),
    "no such backbone": weights(
        "there is no backbone 'conv4'; take conv-4, or another model of timm",
        {"a": torch.ones(1)},
        given="--backbone conv4",
    ),
    "option that the network does not take": flags(
        "--option depth=3",
        "backbone conv-4 cannot be built with hidden_size = 8, depth = 3: …",
    ),
    "option without a value": flags("--option depth", "--option depth: write KEY=VALUE, such as img_size=84"),
    "no such layer": flags("--layer layer3", "backbone conv-4 has no layer 'layer3'; it has 'final', '0', …"),
    "layer that gives nothing": weights(
        "layer 'blocks.0.attn.attn_drop' of backbone test_vit gives no maps, tokens or vectors; choose "
        "another",
        lambda: build_network("test_vit", 3, {}).state_dict(),
        given="--backbone test_vit --layer blocks.0.attn.attn_drop --image-size 160",
    ),
    "images too small for the network": flags(
        "--image-size 8", "backbone conv-4 takes no images of 8 × 8 pixels (…); choose another image size"
    ),
    "no pixels": flags("--image-size 0", "image_size is 0: it must be at least 1"),
    "resized to less than is cut out": flags("--resize 20", "resize is 20: it must be at least 28"),
    "mean of one channel": flags("--mean 0.5", "mean has 1 numbers for 3 channels; give one for each"),
    "deviation of nothing": flags("--std 1 0 1", "std is [1.0, 0.0, 1.0]: each must be above 0"),
    "ten times the same view": flags(
        "--crop multiview --resize 28",
        "resize is 28, as image_size: the ten views would coincide; raise resize, to 32 for example",
    ),
    # weights
    "no such file of weights": weights(
        "a.pt: no such file of weights; --weights takes one, or `pretrained`", None
    ),
    "weights that are a folder": Case(
        f"{FLAGS} --weights a --backbone conv-4",
        "is a folder",
        but(lambda world: (world.folder / "a").mkdir()),
    ),
    "weights of a learner": weights(
        "a.pt: holds a few-shot learner, and no network for images; name a checkpoint of pre-training",
        {"hyper_parameters": {"learner": {}}, "state_dict": {}},
    ),
    "features in place of weights": Case(
        f"{FLAGS} --weights data/test.safetensors",
        "holds features, and no network",
        but(lambda world: data(world)),
    ),
    "weights that are cut short": weights(
        "a.pt: is no whole file of torch (…); copy or save it again", b"PK"
    ),
    "weights with code": weights(
        "a.pt: holds posix.mkdir, which would need code to be run; save weights and plain values only",
        {"a": Hostile()},
    ),
    "weights that are none": weights(
        "a.pt: holds no state dict of a network; save network.state_dict()", {"epoch": 3}
    ),
    "weights of another network": weights(
        "a.pt: lacks weights of conv-4 ('0.normalize.weight', '0.normalize.bias', …); is it of another "
        "network?",
        {"fc.weight": torch.ones(1)},
    ),
    "weights of a wider network": weights(
        "a.pt: '0.normalize.weight' has shape (8,), conv-4 needs (64,); is it of a network with other "
        "options?",
        lambda: conv4().network.state_dict(),
    ),
    "damaged safetensors": weights(
        "b.safetensors: is no whole safetensors file; copy or make it again", b"x", "b.safetensors"
    ),
    "backbone of a later release": Case(
        f"{FLAGS} --weights b.safetensors",
        "has backbone format version '9', and this release reads version '1'",
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
    "learn2learn's file is none": Case(
        f"{PRETRAINED}:cifar-fs --backbone conv-4",
        "//127.0.0.1",
        published(Behaviour(b"<html>")),
    ),
    "timm has none": Case(
        f"{PRETRAINED} --backbone test_vit4",
        "timm has no pretrained weights of test_vit4",
        good,
    ),
    "timm has others": Case(
        f"{PRETRAINED} --backbone test_vit.mine",
        "timm has no weights test_vit.mine",
        good,
    ),
    "timm's weights of a data set": Case(
        f"{PRETRAINED}:mini-imagenet --backbone test_vit",
        "--weights pretrained",
        good,
    ),
    "timm's weights without a network": Case(
        f"{PRETRAINED} --backbone test_vit",
        "its pretrained weights cannot be had",
        no_hub,
    ),
    # settings
    "nothing said": Case("features extract", "the following arguments are required"),
    "no such crop": flags(
        "--crop corner", f"argument --crop: invalid choice: 'corner' (choose from …); {HELP}"
    ),
    "word for a batch": flags(
        "--batch-size many", f"argument --batch-size: invalid int value: 'many'; {HELP}"
    ),
    "word for a mean": flags("--mean grey", f"argument --mean: invalid float value: 'grey'; {HELP}"),
    "flag without a value": flags("--layer", f"argument --layer: expected one argument; {HELP}"),
    "batch of none": flags("--batch-size 0", "batch_size is 0: it must be at least 1"),
    "no GPU": Case(
        f"{EXTRACT} --device cuda",
        "device is cuda, and there is no GPU that torch can use",
        but(lambda world: world.monkeypatch.setattr(torch.cuda, "is_available", lambda: False)),
    ),
    "full memory": Case(EXTRACT, "the memory of cpu is full", full_memory),
    "too large for half precision": Case(
        f"{EXTRACT} --dtype float16",
        "its embedding is not finite",
        not_finite(1e6),
    ),
    "weights that are not finite": Case(
        EXTRACT,
        "its embedding is not finite",
        not_finite(float("nan")),
    ),
    # the destination
    "extraction into features": Case(
        EXTRACT.replace("out out", "out data"), HELD, lambda world: [good(world), data(world)]
    ),
    "extraction beside a backbone": Case(
        EXTRACT.replace("out out", "out ."),
        "already holds",
        good,
    ),
    "extraction into a file": Case(
        EXTRACT.replace("out out", f"out {BACKBONE_FILE}"),
        "is a file",
        good,
    ),
    "extraction below a file": Case(
        EXTRACT.replace("out out", f"out {BACKBONE_FILE}/a"),
        "cannot be written",
        good,
    ),
    "other settings": Case(
        EXTRACT,
        "holds an unfinished extraction with other settings",
        unfinished,
        keeps="out",
    ),
    "two extractions": Case(
        EXTRACT,
        "another extraction is at work here",
        in_use,
        keeps="out",
    ),
    "no room for anything": Case(
        EXTRACT,
        "cannot be written",
        disk_of(100, good),
    ),
    "no room for the backbone": Case(EXTRACT, "out/.extract/", disk_of(4000, good)),
}
