"""Features in the formats of other repositories, each written by the library that people write it with."""

import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas
import pytest
import scipy.io
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.importers.arrays import read_file
from leo_lightning.data.importers.importer import import_features
from leo_lightning.data.splits import SPLITS
from tests.data.importers.sources import assert_imported, embeddings_of, labels_of, silent


def by_class(split: str) -> dict[str, list[np.ndarray]]:
    """Return rows by class, as S2M2's save_features.py and its followers (PT-MAP) collect them."""
    rows: dict[str, list[np.ndarray]] = defaultdict(list)
    for row, label in zip(embeddings_of(split), labels_of(split), strict=True):
        rows[label].append(row)
    return rows


def write_plk(folder: Path, split: str) -> None:
    (folder / f"{split}.plk").write_bytes(pickle.dumps(by_class(split)))


def write_class_npz(folder: Path, split: str) -> None:
    arrays: dict[str, Any] = {name: np.stack(rows) for name, rows in by_class(split).items()}
    np.savez(folder / f"{split}.npz", **arrays)


def write_class_torch(folder: Path, split: str) -> None:
    rows = {name: torch.from_numpy(np.stack(rows)) for name, rows in by_class(split).items()}
    torch.save(rows, folder / f"{split}.pt")


def write_pickled_tensors(folder: Path, split: str) -> None:
    content = {"feats": torch.from_numpy(embeddings_of(split)), "labels": labels_of(split)}
    (folder / f"{split}.pkl").write_bytes(pickle.dumps(content))


def write_pickled_arrays(folder: Path, split: str) -> None:
    content = {"concat_features": embeddings_of(split), "concat_labels": np.array(labels_of(split))}
    (folder / f"{split}.pickle").write_bytes(pickle.dumps(content))


def write_hdf5(folder: Path, split: str) -> None:
    """Write rows of padding, as wyharveychen/CloserLookFewShot's save_features.py does, and class names."""
    names = ["n1", "n2", "n3", "n4", "n5", "n6"]
    rows = len(labels_of(split))
    with h5py.File(folder / f"{split}.hdf5", "w") as file:
        feats = file.create_dataset("all_feats", (rows + 5, 5), dtype="f")
        labels = file.create_dataset("all_labels", (rows + 5,), dtype="i")
        feats[:rows] = embeddings_of(split)
        labels[:rows] = [names.index(name) for name in labels_of(split)]
        file.create_dataset("count", (1,), dtype="i")[0] = rows
        file["class_names"] = names


def write_class_hdf5(folder: Path, split: str) -> None:
    with h5py.File(folder / f"{split}.h5", "w") as file:
        for name, rows in by_class(split).items():
            file[name] = np.stack(rows)


def write_parquet(folder: Path, split: str) -> None:
    table = pandas.DataFrame({"embedding": list(embeddings_of(split)), "class": labels_of(split)})
    table.to_parquet(folder / f"{split}.parquet")


def write_wide_parquet(folder: Path, split: str) -> None:
    table = pandas.DataFrame(embeddings_of(split), columns=[f"f{i}" for i in range(5)])
    table.assign(label=labels_of(split)).to_parquet(folder / f"{split}.parquet")


def write_csv(folder: Path, split: str) -> None:
    table = pandas.DataFrame(embeddings_of(split)).assign(target=labels_of(split))
    table.to_csv(folder / f"{split}.csv", index=False)


def write_tsv(folder: Path, split: str) -> None:
    table = pandas.DataFrame(embeddings_of(split)).assign(class_name=labels_of(split))
    table.to_csv(folder / f"{split}.tsv", index=False, sep="\t")


WRITERS = [
    write_plk, write_class_npz, write_class_torch, write_pickled_tensors, write_pickled_arrays,
    write_class_hdf5, write_parquet, write_wide_parquet, write_csv, write_tsv,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITERS)
def test_formats(write: Callable[[Path, str], None], tmp_path: Path):
    """Catches a format that is announced and not read, and a test split that is not read alone."""
    (tmp_path / "all").mkdir()
    (tmp_path / "alone").mkdir()
    for split in SPLITS:
        write(tmp_path / "all", split)
    import_features(tmp_path / "all", tmp_path / "out", report=silent)
    assert_imported(tmp_path / "out")
    write(tmp_path / "alone", "test")
    import_features(tmp_path / "alone", tmp_path / "one", report=lambda remark: None)
    assert_imported(tmp_path / "one", ("test",))


def test_padding_and_class_names(tmp_path: Path):
    """Catches rows beyond `count`, which are zeros labelled 0, and numbers in place of names."""
    remarks: list[str] = []
    for split in SPLITS:
        write_hdf5(tmp_path, split)
    import_features(tmp_path, tmp_path / "out", report=remarks.append)
    assert_imported(tmp_path / "out")
    assert len(remarks) == 2  # val's 3 of 6 names, counted from 0; test's 4 to 5


