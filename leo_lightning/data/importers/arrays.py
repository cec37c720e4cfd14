"""Arrays that anybody may have, one file per split: read_file takes each of the formats."""

import warnings
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from leo_lightning.common.errors import InputError, one_line
from leo_lightning.common.files import checksum_of
from leo_lightning.common.torch_files import load_torch
from leo_lightning.common.web_page import refuse_page
from leo_lightning.data.importers.hdf5 import read_hdf5
from leo_lightning.data.importers.matlab import read_matlab
from leo_lightning.data.importers.names import EMBEDDINGS, KNOWN, LABELS
from leo_lightning.data.importers.pickles import load_pickle
from leo_lightning.data.importers.sources import Arrays, Source, arrays_of, check_inflation
from leo_lightning.data.importers.tables import read_table_file
from leo_lightning.data.labels import read_label_lines
from leo_lightning.data.splits import ARRAY_ENDINGS, SPLIT_NAMES


def folder_arrays(src: Path, report: Callable[[str], None]) -> dict[str, Source]:
    """Return the splits that lie in a folder, one file each."""
    sources: dict[str, Source] = {}
    for split, names in SPLIT_NAMES.items():
        paths = [src / f"{name}{ending}" for name in names for ending in ARRAY_ENDINGS]
        present = [path for path in paths if path.is_file()]
        if len(present) > 1:
            files = ", ".join(path.name for path in present)
            raise InputError(f"{src}: holds the {split} split more than once ({files}); leave one of them")
        for path in present:
            sources[split] = Source(str(path), path.name, partial(read_file, path, True, report))
    return sources


def read_file(path: Path, labelled: bool, report: Callable[[str], None] = print) -> Arrays:
    """Read one file of arrays; its ending tells the format.

    Args:
        path: the file; the labels of an npy file lie beside it.
        labelled: whether labels are required.
        report: called with each remark for the user.

    Raises:
        InputError: the file is missing, of another kind, or damaged.
    """
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: {problem}; name a file of features, or a folder of images")
    content: object
    if path.suffix == ".npz":
        content = _load(path)
    elif path.suffix == ".npy":
        content = {"embeddings": _load(path)} | _labels_beside(path, labelled)
    elif path.suffix in (".pt", ".pth"):
        content = load_torch(path)
    elif path.suffix in (".pkl", ".plk", ".pickle"):
        content = _writable(load_pickle(path))
    elif path.suffix in (".h5", ".hdf5"):
        content = read_hdf5(path, report)
    elif path.suffix == ".mat":
        content = read_matlab(path, report)
    elif path.suffix in (".parquet", ".csv", ".tsv"):
        content = read_table_file(path, report)
    else:
        raise InputError(
            f"{path}: is of no known kind; name a file that ends in .safetensors, .npz, .npy, .pt, .pth, "
            ".pkl, .h5, .mat, .parquet, .csv or .tsv"
        )
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dict of embeddings and labels")
    with path.open("rb") as stream:
        return arrays_of(content, str(path), checksum_of(stream), labelled, report)


def _writable(content: object) -> object:
    """Copy the arrays of a pickle, which are views of the file that torch cannot take."""
    if not isinstance(content, dict):
        return content
    return {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in content.items()}


def _load(path: Path) -> np.ndarray | dict[str, Any]:
    """Read an npy file, or the arrays of features in an npz file: bytes, where these are damaged."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    check_inflation(info, path)
        # opened here, because numpy leaves a file open that only looks like a zip
        with warnings.catch_warnings(), path.open("rb") as stream:
            warnings.simplefilter("ignore")  # about headers of Python 2
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            by_class = not {*loaded.files} & {*EMBEDDINGS, *LABELS}
            return {key: loaded[key] for key in loaded.files if by_class or key in KNOWN}
    except InputError:
        raise
    except Exception as error:  # a damaged header is Python text that can fail in many ways
        refuse_page(path, str(path))
        if str(error).startswith("Object arrays"):
            raise InputError(
                f"{path}: holds an array of Python objects, as pandas makes; save labels.astype(str) and "
                "embeddings.astype('float32')"
            ) from None
        raise InputError(f"{path}: cannot be read by numpy ({one_line(error)})") from None


def _labels_beside(path: Path, needed: bool) -> dict[str, object]:
    """Read the labels of an npy file from the file beside it."""
    split = path.stem.removesuffix("_embeddings").removesuffix("_features")
    names = [f"{split}_labels{ending}" for ending in (".npy", ".txt", ".csv")]
    beside = [path.with_name(name) for name in names if path.with_name(name).is_file()]
    if not beside and not needed:
        return {}
    if len(beside) != 1:
        problem = "there is more than one" if beside else "there is none"
        raise InputError(f"{path}: its labels must be in {names[0]}, .txt or .csv beside it, and {problem}")
    if beside[0].suffix == ".npy":
        return {"labels": _load(beside[0])}
    labels, image_names = read_label_lines(beside[0])
    return {"labels": labels} if image_names is None else {"labels": labels, "image_names": image_names}
