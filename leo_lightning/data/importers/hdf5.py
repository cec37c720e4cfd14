"""HDF5 files of arrays, as h5py writes them; nothing outside the file is followed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from leo_lightning.common.errors import InputError, one_line, printable, require
from leo_lightning.common.web_page import refuse_page
from leo_lightning.data.importers.names import CLASS_NAMES, EMBEDDINGS, KNOWN, LABELS, NAMES
from leo_lightning.data.importers.sources import check_unpacked


def read_hdf5(path: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Read the arrays of features in an HDF5 file, or one array per class.

    Rows beyond `count` are padding: CloserLookFewShot's save_features.py makes room for whole batches, and
    writes how many rows it filled.

    Raises:
        InputError: the file is damaged, or an array lies in another file or is much larger than its data.
    """
    require("h5py", f"{path}: reading HDF5")
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names = list(file)
            known = {*names} & {*EMBEDDINGS, *LABELS}
            chosen = (
                [name for name in names if name in KNOWN] if known else [n for n in names if n[:1] != "#"]
            )
            content = {name: _array(file, name, path) for name in chosen if not _is_cells(file, name)}
            if left := [name for name in chosen if name in NAMES and name not in content]:
                report(f"{path}: leaving out '{left[0]}', a cell array of MATLAB; images go without names")
            if "count" in file and known:
                count = np.asarray(_array(file, "count", path))
                if count.size != 1 or count.dtype.kind not in "iu":
                    raise InputError(f"{path}: 'count' is not one whole number; remove or rename it")
                _cut(content, int(count.item()), path)
            return content
    except InputError:
        raise
    except Exception as error:  # a damaged file fails in many ways
        refuse_page(path, str(path))
        raise InputError(f"{path}: cannot be read as HDF5 ({one_line(error)})") from None


def _is_cells(file: Any, name: str) -> bool:
    """Return whether image names are references, as MATLAB 7.3 writes a cell array."""
    import h5py

    hard = isinstance(file.get(name, getlink=True), h5py.HardLink)
    return hard and name in NAMES and h5py.check_ref_dtype(getattr(file[name], "dtype", None)) is not None


def _cut(content: dict[str, Any], count: int, path: Path) -> None:
    """Cut the padding off all that has one entry per row."""
    rows = max(len(content[name]) for name in {*content} & {*EMBEDDINGS, *LABELS})
    if not 0 < count <= rows:
        raise InputError(f"{path}: 'count' is {count}, and there are {rows} rows; make the file again")
    for name in {*content} - {*CLASS_NAMES}:
        if len(content[name]) == rows:
            content[name] = content[name][:count]


def _array(file: Any, name: str, path: Path) -> np.ndarray:
    """Read one array: text as text, all else as it is."""
    import h5py

    where = f"{path}:{printable(name)}"
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise InputError(f"{where}: is a link, which is not followed; copy the array into the file")
    array = file[name]
    if not isinstance(array, h5py.Dataset):
        raise InputError(f"{where}: is a group; put the arrays at the top of the file")
    if array.external or array.is_virtual:
        raise InputError(f"{where}: lies in another file, which is not read; copy the array into this one")
    check_unpacked(array.nbytes, array.id.get_storage_size(), where)
    if h5py.check_string_dtype(array.dtype) is not None:
        return np.array(array.asstr(errors="replace")[...], np.str_)
    if array.dtype.kind not in "biufS":
        raise InputError(f"{where}: holds neither numbers nor text; save numbers or text")
    return array[...]
