"""Whole extractions: the files that they write, and what is left when they are killed."""

import itertools
import json
import os
import resource
import shutil
from collections.abc import Callable
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_file import load_bank
from leo_lightning.data.splits import SPLITS, claim
from leo_lightning.images.backbones.backbone import Backbone
from leo_lightning.images.backbones.recipe import BACKBONE_FILE, Recipe
from leo_lightning.images.backbones.weights import digest, read_backbone
from leo_lightning.images.extraction import shards
from leo_lightning.images.extraction.embedder import Embedder
from leo_lightning.images.extraction.extract import extract
from leo_lightning.images.folder import find_splits
from tests.images.backbones.networks import conv4
from tests.images.pictures import damaged, save, tree
from tests.killed import killed

FILES = sorted([*(f"{split}.safetensors" for split in SPLITS), BACKBONE_FILE])
BATCH = 2


class Counting(Embedder):
    """Counts the images that went through the network, and may be stopped at one of them."""

    def __init__(self, backbone: Backbone, **settings: Any) -> None:
        super().__init__(backbone, **({"batch_size": BATCH, "workers": 2, "device": "cpu"} | settings))
        self.seen = 0
        self.stop: Callable[[int], object] = lambda seen: None

    def embed_views(self, images: torch.Tensor) -> torch.Tensor:
        self.stop(self.seen)
        self.seen += len(images)
        return super().embed_views(images)


class Run:
    """An extraction, the lines that it printed and the number of images that it embedded."""

    def __init__(self, root: Path, dst: Path, backbone: Backbone | None = None, **settings: Any) -> None:
        names = ("batch_size", "precision", "stop")
        ours = {name: settings.pop(name) for name in names if name in settings}
        stop = ours.pop("stop", lambda seen: None)
        self.embedder = Counting(backbone or conv4(1), **ours)
        self.embedder.stop = stop
        self._printed = StringIO()
        self.error: BaseException | None = None
        splits = find_splits(root, lambda where, files, reason: None)
        try:
            self.banks: dict[str, FeatureBank] = extract(
                splits, self.embedder, dst, "toy", "some.pt",
                **({"console": Console(file=self._printed, width=300)} | settings),
            )  # fmt: skip
        except (InputError, KeyboardInterrupt) as error:
            self.error = error

    @property
    def said(self) -> list[str]:
        """All lines except progress."""
        return [line for line in self._printed.getvalue().splitlines() if "images/s" not in line]


def contents(dst: Path) -> dict[str, bytes]:
    """All files, by name."""
    return {
        str(path.relative_to(dst)): path.read_bytes() for path in sorted(dst.rglob("*")) if path.is_file()
    }


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch becomes a shard; nothing waits for the disk, which only helps against power cuts."""
    monkeypatch.setattr(shards, "SECONDS", 0.0)
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def whole(image_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of an undisturbed run."""
    out = tmp_path_factory.mktemp("out") / "features"
    run = Run(image_tree, out)
    assert run.error is None
    return contents(out)


@pytest.fixture
def root(image_tree: Path, tmp_path: Path) -> Path:
    """A copy of the images, with their times."""
    return Path(shutil.copytree(image_tree, tmp_path / "images"))


# What is written


def test_features_are_what_the_embedder_makes(root: Path, tmp_path: Path):
    """Catches rows of other images, names or classes, and a record without their origin."""
    backbone = conv4(1, layer="2", crop="multiview")
    run = Run(root, tmp_path / "out", backbone)
    assert sorted(contents(tmp_path / "out")) == FILES
    for split, images in find_splits(root).items():
        bank = run.banks[split]
        paths = [images.path(row) for row in range(len(images))]
        assert torch.equal(bank.embeddings, Counting(backbone).embed(paths))
        assert bank.image_names == images.names
        assert bank.class_names == images.class_names
        assert bank.labels.tolist() == images.labels.tolist()
        assert bank.provenance["split"] == split
    record = run.banks["val"].provenance
    assert (record["dataset"], record["backbone"], record["layer"]) == ("toy", "conv-4", "2")
    assert (record["weights"], record["crop"], record["torch"]) == ("some.pt", "multiview", version("torch"))
    own = read_backbone(tmp_path / "out" / BACKBONE_FILE)
    assert Recipe.loads(record["recipe"], "record") == own.recipe == backbone.recipe
    assert record["weights_sha256"] == digest(own)
    assert str(tmp_path) not in json.dumps(record)


