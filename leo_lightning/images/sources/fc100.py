"""FC100, Fewshot-CIFAR100: CIFAR-100 divided by superclass, so that no class resembles one of another split.

12 superclasses (60 classes) train, 4 (20) validate and 4 (20) test. Oreshkin, Rodríguez López and Lacoste,
"TADAM: Task dependent adaptive metric for improved few-shot learning", NeurIPS 2018. The authors' code
lists them by number; a copy by name agrees:
https://github.com/ServiceNow/TADAM/blob/da45344471862327921039e3976fc8bf00f95913/datasets/create_dataset_cifar100.py
https://github.com/tristandeleu/pytorch-meta/tree/4c5eb5b46a51050d5a1427d56f90b07785402e8f/torchmeta/datasets/assets/cifar100/fc100
(and, for the validation classes,
https://github.com/tristandeleu/pytorch-meta/blob/3e29bfaf764c2f65ec60cf8bdcd5db5d8a6976d7/torchmeta/datasets/assets/cifar100/val.json)
"""

from collections.abc import Sequence
from pathlib import Path

from leo_lightning.images.sources import cifar100
from leo_lightning.images.sources.picture import Pictures

HOME = cifar100.HOME
FILES = cifar100.FILES

# fmt: off
SUPERCLASSES = {
    "train": (
        "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
        "household_furniture", "large_man-made_outdoor_things", "large_natural_outdoor_scenes", "reptiles",
        "trees", "vehicles_1", "vehicles_2",
    ),
    "val": (
        "large_carnivores", "large_omnivores_and_herbivores", "non-insect_invertebrates", "small_mammals",
    ),
    "test": ("aquatic_mammals", "insects", "medium_mammals", "people"),
}
# fmt: on


def read(paths: Sequence[Path]) -> Pictures:
    """Read the images out of CIFAR-100's archive."""
    return cifar100.divide(paths[0], SUPERCLASSES, "coarse")
