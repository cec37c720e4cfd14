"""Folders of features that cannot be imported, each for another reason."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import torch

from tests.data.importers.sources import (
    authors_pickle,
    embeddings_of,
    labels_of,
    write_npy,
    write_npz,
    write_torch,
)


def bad_nothing(folder: Path) -> None:
    (folder / "photo.jpg").touch()


def bad_shared_class(folder: Path) -> None:
    write_npz(folder, "train")
    shutil.copy(folder / "train.npz", folder / "test.npz")


def bad_sizes(folder: Path) -> None:
    write_npz(folder, "train")
    np.savez(folder / "val.npz", x=embeddings_of("val", 6), y=labels_of("val"))


def bad_twice(folder: Path) -> None:
    write_npz(folder, "train")
    write_torch(folder, "train")


def bad_mixture(folder: Path) -> None:
    write_npz(folder, "train")
    (folder / "test_embeddings.pkl").write_bytes(authors_pickle("test"))


def bad_no_labels(folder: Path) -> None:
    np.save(folder / "train.npy", embeddings_of("train"))


def bad_no_array(folder: Path) -> None:
    np.savez(folder / "train.npz", labels=labels_of("train"))


def bad_blank_line(folder: Path) -> None:
    np.save(folder / "train.npy", np.ones((3, 2), np.float32))
    (folder / "train_labels.txt").write_text("a\n\nb\n")


def bad_objects(folder: Path) -> None:
    np.savez(
        folder / "train.npz", embeddings=embeddings_of("train"), labels=np.array(labels_of("train"), object)
    )


def bad_npy_objects(folder: Path) -> None:
    write_npz(folder, "val")
    write_npy(folder, "train")
    np.save(folder / "train_labels.npy", np.array(labels_of("train"), object))


def bad_npz_damaged(folder: Path) -> None:
    write_npz(folder, "train")
    data = bytearray((folder / "train.npz").read_bytes())
    data[200] ^= 255
    (folder / "train.npz").write_bytes(data)


def bad_npz_deflated(folder: Path) -> None:
    np.savez_compressed(
        folder / "train.npz", embeddings=np.random.default_rng(0).random((99, 9)), labels=[0] * 99
    )
    data = bytearray((folder / "train.npz").read_bytes())
    data[60:1000] = b"\xff" * 940
    (folder / "train.npz").write_bytes(data)


def bad_npz_cut(folder: Path) -> None:
    write_npz(folder, "train")
    (folder / "train.npz").write_bytes((folder / "train.npz").read_bytes()[:300])


def bad_npy_cut(folder: Path) -> None:
    write_npy(folder, "train")
    (folder / "train.npy").write_bytes((folder / "train.npy").read_bytes()[:150])


def bad_torch_cut(folder: Path) -> None:
    write_torch(folder, "train")
    (folder / "train.pt").write_bytes((folder / "train.pt").read_bytes()[:300])


def bad_torch_list(folder: Path) -> None:
    torch.save([torch.ones(2)], folder / "train.pt")


def bad_pickle_list(folder: Path) -> None:
    (folder / "train_embeddings.pkl").write_bytes(pickle.dumps([1]))


def bad_pickle_keys(folder: Path) -> None:
    (folder / "train_embeddings.pkl").write_bytes(pickle.dumps({"labels": ["a"]}))


def bad_pickle_rows(folder: Path) -> None:
    (folder / "train_embeddings.pkl").write_bytes(
        pickle.dumps({"labels": ["a", "b"], "embeddings": [[1.0], [1.0, 2.0]]})
    )


def bad_pickle_labels(folder: Path) -> None:
    (folder / "train_embeddings.pkl").write_bytes(pickle.dumps({"labels": 3, "embeddings": np.ones((2, 2))}))


def bad_pickle_call(folder: Path) -> None:
    (folder / "train_embeddings.pkl").write_bytes(b"cposix\nsystem\n(Vtrue\ntR.")


def bad_infinite(folder: Path) -> None:
    write_npz(folder, "train")
    write_npz(folder, "val")
    np.savez(folder / "test.npz", x=np.array([[1.0], [np.inf]]), y=["n8", "n9"])


def bad_equal(folder: Path) -> None:
    np.savez(folder / "train.npz", X=np.ones((3, 2), np.float32), y=[0, 0, 1])


BAD_SOURCES = {
    bad_nothing: "no features found; looked for",
    bad_shared_class: "classes 'n1', 'n2', 'n3' in both 'train' and 'test'",
    bad_sizes: "embeddings have 6 numbers, those of 'train' have 5",
    bad_twice: "holds the train split more than once (train.npz, train.pt)",
    bad_mixture: "holds pickles and train.npz",
    bad_no_labels: "its labels must be in train_labels.npy, .txt or .csv beside it, and there is none",
    bad_no_array: "train.npz: has no 'embeddings' (nor 'features' nor 'x' nor 'X')",
    bad_blank_line: "the label of row 1 is ''",
    bad_objects: "train.npz: holds an array of Python objects, as pandas makes; save labels.astype(str)",
    bad_npy_objects: "train_labels.npy: holds an array of Python objects",
    bad_npz_damaged: "train.npz: cannot be read by numpy",
    bad_npz_deflated: "train.npz: cannot be read by numpy (Error -3 while decompressing",
    bad_npz_cut: "train.npz: cannot be read by numpy",
    bad_npy_cut: "train.npy: cannot be read by numpy",
    bad_torch_cut: "train.pt: is not a whole torch file",
    bad_torch_list: "train.pt: holds a list, not a dict",
    bad_pickle_list: "train_embeddings.pkl: holds a list, not a dict",
    bad_pickle_keys: "train_embeddings.pkl: has no 'embeddings'",
    bad_pickle_rows: "train_embeddings.pkl: the embeddings are not rows of numbers",
    bad_pickle_labels: "train_embeddings.pkl: 'labels' is neither an array nor a list",
    bad_pickle_call: "refused to load a pickle that calls 'posix.system'",
    bad_equal: "train.npz: all 3 embeddings are equal",
    bad_infinite: "test.npz: holds numbers that are not finite in 1 of 2 rows (1)",
}
"""Makers of bad folders, each with the words of its refusal."""
