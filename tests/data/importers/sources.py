"""Sources of features, as other people write them."""

import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch

from leo_lightning.data.splits import SPLITS, load_split

CLASSES = {"train": ("n1", "n2", "n3"), "val": ("n4",), "test": ("n5", "n6")}
IMAGES = 4


def labels_of(split: str) -> list[str]:
    """Return the labels of a split, not sorted."""
    return [name for _ in range(IMAGES) for name in reversed(CLASSES[split])]


def embeddings_of(split: str, size: int = 5) -> np.ndarray:
    """Return embeddings that tell split and row."""
    rows = len(labels_of(split))
    start = 1000 * SPLITS.index(split)
    return np.arange(start, start + rows * size, dtype=np.float32).reshape(rows, size)


def python2_string(data: bytes) -> bytes:
    """Return the opcode that pushes a byte string the way Python 2 does."""
    short = len(data) < 256
    return (b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data))) + data


def python2_array(array: np.ndarray) -> bytes:
    """Return the opcodes that push an array the way numpy under Python 2 does."""
    code = array.dtype.str.lstrip("<|").encode()
    size = struct.pack("<i", array.dtype.itemsize) if array.dtype.kind == "S" else struct.pack("<i", -1)
    shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in array.shape) + b"t"
    order = b"|" if array.dtype.kind == "S" else b"<"
    dtype = b"cnumpy\ndtype\n(" + python2_string(code) + b"K\x00K\x01tR"
    dtype += b"(K\x03" + python2_string(order) + b"NNNJ" + size + b"J" + size + b"K\x00tb"
    start = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    return start + b"(K\x01" + shape + dtype + b"\x89" + python2_string(array.tobytes()) + b"tb"


def python2_features(keys: list[str], labels: list[str], embeddings: np.ndarray) -> bytes:
    """Return a pickle like those of the LEO authors: Python 2, protocol 2, byte strings."""
    key_array = np.array([key.encode() for key in keys])
    label_list = b"](" + b"".join(python2_string(label.encode()) for label in labels) + b"e"
    content = python2_string(b"keys") + python2_array(key_array)
    content += python2_string(b"labels") + label_list
    content += python2_string(b"embeddings") + python2_array(embeddings)
    return b"\x80\x02}(" + content + b"u."


def authors_pickle(split: str) -> bytes:
    """Return the pickle of a split as the authors write theirs."""
    labels = labels_of(split)
    keys = [f"{split}-{label}-{label}_{row:08d}.jpg" for row, label in enumerate(labels)]
    return python2_features(keys, labels, embeddings_of(split))


def authors_archive(path: Path, sets: tuple[str, ...] = ("miniImageNet/center",)) -> Path:
    """Write an archive as the authors publish theirs."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sets:
            for split in SPLITS:
                archive.writestr(f"embeddings/{name}/{split}_embeddings.pkl", authors_pickle(split))
    return path


def write_npz(folder: Path, split: str) -> None:
    np.savez(folder / f"{split}.npz", X=embeddings_of(split), y=np.array(labels_of(split)))


def write_npy(folder: Path, split: str) -> None:
    np.save(folder / f"{split}.npy", embeddings_of(split))
    np.save(folder / f"{split}_labels.npy", np.array([label.encode() for label in labels_of(split)]))


def write_npy_with_text(folder: Path, split: str) -> None:
    np.save(folder / f"{split}_embeddings.npy", embeddings_of(split))
    (folder / f"{split}_labels.txt").write_bytes("\r\n".join([*labels_of(split), "", ""]).encode())


def write_torch(folder: Path, split: str) -> None:
    torch.save(
        {"x": torch.from_numpy(embeddings_of(split)), "targets": labels_of(split)}, folder / f"{split}.pt"
    )


def write_state(folder: Path, split: str) -> None:
    content = {"embeddings": torch.from_numpy(embeddings_of(split)), "labels": labels_of(split)}
    torch.save(content, folder / f"{split}.pth", _use_new_zipfile_serialization=False)


def tree(root: Path) -> list[str]:
    """Return every file and folder under `root`."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def assert_imported(root: Path, splits: tuple[str, ...] = SPLITS) -> None:
    """Check every row of every split."""
    for split in splits:
        bank = load_split(root, split)
        order = np.argsort(labels_of(split), kind="stable")
        np.testing.assert_array_equal(bank.embeddings.numpy(), embeddings_of(split)[order])
        assert bank.class_names == CLASSES[split]
        assert bank.counts.tolist() == [IMAGES] * len(CLASSES[split])
    assert sorted(os.listdir(root)) == sorted(f"{split}.safetensors" for split in splits)


def silent(remark: str) -> None:
    """Fail where nothing should be remarked."""
    raise AssertionError(remark)
