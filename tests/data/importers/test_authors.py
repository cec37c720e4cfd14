"""The LEO authors' archive, zipped and unzipped, whole and damaged."""

import hashlib
import struct
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from leo_lightning.common.errors import InputError
from leo_lightning.data.importers import sources
from leo_lightning.data.importers.importer import import_features
from leo_lightning.data.splits import SPLITS
from tests.data.importers.sources import (
    IMAGES,
    assert_imported,
    authors_archive,
    authors_pickle,
    python2_features,
    silent,
    tree,
)
from tests.guard import outcome
from tests.places import SHARED

FEATURES = SHARED / "features"


def test_authors_archive(tmp_path: Path):
    """Catches rows, labels or image names mixed up, and a record that claims too much."""
    source = authors_archive(tmp_path / "embeddings.zip")
    banks = import_features(source, tmp_path / "out", report=silent)
    assert list(banks) == list(SPLITS)
    assert_imported(tmp_path / "out")
    val = banks["val"]
    assert val.image_names == tuple(f"n4_{row:08d}.jpg" for row in range(IMAGES))
    assert val.provenance == {
        "dataset": "miniImageNet",
        "split": "val",
        "crop": "center",
        "backbone": "unknown",
        "source": "embeddings.zip:embeddings/miniImageNet/center/val_embeddings.pkl",
        "source_sha256": hashlib.sha256(authors_pickle("val")).hexdigest(),
        "importer": "leo-lightning importer 1",
    }
    assert tree(tmp_path) == [
        "embeddings.zip",
        "out",
        *(f"out/{split}.safetensors" for split in sorted(SPLITS)),
    ]


@pytest.mark.parametrize(
    ("depth", "dataset"),
    [
        ("", "miniImageNet"),
        ("embeddings", "miniImageNet"),
        ("embeddings/miniImageNet/center", "miniImageNet"),
    ],
)
def test_unzipped_archive_from_any_of_its_folders(depth: str, dataset: str, tmp_path: Path):
    """Catches a layout known only from the top, and a data set not named in the paths below."""
    with zipfile.ZipFile(authors_archive(tmp_path / "a.zip")) as archive:
        archive.extractall(tmp_path / "src")
    banks = import_features(tmp_path / "src" / depth, tmp_path / "out", backbone="WRN-28-10", report=silent)
    assert_imported(tmp_path / "out")
    provenance = banks["train"].provenance
    assert (provenance["dataset"], provenance["crop"], provenance["backbone"]) == (
        dataset,
        "center",
        "WRN-28-10",
    )
    assert provenance["source"] == "train_embeddings.pkl"


def test_pickles_in_a_folder_of_any_name(tmp_path: Path):
    """Catches folder names recorded as data set and crop that are none."""
    (tmp_path / "mine").mkdir()
    for split in SPLITS:
        (tmp_path / "mine" / f"{split}_embeddings.pkl").write_bytes(authors_pickle(split))
    banks = import_features(tmp_path / "mine", tmp_path / "out", dataset="toy", report=silent)
    assert_imported(tmp_path / "out")
    assert (banks["train"].provenance["dataset"], banks["train"].provenance["crop"]) == ("toy", "unknown")


SETS = ("miniImageNet/center", "miniImageNet/multiview", "tieredImageNet/center")


def test_one_of_several_sets_is_chosen(tmp_path: Path):
    """Catches options that are ignored, and a set taken at random."""
    source = authors_archive(tmp_path / "a.zip", SETS)
    for dataset, crop in (
        (None, None),
        ("miniImageNet", None),
        (None, "center"),
        ("CUB", None),
        (None, "corner"),
    ):
        with pytest.raises(InputError, match=f"choose with --dataset and --crop from: {', '.join(SETS)}"):
            import_features(source, tmp_path / "out", dataset=dataset, crop=crop)
    assert not (tmp_path / "out").exists()
    for dataset, crop in ((None, "multiview"), ("tieredImageNet", None), ("miniImageNet", "center")):
        banks = import_features(source, tmp_path / "out", dataset=dataset, crop=crop, overwrite=True)
        provenance = banks["test"].provenance
        assert dataset in (None, provenance["dataset"])
        assert crop in (None, provenance["crop"])


