"""Arrays that anybody may have: one npz of `images`, `labels` and `names`, divided by name.

`images` (n, H, W) or (n, H, W, 3) uint8, `labels` (n,) whole numbers, `names` (C,) text. What stands before
the first `/` in a name is its group: `Greek/character01` is of the group `Greek`. The images are read into
memory.
"""

import warnings
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from leo_lightning.common.errors import InputError, one_line, printable
from leo_lightning.data.importers.sources import check_inflation
from leo_lightning.images.sources.picture import (
    Picture,
    Pictures,
    check_images,
    check_labels,
    check_names,
    png_of,
)

_ARRAYS = ("images", "labels", "names")


def read_npz(src: Path, val: Sequence[str], test: Sequence[str]) -> Pictures:
    """Read images, and divide their classes.

    Args:
        src: the npz file.
        val: classes to validate on: names or groups, each entry one or several with commas between.
        test: likewise, to test on. All others train.

    Raises:
        InputError: the file is damaged or holds something else; or the classes cannot be divided so.
    """
    content = _arrays(src)
    names = check_names(content["names"], str(src))
    images = check_images(content["images"], str(src))
    labels = check_labels(content["labels"], len(images), len(names), str(src))
    missing = set(range(len(names))).difference(labels)
    if missing:
        raise InputError(f"{src}: class '{printable(names[min(missing)])}' has no image; take its name out")
    split_of = _divided(names, {"val": val, "test": test}, src)

    def pictures() -> Iterator[Picture]:
        for row, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            yield Picture(split_of[names[label]], names[label], f"{row:06d}", png_of(pixels))

    return Pictures(len(images), pictures())


def _arrays(src: Path) -> dict[str, object]:
    if not src.exists():
        raise InputError(f"{src}: no such file or folder")
    if src.is_dir() or (src.suffix != ".npz" and not zipfile.is_zipfile(src)):
        raise InputError(f"{src}: is no npz file; say with --dataset which data set it is")
    try:
        with zipfile.ZipFile(src) as archive:
            for info in archive.infolist():
                check_inflation(info, src)
        with warnings.catch_warnings(), np.load(src, allow_pickle=False) as arrays:
            warnings.simplefilter("ignore")  # on headers of Python 2
            missing = [name for name in _ARRAYS if name not in arrays.files]
            if missing:
                raise InputError(f"{src}: has no array '{missing[0]}'; it needs {', '.join(_ARRAYS)}")
            # names as a list, because characters that are none show themselves there
            return {"names": arrays["names"].tolist(), **{name: arrays[name] for name in _ARRAYS[:2]}}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{src}: cannot be read ({error.strerror or error})") from None
    except Exception as error:  # a damaged header is Python text that can fail in many ways
        raise InputError(f"{src}: cannot be read as npz ({one_line(error)})") from None


def _divided(names: Sequence[str], asked: dict[str, Sequence[str]], src: Path) -> dict[str, str]:
    """Return the split of each class."""
    groups = dict.fromkeys(name.partition("/")[0] for name in names)
    there = f"there are {printable(', '.join(groups))}"
    if not any(asked.values()):
        raise InputError(f"{src}: name the classes to keep from training with --val and --test; {there}")
    split_of: dict[str, str] = {}
    for split, values in asked.items():
        known = {*names, *groups}
        for entry in (part for value in values for part in ([value] if value in known else value.split(","))):
            if entry not in known:
                raise InputError(f"--{split}: no class or group is called '{printable(entry)}'; {there}")
            for name in names:
                if entry in (name, name.partition("/")[0]) and split_of.setdefault(name, split) != split:
                    raise InputError(
                        f"--{split}: class '{printable(name)}' is in --{split_of[name]}, too; splits may not "
                        "share classes"
                    )
    if len(split_of) == len(names):
        raise InputError(f"{src}: --val and --test leave no class to train on; name fewer")
    return {name: split_of.get(name, "train") for name in names}
