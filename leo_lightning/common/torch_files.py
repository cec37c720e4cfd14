"""Reads torch files without running them: tensors and plain containers, by torch's own restricted reader.

That reader calls nothing dangerous, but it may be kept busy, or made to fill the memory: by a tuple that is
short to write, endless to read and the key of a dictionary, by `bytearray(10**10)`, by members that unpack to
far more than the file has. So the pickles in a file are looked through before they are read.
"""

import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from torch import Tensor

from leo_lightning.common.errors import InputError, disk_line, one_line, printable

_ALLOWED = re.compile(
    r"collections OrderedDict|_codecs encode"
    r"|torch (\w+Storage|Size|device|bool|bfloat16|u?int\d+|c?float\d+\w*|complex\d+)"
    r"|torch\._utils _rebuild_(tensor|tensor_v2|parameter)"
)
_MAX_GROWTH = 16  # times the bytes of a pickle; what is in it twice counts twice
_LEGACY_PICKLES = 5  # of a file that is no zip: magic number, version, system, content, keys of the storages
_MAX_DEPTH = 32
_PLAIN = (str, bytes, int, float, bool, type(None), torch.dtype, torch.device, torch.Size)


class _Refused(Exception):
    """The file asks for something that weights do not need."""


class _Part(NamedTuple):
    """What a pickle has put on its stack: `size[0]` counts all that is in it."""

    size: list[int]
    value: object = None


def load_torch(path: Path) -> object:
    """Read tensors and plain containers; tensors of a zipped file are mapped into memory, not read.

    Raises:
        InputError: the file needs more than that, or it is damaged.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            if zipped:
                _check_archive(path)
            else:
                for _ in range(_LEGACY_PICKLES):
                    _check_pickle(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on protocols, which are checked by what they hold
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        _check_plain(content, set(), 0)
    except _Refused as refusal:
        raise InputError(f"{path}: {refusal}") from None
    # A damaged file can fail in many ways, and torch's advice for a hostile one is to trust it.
    except Exception as error:
        if isinstance(error, OSError) and error.filename:
            raise InputError(disk_line(error)) from None
        reason = re.split(r"[.;] |, but", one_line(error))[0].strip()
        raise InputError(f"{path}: is no whole file of torch ({reason}); copy or save it again") from None
    return content


def _check_archive(path: Path) -> None:
    """Check that the archive is what torch writes: nothing packed, nothing twice, nothing damaged."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        size = sum(member.file_size for member in members)
        if size > path.stat().st_size or any(m.compress_type != zipfile.ZIP_STORED for m in members):
            raise _Refused("is packed, which torch.save does not do; save it again")
        for member in members:
            with archive.open(member) as stream:
                if member.filename.lower().endswith("data.pkl"):
                    _check_pickle(cast(BinaryIO, stream))
                while stream.read(2**20):  # to the end, where its checksum is
                    pass


def _check_pickle(stream: BinaryIO | zipfile.ZipExtFile) -> None:
    """Follow a pickle without building anything, and see that it stays small and calls little."""
    stack: list[_Part] = []
    marks: list[int] = []
    memo: dict[Any, _Part] = {}
    storages: dict[str, str] = {}
    grown, start = 0, stream.tell()
    for opcode, argument, position in pickletools.genops(cast(BinaryIO, stream)):
        name, before = opcode.name, opcode.stack_before
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
            grown += memo[argument].size[0]
            if grown > _MAX_GROWTH * (cast(int, position) - start) + 2**16:
                raise _Refused("is far larger than its bytes; save it again")
        elif name == "MARK":
            marks.append(len(stack))
        elif name == "GLOBAL":
            _check_global(str(argument))
            stack.append(_Part([1], argument))
        else:
            count = len(before)
            if pickletools.markobject in before:
                count = len(stack) - marks.pop() + before.index(pickletools.markobject)
            if count > len(stack):
                raise ValueError("a pickle that takes more than it has")
            parts = stack[len(stack) - count :]
            del stack[len(stack) - count :]
            values = tuple(part.value for part in parts)
            if name == "REDUCE" and values[0] == "_codecs encode" and not _is_latin(values[1]):
                raise _Refused("holds text in a strange code; save weights and plain values only")
            if name == "BINPERSID":
                _check_storage(values[0], storages)
            if name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD"):
                parts[0].size[0] += sum(part.size[0] for part in parts[1:])
                stack.append(parts[0])
            elif opcode.stack_after:
                size = 1 + sum(part.size[0] for part in parts)
                if isinstance(argument, str | bytes):
                    size += len(argument) // 8
                stack.append(_Part([size], values if "TUPLE" in name else argument))


def _check_global(name: str) -> None:
    if not _ALLOWED.fullmatch(name):
        raise _Refused(
            f"holds {printable(name.replace(' ', '.', 1))}, which would need code to be run; "
            "save weights and plain values only"
        )


def _is_latin(arguments: object) -> bool:
    """Whether text is encoded as torch writes bytes; other codecs may take long."""
    return isinstance(arguments, tuple) and len(arguments) == 2 and arguments[1] in ("latin1", "latin-1")


def _check_storage(value: object, storages: dict[str, str]) -> None:
    """Check that no storage is read under two names or types, for each of which it would be read anew."""
    if not isinstance(value, tuple) or len(value) < 5 or not all(isinstance(v, str) for v in value[1:3]):
        raise _Refused("refers to another file")
    kind, key, length = value[1], value[2], value[4]
    if length and (not key.isdecimal() or storages.setdefault(key, kind) != kind):
        raise _Refused("holds one storage under two names or types; save it again")


def _check_plain(value: object, open_now: set[int], depth: int) -> None:
    """Check what was read: no attributes that shadow a method, no cycles, no tensors beyond their data."""
    if isinstance(value, Tensor):
        needed = value.numel() * value.element_size()
        if value.layout != torch.strided or needed > value.untyped_storage().nbytes():
            raise _Refused("holds a tensor that is larger than its data; save a copy of it (.clone())")
    elif type(value) in (dict, OrderedDict, list, tuple):
        if id(value) in open_now or depth > _MAX_DEPTH:
            raise _Refused("holds containers nested too deeply")
        if getattr(value, "__dict__", {}).keys() - {"_metadata"}:
            raise _Refused("holds a dictionary with attributes; save weights and plain values only")
        open_now.add(id(value))
        for item in (*value, *value.values()) if isinstance(value, dict) else cast(list, value):
            _check_plain(item, open_now, depth + 1)
        open_now.remove(id(value))
    elif not isinstance(value, _PLAIN):
        raise _Refused(f"holds a {type(value).__name__}; save weights and plain values only")
