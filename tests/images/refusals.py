"""Bad input of `python -m leo_lightning images`, for test_refusals.py."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from leo_lightning.images.sources import mini_imagenet
from tests.common.server import Behaviour, serve_site
from tests.data.importers.test_pickles import Call
from tests.images import sources
from tests.images.pictures import save
from tests.refusals import PAGE, Case, World, text

NPZ = "images import a.npz out --val a"
OMNIGLOT, CIFAR, MINI, TIERED = (
    f"images import --dataset {name} src out"
    for name in ("omniglot", "cifar-fs", "mini-imagenet", "tiered-imagenet")
)
TEST = "src/mini-imagenet-cache-test.pkl"
NOT_ONCE = "does not list each image once"


def npz(**changes: Any) -> Callable[[World], object]:
    """`a.npz` with some other arrays; None leaves one out."""
    arrays = {
        "images": np.zeros((3, 4, 4), np.uint8),
        "labels": np.array([0, 1, 1]),
        "names": np.array(["a", "b/c"]),
    } | changes
    return lambda world: np.savez(
        world.folder / "a.npz", **{name: array for name, array in arrays.items() if array is not None}
    )


def drawings(members: dict[str, bytes]) -> Callable[[World], object]:
    """Omniglot with more members in the background archive."""

    def arrange(world: World) -> None:
        src = sources.omniglot(world.folder / "src")
        good = sources.drawings("images_background", sources.BACKGROUND)
        sources.write_zip(src / "images_background.zip", good | members)
        sources.publish(src, world.monkeypatch)

    return arrange


def cifar(**changes: bytes) -> Callable[[World], object]:
    """CIFAR-100 with other pickles."""
    return lambda world: sources.publish(sources.cifar(world.folder / "src", **changes), world.monkeypatch)


def mini(content: object = None, **entries: Any) -> Callable[[World], object]:
    """miniImageNet with another test split, or other entries in it."""
    data = pickle.dumps(content or sources.mini_split("test") | entries, 4)
    return lambda world: sources.mini(world.folder / "src", test=data)


def tiered(**entries: Any) -> Callable[[World], object]:
    """tieredImageNet with other entries in the validation labels."""
    data = pickle.dumps(sources.tiered_labels("val") | entries, 4)
    return lambda world: sources.tiered(world.folder / "src", val_labels=data)


def tiered_images(*images: object) -> Callable[[World], object]:
    data = pickle.dumps(list(images), 4)
    return lambda world: sources.tiered(world.folder / "src", val_images_png=data)


def server(make: Callable[[Path], dict[str, Behaviour]]) -> Callable[[World], object]:
    """A server on this machine in place of the publisher's; its files are in another folder."""

    def arrange(world: World) -> None:
        world.monkeypatch.setenv("no_proxy", "*")
        home = world.stack.enter_context(serve_site(make(world.run.parent / "published")))
        world.monkeypatch.setattr(mini_imagenet, "HOME", home)

    return arrange


def record(content: bytes) -> Callable[[World], object]:
    return server(lambda folder: {"/api/records/7978538": Behaviour(content)})


def wrong_file(folder: Path) -> dict[str, Behaviour]:
    files = sources.zenodo(sources.mini(folder))
    files["/records/7978538/files/mini-imagenet-cache-train.pkl"].content += b"x"
    return files


