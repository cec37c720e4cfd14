"""Arrays that anybody may have: npz, npy and torch files, one per split, or one npz of all."""

import re
import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from leo_lightning.common.errors import InputError, one_line
from leo_lightning.common.torch_files import load_torch
from leo_lightning.data.importers.sources import (
    EMBEDDINGS,
    LABELS,
    NAMES,
    Arrays,
    Source,
    arrays_of,
    check_inflation,
    sha256_of,
    zip_members,
)
from leo_lightning.data.splits import SPLITS


def folder_arrays(src: Path) -> dict[str, Source]:
    """Return the splits that lie in a folder as npz, npy or torch files."""
    found: dict[str, Source] = {}
    for split in SPLITS:
        readers: dict[str, Callable[[Path], Arrays]] = {
            f"{split}.npz": _read_npz,
            f"{split}.npy": partial(_read_npy, split=split),
            f"{split}_embeddings.npy": partial(_read_npy, split=split),
            f"{split}_features.npy": partial(_read_npy, split=split),
            f"{split}.pt": _read_torch,
            f"{split}.pth": _read_torch,
        }
        present = [name for name in readers if (src / name).is_file()]
        if len(present) > 1:
            raise InputError(
                f"{src}: holds the {split} split more than once ({', '.join(present)}); leave one of them"
            )
        for name in present:
            found[split] = Source(str(src / name), name, partial(readers[name], src / name))
    return found


def npz_splits(src: Path) -> dict[str, Source]:
    """Return the splits of one npz file, with arrays called `train_embeddings`, `train_labels` and so on."""
    members = {member.removesuffix(".npy") for member in zip_members(src)}
    found = {
        split: Source(f"{src} ({split})", src.name, partial(_read_npz, src, f"{split}_"))
        for split in SPLITS
        if members & {f"{split}_{key}" for key in EMBEDDINGS}
    }
    if not found and src.suffix == ".npz":
        raise InputError(
            f"{src}: has no arrays 'train_embeddings' and 'train_labels'; rename them, or give the folder "
            "that holds train.npz, val.npz and test.npz"
        )
    return found


def read_file(path: Path, labelled: bool) -> Arrays:
    """Read one npz, npy or torch file, whatever its name.

    Args:
        path: the file; the labels of an npy file lie beside it.
        labelled: whether labels must be there, or may be.

    Raises:
        InputError: it is not there, of another kind, or damaged.
    """
    if path.is_dir() or not path.exists():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {problem}; name a file of features, or a folder of images")
    if path.suffix == ".npz":
        return _read_npz(path, labelled=labelled)
    if path.suffix == ".npy":
        split = path.stem.removesuffix("_embeddings").removesuffix("_features")
        return _read_npy(path, split, labelled)
    if path.suffix in (".pt", ".pth"):
        return _read_torch(path, labelled)
    raise InputError(
        f"{path}: is of no known kind; name a file that ends in .safetensors, .npz, .npy, .pt or .pth"
    )


def _read_npz(path: Path, prefix: str = "", labelled: bool = True) -> Arrays:
    """Read one split of an npz file."""
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                check_inflation(info, path)
        with warnings.catch_warnings(), np.load(path, allow_pickle=False) as arrays:
            warnings.simplefilter("ignore")  # on headers of Python 2
            wanted = {f"{prefix}{key}" for key in (*EMBEDDINGS, *LABELS, *NAMES)}
            content: dict[object, object] = {key: arrays[key] for key in arrays.files if key in wanted}
    except InputError:
        raise
    # A damaged header is Python text that can fail in many ways.
    except Exception as error:
        raise InputError(f"{path}: cannot be read as npz ({_without_advice(error)})") from None
    return arrays_of(content, str(path), _sha256(path), prefix, labelled)


def _read_npy(path: Path, split: str, labelled: bool = True) -> Arrays:
    """Read embeddings from one file and their labels from the file beside it."""
    names = (f"{split}_labels.npy", f"{split}_labels.txt")
    beside = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    if not beside and not labelled:
        return Arrays(_load_npy(path), None, None, _sha256(path))
    if len(beside) != 1:
        problem = "there are both" if beside else "there is neither"
        raise InputError(f"{path}: its labels must be in {names[0]} or {names[1]} beside it, and {problem}")
    labels = _read_lines(beside[0]) if beside[0].suffix == ".txt" else _load_npy(beside[0])
    return Arrays(_load_npy(path), labels, None, _sha256(path))


def _load_npy(path: Path) -> np.ndarray:
    try:
        # opened here, because numpy leaves a file open that looks like a zip and is none
        with warnings.catch_warnings(), path.open("rb") as stream:
            warnings.simplefilter("ignore")  # on headers of Python 2
            array = np.load(stream, allow_pickle=False)
    except Exception as error:  # as above
        raise InputError(f"{path}: cannot be read as npy ({_without_advice(error)})") from None
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: is an npz archive under another name; rename it to .npz")
    return array


def _read_lines(path: Path) -> list[str] | list[int]:
    """Read one label per line; if all are whole numbers they are numbers, as they would be in an npy file."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({one_line(error)})") from None
    if lines and all(re.fullmatch(r"0|-?[1-9][0-9]{0,17}", line) for line in lines):
        return [int(line) for line in lines]
    return lines


def _read_torch(path: Path, labelled: bool = True) -> Arrays:
    """Read a dict of tensors, executing nothing."""
    content = load_torch(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of embeddings and labels")
    return arrays_of(content, str(path), _sha256(path), labelled=labelled)


def _without_advice(error: BaseException) -> str:
    """Return the first sentence of an error; numpy's and torch's go on to say how to switch safety off."""
    return re.split(r"[.;] |, but|\bwhen allow_pickle\b", one_line(error))[0].strip()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return sha256_of(stream)
