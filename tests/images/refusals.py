"""What `python -m leo_lightning.images` refuses, for test_refusals.py and docs/errors.md."""

import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from leo_lightning.images.sources import cifar100, mini_imagenet, omniglot
from tests.common.test_download import Behaviour, serve_site
from tests.data.importers.test_pickles import Call
from tests.images import sources
from tests.refusals import Case, World, text

MANUAL = "see python -m leo_lightning.images --help"
NPZ = "images import a.npz out --val a"
OMNIGLOT, CIFAR, FC100, MINI, TIERED = (
    f"images import --dataset {name} src out"
    for name in ("omniglot", "cifar-fs", "fc100", "mini-imagenet", "tiered-imagenet")
)
ARCHIVE, BACKGROUND = "src/cifar-100-python.tar.gz", "src/images_background.zip"
TEST = "src/mini-imagenet-cache-test.pkl"
AGAIN = "copy or download it again"
THERE = "there are a, b"
OUTSIDE = "which would lie outside of the archive's folder; do not use this archive"
CALLS = "refused to load a pickle that calls '…system'; only arrays and plain containers are accepted"


def npz(**changes: Any) -> Callable[[World], object]:
    """`a.npz`, good but for some arrays; None takes one away."""
    arrays = {
        "images": np.zeros((3, 4, 4), np.uint8),
        "labels": np.array([0, 1, 1]),
        "names": np.array(["a", "b/c"]),
    } | changes
    return lambda world: np.savez(
        world.folder / "a.npz", **{name: array for name, array in arrays.items() if array is not None}
    )


def drawings(members: dict[str, bytes], keep: bool = True) -> Callable[[World], object]:
    """Omniglot with other members in the background archive."""

    def arrange(world: World) -> None:
        src = sources.omniglot(world.folder / "src")
        good = sources.drawings("images_background", sources.BACKGROUND) if keep else {}
        sources.write_zip(src / "images_background.zip", good | members)
        sources.publish(src, world.monkeypatch)

    return arrange


def cifar(*more: tarfile.TarInfo, without: str = "", **changes: bytes) -> Callable[[World], object]:
    """CIFAR-100 with other members."""

    def arrange(world: World) -> None:
        (world.folder / "src").mkdir()
        members = sources.cifar_members(**changes)
        members.pop(without, None)
        sources.write_tar(world.folder / ARCHIVE, members, *more)
        sources.publish(world.folder / "src", world.monkeypatch)

    return arrange


def part(**entries: Any) -> bytes:
    """CIFAR-100's training part with other entries."""
    return sources.python2_pickle(sources.cifar_part("train") | entries)


