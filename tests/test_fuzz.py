"""Damaged and forged files of every kind that the application reads.

Whatever is in a file, reading it gives the right content or one line, and runs nothing (tests/guard.py). A
few examples of each kind by default; 2,000 with `--hypothesis-profile=full`.
"""

import copy
import io
import json
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from leo_lightning.commands.train import train_parser
from leo_lightning.common.errors import InputError, one_line
from leo_lightning.common.yaml_files import load_yaml, read_table
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_file import load_bank, save_bank
from leo_lightning.data.importers.importer import import_features
from leo_lightning.data.splits import SPLITS, load_split
from leo_lightning.learners.leo import LEO
from leo_lightning.runs.parser import Parser
from leo_lightning.runs.recorded_config import trusted_classes_only
from leo_lightning.training.checkpoint import read_checkpoint
from leo_lightning.training.meta_learner import MetaLearner
from tests.data.banks import make_bank
from tests.data.importers import sources
from tests.guard import outcome
from tests.places import ROOT
from tests.tiny_run import folders, main, tiny

# Numbers that lengths, offsets, counts and indices should not be.
NASTY = [
    *(struct.pack("<I", n) for n in (0, 1, 2**16, 2**27, 2**31 - 1, 2**31, 2**32 - 1)),
    *(struct.pack("<Q", n) for n in (0, 2**32, 2**40, 2**62, 2**63 - 1, 2**64 - 1)),
]
# Pieces of pickles: calls, memo tricks, lengths beyond the file.
OPCODES = [
    b"cos\nsystem\n(Vtrue\ntR", b"cbuiltins\neval\n(V1\ntR", b"cposix\nsystem\n",
    b"\x8c\x02os\x8c\x06system\x93", b"r\xff\xff\xff\x07", b"r\xff\xff\xff\xff", b"p999999999999\n",
    b"j\xff\xff\xff\x7f", b"g5\n", b"h\x00", b"q\x00", b"\x94", b"X\xff\xff\xff\x7f",
    b"\x8e\xff\xff\xff\xff\xff\x00\x00\x00", b"\x96\x00\x00\x00\x00\x01\x00\x00\x00",
    b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x8a\xff" + b"\xff" * 255, b"\x8b\xff\xff\xff\x7f",
    b"I" + b"9" * 5000 + b"\n", b"(", b")", b"]", b"}", b"\x8f", b"0", b"1", b"2", b"N", b"a", b"e", b"s",
    b"u", b"t", b"R", b"b", b"\x81", b"\x92", b".", b"\x82\x01", b"Q", b"P1\n",
]  # fmt: skip
# Pieces of npy and safetensors headers, and of YAML.
WORDS = [
    b"|S0", b"|V0", b"<U99999999", b"|O", b"('a', '<f4')", b"(99999999999, 5)", b"(4294967296, 4294967296)",
    b"(-1,)", b"True", b"{", b"[", b"(" * 200, b"}", b"null", b"1e999", b"-1", b'"F64"', b'"I8"',
    b'"F8_E4M3"', b'"BOOL"', b'"F4"', b'"__metadata__":{},', b"[0,18446744073709551615]",
    b"[4611686018427387904,4]", b"\\ud800", b"\\u001b[2J", b"\n", b"\x1b]0;x\x07", b"PK\x05\x06",
    b"PK\x01\x02", b"PK\x03\x04", b"PK\x06\x06", b"\x93NUMPY\x03\x00", b"../../x", b"/etc/passwd",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn, data: bytes, pieces: list[bytes] = [*NASTY, *OPCODES, *WORDS]) -> bytes:  # noqa: B006
    """Draw what is left of `data` after some harm. None of it may be the last: it may load as before."""
    result = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(result) - 1)))
        length = draw(st.integers(1, 64))
        harm = draw(
            st.sampled_from(["bit", "byte", "cut", "insert", "overwrite", "remove", "repeat", "move"])
        )
        if harm == "bit" and result:
            result[place] ^= 1 << draw(st.integers(0, 7))
        elif harm == "byte" and result:
            result[place] = draw(st.integers(0, 255))
        elif harm == "cut":
            del result[place:]
        elif harm == "insert":
            result[place:place] = draw(st.sampled_from(pieces) | st.binary(max_size=16))
        elif harm == "overwrite":
            piece = draw(st.sampled_from(pieces) | st.binary(max_size=16))
            result[place : place + len(piece)] = piece
        elif harm == "remove":
            del result[place : place + length]
        elif harm == "repeat":
            result[place:place] = result[place : place + length] * draw(st.integers(1, 50))
        elif harm == "move":
            block = result[place : place + length]
            del result[place : place + length]
            target = draw(st.integers(0, len(result)))
            result[target:target] = block
    return bytes(result)