def test_labels_local_to_a_split(tmp_path: Path):
    """Catches a format that does not lead to --separate-labels."""
    for split, suffix in zip(SPLITS, ("plk", "csv", "h5"), strict=True):
        rows = embeddings_of(split)
        if suffix == "plk":
            (tmp_path / "train.plk").write_bytes(pickle.dumps({0: rows[:2], 1: rows[2:]}))
        elif suffix == "csv":
            pandas.DataFrame(rows).assign(y=0).to_csv(tmp_path / "val.csv", index=False)
        else:
            with h5py.File(tmp_path / "test.h5", "w") as file:
                file["X"], file["y"] = rows, np.zeros(len(rows), int)
    with pytest.raises(InputError, match="--separate-labels"):
        import_features(tmp_path, tmp_path / "out", report=silent)
    banks = import_features(tmp_path, tmp_path / "out", separate_labels=True, report=silent)
    assert banks["train"].class_names == ("train/0", "train/1")


@pytest.mark.parametrize("newer", [False, True])
def test_matlab(newer: bool, tmp_path: Path):
    """Catches columns taken for rows: xlsa17's res101.mat has `features` (E, n) and `labels` (n, 1)."""
    rows, path = embeddings_of("train"), tmp_path / "train.mat"
    labels = np.arange(len(rows), dtype=np.float64)[:, None] % 3 + 1
    files = np.empty((len(rows), 1), object)
    files[:, 0] = [f"{row}.jpg" for row in range(len(rows))]
    if newer:
        with h5py.File(path, "w", userblock_size=512) as file:
            file["features"], file["labels"] = rows, labels.T
            file["image_files"] = np.full((1, len(rows)), file["features"].ref, h5py.ref_dtype)
        with path.open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file")
    else:
        scipy.io.savemat(path, {"features": rows.T, "labels": labels, "image_files": files})
    remarks: list[str] = []
    embeddings, read, names, _ = read_file(path, True, remarks.append)
    np.testing.assert_array_equal(np.asarray(embeddings), rows)
    np.testing.assert_array_equal(np.asarray(read), labels[:, 0])
    assert names == (None if newer else [f"{row}.jpg" for row in range(len(rows))])
    assert ("cell array" if newer else "taking its columns for images") in " ".join(remarks)
    scipy.io.savemat(tmp_path / "test.mat", {"features": rows[:5], "labels": labels[:5]})
    with pytest.raises(InputError, match="is square, so nothing tells"):
        read_file(tmp_path / "test.mat", True)


def bad_file(folder: Path, kind: str) -> Path:
    path = folder / f"train.{kind.split()[0]}"
    rows, labels = embeddings_of("train"), labels_of("train")
    if kind == "h5 external":
        with h5py.File(path, "w") as file:
            file["labels"], file["features"] = labels, h5py.ExternalLink("/etc/passwd", "/x")
    elif kind == "h5 outside":
        with h5py.File(path, "w") as file:
            file["labels"] = labels
            file.create_dataset("features", (2, 2), "f", external=[("raw", 0, 16)])
    elif kind == "h5 bomb":
        with h5py.File(path, "w") as file:
            file["labels"] = labels
            file.create_dataset("features", (2**40, 2**10), "f", chunks=(64, 64))
    elif kind == "h5 count":
        with h5py.File(path, "w") as file:
            file["all_feats"], file["all_labels"], file["count"] = rows, labels, [99]
    elif kind == "npz twice":
        np.savez(path, features=rows, embeddings=rows, labels=labels)
    elif kind == "npz names":
        np.savez(path, features=rows, labels=np.arange(len(rows)), class_names=["a", "b"])
    elif kind == "npz ragged":
        np.savez(path, a=rows, b=rows[:, :2])
    elif kind == "npz zeros":
        np.savez(path, X=rows * (np.array(labels) != "n2")[:, None], y=labels)
    elif kind == "npz large":
        np.savez(path, X=rows * 1e30, y=labels)
    elif kind == "npz unnamed":
        np.savez(path, rows, rows)
    elif kind == "npz sets":
        np.savez(path, support=rows, query=rows)
    elif kind == "npz whose names":
        np.savez(path, X=rows[:3], y=[0, 1, 2], names=["cat", "dog", "cow"])
    elif kind == "mat classes":
        with h5py.File(path, "w", userblock_size=512) as file:
            file["cat"], file["dog"] = rows.T, rows.T
        with path.open("r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file")
    elif kind == "pkl same name":
        path.write_bytes(pickle.dumps({0: rows, "0": rows}))
    elif kind == "pkl parameter":
        path.write_bytes(pickle.dumps({"X": torch.nn.Parameter(torch.ones(2, 2)), "y": [0, 1]}))
    elif kind == "csv text":
        path.write_text("label,a\nx,1\ny,blue\n")
    elif kind == "csv numbers":
        path.write_text("0.5,1.5,label\n1,2,a\n")
    elif kind == "csv twice":
        path.write_text("label,label,a\nx,1,2\ny,1,3\n")
    elif kind == "csv images":
        path.write_text("filename,label\n1.jpg,x\n2.jpg,y\n")
    elif kind == "csv short":
        path.write_text("label,a,b\nx,1,2\ny,1\n")
    elif kind == "pkl call":
        path.write_bytes(pickle.dumps({"X": rows, "y": slice(3)}))
    elif kind == "pkl list":
        path.write_bytes(b"cbuiltins\nlist\n)R.")
    else:
        path.write_bytes(b"no such format" * 9)
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("h5 external", "train.h5:features: is a link"),
        ("h5 outside", "train.h5:features: lies in another file"),
        ("h5 bomb", "refused to unpack"),
        ("h5 count", "'count' is 99, and there are 12 rows"),
        ("h5", "cannot be read as HDF5"),
        ("mat", "cannot be read as a MATLAB file"),
        ("parquet", "cannot be read as a table"),
        ("npz twice", "holds both 'embeddings' and 'features'"),
        ("npz names", "labels run from 0 to 11, and there are 2 class names"),
        ("npz ragged", r"'b' has shape \(12, 2\)"),
        ("npz zeros", "all embeddings of class 'n2' are zeros"),
        ("npz large", "numbers too large to normalise in 12 of 12 rows"),
        ("npz unnamed", "'arr_0', 'arr_1', which do not name"),
        ("npz sets", "'support', 'query', which do not name"),
        ("npz whose names", "'names' may name the images or the classes"),
        ("mat classes", "has no 'features' and 'labels'"),
        ("pkl same name", "two classes have the same name"),
        ("pkl parameter", r"rebuild_parameter'; .*save tensors as"),
        ("csv text", "column 'a' holds something other than numbers"),
        ("csv numbers", "begins with numbers"),
        ("csv twice", "two columns have the same name"),
        ("csv images", "has no column of embeddings"),
        ("csv short", "column 'b' holds something other than numbers"),
        ("pkl call", "refused to load a pickle that calls 'builtins.slice'"),
        ("pkl list", "refused to load a pickle that calls 'list'"),
        ("plk", "is cut short, damaged or not a pickle"),
    ],
)
def test_refused(kind: str, message: str, tmp_path: Path):
    """Catches what would be read wrongly, or from elsewhere, and a traceback for a damaged file."""
    bad_file(tmp_path, kind)
    with pytest.raises(InputError, match=message) as refusal:
        import_features(tmp_path, tmp_path / "out", report=lambda remark: None)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