def damaged_archive(world: World) -> None:
    drawings({})(world)
    data = (world.folder / BACKGROUND).read_bytes()
    (world.folder / BACKGROUND).write_bytes(data[: len(data) // 2])
    sources.publish(world.folder / "src", world.monkeypatch)


def mini(content: object = None, **entries: Any) -> Callable[[World], object]:
    """miniImageNet with another test split, or other entries in it."""
    data = pickle.dumps(content or sources.mini_split("test") | entries, 4)
    return lambda world: sources.mini(world.folder / "src", test=data)


def tiered(**entries: Any) -> Callable[[World], object]:
    """tieredImageNet with other entries in the labels to validate with."""
    data = pickle.dumps(sources.tiered_labels("val") | entries, 4)
    return lambda world: sources.tiered(world.folder / "src", val_labels=data)


def tiered_images(*images: object) -> Callable[[World], object]:
    data = pickle.dumps(list(images), 4)
    return lambda world: sources.tiered(world.folder / "src", val_images_png=data)


def server(make: Callable[[Path], dict[str, Behaviour]]) -> Callable[[World], object]:
    """A server on this machine in place of the publishers'; what it has is made in another folder."""

    def arrange(world: World) -> None:
        world.monkeypatch.setenv("no_proxy", "*")
        home = world.stack.enter_context(serve_site(make(world.run.parent / "published")))
        for module in (cifar100, mini_imagenet):
            world.monkeypatch.setattr(module, "HOME", home)

    return arrange


def record(content: bytes) -> Callable[[World], object]:
    return server(lambda folder: {"/api/records/7978538": Behaviour(content)})


def wrong_file(folder: Path) -> dict[str, Behaviour]:
    files = sources.zenodo(sources.mini(folder))
    files["/records/7978538/files/mini-imagenet-cache-train.pkl"].content += b"x"
    return files


def smaller(module: Any, limit: int, arrange: Callable[[World], object]) -> Callable[[World], object]:
    return lambda world: [world.monkeypatch.setattr(module, "_MAX_UNPACKED", limit), arrange(world)]


def bomb(world: World) -> None:
    npz()(world)
    with zipfile.ZipFile(world.folder / "a.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", bytes(2**25))


IMAGES = {
    "no command": Case("images", "the following arguments are required"),
    "no destination": Case(
        "images import a.npz",
        "the following arguments are required",
    ),
    "unknown command": Case("images upload", "argument COMMAND"),
    "unknown data set": Case(
        "images download mnist out",
        "argument NAME",
    ),
    "unknown option": Case(f"{NPZ} --seed 1", "--seed 1"),
    "destination in use": Case(
        NPZ,
        "is there already",
        lambda world: (world.folder / "out").mkdir(),
    ),
    "destination below a file": Case(
        "images import a.npz file/out --val a",
        "cannot be written",
        lambda world: [npz()(world), text("file", "")(world)],
    ),
    "no such source": Case(NPZ, "no such file or folder"),
    "source of another kind": Case(
        "images import a.tar out --val a",
        "is no npz file",
        text("a.tar", "images"),
    ),
    "source that may not be read": Case(NPZ, "cannot be read", npz(), locked=("a.npz", 0)),
    "no whole npz": Case(NPZ, "cannot be read as npz", text("a.npz", "PK")),
    "npz that fills the memory": Case(
        NPZ,
        "more.npy",
        bomb,
    ),
    "no labels": Case(NPZ, "has no array 'labels'", npz(labels=None)),
    "images of floats": Case(
        NPZ,
        "the images are float64 of shape",
        npz(images=np.zeros((3, 4, 4))),
    ),
    "images that are no array": Case(MINI, "the images are a list, not an array", mini(image_data=[1, 2])),
    "labels too few": Case(NPZ, "there are 3 images, and not as many labels", npz(labels=np.array([0, 1]))),
    "label without a name": Case(
        NPZ,
        "the label of image 2 is 2",
        npz(labels=np.array([0, 1, 2])),
    ),
    "names that are numbers": Case(NPZ, "the class names are not a list of names", npz(names=np.arange(2))),
    "two classes of one name": Case(NPZ, "two classes are called 'a'", npz(names=np.array(["a", "a"]))),
    "class without an image": Case(
        NPZ,
        "class 'd' has no image",
        npz(names=np.array(["a", "b/c", "d"])),
    ),
    "no division": Case(
        "images import a.npz out",
        "name the classes to keep from training with --val and --test",
        npz(),
    ),
    "no such class": Case(f"{NPZ} --test c", "--test", npz()),
    "a class in two divisions": Case(
        f"{NPZ},b --test b/c",
        "--test",
        npz(),
    ),
    "nothing to train on": Case(f"{NPZ} --test b", "--val and --test leave no class to train on", npz()),
    "division of a published data set": Case(f"{MINI} --val n01", "--val and --test"),
    "class that can be no folder": Case(
        NPZ,
        "'.b' cannot be the name of a folder",
        npz(names=np.array(["a", ".b"])),
    ),
    "classes that would share a folder": Case(
        NPZ,
        "classes 'b/c' and 'b__c' would share the folder 'b__c'",
        npz(labels=np.arange(3), names=np.array(["a", "b/c", "b__c"])),
    ),
    "a class in two splits": Case(
        MINI,
        "class 'n01' would be in both 'train' and 'test'",
        mini(class_dict={"n01": list(range(6))}),
    ),
    "an image twice": Case(
        OMNIGLOT,
        "image '1' of class 'Zulu/character01' is there twice",
        drawings({f"{root}/Zulu/character01/1.png": sources.png(1) for root in "ab"}),
    ),
    "missing files": Case(
        OMNIGLOT,
        "has no file images_background.zip",
        lambda world: (world.folder / "src").mkdir(),
    ),
    "one file of several": Case(
        OMNIGLOT,
        "is a file",
        text("src", ""),
    ),
    "another file": Case(
        OMNIGLOT,
        "is not the published images_background.zip",
        lambda world: sources.omniglot(world.folder / "src"),
    ),
    "another file on the server": Case(
        "images download mini-imagenet out",
        "//127.0.0.1",
        server(wrong_file),
    ),
    "no file on the server": Case(
        "images download mini-imagenet out",
        "//127.0.0.1",
        server(lambda folder: {}),
    ),
    "no record": Case(
        "images download mini-imagenet out",
        "//127.0.0.1",
        record(b"<html>"),
    ),
    "record of something else": Case(
        "images download mini-imagenet out",
        "//127.0.0.1",
        record(b'{"files": []}'),
    ),
    "damaged zip": Case(OMNIGLOT, "is a damaged archive", damaged_archive),
    "damaged tar": Case(
        CIFAR,
        "is a damaged archive",
        lambda world: [
            (world.folder / "src").mkdir(),
            text(ARCHIVE, "<html>")(world),
            sources.publish(world.folder / "src", world.monkeypatch),
        ],
    ),
    "zip that writes elsewhere": Case(
        OMNIGLOT,
        "holds '../evil.png',",
        drawings({"../evil.png": b""}),
    ),
    "tar that writes elsewhere": Case(
        CIFAR,
        "holds '../evil',",
        cifar(tarfile.TarInfo("../evil")),
    ),
    "zip that fills the memory": Case(
        OMNIGLOT,
        "refused to unpack",
        smaller(omniglot, 1000, drawings({})),
    ),
    "tar that fills the memory": Case(
        CIFAR,
        "refused to unpack more than 100 bytes",
        smaller(cifar100, 100, cifar()),
    ),
    "zip without drawings": Case(
        OMNIGLOT,
        "holds no drawings",
        drawings({"a.png": b""}, keep=False),
    ),
    "drawing that is none": Case(
        OMNIGLOT,
        "is no whole PNG file",
        drawings({"a/Zulu/character01/1.png": b"GIF"}),
    ),
    "tar without names": Case(
        CIFAR,
        "has no file 'cifar-100-python/meta'",
        cifar(without="meta"),
    ),
    "other classes": Case(
        CIFAR,
        "its classes are others",
        cifar(
            meta=sources.python2_pickle(
                {
                    "fine_label_names": [name.replace("pear", "pears") for name in sources.FINE],
                    "coarse_label_names": sources.COARSE,
                }
            )
        ),
    ),
    "class of two superclasses": Case(
        FC100,
        "class 'apple' would be in both 'test' and 'train'",
        cifar(train=part(coarse_labels=[14, *sources.cifar_part("train")["coarse_labels"][1:]])),
    ),
    "pickle of something else": Case(CIFAR, "holds a list, not a dict", cifar(meta=pickle.dumps([1], 2))),
    "pickle that runs code": Case(
        CIFAR,
        "train",
        cifar(train=pickle.dumps(Call(os.system, "touch executed"), 2)),
    ),
    "large pickle that runs code": Case(
        MINI,
        f"{TEST}: {CALLS}",
        mini(Call(os.system, "touch executed")),
    ),
    "pickle cut short": Case(
        MINI,
        "is cut short, damaged or not a pickle",
        lambda world: sources.mini(
            world.folder / "src", test=pickle.dumps(sources.mini_split("test"), 4)[:-99]
        ),
    ),
    "pickle of other images": Case(MINI, "is no pickle of miniImageNet", mini([1])),
    "rows that are no list": Case(
        MINI, "class 'n04' has a int, not a list of rows", mini(class_dict={"n04": 6})
    ),
    "row that is not there": Case(
        MINI,
        "class 'n04' lists an image that is not there, or another's",
        mini(class_dict={"n04": [6]}),
    ),
    "image without a class": Case(MINI, "image 1 has no class", mini(class_dict={"n04": [0]})),
    "no labels of tieredImageNet": Case(
        TIERED,
        "is no pickle of tieredImageNet's labels",
        tiered(label_specific=None),
    ),
    "other images than labels": Case(
        TIERED,
        "holds no list of 3 images, as many as there are labels",
        tiered_images(np.zeros(1, np.uint8)),
    ),
    "image that is no array": Case(
        TIERED,
        "image 0 is no array of bytes",
        tiered_images("a", "b", "c"),
    ),
}