def test_new_images_get_the_same_embeddings(whole: dict[str, bytes], root: Path, tmp_path: Path):
    """Catches a backbone file that is not enough to embed an image again."""
    (tmp_path / BACKBONE_FILE).write_bytes(whole[BACKBONE_FILE])
    bank = Run(root, tmp_path / "out").banks["test"]
    paths = [root / "test" / name for name in bank.image_names or ()]
    embedder = Embedder(read_backbone(tmp_path / BACKBONE_FILE), device="cpu")
    torch.testing.assert_close(embedder.embed(paths), bank.embeddings)


def test_half_precision(root: Path, tmp_path: Path):
    """Catches features of the wrong type, or rounded twice."""
    whole = Run(root, tmp_path / "whole").banks["train"].embeddings
    half = Run(root, tmp_path / "half", dtype="float16").banks["train"].embeddings
    assert torch.equal(half, whole.half())


def test_some_splits_only(tmp_path: Path):
    """Catches a data set without validation that cannot be used."""
    root = tree(tmp_path / "images", {"train": {"a": 3}, "test": {"b": 2}})
    assert list(Run(root, tmp_path / "out").banks) == ["train", "test"]
    assert sorted(contents(tmp_path / "out")) == [BACKBONE_FILE, "test.safetensors", "train.safetensors"]


