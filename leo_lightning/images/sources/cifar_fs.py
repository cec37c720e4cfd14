"""CIFAR-FS: CIFAR-100 divided at random into 64 classes to train, 16 to validate and 20 to test.

Bertinetto, Henriques, Torr and Vedaldi, "Meta-learning with differentiable closed-form solvers", ICLR 2019.
The authors publish the lists in an archive of images. Two copies of the lists agree with these:
https://github.com/tristandeleu/pytorch-meta/tree/ac3c48e5889645a2d05dd9a13b35aa2d986c0bec/torchmeta/datasets/assets/cifar100/cifar-fs
https://github.com/nathanielsimard/improving-fs-ssl/blob/6fa342e5b48547e5fa29fdf9d168658a22ed9216/mcp/data/dataset/cifar.py
"""

from collections.abc import Sequence
from pathlib import Path

from leo_lightning.images.sources import cifar100
from leo_lightning.images.sources.picture import Pictures

HOME = cifar100.HOME
FILES = cifar100.FILES

# fmt: off
SPLITS = {
    "train": (
        "apple", "aquarium_fish", "bear", "bee", "bottle", "bowl", "boy", "bridge", "bus", "can", "castle",
        "caterpillar", "chair", "clock", "cloud", "cockroach", "couch", "cup", "dinosaur", "dolphin",
        "elephant", "forest", "girl", "hamster", "house", "kangaroo", "keyboard", "lawn_mower", "lion",
        "lizard", "lobster", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid", "palm_tree",
        "pear", "pine_tree", "plate", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "seal",
        "shrew", "skunk", "skyscraper", "snake", "spider", "squirrel", "streetcar", "sunflower", "tank",
        "tiger", "train", "trout", "tulip", "turtle", "willow_tree", "wolf",
    ),
    "val": (
        "beaver", "beetle", "butterfly", "camel", "cattle", "crab", "crocodile", "flatfish", "lamp",
        "maple_tree", "motorcycle", "otter", "sea", "shark", "television", "tractor",
    ),
    "test": (
        "baby", "bed", "bicycle", "chimpanzee", "fox", "leopard", "man", "pickup_truck", "plain", "poppy",
        "rocket", "rose", "snail", "sweet_pepper", "table", "telephone", "wardrobe", "whale", "woman",
        "worm",
    ),
}
# fmt: on


def read(paths: Sequence[Path]) -> Pictures:
    """Read the images out of CIFAR-100's archive."""
    return cifar100.divide(paths[0], SPLITS)
