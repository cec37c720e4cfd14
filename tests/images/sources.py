"""Image data sets in the formats that they are published in, but small."""

import hashlib
import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from leo_lightning.data.splits import SPLITS
from leo_lightning.images.sources import cifar_fs, fc100
from leo_lightning.images.sources import omniglot as omniglot_source
from tests.common.server import Behaviour
from tests.data.importers.sources import python2_array, python2_string

BACKGROUND = ("Arcadian", "Balinese", "Cyrillic", "Futurama", "Greek", "Hebrew", "N_Ko")
EVALUATION = ("Angelic", "Tengwar")
HELD_OUT = BACKGROUND[-5:]
CHARACTERS, DRAWINGS = 2, 3

# https://www.cs.toronto.edu/~kriz/cifar.html, under the names that the archive has
SUPERCLASSES = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
COARSE_OF = {fine: coarse for coarse, names in SUPERCLASSES.items() for fine in names.split()}
FINE, COARSE = sorted(COARSE_OF), sorted(SUPERCLASSES)
PER_PART = 2
"""Images of each class in the training and in the test part."""

MINI = {"train": ("n01", "n02"), "val": ("n03",), "test": ("n04", "n05")}
MINI_FILES = {"train": "train", "val": "validation", "test": "test"}
TIERED = {"train": ("tench, Tinca tinca", "judge's robe"), "val": ("crane",), "test": ("drum", "hip")}
IMAGES = 3
"""Images of each class in miniImageNet and tieredImageNet."""


def png(number: int, size: int = 8) -> bytes:
    """An image that depends on its number, black and white like a drawing of Omniglot."""
    pixels = np.random.default_rng(number).integers(0, 2, (size, size)).astype(bool)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def tree(root: Path) -> list[str]:
    """Every file and folder under `root`."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def classes(root: Path) -> dict[str, dict[str, int]]:
    """Images per class of a finished tree, per split."""
    return {
        split.name: {folder.name: len(list(folder.iterdir())) for folder in sorted(split.iterdir())}
        for split in sorted(root.iterdir())
    }


# Omniglot


def drawings(kind: str, alphabets: tuple[str, ...]) -> dict[str, bytes]:
    """The drawings of an archive by member; a file name has the character, then the person."""
    places = [
        (alphabet, character, drawing)
        for alphabet in alphabets
        for character in range(1, CHARACTERS + 1)
        for drawing in range(1, DRAWINGS + 1)
    ]
    return {
        f"{kind}/{alphabet}/character{character:02d}/{len(alphabet) + character:04d}_{drawing:02d}.png": png(
            number
        )
        for number, (alphabet, character, drawing) in enumerate(places)
    }


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def omniglot(folder: Path) -> Path:
    """Write both archives, with the folders and the clutter that archives have."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, alphabets in (("images_background", BACKGROUND), ("images_evaluation", EVALUATION)):
        clutter = {
            f"{kind}/": b"",
            f"__MACOSX/{kind}/Greek/character01/._0709_01.png": b"x",
            f"{kind}/.DS_Store": b"x",
        }
        write_zip(folder / f"{kind}.zip", clutter | drawings(kind, alphabets))
    return folder


# CIFAR-100


def python2(value: Any) -> bytes:
    """Return the opcodes of Python 2 for a value."""
    if isinstance(value, str):
        return python2_string(value.encode())
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(key) + python2(item) for key, item in value.items()) + b"u"
    return python2_array(value)


def python2_pickle(value: Any) -> bytes:
    return b"\x80\x02" + python2(value) + b"."


def cifar_part(part: str) -> dict[str, Any]:
    """The content of `train` or `test`: rows of 1,024 reds, then greens, then blues."""
    fine = [label for _ in range(PER_PART) for label in range(100)]
    random = np.random.default_rng(len(part))
    return {
        "filenames": [f"{part}_s_{row:06d}.png" for row in range(len(fine))],
        "batch_label": f"{part}ing batch 1 of 1",
        "fine_labels": fine,
        "coarse_labels": [COARSE.index(COARSE_OF[FINE[label]]) for label in fine],
        "data": random.integers(0, 256, (len(fine), 3072), np.uint8),
    }


