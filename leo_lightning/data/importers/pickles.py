"""Reads pickles without running them.

A pickle is a small program, and the usual reader runs whatever it names. This reader knows a handful of
names, all of which build arrays or dictionaries, and its versions of them are plain Python defined below: no
function of the pickle's choosing is ever looked up, imported or called. Not even numpy's own `__setstate__`
runs, because it trusts the flags in the pickle, and a data type of objects that claims to hold plain bytes
turns those bytes into pointers.

The machine underneath is Python's own in Python. The one in C allocates as much as the greatest memo index
that a pickle names, and on arrays it is no faster. What a pickle may make of its bytes is bounded as well.
"""

import io
import math
import mmap
import pickle
import re
import struct
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from leo_lightning.common.errors import InputError, one_line

# Booleans, integers, floats, byte strings, text, and Python objects (which come back as a list).
_DTYPE_CODE = re.compile(r"\?|b1|[iu][1248]|f[248]|[SU]\d{1,6}|O8?")
_MAX_DEPTH = 16
_MAX_DIMENSIONS = 32  # numpy's own limit
_MAX_PARTS = 2**22  # a container takes up to 100 bytes, for one byte of the pickle
_PART_SIZE = 2**10  # bytes of a large file for which it may have one part more
_MAPPED = 2**12  # bytes that are worth a view of the file in place of a copy
_INT64 = range(-(2**63), 2**63)


class _Refused(pickle.UnpicklingError):
    """The pickle asks for something that is not an array or a plain container."""


class _Allowed:
    """One callable of the allow-list, as the pickle sees it.

    It has no attribute that a pickle could set: state pushed onto it is refused. A bare function or class
    would accept some, and keep it for the pickles read after this one.
    """

    __slots__ = ("make", "name")

    def __init__(self, name: str, make: Callable[..., object]) -> None:
        self.name = name
        self.make = make

    def __call__(self, *arguments: object) -> object:
        return self.make(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _Refused(f"that changes '{self.name}'")


class _DType:
    """What a pickle says of a data type; the real one is made from a checked code, never from the state."""

    __slots__ = ("value",)

    def __init__(self, code: object, align: object = False, copy: object = False) -> None:
        text = _text(code)
        if not isinstance(text, str) or not _DTYPE_CODE.fullmatch(text):
            raise _Refused(f"with arrays of type {_shown(text)}")
        self.value = np.dtype(text)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise _Refused("with arrays of records")
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise _Refused(f"with arrays of byte order {_shown(order)}")
        if order in ("<", ">"):
            self.value = self.value.newbyteorder(order)


class _Array:
    """An array under construction: `_reconstruct` makes it, its state fills it."""

    __slots__ = ("value",)

    def __init__(self, kind: object, shape: object, code: object) -> None:
        if kind is not _NDARRAY:
            raise _Refused("that rebuilds something other than a plain array")
        self.value: np.ndarray | list[object] = np.empty(0, np.float32)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("with a malformed array")
        _, shape, dtype, fortran, data = state
        self.value = _filled(dtype, shape, "F" if fortran else "C", data)


def _filled(dtype: object, shape: object, order: object, data: object) -> np.ndarray | list[object]:
    """Return the array over `data`, without a copy; it is read-only."""
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple) or order not in ("C", "F"):
        raise _Refused("with a malformed array")
    if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and n >= 0 and n in _INT64 for n in shape):
        raise _Refused("with an array of a strange shape")
    length = math.prod(shape)
    if dtype.value.hasobject:
        if not isinstance(data, list) or len(shape) != 1 or len(data) != length:
            raise _Refused("with a malformed array of Python objects")
        return data
    if not isinstance(data, bytes | bytearray | memoryview) or len(data) != length * dtype.value.itemsize:
        raise _Refused(f"with an array whose data do not fill its shape {shape!r:.60}")
    if length == 0:
        return np.empty(shape, dtype.value)
    return np.frombuffer(data, dtype.value).reshape(shape, order="F" if order == "F" else "C")


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    """Rebuild an array the way pickle protocol 5 writes it."""
    array = _Array(_NDARRAY, (0,), "b")
    array.value = _filled(dtype, shape, order, data)
    return array


def _scalar(dtype: object, data: object) -> object:
    """Rebuild a numpy scalar as a Python number or string."""
    values = _filled(dtype, (1,), "C", data)
    if isinstance(values, list):
        raise _Refused("with a scalar Python object")
    return values[0].item()


