"""Torch files, read by torch's restricted reader, which executes nothing: weights and plain values only."""

import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from leo_lightning.common.errors import InputError, disk_line, one_line
from leo_lightning.common.web_page import refuse_page

_PLAIN = (str, bytes, int, float, bool, type(None), torch.dtype, torch.device, torch.Size)


def load_torch(path: Path) -> object:
    """Read tensors and plain containers; tensors of a zipped file are mapped into memory, not read.

    Raises:
        InputError: the file is damaged, or holds anything else.
    """
    try:
        zipped = zipfile.is_zipfile(path)
        if zipped:
            _check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickle protocols
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        plain = _is_plain(content)
    # A damaged file fails in many ways, and torch's advice about a hostile one is to trust it.
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            raise InputError(disk_line(error)) from None
        if refused := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(
                f"{path}: holds {refused[1]}, which only code can load; save weights and plain values only"
            ) from None
        refuse_page(path, str(path))
        raise InputError(
            f"{path}: is not a whole torch file ({_reason(error)}); copy or save it again"
        ) from None
    if not plain:
        raise InputError(f"{path}: holds more than weights and plain values; save only these")
    return content


def _check_archive(path: Path) -> None:
    """Check checksums and compression, which torch ignores when it maps a file."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed")
        if damaged := archive.testzip():
            raise ValueError(f"{damaged} is damaged")


def _is_plain(value: object) -> bool:
    """Return whether a value consists of dense tensors, plain values and plain containers."""
    if isinstance(value, Tensor):
        # an expanded tensor is larger than its data
        return value.layout == torch.strided and value.nbytes <= value.untyped_storage().nbytes()
    if type(value) is OrderedDict and vars(value).keys() - {"_metadata"}:  # attributes may hide methods
        return False
    if isinstance(value, dict):
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple) and not isinstance(value, torch.Size):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _reason(error: Exception) -> str:
    """Return the first sentence that torch's own reader adds, without the advice around it."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2]
    text = text.partition("Check the documentation")[0].strip()
    return re.split(r"[.;]\s", one_line(ValueError(text)))[0] if text else type(error).__name__