def bomb(world: World) -> None:
    npz()(world)
    with zipfile.ZipFile(world.folder / "a.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("more.npy", bytes(2**25))


def photos(*names: str) -> Callable[[World], object]:
    """An undivided folder `photos`, by default of four classes."""
    paths = names or ("a/1.png", "b/1.png", "c/1.png", "d/1.png")
    return lambda world: [save(world.folder / "photos" / name) for name in paths]


DIVIDE = "images divide photos out"
DIVISION = {
    "nothing to divide": Case(DIVIDE, "photos: no such folder of images"),
    "divided already": Case(DIVIDE, "photos: is divided already (train)", photos("train/a/1.png")),
    "images without classes": Case(DIVIDE, "photos: has no class folders", photos("1.png")),
    "division into itself": Case(
        "images divide photos photos/out", "photos/out: lies inside photos", photos()
    ),
    "division into what exists": Case("images divide photos photos", "already exists", photos()),
    "too few classes": Case(f"{DIVIDE} --val 2", "photos: 4 classes leave 1 to train on", photos()),
    "no such class to hold out": Case(f"{DIVIDE} --test e", "photos has no class 'e' to divide", photos()),
    "a class held out twice": Case(f"{DIVIDE} --val a --test a", "class 'a' is in both", photos()),
    "no images at least": Case(f"{DIVIDE} --min-images 0", "--min-images is 0", photos()),
    "classes on either level": Case(DIVIDE, "add --class-depth 2 if", photos("a/x/1.png", "b/y/1.png")),
    "all in one folder": Case(DIVIDE, "name it: photos/a", photos("a/x/1.png", "a/y/1.png")),
    "image above its class": Case(
        f"{DIVIDE} --class-depth 2", "a/1.png lies in no class folder", photos("a/1.png", "b/y/1.png")
    ),
}

IMAGES = DIVISION | {
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
        "already exists",
        lambda world: (world.folder / "out").mkdir(),
    ),
    "destination below a file": Case(
        "images import a.npz file/out --val a",
        "cannot be written",
        lambda world: [npz()(world), text("file", "")(world)],
    ),
    "page in place of an npz": Case(NPZ, "a.npz: is a web page ('Log in & go')", text("a.npz", PAGE)),
    "page in place of a published archive": Case(
        CIFAR.replace("src", "a.tgz"), "a.tgz: is a web page ('Log in & go')", text("a.tgz", PAGE)
    ),
    "no such source": Case(NPZ, "a.npz: No such file"),
    "source of another kind": Case(
        "images import a.tar out --val a",
        "is not an npz file",
        text("a.tar", "images"),
    ),
    "source that may not be read": Case(NPZ, "a.npz: Permission denied", npz(), locked=("a.npz", 0)),
    "damaged npz": Case(NPZ, "is not an npz file", text("a.npz", "PK")),
    "npz that fills the memory": Case(
        NPZ,
        "more.npy",
        bomb,
    ),
    "no labels": Case(NPZ, "is not an npz file of images, labels, names", npz(labels=None)),
    "images of floats": Case(
        NPZ,
        "the images are float64 of shape",
        npz(images=np.zeros((3, 4, 4))),
    ),
    "images that are not an array": Case(
        MINI, "the images are a list, not an array", mini(image_data=[1, 2])
    ),
    "labels too few": Case(NPZ, "there are 3 images but 2 labels", npz(labels=np.array([0, 1]))),
    "label without a name": Case(
        NPZ,
        "the label of image 2 is 2",
        npz(labels=np.array([0, 1, 2])),
    ),
    "names that are numbers": Case(NPZ, "the class names are not a list of text", npz(names=np.arange(2))),
    "two classes of one name": Case(NPZ, "two classes are called 'a'", npz(names=np.array(["a", "a"]))),
    "no division": Case(
        "images import a.npz out",
        "name the classes to keep out of training with --val and --test",
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
    "class that cannot be a folder": Case(
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
        "image '1' of class 'Zulu/character01' comes twice",
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
    "pickle that runs code": Case(
        CIFAR,
        "refused to load a pickle that calls",
        cifar(train=pickle.dumps(Call(os.system, "touch executed"), 2)),
    ),
    "large pickle that runs code": Case(
        MINI,
        f"{TEST}: refused to load a pickle that calls",
        mini(Call(os.system, "touch executed")),
    ),
    "pickle cut short": Case(
        MINI,
        "is cut short, damaged or not a pickle",
        lambda world: sources.mini(
            world.folder / "src", test=pickle.dumps(sources.mini_split("test"), 4)[:-99]
        ),
    ),
    "pickle of other images": Case(MINI, "is not a pickle of miniImageNet", mini([1])),
    "rows that are not a list": Case(MINI, NOT_ONCE, mini(class_dict={"n04": "a"})),
    "row that does not exist": Case(MINI, NOT_ONCE, mini(class_dict={"n04": [6]})),
    "image without a class": Case(MINI, NOT_ONCE, mini(class_dict={"n04": [0]})),
    "no labels of tieredImageNet": Case(
        TIERED,
        "the labels are not a list",
        tiered(label_specific=None),
    ),
    "other images than labels": Case(
        TIERED,
        "does not hold a list of 3 images",
        tiered_images(np.zeros(1, np.uint8)),
    ),
    "image that is not an array": Case(
        TIERED,
        "image 0 is not a whole PNG file",
        tiered_images("a", "b", "c"),
    ),
}