def test_shards_of_many_batches_make_the_same(
    whole: dict[str, bytes], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Catches results that depend on when a shard was written: by time, by size, or at the end."""
    for seconds, size in ((1e9, 2**26), (1e9, 3 * BATCH * 8 * 4)):
        monkeypatch.setattr(shards, "SECONDS", seconds)
        monkeypatch.setattr(shards, "BYTES", size)
        assert Run(root, tmp_path / f"out{size}").error is None
        assert contents(tmp_path / f"out{size}") == whole


def test_memory_holds_little(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a data set that stays in memory until the end."""
    monkeypatch.setattr(shards, "SECONDS", 1e9)
    monkeypatch.setattr(shards, "BYTES", 2 * BATCH * 8 * 4)

    def kill(seen: int) -> None:
        if seen == 6:
            assert len(list((tmp_path / "out" / ".extract").glob("train-*.safetensors"))) == 1
            raise KeyboardInterrupt

    assert isinstance(Run(root, tmp_path / "out", stop=kill).error, KeyboardInterrupt)


def test_progress_without_a_terminal(root: Path, tmp_path: Path):
    """Catches bars in a log file, and silence."""
    printed = StringIO()
    Run(root, tmp_path / "out", console=Console(file=printed, width=100))
    lines = printed.getvalue().splitlines()
    assert len(lines) == 7
    assert lines[0].startswith("train: 2 of 12 images, ")
    assert lines[-1].startswith("test: 12 of 12 images, ")
    assert lines[-1].endswith(" images/s, 0:00:00 left")


def test_progress_on_a_terminal(root: Path, tmp_path: Path):
    """Catches lines beside a bar, and a bar without a rate."""
    printed = StringIO()
    Run(root, tmp_path / "out", console=Console(file=printed, width=100, force_terminal=True))
    assert "12/12" in printed.getvalue()
    assert "images/s" in printed.getvalue()
    assert "of 12 images" not in printed.getvalue()


DONE = "all is done, with these images, weights and settings; nothing was computed"


def test_a_finished_extraction_is_not_refused(root: Path, tmp_path: Path):
    """Catches the same command that ends with an error, or computes everything again."""
    out = tmp_path / "out"
    first = Run(root, out)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = Run(root, out)
    assert again.error is None
    assert again.said == [f"{out}: {DONE}"]
    assert again.embedder.seen == 0
    assert {split: bank.summary for split, bank in again.banks.items()} == {
        split: bank.summary for split, bank in first.banks.items()
    }
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_a_finished_extraction_without_damaged_images(root: Path, tmp_path: Path):
    """Catches skipped images that make an ended extraction look like another one."""
    (root / "train" / "cat" / "0.png").write_bytes(b"")
    assert Run(root, tmp_path / "out", on_error="skip").error is None
    again = Run(root, tmp_path / "out", on_error="skip")
    assert again.said == [f"{tmp_path / 'out'}: {DONE}"]
    assert "already holds" in str(Run(root, tmp_path / "out").error)


def rename_class(root: Path) -> None:
    (root / "train" / "cat").rename(root / "train" / "ape")


def older_copy(root: Path) -> None:
    """Another image in the place of one, with its time."""
    old = (root / "train" / "dog" / "0.png").stat().st_mtime
    shutil.copy(root / "val" / "owl" / "0.png", root / "train" / "dog" / "0.png")
    os.utime(root / "train" / "dog" / "0.png", (old, old))


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (lambda root: save(root / "train" / "cat" / "new.png"), {}),
        (lambda root: save(root / "train" / "cat" / "new.png"), {"on_error": "skip"}),
        (lambda root: (root / "train" / "cat" / "0.png").unlink(), {}),
        (lambda root: (root / "train" / "cat" / "0.png").unlink(), {"on_error": "skip"}),
        (lambda root: shutil.rmtree(root / "test"), {}),
        (rename_class, {}),
        (older_copy, {}),
        (lambda root: None, {"dtype": "float16"}),
        (lambda root: None, {"backbone": conv4(2)}),
        (lambda root: None, {"backbone": conv4(1, layer="2")}),
    ],
)
def test_other_images_or_settings_are_refused(
    change: Callable[[Path], object], settings: dict[str, Any], root: Path, tmp_path: Path
):
    """Catches features of other images, weights or settings that are said to be done."""
    out = tmp_path / "out"
    Run(root, out)
    change(root)
    run = Run(root, out, **settings)
    assert "already holds features (train, val, test)" in str(run.error)
    assert run.embedder.seen == 0


# Kills


