"""The importer: what it does with any source, and every way in which a source can be wrong."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.data import splits
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.importers.importer import import_features
from leo_lightning.data.splits import SPLITS, load_split
from tests.data.importers.bad_sources import BAD_SOURCES, bad_infinite
from tests.data.importers.sources import (
    assert_imported,
    authors_archive,
    tree,
    write_npz,
)


def test_train_alone_is_imported_with_a_remark(tmp_path: Path):
    """Catches a user who learns only after training that there is no test split."""
    write_npz(tmp_path, "train")
    remarks: list[str] = []
    import_features(tmp_path, tmp_path / "out", report=remarks.append)
    assert_imported(tmp_path / "out", ("train",))
    assert remarks == [f"{tmp_path}: has no val and no test split; importing train only"]


def test_test_split_alone_is_imported(tmp_path: Path):
    """Catches a cross-domain test that needs training features of the other domain; also a `fit` on it."""
    write_npz(tmp_path, "test")
    remarks: list[str] = []
    import_features(tmp_path, tmp_path / "out", report=remarks.append)
    assert_imported(tmp_path / "out", ("test",))
    assert remarks == [f"{tmp_path}: has no train and no val split; importing test only"]
    with pytest.raises(InputError, match=r"has no split 'train' \(splits there: test\)"):
        load_split(tmp_path / "out", "train")


def test_labels_that_count_from_0_in_each_split(tmp_path: Path):
    """Catches a refusal without the way out, and classes that still share their names."""
    for split in SPLITS:
        np.savez(tmp_path / f"{split}.npz", X=np.random.default_rng(0).normal(size=(4, 3)), y=[0, 0, 1, 1])
    with pytest.raises(InputError, match=r"classes '0', '1' in both 'train' and 'val'.*--separate-labels"):
        import_features(tmp_path, tmp_path / "out")
    import_features(tmp_path, tmp_path / "out", separate_labels=True)
    for split in SPLITS:
        assert load_split(tmp_path / "out", split).class_names == (f"{split}/0", f"{split}/1")


def test_ready_features_are_recognised(tmp_path: Path):
    """Catches our own format called unknown."""
    import_features(authors_archive(tmp_path / "a.zip"), tmp_path / "ready")
    with pytest.raises(
        InputError, match=r"already holds feature files \(train, val, test\); use this folder"
    ):
        import_features(tmp_path / "ready", tmp_path / "out")


@pytest.mark.parametrize("make", list(BAD_SOURCES))
def test_bad_source_is_one_line_and_leaves_nothing(make: Callable[[Path], None], tmp_path: Path):
    """Catches a traceback, a message about something else, and files half written."""
    (tmp_path / "src").mkdir()
    make(tmp_path / "src")
    before = tree(tmp_path)
    with pytest.raises(InputError, match=re.escape(BAD_SOURCES[make])) as caught:
        import_features(tmp_path / "src", tmp_path / "new" / "out", report=lambda remark: None)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_interrupted_import_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches files half written when the user presses Ctrl-C."""
    source = authors_archive(tmp_path / "a.zip")
    save, before = splits.save_bank, tree(tmp_path)

    def interrupt(bank: FeatureBank, path: Path) -> None:
        save(bank, path)
        if "val" in path.name:
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
        "train.npy": r"give the folder that holds it, or .* with `.*features divide .*train.npy DST`",
        "all.npz": "give the folder that holds it",
        "other.zip": "no features found; looked for",
    }
    with pytest.raises(InputError, match=messages[name]) as caught:
        import_features(tmp_path / name, tmp_path / "out")
    assert "\n" not in str(caught.value)