def test_some_zeros_are_remarked(tmp_path: Path):
    """Catches an image that was not embedded and goes unnoticed."""
    rows = embeddings_of("train")
    rows[3] = 0
    np.savez(tmp_path / "train.npz", X=rows, y=labels_of("train"), names=[f"{i}.jpg" for i in range(12)])
    remarks: list[str] = []
    import_features(tmp_path, tmp_path / "out", report=remarks.append)
    assert "1 of 12 embeddings are zeros" in remarks[1]
    assert "3.jpg of class n3" in remarks[1]


def test_other_columns(tmp_path: Path):
    """Catches a number that is not of the embedding, unnoticed, and `Label` or an index not taken."""
    rows = embeddings_of("train")
    table = pandas.DataFrame(rows, columns=[f"f{i}" for i in range(5)]).assign(age=3)
    remarks: list[str] = []
    path = tmp_path / "train.csv"
    table.assign(Label=labels_of("train")).to_csv(path, index=False)
    embeddings, labels, _, _ = read_file(path, True, remarks.append)
    assert embeddings.shape == (12, 6)
    assert labels == labels_of("train")
    assert [remark for remark in remarks if "'age'" in remark] == remarks != []
    files = pandas.Index([f"{i}.jpg" for i in range(12)], name="filename")
    path = tmp_path / "train.parquet"
    table.drop(columns="age").assign(label=labels_of("train")).set_index(files).to_parquet(path)
    _, _, names, _ = read_file(path, True, silent)
    assert names == [*files]


def test_small_integers_in_pickled_tensors(tmp_path: Path):
    """Catches labels of one byte taken for damage."""
    labels = torch.tensor([0, 1], dtype=torch.uint8)
    (tmp_path / "train.pkl").write_bytes(pickle.dumps({"X": torch.ones(2, 2), "y": labels}))
    read = read_file(tmp_path / "train.pkl", True).labels
    assert isinstance(read, torch.Tensor)
    assert read.tolist() == [0, 1]


def test_pickled_tensor_beyond_its_numbers(tmp_path: Path):
    """Catches a tensor of a terabyte over one number, and one that reads beyond its memory."""
    for shape, stride in (((10**6, 10**6), (0, 0)), ((4, 4), (4, 1))):
        blob = pickle.dumps({"X": torch.ones(2, 2), "y": [0, 1]}, 2)
        harmed = blob.replace(b"K\x02K\x02\x86", pickle.dumps(shape, 2)[2:-1].replace(b"q\x00", b""))
        harmed = harmed.replace(b"K\x02K\x01\x86", pickle.dumps(stride, 2)[2:-1].replace(b"q\x00", b""))
        assert harmed != blob
        (tmp_path / "train.pkl").write_bytes(harmed)
        with pytest.raises(InputError, match=r"train\.pkl: is cut short, damaged"):
            read_file(tmp_path / "train.pkl", True)