@pytest.mark.slow
def test_a_kill_anywhere_changes_nothing(tmp_path: Path):
    """Catches images lost or embedded twice, half a file, and leftovers in the way."""
    root = tree(tmp_path / "images", {"train": {"cat": 2, "dog": 3}, "val": {"owl": 1}})
    Run(root, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    at, seen = 0, set()
    while killed(at := at + 1, lambda step: Run(root, tmp_path / f"out{at}", stop=step)):
        out = tmp_path / f"out{at}"
        for path in out.glob("*.safetensors"):
            assert path.read_bytes() == whole[path.name]
        if at % 5 == 0:  # a second time, elsewhere
            killed(at // 2, lambda step: Run(root, out, stop=step))  # noqa: B023
        run = Run(root, out)
        assert run.error is None
        if run.said != [f"{out}: {DONE}"]:
            assert contents(out) == whole
            seen.add(run.embedder.seen)
        else:  # all files are in place; only the work folder was left
            assert contents(out).items() >= whole.items()
        shutil.rmtree(out)
    assert at > 40
    assert seen == {6, 4, 2, 1, 0}


def test_finished_images_are_not_embedded_again(root: Path, tmp_path: Path):
    """Catches a second run that starts over, or does not report what was done."""
    Run(root, tmp_path / "out", stop=interrupt_at(6))
    run = Run(root, tmp_path / "out")
    assert run.said == ["train: 6 of 7 images were done before"]
    assert run.embedder.seen == 12 - 6


def interrupt_at(image: int) -> Callable[[int], object]:
    def stop(seen: int) -> None:
        if seen >= image:
            raise KeyboardInterrupt

    return stop


def test_ctrl_c_says_how_to_go_on(
    whole: dict[str, bytes],
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Catches finished batches thrown away, or a user who is not told that they are kept."""
    monkeypatch.setattr(shards, "SECONDS", 1e9)
    run = Run(root, tmp_path / "out", stop=interrupt_at(9))
    assert isinstance(run.error, KeyboardInterrupt)
    assert str(run.error) == ("interrupted: 9 of 12 images are done; run the same command again to continue")
    again = Run(root, tmp_path / "out")
    assert again.said == ["train: 7 of 7 images were done before", "val: 2 of 2 images were done before"]
    assert contents(tmp_path / "out") == whole


def test_nothing_is_left_if_nothing_is_finished(root: Path, tmp_path: Path):
    """Catches an empty folder, which looks like features, after an immediate Ctrl-C."""
    assert isinstance(Run(root, tmp_path / "out", stop=interrupt_at(0)).error, KeyboardInterrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]
    deep = tmp_path / "a" / "b" / "c"
    assert isinstance(Run(root, deep, stop=interrupt_at(0)).error, KeyboardInterrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]
    (tmp_path / "mine").mkdir()
    assert isinstance(Run(root, tmp_path / "mine", stop=interrupt_at(0)).error, KeyboardInterrupt)
    assert list((tmp_path / "mine").iterdir()) == []


# Other settings, other images


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"backbone": conv4(1, layer="2")}, "layer"),
        ({"backbone": conv4(1, resize=36, std=(1.0, 1.0, 1.0))}, "resize, std"),
        ({"backbone": conv4(2)}, "weights_sha256"),
        ({"dtype": "float16"}, "dtype"),
        ({"batch_size": 3}, "batch_size"),
        ({"precision": "bf16"}, "precision"),
    ],
)
def test_other_settings_are_refused(changes: dict[str, Any], names: str, root: Path, tmp_path: Path):
    """Catches two kinds of features in one file, and hours of work thrown away because of a typo."""
    out = tmp_path / "out"
    Run(root, out, stop=interrupt_at(6))
    before = contents(out)
    line = f"{out}: holds an unfinished extraction with other settings ({names})"
    assert str(Run(root, out, **changes).error) == (
        f"{line}; use the same settings, name another folder, or add --overwrite"
    )
    assert contents(out) == before
    run = Run(root, out, **changes, overwrite=True)
    assert run.said == [f"note: {line}, which is discarded"]
    assert run.embedder.seen == 12
    Run(root, tmp_path / "new", **changes)
    assert contents(out) == contents(tmp_path / "new")


def test_settings_without_shards_do_not_matter(root: Path, tmp_path: Path):
    """Catches a batch size that was too large for the memory and now blocks a smaller one."""
    assert killed(12, lambda step: Run(root, tmp_path / "out", stop=step))
    assert (tmp_path / "out" / ".extract").exists()
    assert Run(root, tmp_path / "out", batch_size=3).error is None


def test_overwrite_continues_with_the_same_settings(root: Path, tmp_path: Path):
    """Catches a command that replaces old features and starts over after every interruption."""
    Run(root, tmp_path / "out", conv4(5))
    Run(root, tmp_path / "out", overwrite=True, stop=interrupt_at(6))
    run = Run(root, tmp_path / "out", overwrite=True)
    assert run.embedder.seen == 6
    assert sorted(contents(tmp_path / "out")) == FILES


def replaced(root: Path) -> None:
    save(root / "train" / "dog" / "0.png", 99)


def touched(root: Path) -> None:
    os.utime(root / "train" / "dog" / "0.png", (1, 1))


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (replaced, {"train": 4, "val": 2, "test": 3}),
        (touched, {"train": 4, "val": 2, "test": 3}),
        (lambda root: save(root / "train" / "cat" / "00.png", 50), {"val": 2, "test": 3}),
        (lambda root: (root / "train" / "dog" / "1.png").unlink(), {"train": 4, "val": 2, "test": 3}),
        (lambda root: save(root / "train" / "dog" / "9.png", 50), {"train": 6, "val": 2, "test": 3}),
        (lambda root: (root / "train" / "dog" / "2.png").unlink(), {"train": 6, "val": 2, "test": 3}),
        (lambda root: save(root / "val" / "ant" / "0.png", 50), {"train": 7, "test": 3}),
        (lambda root: shutil.rmtree(root / "val"), {"train": 7, "test": 3}),
        (
            lambda root: (root / "train" / "dog").rename(root / "train" / "eel"),
            {"train": 4, "val": 2, "test": 3},
        ),
    ],
    ids=["replaced", "touched", "one before", "one less", "one more", "last", "class", "split", "renamed"],
)
def test_changed_images_are_embedded_again(
    change: Callable[[Path], object], kept: dict[str, int], root: Path, tmp_path: Path
):
    """Catches features of images that have changed, in wrong rows, or in other batches than in one run.

    Also an extraction that starts over because of one image.
    """
    out = tmp_path / "out"
    killed_before("save_splits", root, out)
    change(root)
    run = Run(root, out)
    totals = {split: len(bank) for split, bank in run.banks.items()}
    assert run.said == [
        f"{split}: {count} of {totals[split]} images were done before" for split, count in kept.items()
    ]
    assert run.embedder.seen == sum(totals.values()) - sum(kept.values())
    Run(root, tmp_path / "new")
    assert contents(out) == contents(tmp_path / "new")


def test_shards_of_other_lengths_do_not_mix(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches shards of an earlier run among the shards of this one."""
    out = tmp_path / "out"
    killed_before("save_splits", root, out)
    save(root / "train" / "cat" / "0.png", 77)
    monkeypatch.setattr(shards, "SECONDS", 1e9)
    monkeypatch.setattr(shards, "BYTES", 2 * BATCH * 8 * 4)
    killed_before("save_splits", root, out)
    assert sorted(path.name for path in (out / ".extract").glob("train-*")) == [
        "train-000000000.safetensors",
        "train-000000004.safetensors",
    ]
    Run(root, out)
    Run(root, tmp_path / "new")
    assert contents(out) == contents(tmp_path / "new")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def killed_before(step: str, root: Path, out: Path, *backbone: Backbone, **settings: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"leo_lightning.images.extraction.extract.{step}", interrupt)
        Run(root, out, *backbone, **settings)


def test_damaged_shards_are_made_again(whole: dict[str, bytes], root: Path, tmp_path: Path):
    """Catches a damaged shard that is kept, or blocks the run."""
    out = tmp_path / "out"
    Run(root, out, stop=interrupt_at(8))
    shard = out / ".extract" / "train-000000002.safetensors"
    for content in (b"", shard.read_bytes()[:-1], b"\xff" * 50):
        shard.write_bytes(content)
        run = Run(root, out, stop=interrupt_at(4))
        assert run.said[0] == "train: 2 of 7 images were done before"
    assert Run(root, out).error is None
    assert contents(out) == whole


# Images that cannot be read


def test_a_damaged_image_stops_the_run_and_nothing_is_lost(root: Path, tmp_path: Path):
    """Catches a night's work lost because of one file, or files that are named one by one."""
    bad = root / "train" / "dog" / "1.png"
    other = min((root / "test").rglob("*.png"))
    good, also = bad.read_bytes(), other.read_bytes()
    bad.write_bytes(good[:100])
    other.write_bytes(b"")
    run = Run(root, tmp_path / "out")
    named = f"'train/dog/1.png', '{other.relative_to(root).as_posix()}'"
    advice = "remove them, or leave them out: --on-error skip"
    assert str(run.error) == f"{root}: cannot be read as images: {named}; {advice}"
    bad.write_bytes(good)
    other.write_bytes(also)
    run = Run(root, tmp_path / "out")
    assert run.said == ["train: 4 of 7 images were done before"]
    Run(root, tmp_path / "new")
    assert contents(tmp_path / "out") == contents(tmp_path / "new")


def test_damaged_images_can_be_left_out(image_tree: Path, root: Path, tmp_path: Path):
    """Catches rows of black images, shifted labels, changed neighbors, and files skipped without a note."""
    for bad, name in zip(damaged(tmp_path / "bad").values(), ("cat/1.png", "dog/2.png"), strict=False):
        shutil.copy(bad, root / "train" / name)
    (root / "test" / "fox" / "1.png").unlink()
    (root / "test" / "fox" / "1.png").symlink_to("nowhere")
    run = Run(root, tmp_path / "out", on_error="skip")
    assert run.said == [
        "note: train: 2 of 7 images cannot be read and are left out: 'cat/1.png', 'dog/2.png'",
        "note: test: 1 of 3 images cannot be read and are left out: 'fox/1.png'",
    ]
    train = run.banks["train"]
    assert train.image_names == ("cat/0.png", "cat/2.png", "cat/3.png", "dog/0.png", "dog/1.png")
    assert train.counts.tolist() == [3, 2]
    undisturbed = Run(image_tree, tmp_path / "whole").banks["train"]
    assert torch.equal(train.embeddings, undisturbed.embeddings[[0, 2, 3, 4, 5]])


def test_on_error_may_change_between_runs(root: Path, tmp_path: Path):
    """Catches gaps that are kept where they must be refused, or work thrown away where they may stay."""
    save(root / "train" / "cat" / "1.png")
    bad = root / "train" / "cat" / "1.png"
    bad.write_bytes(b"")
    out = tmp_path / "out"
    assert Run(root, out, on_error="skip", stop=interrupt_at(6)).error is not None
    assert str(Run(root, out).error).startswith(f"{bad}: cannot be read as an image")
    run = Run(root, out, on_error="skip")
    Run(root, tmp_path / "new", on_error="skip")
    assert contents(out) == contents(tmp_path / "new")
    assert run.said[-1] == "note: train: 1 of 7 images cannot be read and are left out: 'cat/1.png'"


def test_embeddings_of_black_images_do_not_matter(root: Path, tmp_path: Path):
    """Catches a refusal because of a black image in place of a damaged one."""
    (root / "train" / "cat" / "1.png").write_bytes(b"")

    class Proud(Counting):
        def embed_views(self, images: torch.Tensor) -> torch.Tensor:
            black = (images.flatten(1) == 0).all(1)
            return torch.where(black[:, None], torch.inf, super().embed_views(images))

    splits = find_splits(root)
    console = Console(file=StringIO())
    banks = extract(splits, Proud(conv4(1)), tmp_path / "out", "", "", on_error="skip", console=console)
    assert len(banks["train"]) == 6
    assert banks["train"].embeddings.isfinite().all()


def test_a_class_without_images_is_refused(root: Path, tmp_path: Path):
    """Catches a class that vanishes, which renumbers the others."""
    for path in (root / "val" / "owl").iterdir():
        path.write_bytes(b"")
    run = Run(root, tmp_path / "out", on_error="skip")
    assert str(run.error) == f"{root}/val: no image of class 'owl' can be read; remove the class"
    shutil.rmtree(root / "val" / "owl")
    save(root / "val" / "ant" / "1.png")
    assert Run(root, tmp_path / "out", on_error="skip").embedder.seen == 1


@pytest.mark.parametrize(
    ("scale", "dtype", "advice"),
    [
        (1e6, "float16", "use --dtype float32"),
        (float("nan"), "float32", "the weights may be damaged, or need another recipe"),
        (float("nan"), "float16", "the weights may be damaged, or need another recipe"),
    ],
)
def test_embeddings_that_are_not_finite(scale: float, dtype: str, advice: str, root: Path, tmp_path: Path):
    """Catches infinity where half precision overflows, and NaN that would spoil training."""
    backbone = conv4(1, layer="0.normalize")
    with torch.no_grad():
        network: Any = backbone.network
        network[0].normalize.weight.mul_(scale)
    run = Run(root, tmp_path / "out", backbone, dtype=dtype)
    assert str(run.error) == f"{root}/train/cat/0.png: its embedding is not finite; {advice}"
    assert not (tmp_path / "out").exists()


# The destination


def test_existing_features_are_kept(root: Path, tmp_path: Path):
    """Catches features, or a backbone, replaced without --overwrite."""
    out = tmp_path / "out"
    Run(root, out)
    before = contents(out)
    assert "already holds features (train, val, test)" in str(Run(root, out, conv4(2)).error)
    for split in SPLITS:
        (out / f"{split}.safetensors").unlink()
    assert str(Run(root, out, conv4(2)).error) == (
        f"{out}: already holds {BACKBONE_FILE}; name another folder, or add --overwrite"
    )
    assert contents(out) == {BACKBONE_FILE: before[BACKBONE_FILE]}


def test_features_are_replaced_all_together(root: Path, tmp_path: Path):
    """Catches an old split, or the backbone of old features, beside new ones."""
    out = tmp_path / "out"
    Run(root, out)
    shutil.rmtree(root / "val")
    (out / "notes.txt").write_text("mine")
    Run(root, out, conv4(2), overwrite=True)
    assert sorted(contents(out)) == [BACKBONE_FILE, "notes.txt", "test.safetensors", "train.safetensors"]
    assert digest(read_backbone(out / BACKBONE_FILE)) == digest(conv4(2))


@pytest.mark.slow
def test_a_kill_never_mixes_two_data_sets(tmp_path: Path):
    """Catches features of one backbone beside those of another, or beside another backbone."""
    root = tree(tmp_path / "images", {"train": {"cat": 1}, "test": {"owl": 1}})
    begun, whole = tmp_path / "begun", tmp_path / "whole"
    Run(root, begun, conv4(1))
    Run(root, whole, conv4(2))
    killed_before("publish", root, begun, conv4(2), overwrite=True)
    for moment in itertools.count(1):
        out = shutil.copytree(begun, tmp_path / str(moment))
        was_killed = killed(moment, lambda _: Run(root, out, conv4(2), overwrite=True))  # noqa: B023
        made_by = {load_bank(path).provenance["weights_sha256"] for path in out.glob("[tv]*.safetensors")}
        if (out / BACKBONE_FILE).exists():
            made_by.add(digest(read_backbone(out / BACKBONE_FILE)))
        assert len(made_by) <= 1
        Run(root, out, conv4(2), overwrite=True)
        assert contents(out) == contents(whole)
        if not was_killed:
            break


def test_two_at_once_are_refused(root: Path, tmp_path: Path):
    """Catches two processes that write the same shards."""
    out = tmp_path / "out"
    out.mkdir()
    with claim(out):
        assert "another import or extraction is at work here" in str(Run(root, out).error)
        assert os.listdir(out) == [".lock"]
    assert Run(root, out).error is None


def test_a_full_disk_keeps_what_is_finished(
    whole: dict[str, bytes],
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """Catches a traceback, half a shard taken for a whole one, and finished shards thrown away."""
    out = tmp_path / "out"
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(seen: int) -> None:
        if seen == 6:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))

    try:
        run = Run(root, out, stop=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert f"{out}/.extract/train-000000006.safetensors: cannot be written (File too large)" in str(run.error)
    run = Run(root, out)
    assert run.said == ["train: 6 of 7 images were done before"]
    assert contents(out) == whole


@pytest.mark.parametrize("size", [100, 1500, 5000])
def test_a_disk_without_room_for_the_features(size: int, root: Path, tmp_path: Path):
    """Catches some splits in place when the last file did not fit."""
    out = tmp_path / "out"
    killed_before("save_splits", root, out)
    _, hard = limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        run = Run(root, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written (" in str(run.error)
    assert list(out.glob("*.safetensors")) == []
    assert Run(root, out).embedder.seen == 0
