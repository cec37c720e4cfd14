"""The reader of foreign pickles: reads arrays of Python 2 and 3, and runs nothing."""

import collections
import copyreg
import mmap
import os
import pickle
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.data.importers import pickles
from leo_lightning.data.importers.pickles import load_pickle
from tests.data.importers.sources import python2_array, python2_features, python2_string
from tests.guard import outcome


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


def hostile_pickles(folder: Path) -> dict[str, bytes]:
    """Return pickles that write `folder`/marker when an ordinary reader loads them."""
    marker = str(folder / "marker")
    touch = f"touch {marker}"
    line = touch.encode()
    code = f"open({marker!r}, 'w').close()"
    booby_trap = folder / "trap.npy"
    np.save(booby_trap, np.array([Call(os.system, touch)], dtype=object), allow_pickle=True)
    objects = np.empty(1, dtype=object)
    objects[0] = Call(os.system, touch)
    return {
        "os.system": pickle.dumps(Call(os.system, touch), 2),
        "eval": pickle.dumps(Call(eval, code), 4),
        "exec under its Python 2 name": b"c__builtin__\nexec\n(V" + code.encode() + b"\ntR.",
        "getattr chain": b"cbuiltins\ngetattr\n(cimportlib\nimport_module\n(Vos\ntRVsystem\ntR(V"
        + line
        + b"\ntR.",
        "INST": b"(V" + line + b"\niposix\nsystem\n.",
        "OBJ": b"(cposix\nsystem\nV" + line + b"\no.",
        "memo": b"cposix\nsystem\np0\n0]g0\n(V" + line + b"\ntRa.",
        "nested import": b"c__builtin__\n__import__\n(Vos\ntR0cos\nsystem\n(V" + line + b"\ntR.",
        "nested pickle": pickle.dumps(Call(pickle.loads, pickle.dumps(Call(os.system, touch))), 3),
        "dotted name": b"\x80\x04\x8c\x02os\x8c\x0epath.os.system\x93(V" + line + b"\ntR.",
        "numpy.savetxt": pickle.dumps(Call(np.savetxt, marker, [1.0]), 2),
        "numpy.load": pickle.dumps(Call(np.load, str(booby_trap), None, True), 2),
        "numpy.memmap": pickle.dumps(Call(np.memmap, marker, "uint8", "w+", 0, (1,)), 2),
        "in an array of objects": pickle.dumps({"labels": objects}, 2),
        "state of a list": b"]cposix\nsystem\n(V" + line + b"\ntRb.",
        "OrderedDict": pickle.dumps(collections.OrderedDict(labels=Call(os.system, touch)), 2),
        "memo by byte": b"\x80\x02cposix\nsystem\nq\x070]h\x07(V" + line + b"\ntRa.",
        "name out of the memo": b"\x80\x04\x8c\x05posix\x940\x8c\x06system\x940h\x00h\x01\x93(V"
        + line
        + b"\ntR.",
        "a new object": b"\x80\x02cnumpy\nmemmap\n(V" + marker.encode() + b"\nVb\nVw+\nK\x00(K\x01tt\x81.",
        "a new object with names": (
            b"\x80\x04cnumpy\nmemmap\n(V" + marker.encode() + b"\nVb\nVw+\nt}(Vshape\n(K\x01tu\x92."
        ),
        "state that is called": (
            b"cfunctools\npartial\n(cbuiltins\nprint\ntR(cposix\nsystem\n(V" + line + b"\nt}Ntb)R."
        ),
        "a number for a name": b"\x80\x02\x82\xf0(V" + line + b"\ntR.",
    }


NAMES = [
    "os.system",
    "eval",
    "exec under its Python 2 name",
    "getattr chain",
    "INST",
    "OBJ",
    "memo",
    "nested import",
    "nested pickle",
    "dotted name",
    "numpy.savetxt",
    "numpy.load",
    "numpy.memmap",
    "in an array of objects",
    "state of a list",
    "OrderedDict",
    "memo by byte",
    "name out of the memo",
    "a new object",
    "a new object with names",
    "state that is called",
    "a number for a name",
]


@pytest.fixture(autouse=True)
def _extension() -> Iterator[None]:
    """Have one name in Python's table of extensions, and known to every reader since it was used."""
    copyreg.add_extension("posix", "system", 0xF0)
    pickle.loads(b"\x80\x02\x82\xf0.")
    yield
    copyreg.remove_extension("posix", "system", 0xF0)


