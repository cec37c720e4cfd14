"""Reads pickles without running them.

A pickle is a small program, and Python's reader runs whatever it names. This reader knows a handful of names,
all of which build arrays or dictionaries, and has a plain function for each: nothing that a pickle names is
ever imported or called. Not even numpy's own `__setstate__` runs, because it trusts the flags in the pickle:
an array of objects that claims to hold plain bytes turns those bytes into pointers.

The machine underneath is Python's own, written in Python: the one in C allocates as much as the greatest memo
index that a pickle names, and on arrays it is no faster. Long byte strings are views of the file, so that
large arrays stay on the disk, mapped into memory.
"""

import io
import mmap
import pickle
import re
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from torch import Tensor

from leo_lightning.common.errors import InputError, one_line
from leo_lightning.common.web_page import START, refuse_page
from leo_lightning.data.importers.pickled_tensors import storage_of, tensor_of

# Booleans, integers, floats, byte strings, text, and Python objects (which come back as a list).
_DTYPE_CODE = re.compile(r"\?|b1|[iu][1248]|f[248]|[SU]\d{1,6}|O8?")
_MAPPED = 2**12  # bytes that are worth a view of the file in place of a copy


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not an array or a plain container."""


class _Tuple(tuple):
    """A tuple that cannot be a key: to hash one that is nested deeply crashes Python."""

    __hash__ = None  # pyright: ignore[reportAssignmentType]


class _DType:
    """A data type, made from a checked code."""

    def __init__(self, code: object) -> None:
        text = _text(code)
        if not isinstance(text, str) or not _DTYPE_CODE.fullmatch(text):
            raise _Refused("with arrays of something other than numbers, text and objects")
        self.value = np.dtype(text)

    def fill(self, state: Any) -> None:
        """Set the byte order, the only part of the state that is not in the code."""
        order = _text(state[1])
        if order in ("<", ">"):
            self.value = self.value.newbyteorder(cast(Any, order))


class _Array:
    """An array under construction, filled by its state."""

    def __init__(self, value: np.ndarray | list[object] | None = None) -> None:
        self.value = value

    def fill(self, state: Any) -> None:
        """Set type, shape and data."""
        _, shape, dtype, fortran, data = state
        self.value = _filled(dtype, shape, "F" if fortran else "C", data)


def _filled(dtype: Any, shape: Any, order: Any, data: Any) -> Any:
    """Return the array over `data`, without a copy; it is read-only."""
    if not isinstance(dtype, _DType):
        raise _Refused("with a malformed array")
    if not dtype.value.hasobject:
        array = np.frombuffer(data, dtype.value) if len(data) else np.empty(0, dtype.value)
        return array.reshape(shape, order=order)
    if not isinstance(data, list) or shape != (len(data),):
        raise _Refused("with a malformed array of Python objects")
    return data


def _ndarray(*arguments: object) -> object:
    raise _Refused("that calls 'numpy.ndarray'")  # pickles name it, but never call it


def _list(*arguments: object) -> object:
    raise _Refused("that calls 'list'")  # only named, by a defaultdict


_ALLOWED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): lambda code, align, copy: _DType(code),
    # Python 3 writes bytes like this in old protocols.
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin-1"),
    ("__builtin__", "bytes"): lambda: b"",
    ("collections", "OrderedDict"): lambda pairs=(): dict(pairs),
    ("collections", "defaultdict"): lambda factory=None: {},
    ("builtins", "list"): _list,
    ("__builtin__", "list"): _list,
    ("torch.storage", "_load_from_bytes"): storage_of,
    ("torch._utils", "_rebuild_tensor_v2"): tensor_of,
}
for _core in ("numpy.core", "numpy._core"):  # numpy 2 renamed the module
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = lambda kind, shape, code: _Array()
    _ALLOWED[f"{_core}.multiarray", "scalar"] = lambda dtype, data: _filled(dtype, (), "C", data).item()
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = lambda data, dtype, shape, order: _Array(
        _filled(dtype, shape, order, data)
    )


class _ArrayUnpickler(pickle._Unpickler):
    """An unpickler that looks names up in the table above only, and keeps long byte strings as views."""

    dispatch: ClassVar[dict[int, Any]] = pickle._Unpickler.dispatch.copy()
    append: Callable[[object], None]
    read: Callable[[int], bytes]
    stack: list[object]

    def __init__(self, content: bytes | mmap.mmap) -> None:
        self._file = io.BytesIO(content) if isinstance(content, bytes) else content
        # Python 2 wrote array data as byte strings. "bytes" leaves them as they are; other choices copy them.
        super().__init__(cast(Any, self._file), encoding="bytes")
        self._view = memoryview(content)

    def find_class(self, module_name: str, global_name: str) -> object:
        if (module_name, global_name) not in _ALLOWED:
            raise _Refused(f"that calls '{module_name}.{global_name}'")
        return _ALLOWED[module_name, global_name]

    def get_extension(self, code: int) -> None:
        """Refuse names by number: Python's own table knows those that another reader looked up."""
        raise _Refused(f"that calls 'extension {code}'")

    def load_build(self) -> None:
        """Fill an array or a data type; a state for anything else could set attributes."""
        state = self.stack.pop()
        target = self.stack[-1]
        if not isinstance(target, _Array | _DType):
            raise _Refused("that changes something other than an array")
        target.fill(state)

    def load_frame(self) -> None:
        """Skip the length of a frame, which only advises to read so much ahead."""
        self.read(8)

    def load_byte_string(self, length_code: str) -> None:
        """Push a view of a long byte string, a copy of a short one, and no more than there is."""
        (size,) = struct.unpack(length_code, self.read(struct.calcsize(length_code)))
        if size < _MAPPED:
            self.append(self.read(max(size, 0)))
            return
        start = self._file.tell()
        end = min(start + size, len(self._view))
        self._file.seek(end)
        self.append(self._view[start:end])

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.FRAME[0]] = load_frame
    dispatch[pickle.BINSTRING[0]] = partial(load_byte_string, length_code="<i")
    dispatch[pickle.BINBYTES[0]] = partial(load_byte_string, length_code="<I")
    dispatch[pickle.BINBYTES8[0]] = partial(load_byte_string, length_code="<Q")
    dispatch[pickle.BYTEARRAY8[0]] = partial(load_byte_string, length_code="<Q")