def cifar_members(**changes: Any) -> dict[str, bytes]:
    """The files in the archive; `changes` replace pickles."""
    meta = {"fine_label_names": FINE, "coarse_label_names": COARSE}
    contents = {"meta": meta, "test": cifar_part("test"), "train": cifar_part("train")}
    pickles = {name: python2_pickle(content) for name, content in contents.items()} | changes
    return {"file.txt~": b"", **pickles}


def write_tar(path: Path, members: dict[str, bytes], *more: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for info in more:
            archive.addfile(info, io.BytesIO(bytes(info.size)))
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def cifar(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_tar(folder / "cifar-100-python.tar.gz", cifar_members(**changes))
    return folder


# miniImageNet and tieredImageNet


def mini_split(split: str) -> dict[str, Any]:
    names = MINI[split]
    count = IMAGES * len(names)
    return {
        "image_data": np.random.default_rng(count).integers(0, 256, (count, 84, 84, 3), np.uint8),
        "class_dict": {name: list(range(index, count, len(names))) for index, name in enumerate(names)},
    }


def mini(folder: Path, protocol: int = 4, **changes: bytes) -> Path:
    """Write the pickles; protocol -2 is Python 2."""
    folder.mkdir(exist_ok=True)
    for split, name in MINI_FILES.items():
        content = mini_split(split)
        data = python2_pickle(content) if protocol == -2 else pickle.dumps(content, protocol)
        (folder / f"mini-imagenet-cache-{name}.pkl").write_bytes(changes.get(split, data))
    return folder


def tiered_images(split: str) -> list[np.ndarray]:
    """PNG files as OpenCV returns them, arrays (n, 1) of bytes; in the test split longer than a page."""
    count = IMAGES * len(TIERED[split])
    size = 200 if split == "test" else 8
    return [np.frombuffer(png(number, size), np.uint8).reshape(-1, 1).copy() for number in range(count)]


def tiered_labels(split: str) -> dict[str, Any]:
    names = list(TIERED[split])
    labels = np.arange(IMAGES * len(names), dtype=np.int32) % len(names)
    return {
        "label_specific": labels,
        "label_general": np.zeros_like(labels),
        "label_specific_str": names,
        "label_general_str": ["thing"],
    }


def tiered(folder: Path, protocol: int = 4, prefix: str = "tiered-imagenet-", **changes: bytes) -> Path:
    """Write the pickles; `changes` replace files, by `SPLIT_images_png` or `SPLIT_labels`."""
    folder.mkdir(exist_ok=True)
    for split in SPLITS:
        for kind, content in (("images_png", tiered_images(split)), ("labels", tiered_labels(split))):
            data = python2_pickle(content) if protocol == -2 else pickle.dumps(content, protocol)
            (folder / f"{prefix}{split}_{kind}.pkl").write_bytes(changes.get(f"{split}_{kind}", data))
    return folder


# Servers


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def site(folder: Path, where: str = "") -> dict[str, Behaviour]:
    """The files of a folder, on a server, by path."""
    return {f"{where}/{path.name}": Behaviour(path.read_bytes()) for path in folder.iterdir()}


def record(folder: Path) -> dict[str, Any]:
    """A record as Zenodo describes it."""
    return {
        "id": 7978538,
        "files": [
            {
                "key": path.name,
                "size": path.stat().st_size,
                "checksum": f"md5:{md5(path)}",
                "links": {"self": f"https://zenodo.org/api/records/7978538/files/{path.name}/content"},
            }
            for path in folder.iterdir()
        ],
    }


def zenodo(folder: Path) -> dict[str, Behaviour]:
    """The files of a folder as Zenodo serves them, and their record."""
    content = json.dumps(record(folder)).encode()
    return {**site(folder, "/records/7978538/files"), "/api/records/7978538": Behaviour(content, tag=None)}


def publish(folder: Path, patches: pytest.MonkeyPatch) -> Path:
    """Make the archives in a folder count as the published ones of Omniglot or CIFAR-100."""
    for module in (omniglot_source, cifar_fs, fc100):
        if (folder / module.FILES[0].name).is_file():
            files = [file._replace(md5=md5(folder / file.name)) for file in module.FILES]
            patches.setattr(module, "FILES", files)
    return folder