@pytest.mark.parametrize("name", NAMES)
def test_hostile_pickle_is_refused(name: str, tmp_path: Path):
    """Nothing runs. Catches an allow-list with a hole, and an attack that is none (the control writes)."""
    data = hostile_pickles(tmp_path)[name]
    path = tmp_path / "hostile.pkl"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        load_pickle(path)
    assert not (tmp_path / "marker").exists()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: refused to load a pickle that calls '")

    with suppress(Exception):  # some attacks fail after their harm is done
        pickle.loads(data)
    assert (tmp_path / "marker").exists()


def test_every_hostile_pickle_is_tested(tmp_path: Path):
    """Catches an attack added to the corpus and left out of the list of test names."""
    assert list(hostile_pickles(tmp_path)) == NAMES


def raw_array(dtype_call: bytes, dtype_state: bytes, data: bytes) -> bytes:
    """Return a pickle of a one-element array with any dtype, dtype state and data."""
    start = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01(K\x01t"
    return start + b"cnumpy\ndtype\n(" + dtype_call + b"K\x00K\x01tR" + dtype_state + b"\x89" + data + b"tb."


STATE = b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
TUPLES = b")q\x000" + b"h\x00h\x00\x86q\x000" * 30 + b"h\x00"  # 2³⁰ empty tuples in one, each hashed
LISTS = b"]q\x000" + (b"](" + b"h\x00" * 10 + b"eq\x000") * 12 + b"h\x00"  # 10¹² empty lists in one
MALFORMED_ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tVb\ntR"
MALFORMED = {
    "bytes as object pointers": raw_array(b"U\x02O8", STATE, b"U\x08AAAAAAAA"),
    "data shorter than the shape": raw_array(b"U\x02f8", STATE, b"U\x04AAAA"),
    "a type by long name": raw_array(b"U\x07f4,(2)O", STATE, b"U\x04AAAA"),
    "a type that is no code": raw_array(b"cnumpy\nndarray\n", STATE, b"U\x04AAAA"),
    "too many arguments": b"c_codecs\nencode\n(Vx\nVlatin1\nVignore\ntR.",
    "too few arguments": b"cnumpy.core.multiarray\n_reconstruct\n)R.",
    "pairs of three": b"ccollections\nOrderedDict\n(]((Va\nVb\nVc\ntltR.",
    "a scalar of two": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(Vf4\ntRU\x08AAAAAAAAtR.",
    "a call of a call": b"cnumpy\ndtype\n(cnumpy\ndtype\ncnumpy\ndtype\ntR.",
    "a call of ndarray": b"cnumpy\nndarray\n(I3\ntR.",
    "state for an allowed name": b"cnumpy.core.multiarray\n_reconstruct\n(Vx\nVy\ntb.",
    "attributes for an allowed name": b"cnumpy\ndtype\n(N}Vmake\nccollections\nOrderedDict\nstb.",
    "an attribute for an array": MALFORMED_ARRAY + b"(N}Vvalue\nVx\nstb.",
    "an allowed name as data": b"(dVembeddings\ncnumpy\ndtype\ns.",
    "a persistent id": b"Pfile\n.",
    "a list that holds itself": b"]p0\n(g0\ne.",
    "deep nesting": b"]" * 5000 + b"a" * 4999 + b".",
    "an unknown extension": b"\x80\x02\x82\x07.",
    "a new object of an allowed name": b"\x80\x02cnumpy\ndtype\n(U\x02f4t\x81.",
    "empty": b"",
    "not a pickle": b"hello, world",
}


@pytest.mark.parametrize("name", list(MALFORMED))
def test_malformed_pickle_is_one_line(name: str, tmp_path: Path):
    """Catches numpy's own unpickling (some of these crash it) and errors other than ours."""
    path = tmp_path / "bad.pkl"
    path.write_bytes(MALFORMED[name])
    with pytest.raises(InputError, match=r"bad\.pkl: (refused|is cut short)") as caught:
        load_pickle(path)
    assert "\n" not in str(caught.value)


BOMBS = {
    "memo index": b"\x80\x02]r\xff\xff\xff\xff.",
    "bytes without data": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"abc.",
    "bytearray without data": b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"abc.",
    "text without data": b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"abc.",
    "frame without data": b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"abc.",
    "number without data": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "number of a million digits": b"\x80\x02\x8b" + struct.pack("<I", 10**6) + b"\x77" * 10**6 + b".",
    "number of a million digits in text": b"L" + b"9" * 10**6 + b"L\n.",
    "deep tuple as a key": b"\x80\x02})" + b"\x85" * 200_000 + b"Ns.",
    "tuple as a key": b"\x80\x02}" + TUPLES + b"Ns.",
    "tuple as one of the keys": b"\x80\x02}(" + TUPLES + b"Nu.",
    "tuple as a key of a new dictionary": b"\x80\x02(" + TUPLES + b"Nd.",
    "tuple as a key of an OrderedDict": b"\x80\x02ccollections\nOrderedDict\n](]" + TUPLES + b"aNae\x85R.",
    "tuple in a set": b"\x80\x04\x8f(" + TUPLES + b"\x90.",
    "tuple in a frozen set": b"\x80\x04(" + TUPLES + b"\x91.",
    "list of lists": b"\x80\x02" + LISTS + b".",
    "list for a data type": b"\x80\x02cnumpy\ndtype\n" + LISTS + b"\x85R.",
    "list for a byte order": b"\x80\x02cnumpy\ndtype\nVf4\n\x85R(K\x03" + LISTS + b"NNNK\x00K\x00tb.",
    "list for an order": b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(NNN" + LISTS + b"tR.",
    "marks": b"(" * 10**5,
    "sets": b"\x80\x04" + b"\x8f" * 10**5,
    "lists": b"]" * 10**5,
    "dictionaries": b"}" * 10**5,
    "tuples": b"\x80\x02N" + b"\x85" * 10**5,
    "text in many places": (
        b"\x80\x02](T\x40\x42\x0f\x00" + b"a" * 10**6 + b"q\x00" + b"h\x00" * 10**5 + b"eI1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(BOMBS))
def test_bomb_does_no_harm(name: str, tmp_path: Path):
    """Catches a short pickle that crashes Python, takes long to read, or fills the memory."""
    path = tmp_path / "bomb.pkl"
    path.write_bytes(BOMBS[name])
    loaded = outcome(lambda: load_pickle(path), tmp_path)
    assert loaded == [] if name == "memo index" else isinstance(loaded, InputError)


def test_bad_pickle_leaves_nothing_for_the_next(tmp_path: Path):
    """Catches a pickle that changes the reader's own functions, so that a later, good one fails."""
    for data in MALFORMED.values():
        (tmp_path / "bad.pkl").write_bytes(data)
        with pytest.raises(InputError):
            load_pickle(tmp_path / "bad.pkl")
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(np.arange(3), 2))
    np.testing.assert_array_equal(load_pickle(tmp_path / "good.pkl"), np.arange(3))


CONTENT = {
    "float32": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">f4"),
    "float16": np.arange(3, dtype=np.float16),
    "bool": np.array([True, False]),
    "int": np.arange(4),
    "text": np.array(["a", "bé"]),
    "empty": np.empty((0, 3), np.float32),
    "scalar": np.float32(2.5),
    "no bytes": b"",
    "bytes": b"abc",
    "list": ["x", 1, 2.5, None, (1, 2)],
    "table": collections.OrderedDict(a=1),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_arrays_and_containers_round_trip(protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches an allow-list too tight for one protocol, and a wrong memory order or byte order."""
    monkeypatch.setattr(pickles, "_MAPPED", 2)
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(CONTENT, protocol))
    loaded = load_pickle(tmp_path / "good.pkl")
    assert isinstance(loaded, dict)
    assert list(loaded) == list(CONTENT)
    for key, value in CONTENT.items():
        expected = value.decode() if isinstance(value, bytes) else value
        np.testing.assert_equal(loaded[key], expected, err_msg=key)
    assert loaded["fortran"].shape == (2, 3)
    assert loaded["big-endian"].dtype == np.dtype(">f4")


def test_array_of_objects_comes_back_as_a_list(tmp_path: Path):
    """Catches labels lost because somebody kept them in an array of Python strings."""
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(np.array(["a", "b"], dtype=object), 2))
    assert load_pickle(tmp_path / "good.pkl") == ["a", "b"]


def test_python2_byte_strings_become_text(tmp_path: Path):
    """Catches classes called b'n01', and keys of the dict that nobody finds because they are bytes."""
    embeddings = np.arange(300, dtype=np.float32).reshape(2, 150)
    (tmp_path / "good.pkl").write_bytes(
        python2_features(["train-a-a_1", "train-b-b_22"], ["a", "b"], embeddings)
    )
    loaded = load_pickle(tmp_path / "good.pkl")
    assert isinstance(loaded, dict)
    assert loaded["labels"] == ["a", "b"]
    assert loaded["keys"].tolist() == ["train-a-a_1", "train-b-b_22"]
    np.testing.assert_array_equal(loaded["embeddings"], embeddings)


def test_every_truncation_is_one_line(tmp_path: Path):
    """Catches an EOFError, IndexError or struct.error that escapes, wherever the file was cut."""
    data = python2_features(["t-a-a_1"], ["a"], np.ones((1, 2), np.float32))
    path = tmp_path / "cut.pkl"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"cut\.pkl") as caught:
            load_pickle(path)
        assert "\n" not in str(caught.value)


def test_damage_never_escapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches an exception type that a flipped byte raises and the reader lets through."""
    monkeypatch.setattr(pickles, "_MAPPED", 4)
    data = bytearray(pickle.dumps({"labels": ["a", "b"], "embeddings": np.ones((2, 2), np.float32)}, 2))
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.pkl"
    for _ in range(400):
        damaged = data.copy()
        damaged[random.integers(len(data))] = random.integers(256)
        path.write_bytes(damaged)
        with suppress(InputError):
            load_pickle(path)


def test_shared_lists_do_not_multiply(tmp_path: Path):
    """Catches a pickle of 100 bytes that is read as 10¹⁰ items, here or by whoever takes the list."""
    item: list[object] = ["x"]
    for _ in range(10):
        item = [item] * 10
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"labels": ["a"], "embeddings": item}, 2))
    with pytest.raises(InputError, match="one container in several places"):
        load_pickle(tmp_path / "bad.pkl")


def test_one_array_under_two_names(tmp_path: Path):
    """Catches arrays refused with the containers that may be in one place only."""
    array = np.arange(3)
    (tmp_path / "good.pkl").write_bytes(pickle.dumps({"a": array, "b": array, "c": (), "d": ()}, 2))
    loaded = load_pickle(tmp_path / "good.pkl")
    assert isinstance(loaded, dict)
    assert loaded["a"] is loaded["b"]


def test_missing_pickle(tmp_path: Path):
    """Catches a traceback for a file that is not there."""
    with pytest.raises(InputError, match="cannot be read"):
        load_pickle(tmp_path / "none.pkl")


LARGE = {"images": [np.full((5000, 1), number, np.uint8) for number in range(3)], "labels": np.arange(3)}


@pytest.mark.parametrize("protocol", [-2, 3, 4, 5])
def test_mapped_arrays_are_views_of_the_file(protocol: int, tmp_path: Path):
    """Catches gigabytes of arrays that are copied into memory, by the reader or by a frame."""
    path = tmp_path / "good.pkl"
    path.write_bytes(python2_images() if protocol == -2 else pickle.dumps(LARGE, protocol))
    loaded = load_pickle(path)
    assert isinstance(loaded, dict)
    path.unlink()  # what is mapped stays
    for array, expected in zip(loaded["images"], LARGE["images"], strict=True):
        np.testing.assert_array_equal(array, expected)
        start = array
        while isinstance(start, np.ndarray):
            start = start.base
        assert isinstance(start, memoryview)
        assert isinstance(start.obj, mmap.mmap)
        assert not array.flags.writeable


def python2_images() -> bytes:
    images = b"](" + b"".join(map(python2_array, LARGE["images"])) + b"e"
    return b"\x80\x02}(" + python2_string(b"images") + images + b"u."


@pytest.mark.parametrize("where", ["in a set", "as a type", "as an order", "alone", "called"])
def test_views_of_the_file_are_only_data(where: str, tmp_path: Path):
    """Catches a view that gets where bytes would be refused, or that comes out as it is."""
    view = b"T" + struct.pack("<i", 5000) + b"a" * 5000
    content = {
        "in a set": b"\x8f(" + view + b"\x90.",
        "as a type": b"cnumpy\ndtype\n" + view + b"\x85R.",
        "as an order": b"cnumpy.core.numeric\n_frombuffer\n(NNN" + view + b"tR.",
        "alone": b"](" + view + view + b"e.",
        "called": view + b")R.",
    }[where]
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04" + content)
    loaded = outcome(lambda: load_pickle(tmp_path / "x.pkl"), tmp_path)
    assert loaded == ["a" * 5000] * 2 if where == "alone" else isinstance(loaded, InputError)