def test_labels_that_put_classes_together(tmp_path: Path):
    """Catches superclass labels taken for classes: the authors' code takes the classes from the keys."""
    keys = ["train-n1-n1_1", "train-n2-n2_1", "train-n3-n3_1"]
    content = python2_features(keys, ["dog", "dog", "cat"], 1 + np.eye(3, 2, dtype=np.float32))
    (tmp_path / "train_embeddings.pkl").write_bytes(content)
    remarks: list[str] = []
    banks = import_features(tmp_path, tmp_path / "out", report=remarks.append)
    assert banks["train"].class_names == ("n1", "n2", "n3")
    assert "labels are coarser than the classes in the keys" in " ".join(remarks)


def test_labels_that_only_rename_the_classes(tmp_path: Path):
    """Catches the labels' names dropped in favour of the keys'."""
    content = python2_features(
        ["train-n1-n1_1", "train-n2-n2_1"], ["dog", "cat"], np.eye(2, dtype=np.float32)
    )
    (tmp_path / "train_embeddings.pkl").write_bytes(content)
    banks = import_features(tmp_path, tmp_path / "out", report=lambda remark: None)
    assert banks["train"].class_names == ("cat", "dog")
    assert banks["train"].image_names == ("n2_1", "n1_1")


def test_labels_that_contradict_the_keys(tmp_path: Path):
    """Catches a file whose labels were shuffled."""
    keys = ["train-n1-n1_1", "train-n1-n1_2", "train-n2-n2_1"]
    content = python2_features(keys, ["n1", "n2", "n2"], np.ones((3, 2), np.float32))
    (tmp_path / "train_embeddings.pkl").write_bytes(content)
    with pytest.raises(InputError, match=r"row 1 is labelled 'n2', but its key is 'train-n1-n1_2'"):
        import_features(tmp_path, tmp_path / "out", report=lambda remark: None)


def test_same_set_twice_is_refused(tmp_path: Path):
    """Catches one of two versions of the same set taken in silence."""
    for folder in ("old/center", "new/old/center"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "train_embeddings.pkl").write_bytes(authors_pickle("train"))
    with pytest.raises(InputError, match="holds the train split of old/center twice"):
        import_features(tmp_path, tmp_path / "out")


def test_members_with_wandering_names_stay_in_the_archive(tmp_path: Path):
    """Catches an import that extracts files to where the archive says."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for split in SPLITS:
            archive.writestr(f"../../outside/center/{split}_embeddings.pkl", authors_pickle(split))
        archive.writestr("../evil.txt", "x")
    before = set(tree(tmp_path.parent))
    import_features(tmp_path / "a.zip", tmp_path / "out", report=silent)
    new = set(tree(tmp_path.parent)) - before
    assert all(name.startswith(f"{tmp_path.name}/out") for name in new)


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a small archive that fills the memory."""
    monkeypatch.setattr(sources, "_MIN_SUSPECT", 2**16)
    bomb = python2_features(["train-a-a_1"], ["a"], np.zeros((1, 500_000), np.float32))
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("center/train_embeddings.pkl", bomb)
    with pytest.raises(InputError, match=r"refused to unpack 2,000,\d+ bytes from"):
        import_features(tmp_path / "a.zip", tmp_path / "out", report=lambda remark: None)
    np.savez_compressed(tmp_path / "train.npz", embeddings=np.zeros((1, 500_000), np.float32), labels=[0])
    with pytest.raises(InputError, match=r"refused to unpack 2,000,\d+ bytes from"):
        import_features(tmp_path, tmp_path / "out", report=lambda remark: None)


def written(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]], method: int = 8) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")  # on two of one name
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "name", ["/{split}", "../../../../{split}", "C:\\x\\{split}", "a\nb/{split}", "\x1b[2J/{split}"]
)
def test_strange_names_name_nothing(name: str, tmp_path: Path):
    """Catches a name in an archive that says where to write, or what the terminal is to do."""
    (tmp_path / "in").mkdir()
    members = [(name.format(split=f"{s}_embeddings.pkl"), authors_pickle(s)) for s in ("train", "test")]
    path = written(tmp_path / "in" / "a.zip", [*members, (members[0][0].replace("train", "val"), b"bad")])

    def read() -> object:
        return import_features(path, tmp_path / "in" / "out", report=lambda remark: None)

    assert isinstance(outcome(read, tmp_path / "in"), InputError)
    assert tree(tmp_path) == ["in", "in/a.zip"]