def _load_tuple(unpickler: _ArrayUnpickler, load: Callable[[_ArrayUnpickler], None]) -> None:
    load(unpickler)
    unpickler.stack[-1] = _Tuple(cast(tuple, unpickler.stack[-1]))


for _code in (pickle.EMPTY_TUPLE[0], pickle.TUPLE[0], pickle.TUPLE1[0], pickle.TUPLE2[0], pickle.TUPLE3[0]):
    _ArrayUnpickler.dispatch[_code] = partial(_load_tuple, load=_ArrayUnpickler.dispatch[_code])


def load_pickle(source: Path | io.BufferedIOBase, name: str | None = None) -> object:
    """Read a pickle of arrays and plain containers, of Python 2 or 3, and execute nothing.

    Byte strings come back as text, arrays of byte strings as arrays of text, and arrays of Python objects as
    lists. Arrays are read-only. Large arrays of a file are views of it, which the system reads when they are
    used, and may drop again (unless Python 3 wrote them in protocol 0 to 2, as text).

    Args:
        source: the file, or an open binary stream, which is read into memory.
        name: the stream's name in messages; a file has its own.

    Raises:
        InputError: the pickle names anything but arrays and plain containers, or it is cut short or damaged.
    """
    name, content = name or str(source), b""
    try:
        if isinstance(source, Path):
            with source.open("rb") as file:
                empty = source.stat().st_size == 0  # nothing can be mapped
                content = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        else:
            content = source.read()
        return _plain(_ArrayUnpickler(content).load(), set())
    except _Refused as refusal:
        remedy = "; save tensors as tensor.detach().numpy()" if "'torch." in str(refusal) else ""
        raise InputError(
            f"{name}: refused to load a pickle {one_line(refusal)}; "
            f"only arrays and plain containers are accepted{remedy}"
        ) from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror or error})") from None
    # A damaged pickle can fail in any opcode with nearly any exception; all mean the same to the user.
    except Exception as error:
        refuse_page(content[:START], name)
        raise InputError(f"{name}: is cut short, damaged or not a pickle ({one_line(error)})") from None


def _text(value: object) -> object:
    """Decode a byte string; leave anything else."""
    if isinstance(value, memoryview):
        value = value.tobytes()
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _plain(value: object, done: set[int]) -> object:
    """Return `value` with arrays in place of `_Array`s and text in place of byte strings.

    A container may be in one place only: a list of ten lists of ten lists and so on is short to write and
    endless to read. `done` holds the containers so far.
    """
    if isinstance(value, _Array):
        value = value.value
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "S":
            return value
        return np.array([_text(item) for item in value.ravel().tolist()], np.str_).reshape(value.shape)
    if isinstance(value, bytes | memoryview):
        return _text(value)
    if isinstance(value, str | float | None) or (isinstance(value, int) and value.bit_length() < 64):
        return value
    if not isinstance(value, dict | list | tuple):
        raise _Refused("of something other than data")
    if id(value) in done and value:
        raise _Refused("with one container in several places")
    done.add(id(value))
    if isinstance(value, dict):
        return {_text(key): _plain(item, done) for key, item in value.items()}
    items = [_plain(item, done) for item in value]
    return tuple(items) if isinstance(value, tuple) else items
