"""The importer: what it does with any source, and every way in which a source can be wrong."""

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data import splits
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.importers.importer import import_features
from tests.data.importers.sources import (
    assert_imported,
    authors_archive,
    authors_pickle,
    embeddings_of,
    labels_of,
    tree,
    write_npy,
    write_npz,
    write_torch,
)


def test_train_alone_is_imported_with_a_remark(tmp_path: Path):
    """Catches a user who learns only after training that there is no test split."""
    write_npz(tmp_path, "train")
    remarks: list[str] = []
    import_features(tmp_path, tmp_path / "out", report=remarks.append)
    assert_imported(tmp_path / "out", ("train",))
    assert remarks == [f"{tmp_path}: has no val and no test split; importing train only"]


def test_ready_features_are_recognised(tmp_path: Path):
    """Catches our own format called unknown."""
    import_features(authors_archive(tmp_path / "a.zip"), tmp_path / "ready")
    with pytest.raises(
        InputError, match=r"already holds feature files \(train, val, test\); use this folder"
    ):
        import_features(tmp_path / "ready", tmp_path / "out")


def bad_nothing(folder: Path) -> None:
    (folder / "photo.jpg").touch()


def bad_no_train(folder: Path) -> None:
    write_npz(folder, "test")


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


BAD_FOLDERS = {
    bad_nothing: r"no features found; looked for .*train_embeddings|no features found; looked for",
    bad_no_train: r"has test but no 'train' split",
    bad_shared_class: r"test\.npz: classes 'n1', 'n2', 'n3' in both 'train' and 'test'",
    bad_sizes: r"val\.npz: embeddings have 6 numbers, those of 'train' have 5",
    bad_twice: r"holds the train split more than once \(train\.npz, train\.pt\)",
    bad_mixture: r"holds pickles and train\.npz",
    bad_no_labels: r"train\.npy: its labels must be in train_labels\.npy or train_labels\.txt beside it",
    bad_no_array: r"train\.npz: has no 'embeddings' \(nor 'features' nor 'x'\)",
    bad_blank_line: r"the label of row 1 is empty",
    bad_objects: r"train\.npz: cannot be read as npz \(Object arrays cannot be loaded\)",
    bad_npy_objects: r"train_labels\.npy: cannot be read as npy \(Object arrays cannot be loaded\)",
    bad_npz_damaged: r"train\.npz: cannot be read as npz",
    bad_npz_deflated: r"train\.npz: cannot be read as npz \(Error -3 while decompressing",
    bad_npz_cut: r"train\.npz: cannot be read as npz",
    bad_npy_cut: r"train\.npy: cannot be read as npy",
    bad_torch_cut: r"train\.pt: is no whole file of torch",
    bad_torch_list: r"train\.pt: holds a list, not a dict",
    bad_pickle_list: r"train_embeddings\.pkl: holds a list, not a dict",
    bad_pickle_keys: r"train_embeddings\.pkl: has no 'embeddings'",
    bad_pickle_rows: r"train_embeddings\.pkl: the embeddings are not rows of numbers",
    bad_pickle_labels: r"train_embeddings\.pkl: the labels are a int, not an array or list",
    bad_pickle_call: r"refused to load a pickle that calls 'posix\.system'",
    bad_infinite: r"test\.npz: 1 row holds numbers that are not finite \(row 1\)",
}


@pytest.mark.parametrize("make", list(BAD_FOLDERS))
def test_bad_source_is_one_line_and_leaves_nothing(make: Callable[[Path], None], tmp_path: Path):
    """Catches a traceback, a message about something else, and files half written."""
    (tmp_path / "src").mkdir()
    make(tmp_path / "src")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=BAD_FOLDERS[make]) as caught:
        import_features(tmp_path / "src", tmp_path / "new" / "out", report=lambda remark: None)
    assert "\n" not in str(caught.value)
    assert "allow_pickle" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert tree(tmp_path) == before


def test_interrupted_import_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches files half written when the user presses Ctrl-C."""
    source = authors_archive(tmp_path / "a.zip")
    save, before = splits.save_bank, tree(tmp_path)

    def interrupt(bank: FeatureBank, path: Path, name: Path) -> None:
        save(bank, path, name)
        if path.name.startswith("val"):
            raise KeyboardInterrupt

    monkeypatch.setattr(splits, "save_bank", interrupt)
    with pytest.raises(KeyboardInterrupt):
        import_features(source, tmp_path / "out")
    assert tree(tmp_path) == before


def test_features_in_place_are_not_overwritten(tmp_path: Path):
    """Catches good features replaced by accident, or lost when the new ones are bad."""
    source = authors_archive(tmp_path / "a.zip")
    import_features(source, tmp_path / "out")
    with pytest.raises(InputError, match="already holds features"):
        import_features(source, tmp_path / "out")
    (tmp_path / "bad").mkdir()
    bad_infinite(tmp_path / "bad")
    with pytest.raises(InputError, match="not finite"):
        import_features(tmp_path / "bad", tmp_path / "out", overwrite=True)
    assert_imported(tmp_path / "out")


@pytest.mark.parametrize("name", ["none", "train.npy", "all.npz", "other.zip"])
def test_sources_that_are_no_source(name: str, tmp_path: Path):
    """Catches a traceback for a mistyped path or a file of another kind."""
    np.save(tmp_path / "train.npy", np.ones(3))
    np.savez(tmp_path / "all.npz", a=np.ones(3))
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    messages = {
        "none": "no such file or folder",
        "train.npy": "give the folder that holds it",
        "all.npz": "has no arrays 'train_embeddings'",
        "other.zip": "no features found; looked for",
    }
    with pytest.raises(InputError, match=messages[name]) as caught:
        import_features(tmp_path / name, tmp_path / "out")
    assert "\n" not in str(caught.value)