def test_link_in_an_archive_is_not_followed(tmp_path: Path):
    """Catches a member that is a link to a file of the user's."""
    (tmp_path / "secret.pkl").write_bytes(authors_pickle("train"))
    link = zipfile.ZipInfo("center/train_embeddings.pkl")
    link.external_attr = 0o120777 << 16
    written(tmp_path / "a.zip", [(link, str(tmp_path / "secret.pkl").encode())])
    with pytest.raises(InputError, match=r"train_embeddings\.pkl: is cut short, damaged or not a pickle"):
        import_features(tmp_path / "a.zip", tmp_path / "out", report=lambda remark: None)


def test_two_members_of_one_name(tmp_path: Path):
    """Catches a traceback, and rows of both mixed: the last one counts, as for every unzip."""
    name = "center/train_embeddings.pkl"
    written(tmp_path / "a.zip", [(name, b"bad"), (name, authors_pickle("train"))])
    banks = import_features(tmp_path / "a.zip", tmp_path / "out", report=lambda remark: None)
    assert banks["train"].num_classes == 3


def test_bomb_that_does_not_declare_its_size(tmp_path: Path):
    """Catches a member that unpacks to more than it declares: Python stops at the declared size."""
    data = bytearray(written(tmp_path / "a.zip", [("train_embeddings.npy", bytes(2**27))]).read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 1000)
    (tmp_path / "a.zip").write_bytes(data)
    refusal = outcome(lambda: import_features(tmp_path / "a.zip", tmp_path / "out", report=print), tmp_path)
    assert isinstance(refusal, InputError)


def test_archive_in_an_archive_is_not_opened(tmp_path: Path):
    """Catches a bomb of archives within archives."""
    inner = written(tmp_path / "inner.zip", [("center/train_embeddings.pkl", authors_pickle("train"))])
    written(tmp_path / "a.zip", [("center/inner.zip", inner.read_bytes())])
    with pytest.raises(InputError, match="no features found"):
        import_features(tmp_path / "a.zip", tmp_path / "out")


def test_member_larger_than_declared_is_refused(tmp_path: Path):
    """Catches trust in the size that an archive declares."""
    path = authors_archive(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, 100)  # the size of the first member, in the central directory
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"train_embeddings\.pkl: (is cut short|cannot be read)"):
        import_features(path, tmp_path / "out", report=lambda remark: None)


def test_damaged_or_encrypted_archive(tmp_path: Path):
    """Catches zlib.error, BadZipFile or RuntimeError that escape, wherever the archive is damaged."""
    path = authors_archive(tmp_path / "a.zip")
    data = path.read_bytes()
    random = np.random.default_rng(0)
    for position in random.integers(0, len(data), 60):
        damaged = bytearray(data)
        damaged[position] ^= int(random.integers(1, 256))
        path.write_bytes(damaged)
        with suppress(InputError):
            import_features(path, tmp_path / "out", overwrite=True, report=lambda remark: None)
    encrypted = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = encrypted.index(signature)
        encrypted[start + offset] |= 1
    path.write_bytes(encrypted)
    with pytest.raises(InputError, match="is encrypted"):
        import_features(path, tmp_path / "out", overwrite=True)


@pytest.mark.slow
@pytest.mark.skipif(not FEATURES.is_dir(), reason="the real features are not beside the repository")
def test_real_features(tmp_path: Path):
    """Catches a reader that knows only the pickles that these tests make."""
    banks = import_features(FEATURES / "miniImageNet.zip", tmp_path / "out", report=silent)
    assert {split: (bank.num_classes, len(bank)) for split, bank in banks.items()} == {
        "train": (64, 38400),
        "val": (16, 9600),
        "test": (20, 12000),
    }
    for bank in banks.values():
        assert bank.embedding_size == 640
        assert set(bank.counts.tolist()) == {600}
        assert bank.image_names is not None
        assert all(
            name.startswith(bank.class_names[label])
            for name, label in zip(bank.image_names, bank.labels.tolist(), strict=True)
        )
