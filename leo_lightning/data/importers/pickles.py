"""Reads pickles without running them.

A pickle is a small program, and the usual reader runs whatever it names. This reader knows a handful of
names, all of which build arrays or dictionaries, and its versions of them are plain Python defined below: no
function of the pickle's choosing is ever looked up, imported or called. Not even numpy's own `__setstate__`
runs, because it trusts the flags in the pickle, and a data type of objects that claims to hold plain bytes
turns those bytes into pointers.
"""

import io
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from leo_lightning.errors import InputError, one_line

# Booleans, integers, floats, byte strings, text, and Python objects (which come back as a list).
_DTYPE_CODE = re.compile(r"\?|b1|[iu][1248]|f[248]|[SU]\d{1,6}|O8?")
_MAX_DEPTH = 16
_UNFINISHED = object()


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
            raise _Refused(f"with arrays of type {text!r:.60}")
        self.value = np.dtype(text)

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise _Refused("with arrays of records")
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise _Refused(f"with arrays of byte order {order!r:.20}")
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


def _filled(dtype: object, shape: object, order: str, data: object) -> np.ndarray | list[object]:
    """Return the array over `data`, without a copy; it is read-only."""
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple) or order not in ("C", "F"):
        raise _Refused("with a malformed array")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise _Refused(f"with an array of shape {shape!r:.60}")
    length = math.prod(shape)
    if dtype.value.hasobject:
        if not isinstance(data, list) or len(shape) != 1 or len(data) != length:
            raise _Refused("with a malformed array of Python objects")
        return data
    if not isinstance(data, bytes | bytearray) or len(data) != length * dtype.value.itemsize:
        raise _Refused(f"with an array whose data do not fill its shape {shape!r:.60}")
    if length == 0:
        return np.empty(shape, dtype.value)
    return np.frombuffer(data, dtype.value).reshape(shape, order="F" if order == "F" else "C")


def _from_buffer(data: object, dtype: object, shape: object, order: object) -> _Array:
    """Rebuild an array the way pickle protocol 5 writes it."""
    array = _Array(_NDARRAY, (0,), "b")
    array.value = _filled(dtype, shape, str(order), data)
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


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler whose every look-up is a look-up in the table above."""

    def find_class(self, module_name: str, global_name: str) -> object:
        allowed = _ALLOWED.get((module_name, global_name))
        if allowed is None:
            raise _Refused(f"that calls '{module_name}.{global_name}'")
        return allowed

    def persistent_load(self, pid: object) -> object:
        raise _Refused("with references to another file")


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
    name = name or "pickle"
    try:
        # Python 2 wrote array data as byte strings. "bytes" leaves them as they are; other choices copy them.
        return _plain(_ArrayUnpickler(source, encoding="bytes").load(), {}, 0)
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


def _text(value: object) -> object:
    """Decode a byte string; leave everything else."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _plain(value: object, done: dict[int, object], depth: int) -> object:
    """Return `value` with arrays in place of `_Array`s and text in place of byte strings.

    `done` remembers the containers already rebuilt, so a pickle cannot make one list count many times.
    """
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, _Allowed | _DType):
        raise _Refused("of something other than data")
    if id(value) in done:
        if done[id(value)] is _UNFINISHED:
            raise _Refused("of a container that holds itself")
        return done[id(value)]
    if depth > _MAX_DEPTH:
        raise _Refused("of containers nested too deeply")
    done[id(value)] = _UNFINISHED
    deeper = depth + 1
    if isinstance(value, _Array):
        plain = _plain_array(value.value, done, deeper)
    elif isinstance(value, dict):
        plain = {
            _hashable(_plain(key, done, deeper)): _plain(item, done, deeper) for key, item in value.items()
        }
    elif isinstance(value, list):
        plain = [_plain(item, done, deeper) for item in value]
    elif isinstance(value, tuple):
        plain = tuple(_plain(item, done, deeper) for item in value)
    elif isinstance(value, set | frozenset):
        plain = {_hashable(_plain(item, done, deeper)) for item in value}
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


def _hashable(value: object) -> object:
    if isinstance(value, list | dict | set | np.ndarray):
        raise _Refused("with a container as the key of a dictionary")
    return value