@st.composite
def damaged_zip(draw: st.DrawFn, data: bytes) -> bytes:
    """Draw damage of an archive: outside, or inside one member with its checksum made right again."""
    if draw(st.booleans()):
        return draw(damaged(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
        method = archive.infolist()[0].compress_type
    victim = draw(st.sampled_from(list(members)[:4]))  # those that say something lie in front
    members[victim] = draw(damaged(members[victim]))
    return zipped(members, method)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def assert_sound(bank: FeatureBank) -> None:
    """Check what everything that takes a bank relies on."""
    rows, size = bank.embeddings.shape
    assert rows > 0
    assert size > 0
    assert bank.embeddings.dtype in (torch.float16, torch.bfloat16, torch.float32)
    labels = bank.labels.tolist()
    assert labels == sorted(labels)
    assert sorted(set(labels)) == list(range(bank.num_classes))
    assert len(set(bank.class_names)) == bank.num_classes
    assert all(isinstance(name, str) for name in bank.class_names)
    assert bank.image_names is None or len(bank.image_names) == rows
    assert all(isinstance(v, str) for pair in bank.provenance.items() for v in pair)


# Feature files


@pytest.fixture(scope="module")
def feature_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "train.safetensors"
    save_bank(make_bank(["n1", "n2", "n3"]), path)
    return path


def check_feature_file(data: bytes, feature_file: Path) -> None:
    path = feature_file.with_name("damaged.safetensors")
    path.write_bytes(data)

    def read() -> FeatureBank:
        bank = load_bank(path)
        bank.check_finite()
        return bank

    bank = outcome(read, path.parent)
    if not isinstance(bank, InputError):
        assert isinstance(bank, FeatureBank)
        assert_sound(bank)


@given(data=st.data())
def test_damaged_feature_file(data: st.DataObject, feature_file: Path):
    """Catches an error of safetensors, json or torch that escapes, and a bank that cannot be sampled."""
    check_feature_file(data.draw(damaged(feature_file.read_bytes())), feature_file)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def changed(draw: st.DrawFn, tree: Any, leaves: st.SearchStrategy[Any]) -> Any:
    """Draw a copy of nested dictionaries and lists in which a few places are lost, swapped or replaced."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        here = tree
        while True:
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(here[key], dict | list) and here[key] and draw(st.integers(0, 4)):
                here = here[key]
                continue
            harm = draw(st.sampled_from(["replace", "replace", "remove", "add", "swap"]))
            if harm == "remove":
                del here[key]
            elif harm == "add" and isinstance(here, dict):
                here[draw(st.text(max_size=5))] = draw(leaves)
            elif harm == "swap":
                other = draw(st.sampled_from(keys))
                here[key], here[other] = here[other], here[key]
            else:
                here[key] = draw(leaves)
            break
    return tree


@given(data=st.data())
def test_forged_feature_file(data: st.DataObject, feature_file: Path):
    """Catches trust in a header: dtypes, shapes, offsets and names that are well-formed and wrong."""
    raw = feature_file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    for key in ("class_names", "image_names", "provenance"):
        header["__metadata__"][key] = json.loads(header["__metadata__"][key])
    sizes = st.sampled_from([0, 1, 3, 9, 36, 144, 216, 2**31, 2**62, 2**64 - 1, -1])
    dtypes = st.sampled_from(
        ["F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "C64", "F4", "U16"]
    )
    header = data.draw(changed(header, sizes | dtypes | values | st.lists(sizes, max_size=3)))
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict):
        for key, value in metadata.items():
            if not isinstance(value, str):
                metadata[key] = json.dumps(value)
    text = json.dumps(header).encode()
    forged = struct.pack("<Q", data.draw(st.just(len(text)) | sizes.filter(lambda n: n >= 0))) + text + body
    check_feature_file(forged, feature_file)


# Checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    assert tiny(root, "--trainer.max_steps=3") == 0
    return folders(root)[0] / "checkpoints" / "best.ckpt"


def check_checkpoint(path: Path) -> None:
    """Read a checkpoint as `train.py test` does, and as `load_from_checkpoint` does."""

    def as_command() -> MetaLearner:
        model = MetaLearner(LEO(embedding_size=128, num_latents=4))
        content = read_checkpoint(path)
        model.on_load_checkpoint(content)
        model.load_state_dict(content["state_dict"])
        return model

    def alone() -> MetaLearner:
        try:
            return MetaLearner.load_from_checkpoint(path)
        except TypeCheckError as error:  # an int for a float: only tests enforce types
            raise InputError(one_line(error)) from None

    for read in (as_command, alone):
        model = outcome(read, path.parent)
        if not isinstance(model, InputError):
            assert isinstance(model, MetaLearner)
            assert all(p.dtype == torch.float32 for p in model.parameters())
            assert type(model.bad_steps) is int


@given(data=st.data())
def test_damaged_checkpoint(data: st.DataObject, checkpoint: Path):
    """Catches an error of zipfile, pickle or torch that escapes, and weights changed unnoticed."""
    path = checkpoint.with_name("damaged.ckpt")
    path.write_bytes(data.draw(damaged_zip(checkpoint.read_bytes())))
    check_checkpoint(path)


tensors = st.sampled_from(
    [
        torch.ones(2), torch.ones(0), torch.tensor(3), torch.ones(4, dtype=torch.complex64),
        torch.ones(1).expand(10**6, 10**4), torch.ones(4, dtype=torch.float16), torch.ones(4, 4).t(),
        torch.nn.Parameter(torch.ones(4)), torch.full((4,), torch.nan),
    ]
)  # fmt: skip
names = st.sampled_from(
    ["os.system", "subprocess.Popen", "leo_lightning.learners.leo.LEO", "leo_lightning.learners.leo", "x",
     "leo_lightning.learners.centroid.NearestCentroid", "leo_lightning.learners.learner.Learner", "this.s"]
)  # fmt: skip


@given(data=st.data())
def test_forged_checkpoint(data: st.DataObject, checkpoint: Path):
    """Catches trust in a checkpoint that is whole and well-formed: its keys, types, sizes, names."""
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"] = dict(content["state_dict"])
    part = data.draw(st.sampled_from(["hyper_parameters", "state_dict", "bad_steps", None]))
    leaves = values | tensors | names | st.sampled_from([0, -1, 4, 128, 10**5, 10**9, 2**70])
    if part is None:
        content = data.draw(changed(content, leaves))
    else:
        content[part] = data.draw(changed(content[part], leaves))
    path = checkpoint.with_name("forged.ckpt")
    torch.save(content, path)
    check_checkpoint(path)


# Configurations


@pytest.fixture(scope="module")
def parser() -> Parser:
    return train_parser("fit")


CONFIG = ROOT / "configs" / "leo.yaml"
EVIL_YAML = [
    b"!!python/object/apply:os.system [true]", b"!!python/name:os.system ", b"!!python/object/new:os.system",
    b"&a [*a]", b"*a", b"&a ", b"!!int x", b"!!bool x", b"!!float ", b"!!binary x", b"!!timestamp 2000-99-99",
    b"!!set {a}", b"<<: ", b"? ", b"- ", b"[", b"{", b"[" * 1000, b"9" * 5000, b"1:1:1:1:1:1", b"0x", b".inf",
    b"1e400", b"\x00", b"\xff\xfe", b"\xe2\x80\xa8", b"\x1b[2J", b"---\n", b"...", b"class_path: os.system\n",
    b"class_path: subprocess.Popen\n", b"init_args: {args: true}\n", b"dict_kwargs: {a: 1}\n",
]  # fmt: skip


def check_configuration(parser: Parser, path: Path) -> None:
    def parse() -> object:
        read_table(path)
        return parser.parse_args([f"--config={path}"])

    outcome(parse, path.parent)


@pytest.mark.parametrize(
    "text",
    [
        "data:\n  way: " + "[" * 500,
        "a: &a [x]\n" + "".join(f"{n}: &{n} [{', '.join(['*a'] * 9)}]\n" for n in range(3)),
        "x" * (2**20 + 1),
        "data: {way: !!bool x}",
        "data: {way: " + "9" * 5000 + "}",
    ],
)
def test_endless_configuration(text: str):
    """Catches YAML that is short and endless, or so deep that the parser in C crashes."""
    with pytest.raises(yaml.YAMLError):
        load_yaml(text)


@given(data=st.data())
def test_damaged_configuration(data: st.DataObject, parser: Parser, checkpoint: Path):
    """Catches YAML that hangs or crashes its parser, and errors of jsonargparse that escape."""
    path = checkpoint.with_name("damaged.yaml")
    path.write_bytes(data.draw(damaged(CONFIG.read_bytes(), EVIL_YAML)))
    check_configuration(parser, path)


@given(data=st.data())
def test_forged_configuration(data: st.DataObject, parser: Parser, checkpoint: Path):
    """Catches a class path that is called though it is no learner, callback or logger."""
    config = yaml.safe_load(CONFIG.read_text())
    arguments = {"args": "true", "command": "true", "shell": True}
    evil = names.map(lambda name: {"class_path": name, "init_args": arguments})
    config["trainer"] |= dict.fromkeys(("callbacks", "logger", "plugins", "strategy", "profiler"))
    path = checkpoint.with_name("forged.yaml")
    path.write_text(yaml.safe_dump(data.draw(changed(config, values | evil | st.lists(evil, max_size=2)))))
    check_configuration(parser, path)


LAMBDA = {"class_path": "sympy.Lambda", "init_args": {"signature": "x", "expr": "x"}}
callables = st.sampled_from(
    ["os.system", "this.s", "math.sqrt", "torch.load", "torch.optim.adam.os.system", LAMBDA]
)


@given(schedule=callables | st.none(), hook=callables)
def test_configuration_that_was_found(schedule: object, hook: object, parser: Parser):
    """Catches an import that a class path or a function in a found configuration asks for, at any depth."""
    scheduler = {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": schedule}}
    callback = {"class_path": "pytorch_lightning.callbacks.LambdaCallback", "init_args": {"setup": hook}}
    config = {"model": {"lr_scheduler": scheduler}, "trainer": {"callbacks": [callback]}}
    sys.modules.pop("this", None)
    with pytest.raises(InputError), trusted_classes_only():
        parser.parse_object(config)
    assert "this" not in sys.modules


# Sources of features


def write_pickle(folder: Path, split: str) -> None:
    (folder / f"{split}_embeddings.pkl").write_bytes(sources.authors_pickle(split))


def write_modern_pickle(folder: Path, split: str) -> None:
    import pickle

    labels = np.array(sources.labels_of(split), object)
    content = {"embeddings": sources.embeddings_of(split), "labels": labels, "keys": list(labels)}
    (folder / f"{split}_embeddings.pkl").write_bytes(pickle.dumps(content, 4))


def write_archive(folder: Path, split: str) -> None:
    if split == "train":
        sources.authors_archive(folder / "train_all.zip")


WRITERS: list[Callable[[Path, str], None]] = [
    write_pickle, write_modern_pickle, write_archive, sources.write_npz, sources.write_npy,
    sources.write_npy_with_text, sources.write_torch, sources.write_state,
]  # fmt: skip


@pytest.fixture(scope="module", params=WRITERS, ids=lambda writer: writer.__name__)
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    (folder / "src").mkdir()
    for split in SPLITS:
        request.param(folder / "src", split)
    return folder / "src"


@given(data=st.data())
def test_damaged_source(data: st.DataObject, source: Path):
    """Catches an error of any importer that escapes, and files half written."""
    victim = data.draw(st.sampled_from(sorted(source.glob("train*"))))
    original = victim.read_bytes()
    form = damaged_zip if zipfile.is_zipfile(victim) else damaged
    root = source.parent
    whole = victim.suffix == ".zip"

    def read() -> dict[str, FeatureBank]:
        return import_features(victim if whole else source, root / "out", report=lambda remark: None)

    try:
        victim.write_bytes(data.draw(form(original)))
        banks = outcome(read, root)
        assert sorted(path.name for path in root.iterdir()) == (
            ["src"] if isinstance(banks, InputError) else ["out", "src"]
        )
        if not isinstance(banks, InputError):
            assert isinstance(banks, dict)
            for split in banks:
                assert_sound(load_split(root / "out", split))
    finally:
        shutil.rmtree(root / "out", ignore_errors=True)
        victim.write_bytes(original)


# Through the command line


@pytest.mark.filterwarnings("ignore:The dirpath has changed:UserWarning")  # these lie outside their run
def test_command_line_says_the_same(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Catches a way into the program that goes round the readers tested above."""
    monkeypatch.chdir(tmp_path)
    data = checkpoint.read_bytes()
    content = torch.load(checkpoint, weights_only=True)
    forged: dict[str, Any] = {
        "cut": data[: len(data) // 2],
        "flip": data[:3000] + bytes([data[3000] ^ 1]) + data[3001:],
        "empty": b"",
        "no zip": b"hello",
        "loops": content | {"loops": {}},
        "callbacks": content | {"callbacks": 5},
        "optimizer": content | {"optimizer_states": [{"state": {}, "param_groups": []}]},
        "version": content | {"pytorch-lightning_version": "one"},
        "hyper": content | {"hyper_parameters": {"_instantiator": "os.system", "learner": "os.system"}},
        "counts": content | {"bad_steps": None},
    }
    for name, what in forged.items():
        path = tmp_path / "x.ckpt"
        if isinstance(what, bytes):
            path.write_bytes(what)
        else:
            torch.save(what, path)
        for command in ("test", "fit"):
            code = outcome(lambda c=command, p=path: tiny(tmp_path, f"--ckpt_path={p}", command=c), tmp_path)
            said = capsys.readouterr()
            if name == "optimizer" and command == "test":
                assert code == 0  # of no use for a test
                continue
            assert code == 2, (name, command)
            assert len(said.err.splitlines()) == 1, said.err
            assert "x.ckpt" in said.err or "the checkpoint" in said.err
    (tmp_path / "x.yaml").write_bytes(b"data:\n  way: " + b"[" * 10**5)
    assert main(["fit", "--config=x.yaml"]) == 2
    assert "nest" in capsys.readouterr().err  # in our words, or in those of a newer libyaml