def _encode(text: object, encoding: object) -> bytes:
    """Turn text back into the bytes it stands for: how Python 3 writes bytes in an old protocol."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise _Refused("that calls '_codecs.encode' for something other than bytes")
    return text.encode("latin-1")


def _empty_bytes() -> bytes:
    """Return no bytes: the one call of `bytes` that an old protocol needs."""
    return b""


def _dictionary(pairs: object = ()) -> dict[object, object]:
    """Build a plain dictionary in place of an OrderedDict, which keeps its order just as well."""
    if not isinstance(pairs, list | tuple) or not all(
        isinstance(p, list | tuple) and len(p) == 2 for p in pairs
    ):
        raise _Refused("with a malformed OrderedDict")
    _check_keys(pair[0] for pair in pairs)
    return dict(pairs)


def _not_a_function(*arguments: object) -> object:
    raise _Refused("that calls 'numpy.ndarray'")


_NDARRAY = _Allowed("numpy.ndarray", _not_a_function)
_ALLOWED: dict[tuple[str, str], _Allowed] = {
    ("numpy", "ndarray"): _NDARRAY,
    ("numpy", "dtype"): _Allowed("numpy.dtype", _DType),
    ("_codecs", "encode"): _Allowed("_codecs.encode", _encode),
    ("__builtin__", "bytes"): _Allowed("bytes", _empty_bytes),
    ("collections", "OrderedDict"): _Allowed("collections.OrderedDict", _dictionary),
}
for _core in ("numpy.core", "numpy._core"):  # numpy 2 renamed the module
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Allowed("numpy's _reconstruct", _Array)
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _Allowed("numpy's scalar", _scalar)
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _Allowed("numpy's _frombuffer", _from_buffer)


class _ArrayUnpickler(pickle._Unpickler):
    """An unpickler whose every look-up is a look-up in the table above."""

    dispatch: ClassVar[dict[int, Any]] = pickle._Unpickler.dispatch.copy()
    append: Callable[[object], None]
    memo: dict[int, object]
    parts = 0
    more_parts = 0
    read: Callable[[int], bytes]
    readline: Callable[[], bytes]
    stack: list[object]

    def find_class(self, module_name: str, global_name: str) -> object:
        allowed = _ALLOWED.get((module_name, global_name))
        if allowed is None:
            raise _Refused(f"that calls '{module_name}.{global_name}'")
        return allowed

    def persistent_load(self, pid: object) -> object:
        raise _Refused("with references to another file")

    def get_extension(self, code: int) -> None:
        """Refuse names by number: those that were looked up once are known to every unpickler after that."""
        raise _Refused(f"that calls 'extension {code}'")

    def load_bytes(self) -> None:
        """Read only as much as there is; the original allocates and clears what is declared."""
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(length))

    def load_put(self) -> None:
        """Refuse indices that no pickler writes: whole numbers can be chosen so that all collide."""
        index = int(self.readline()[:-1])
        if index not in range(2**32):
            raise _Refused("with a strange memo")
        self.memo[index] = self.stack[-1]

    dispatch[pickle.BYTEARRAY8[0]] = load_bytes
    dispatch[pickle.PUT[0]] = load_put


def _guard(check: Callable[[_ArrayUnpickler], None], *opcodes: bytes) -> None:
    """Have `check` called before each of the opcodes."""
    for opcode in opcodes:

        def guarded(
            unpickler: _ArrayUnpickler, load: Callable[[Any], None] = _ArrayUnpickler.dispatch[opcode[0]]
        ) -> None:
            check(unpickler)
            load(unpickler)

        _ArrayUnpickler.dispatch[opcode[0]] = guarded


def _count_part(unpickler: _ArrayUnpickler) -> None:
    unpickler.parts += 1
    if unpickler.parts > _MAX_PARTS + unpickler.more_parts:
        raise _Refused("of too many parts")


def _refuse_set(unpickler: _ArrayUnpickler) -> None:
    raise _Refused("with a set")


def _check_keys(keys: Iterable[object]) -> None:
    """Refuse keys that take long to hash: a tuple may hold itself many times over."""
    if not all(isinstance(key, str | bytes) for key in keys):
        raise _Refused("with a dictionary whose keys are not text")


_guard(_count_part, pickle.MARK, pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.MEMOIZE, pickle.REDUCE)
_guard(_count_part, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3)
_guard(_refuse_set, pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET)
_guard(lambda unpickler: _check_keys(unpickler.stack[-2:-1]), pickle.SETITEM)
_guard(lambda unpickler: _check_keys(unpickler.stack[::2]), pickle.SETITEMS, pickle.DICT)  # since the mark


class _MappedUnpickler(_ArrayUnpickler):
    """An unpickler of a file that is mapped into memory: long byte strings are views of it."""

    dispatch: ClassVar[dict[int, Any]] = _ArrayUnpickler.dispatch.copy()

    def __init__(self, content: mmap.mmap) -> None:
        super().__init__(cast(Any, content), encoding="bytes")
        self._content = content
        self._view = memoryview(content)
        self.more_parts = len(content) // _PART_SIZE

    def load_frame(self) -> None:
        """Skip the length of a frame, which is advice to read so much ahead, into memory."""
        self.read(8)

    def load_byte_string(self, length_code: str) -> None:
        (size,) = struct.unpack(length_code, self.read(struct.calcsize(length_code)))
        if size < _MAPPED:
            self.append(self.read(max(size, 0)))
            return
        start = self._content.tell()
        end = min(start + size, len(self._content))
        self._content.seek(end)
        self.append(self._view[start:end])

    dispatch[pickle.FRAME[0]] = load_frame
    dispatch[pickle.BINSTRING[0]] = partial(load_byte_string, length_code="<i")
    dispatch[pickle.BINBYTES[0]] = partial(load_byte_string, length_code="<I")
    dispatch[pickle.BINBYTES8[0]] = partial(load_byte_string, length_code="<Q")
    dispatch[pickle.BYTEARRAY8[0]] = partial(load_byte_string, length_code="<Q")


def map_pickle(path: Path) -> object:
    """Read a pickle of large arrays like `load_pickle`, but leave them where they are: on the disk.

    Arrays of 4 KiB and more are views of the file, which the system reads when they are looked at, and may
    drop again. (Those that Python 3 wrote in protocol 0 to 2 are stored as text and do not lie in the file.)

    Raises:
        InputError: as `load_pickle`.
    """
    try:
        with path.open("rb") as stream:
            if path.stat().st_size == 0:  # nothing can be mapped
                raise InputError(f"{path}: is cut short, damaged or not a pickle (it is empty)")
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return _loaded(_MappedUnpickler(content), str(path))


def load_pickle(source: Path | io.BufferedIOBase, name: str | None = None) -> object:
    """Read a pickle of arrays and plain containers, of Python 2 or 3, and execute nothing.

    Byte strings come back as text, arrays of byte strings as arrays of text, and arrays of Python objects as
    lists. Arrays are read-only.

    Args:
        source: the file, or an open binary stream.
        name: how messages call the stream; a file is called by its path.

    Returns:
        What the pickle holds.

    Raises:
        InputError: it names anything but arrays and plain containers, or it is cut short or damaged.
    """
    if isinstance(source, Path):
        try:
            with source.open("rb") as stream:
                return load_pickle(stream, str(source))
        except OSError as error:
            raise InputError(f"{source}: cannot be read ({error.strerror})") from None
    # Python 2 wrote array data as byte strings. "bytes" leaves them as they are; other choices copy them.
    return _loaded(_ArrayUnpickler(source, encoding="bytes"), name or "pickle")


def _loaded(unpickler: _ArrayUnpickler, name: str) -> object:
    try:
        return _plain(unpickler.load(), {}, 0)
    except _Refused as refusal:
        raise InputError(
            f"{name}: refused to load a pickle {one_line(refusal)}; "
            "only arrays and plain containers are accepted"
        ) from None
    except MemoryError:
        raise InputError(f"{name}: does not fit in memory, or is a damaged pickle") from None
    # A damaged pickle can fail in any opcode with nearly any exception; all mean the same to the user.
    except Exception as error:
        raise InputError(f"{name}: is cut short, damaged or not a pickle ({one_line(error)})") from None


def _shown(value: object) -> str:
    """Return a value for a message; anything but text may be endless to read."""
    return repr(value[:60]) if isinstance(value, str) else type(value).__name__


def _text(value: object) -> object:
    """Decode a byte string; leave everything else."""
    if isinstance(value, memoryview):
        value = value.tobytes()
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _plain(value: object, done: dict[int, object], depth: int) -> object:
    """Return `value` with arrays in place of `_Array`s and text in place of byte strings.

    `done` remembers what was rebuilt. A container may be in one place only: a list of ten lists of ten lists
    and so on is short to write and endless to read.
    """
    if isinstance(value, str | float | None):
        return value
    if isinstance(value, int):
        if value not in _INT64:
            raise _Refused("with a number of more than 64 bits")
        return value
    if isinstance(value, bytes | memoryview):  # decoded once, however often it is there
        if id(value) not in done:
            done[id(value)] = _text(value)
        return done[id(value)]
    if isinstance(value, _Allowed | _DType):
        raise _Refused("of something other than data")
    if isinstance(value, tuple) and not value:  # there is only one
        return value
    if id(value) in done:
        if isinstance(value, _Array) and isinstance(done[id(value)], np.ndarray):
            return done[id(value)]
        raise _Refused("with one container in several places")
    if depth > _MAX_DEPTH:
        raise _Refused("of containers nested too deeply")
    done[id(value)] = value
    deeper = depth + 1
    if isinstance(value, _Array):
        plain = _plain_array(value.value, done, deeper)
    elif isinstance(value, dict):
        plain = {_text(key): _plain(item, done, deeper) for key, item in value.items()}
    elif isinstance(value, list):
        plain = [_plain(item, done, deeper) for item in value]
    elif isinstance(value, tuple):
        plain = tuple(_plain(item, done, deeper) for item in value)
    else:
        plain = value
    done[id(value)] = plain
    return plain


def _plain_array(value: np.ndarray | list[object], done: dict[int, object], depth: int) -> object:
    if isinstance(value, list):
        return _plain(value, done, depth)
    if value.dtype.kind != "S":
        return value
    texts = [_text(item) for item in value.ravel().tolist()]
    return np.array(texts, dtype=np.str_).reshape(value.shape)
