"""Anybody's arrays: an npz of `images`, `labels` and `names`, whose classes are divided by name.

`images` (n, H, W) or (n, H, W, 3) uint8, `labels` (n,) whole numbers, `names` (C,) text. The part of a name
before its first `/` is its group: `Greek/character01` belongs to the group `Greek`. The images are read into
memory.
"""

import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.common.web_page import refuse_page
from leo_lightning.data.importers.sources import check_inflation
from leo_lightning.images.sources.picture import Picture, Pictures, check_images, class_names_of, png_of

_ARRAYS = ("images", "labels", "names")


def read_npz(src: Path, val: Sequence[str], test: Sequence[str]) -> Pictures:
    """Read images and divide their classes.

    Args:
        src: the npz file.
        val: validation classes: names or groups; an entry may hold several, separated by commas.
        test: test classes, likewise. All others train.

    Raises:
        InputError: the file is damaged or holds something else, or the classes cannot be divided like this.
    """
    content = _arrays(src)
    images = check_images(content["images"], str(src))
    class_names = class_names_of(content["labels"], content["names"], str(src))
    if len(class_names) != len(images):
        raise InputError(f"{src}: there are {len(images)} images but {len(class_names)} labels")
    split_of = _divide(sorted(set(class_names)), {"val": val, "test": test}, src)

    def pictures() -> Iterator[Picture]:
        for row, (pixels, class_name) in enumerate(zip(images, class_names, strict=True)):
            yield Picture(split_of[class_name], class_name, f"{row:06d}", png_of(pixels))

    return Pictures(len(images), pictures())


def _arrays(src: Path) -> dict[str, object]:
    if src.is_dir():
        raise InputError(f"{src}: is a folder, not an npz file; name its data set with --dataset")
    try:
        with zipfile.ZipFile(src) as archive:
            for member in archive.infolist():
                check_inflation(member, src)
        with warnings.catch_warnings(), np.load(src, allow_pickle=False) as arrays:
            warnings.simplefilter("ignore")  # headers of Python 2
            # a list, because damaged text fails when it is converted
            return {name: arrays[name].tolist() if name == "names" else arrays[name] for name in _ARRAYS}
    except (InputError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # a damaged header is Python text, which can fail in many ways
        refuse_page(src, str(src))
        raise InputError(
            f"{src}: is not an npz file of {', '.join(_ARRAYS)} ({one_line(error)}); copy it again, or name "
            "its data set with --dataset"
        ) from None


def _divide(names: Sequence[str], held_out: dict[str, Sequence[str]], src: Path) -> dict[str, str]:
    """Return the split of each class."""
    groups = sorted({name.partition("/")[0] for name in names})
    choice = f"there are {printable(', '.join(groups))}"
    if not any(held_out.values()):
        raise InputError(f"{src}: name the classes to keep out of training with --val and --test; {choice}")
    known = {*names, *groups}
    split_of: dict[str, str] = {}
    for split, values in held_out.items():
        for entry in (part for value in values for part in ([value] if value in known else value.split(","))):
            if entry not in known:
                raise InputError(f"--{split}: no class or group is called '{printable(entry)}'; {choice}")
            for name in names:
                if entry in (name, name.partition("/")[0]) and split_of.setdefault(name, split) != split:
                    raise InputError(
                        f"--{split}: class '{printable(name)}' is in --{split_of[name]}, too; splits may not "
                        "share classes"
                    )
    if len(split_of) == len(names):
        raise InputError(f"{src}: --val and --test leave no class to train on; name fewer")
    return {name: split_of.get(name, "train") for name in names}
