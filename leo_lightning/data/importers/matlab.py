"""MATLAB files: version 5 through scipy, version 7.3 (HDF5) through h5py."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from leo_lightning.common.errors import InputError, one_line
from leo_lightning.common.web_page import refuse_page
from leo_lightning.data.importers.hdf5 import read_hdf5
from leo_lightning.data.importers.names import EMBEDDINGS, KNOWN, LABELS, NAMES
from leo_lightning.data.importers.sources import check_unpacked

_MATLAB_7_3 = b"MATLAB 7.3"


def read_matlab(path: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Read features and labels, with one image per row.

    MATLAB files keep images in columns as often as in rows, and HDF5 turns them round once more. The number
    of labels tells which; what fits both ways is refused.

    Args:
        path: the file.
        report: called with a remark if images lie in columns.

    Raises:
        InputError: the file is damaged, or nothing tells rows from columns.
    """
    with path.open("rb") as stream:
        newer = stream.read(len(_MATLAB_7_3)) == _MATLAB_7_3
    content = read_hdf5(path, report) if newer else _read_5(path)
    if not {*content} & {*EMBEDDINGS, *LABELS}:  # by class, nothing would tell rows from columns
        raise InputError(f"{path}: has no '{EMBEDDINGS[1]}' and '{LABELS[0]}'; save them under these names")
    content = {name: value if name in EMBEDDINGS else _flat(value) for name, value in content.items()}
    counts = [len(value) for name, value in content.items() if name in (*LABELS, *NAMES)]
    for name in {*content} & {*EMBEDDINGS}:
        shape = content[name].shape
        if len(shape) != 2:
            continue
        if not counts or shape[0] == shape[1] == counts[0]:
            problem = "is square" if counts else "has neither labels nor image names"
            raise InputError(
                f"{path}: '{name}' {problem}, so nothing tells whether its rows or its columns are images; "
                "save it as npz with one row per image"
            )
        if shape[1] == counts[0]:
            report(
                f"{path}: '{name}' has shape {shape} for {counts[0]} images; taking its columns for images"
            )
            content[name] = content[name].T
    return content


def _read_5(path: Path) -> dict[str, Any]:
    import scipy.io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about variables of a newer MATLAB
            shapes = [shape for name, shape, _ in scipy.io.whosmat(path) if name in KNOWN]
            check_unpacked(8 * sum(map(math.prod, shapes)), path.stat().st_size, str(path))
            content = scipy.io.loadmat(path, variable_names=list(KNOWN))
    except InputError:
        raise
    except Exception as error:  # a damaged file fails in many ways
        refuse_page(path, str(path))
        raise InputError(f"{path}: cannot be read as a MATLAB file ({one_line(error)})") from None
    return {name: value for name, value in content.items() if name in KNOWN}


def _flat(value: np.ndarray) -> Any:
    """Return a row or column as a vector, and cells with text as a list of text."""
    if value.ndim == 2 and 1 in value.shape:
        value = value.ravel()
    if value.dtype != object:
        return value
    return [
        str(cell.item()) if isinstance(cell, np.ndarray) and cell.size == 1 else str(cell) for cell in value
    ]
