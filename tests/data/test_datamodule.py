"""The data module: episodes out of a folder of features, and what it says when there can be none."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data import roots, splits
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.episode import Episode
from leo_lightning.data.feature_file import load_bank, save_bank
from leo_lightning.data.row_file import RowFile
from leo_lightning.data.splits import SPLITS, load_split, save_splits, split_path
from leo_lightning.data.synthetic import CLASSES, synthesize

SIZES = {"train": (25, 20, 31, 22, 40, 21), "val": (20,) * 5, "test": (30, 24, 24, 26, 24)}
E = 6


def write_split(
    root: Path,
    split: str,
    sizes: tuple[int, ...] | None = None,
    size: int = E,
    name: str = "",
    bad: bool = False,
) -> None:
    """Write a split of random features whose mean is not 0; `bad`: the last number is NaN."""
    sizes = SIZES[split] if sizes is None else sizes
    labels = np.repeat([f"{name or split}{c}" for c in range(len(sizes))], sizes)
    embeddings = np.random.default_rng(len(split)).normal(2, 1, (len(labels), size)).astype(np.float32)
    bank = FeatureBank.from_arrays(embeddings, labels)
    bank.embeddings[-1, -1] = torch.nan if bad else 0
    root.mkdir(exist_ok=True)
    save_bank(bank, split_path(root, split))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of all three splits."""
    for split in SPLITS:
        write_split(tmp_path, split)
    return tmp_path


def prepared(root: Path | None, *stages: str, **options: Any) -> EpisodeDataModule:
    """Return a data module as Lightning would prepare it."""
    data = EpisodeDataModule("synthetic" if root is None else str(root), **options)
    for stage in stages or ("fit", "test"):
        data.setup(stage)
    return data


class Recorder(pl.LightningModule):
    """Keeps the episodes that Lightning passes to it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[str, list[Episode]] = {}

    def keep(self, stage: str, episode: Episode) -> Tensor:
        assert isinstance(episode, Episode)
        self.seen.setdefault(stage, []).append(episode)
        return self.weight.sum()

    def training_step(self, batch: Episode) -> Tensor:
        return self.keep("train", batch)

    def validation_step(self, batch: Episode) -> Tensor:
        return self.keep("val", batch)

    def test_step(self, batch: Episode) -> Tensor:
        return self.keep("test", batch)

    def predict_step(self, batch: Episode) -> Tensor:
        return self.keep("predict", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


# What depends on the machine: its GPU, and fewer cores than workers.
quiet = pytest.mark.filterwarnings(
    "ignore:GPU available but not used:UserWarning", "ignore:This DataLoader will create:UserWarning"
)


def trainer(**options: Any) -> pl.Trainer:
    """Return a trainer that writes nothing."""
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def tasks_of(episodes: list[Episode]) -> list[int]:
    """Return the numbers of all tasks."""
    return [task for episode in episodes if episode.rows for task in episode.rows.task.tolist()]


# Embeddings


def normalized(root: Path, split: str, how: str) -> np.ndarray:
    """Return a split as the learner must see it, in NumPy and float64."""
    rows = load_split(root, split).embeddings.numpy().astype(np.float64)
    if how == "center_l2":
        rows = rows - load_split(root, "train").embeddings.numpy().astype(np.float64).mean(0)
    return rows if how == "none" else rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("normalize", ["none", "l2", "center_l2"])
@pytest.mark.parametrize("split", SPLITS)
def test_gather_is_indexing_and_normalising(split: str, normalize: Any, in_memory: bool, root: Path):
    """Catches rows of another split, a norm over the wrong axis, and another mean than that of train."""
    data = prepared(root, normalize=normalize, in_memory=in_memory, test_query="all")
    rows = data.sampler({"train": "fit", "val": "validate", "test": "test"}[split])(range(3, 7))
    episode = data.gather(rows, split)
    expected = normalized(root, split, normalize)
    torch.testing.assert_close(
        episode.support.double(), torch.from_numpy(expected[rows.support]), rtol=0, atol=2e-6
    )
    torch.testing.assert_close(
        episode.query.double(), torch.from_numpy(expected[rows.query]), rtol=0, atol=2e-6
    )
    assert episode.support.dtype == torch.float32
    assert episode.rows is rows
    assert episode.valid is rows.valid


def test_half_precision_features_are_normalised_in_float32(tmp_path: Path):
    """Catches norms that overflow in float16, and episodes in half precision."""
    rows = torch.full((32, E), 400, dtype=torch.float16)
    rows[::3] *= 2
    bank = FeatureBank.from_arrays(rows, [0, 1] * 16)
    save_bank(bank, split_path(tmp_path, "test"))
    data = prepared(tmp_path, "test", way=2)
    episode = data.gather(data.sampler("test")(range(1)), "test")
    torch.testing.assert_close(episode.support, torch.full((1, 2, 1, E), E**-0.5))


def test_mean_is_that_of_train_alone(root: Path):
    """Catches a mean that moves with `train_on_val`, so that the two kinds of runs see different features."""
    together = prepared(root, normalize="center_l2", train_on_val=True)
    apart = prepared(root, normalize="center_l2")
    rows = apart.sampler("test")(range(4))
    assert torch.equal(together.gather(rows, "test").query, apart.gather(rows, "test").query)


# Tasks


def test_train_and_test_have_their_own_sizes(root: Path):
    """Catches N, K or Q of one split used in another."""
    data = prepared(root, way=3, shot=2, query=7, train_way=6, train_shot=5, test_query=4, batch_size=2)
    sizes = {"train": (2, 6, 5, 7), "val": (64, 3, 2, 7), "test": (64, 3, 2, 4)}
    for split, (B, N, K, Q) in sizes.items():
        rows = next(iter(getattr(data, f"{split}_dataloader")()))
        assert rows.support.shape == (B, N, K)
        assert rows.query.shape == (B, N, Q)
        assert rows.valid is None


def test_sizes_of_all_splits_are_the_same_unless_said(root: Path):
    """Catches a default of training that does not follow `way`, `shot` and `query`."""
    data = prepared(root, way=4, shot=3, query=9)
    for split in SPLITS:
        rows = next(iter(getattr(data, f"{split}_dataloader")()))
        assert (*rows.support.shape[1:], rows.query.shape[2]) == (4, 3, 9)


def test_all_remaining_images_are_for_the_test_only(root: Path):
    """Catches the paper's protocol in validation, and an option that changes nothing."""
    data = prepared(root, test_query="all")
    assert next(iter(data.val_dataloader())).query.shape[2] == 15
    rows = next(iter(data.predict_dataloader()))
    assert rows.query.shape[2] == 30 - 1
    assert rows.valid is not None
    assert rows.valid.sum(-1).unique().tolist() == [23, 25, 29]


@pytest.mark.parametrize("in_memory", [True, False])
def test_all_remaining_images_are_left_to_the_pool(in_memory: bool, root: Path):
    """Catches a pool of other classes than those of the tasks, other features, or other support images."""
    data = prepared(root, test_query="all", normalize="center_l2", in_memory=in_memory)
    rows, gathered = next(iter(data.test_dataloader())), next(iter(data.predict_dataloader()))
    assert torch.equal(rows.support[: len(gathered.support)], gathered.support)
    assert (len(rows.support), len(gathered.support)) == (128, 16)  # gathered, 128 would take a gigabyte
    assert rows.query.shape[2] == 0
    episode = data.gather(rows, "test")
    assert episode.pool is not None
    assert rows.classes is not None
    for b, n in ((0, 0), (3, 2), (7, 4)):
        number = int(rows.classes[b, n])
        images, first = episode.pool.images(number), int(episode.pool.offsets[number])
        assert len(images) == data.bank("test").counts[number]
        assert torch.equal(images[rows.support[b, n] - first], episode.support[b, n])
    assert data.gather(gathered, "test").pool is None


def test_evaluation_tasks_depend_on_their_own_seed_only(root: Path):
    """Catches validation that changes with the seed of the training, so that runs do not compare."""
    first, other, evaluation = (
        prepared(root, seed=seed, eval_seed=eval_seed, val_tasks=40)
        for seed, eval_seed in ((1, 5), (2, 5), (1, 6))
    )
    for split, same in (("train", evaluation), ("val", other), ("test", other)):
        differs = other if same is evaluation else evaluation
        one, two, three = (
            next(iter(getattr(data, f"{split}_dataloader")())).support for data in (first, same, differs)
        )
        assert torch.equal(one, two)
        assert not torch.equal(one, three)


def test_batch_size_of_evaluation_changes_no_task(root: Path):
    """Catches tasks left out at the end, or drawn by batch."""
    few, many = (prepared(root, "validate", eval_batch_size=size, val_tasks=50) for size in (7, 32))
    a, b = (torch.cat([rows.support for rows in data.val_dataloader()]) for data in (few, many))
    assert torch.equal(a, b)
    assert len(a) == 50


@pytest.mark.parametrize("in_memory", [True, False])
def test_workers_are_sent_no_embeddings(in_memory: bool, root: Path):
    """Catches a loader that drags the bank, or the trainer, into every worker process."""
    data = prepared(root, in_memory=in_memory)
    data.trainer = trainer()
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        assert len(pickle.dumps(loader.stream)) < 2000


# Lightning


@quiet
@pytest.mark.parametrize("num_workers", [0, 2])
def test_fit_continues_over_epochs_and_validates_the_same_tasks(num_workers: int, root: Path):
    """Catches epochs that repeat their tasks, the split of another stage, and embeddings not filled in."""
    data = EpisodeDataModule(
        str(root), batch_size=3, eval_batch_size=4, steps_per_epoch=2, val_tasks=10, num_workers=num_workers
    )
    recorder = Recorder()
    trainer(max_epochs=3, num_sanity_val_steps=1).fit(recorder, datamodule=data)
    train, val = recorder.seen["train"], recorder.seen["val"]
    assert tasks_of(train) == list(range(18))
    assert tasks_of(val) == [*range(4), *range(10), *range(10), *range(10)]
    for episodes, split in ((train, "train"), (val, "val")):
        expected = normalized(root, split, "l2")
        for episode in episodes:
            assert episode.rows is not None
            wanted = torch.from_numpy(expected[episode.rows.query])
            torch.testing.assert_close(episode.query.double(), wanted, rtol=0, atol=1e-6)


@quiet
@pytest.mark.parametrize("run", ["fit", "validate", "test", "predict"])
def test_every_stage_runs_alone(run: str, root: Path):
    """Catches a stage that relies on what another has set up, or gets the embeddings of another split."""
    recorder = Recorder()
    data = EpisodeDataModule(str(root), eval_batch_size=4, predict_tasks=3)
    getattr(trainer(fast_dev_run=2), run)(recorder, datamodule=data)
    seen = {"fit": {"train", "val"}, "validate": {"val"}}.get(run, {run})
    assert set(recorder.seen) == seen
    for stage, episodes in recorder.seen.items():
        split = "test" if stage == "predict" else stage
        rows = episodes[0].rows
        assert rows is not None
        wanted = torch.from_numpy(normalized(root, split, "l2")[rows.support])
        torch.testing.assert_close(episodes[0].support.double(), wanted, rtol=0, atol=1e-6)
    if run == "predict":
        assert tasks_of(recorder.seen["predict"]) == [0, 1, 2]


@quiet
def test_overfitting_sees_the_same_tasks_in_every_epoch(root: Path):
    """Catches Lightning's option for debugging made useless by loaders that never repeat themselves."""
    data = EpisodeDataModule(str(root), batch_size=3, val_tasks=4)
    recorder = Recorder()
    trainer(max_epochs=3, overfit_batches=2, limit_val_batches=0).fit(recorder, datamodule=data)
    assert tasks_of(recorder.seen["train"]) == [*range(6)] * 3


@quiet
@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero:UserWarning")
def test_training_on_val_has_its_classes_and_no_validation(root: Path):
    """Catches validation on classes that were trained on, and a union that leaves val out."""
    data = EpisodeDataModule(str(root), train_way=11, batch_size=1, train_on_val=True)
    recorder = Recorder()
    trainer(fast_dev_run=2).fit(recorder, datamodule=data)
    assert set(recorder.seen) == {"train"}
    assert data.val_dataloader() == []
    bank = data.bank("train")
    assert bank.class_names == tuple(f"train{c}" for c in range(6)) + tuple(f"val{c}" for c in range(5))
    rows = recorder.seen["train"][0].rows
    assert rows is not None
    assert sorted(bank.labels[rows.support].flatten().tolist()) == list(range(11))
    with pytest.raises(
        InputError, match=r"data\.train_on_val is true: the validation classes were trained on"
    ):
        trainer(fast_dev_run=True).validate(recorder, datamodule=data)


# What is refused


def refused(root: Path, message: str, *stages: str, **options: Any) -> None:
    """Check that setting up ends in one line that begins with the message, a path relative to `root`."""
    with pytest.raises(InputError) as caught:
        prepared(root, *stages, **options)
    assert str(caught.value).replace(f"{root}/", "") == message


def test_too_few_classes(root: Path):
    """Catches a sampler that fails in the middle of a training, and a message without the file."""
    message = "val.safetensors: 5 classes are too few for 6-way tasks; lower --data.way"
    refused(root, message, "fit", way=6)


def test_too_few_images(root: Path):
    """Catches Q forgotten in the sum, a check of the first class only, and numbers that do not add up."""
    message = (
        "train.safetensors: class train1 has 20 images, a task needs 21 (6 support + 15 query); "
        "lower --data.shot or --data.query, or leave such classes out: --data.skip_small_classes true"
    )
    refused(root, message, "fit", shot=6)
    prepared(root, "fit", shot=5)
    message = (
        "test.safetensors: class test1 has 24 images, a task needs 25 (24 support + 1 query); "
        "lower --data.shot, or leave such classes out: --data.skip_small_classes true"
    )
    refused(root, message, "test", shot=24, test_query="all")
    prepared(root, "test", shot=23, test_query="all")


def test_classes_of_one_image(root: Path):
    """Catches the advice to lower --data.shot where no setting can help, and one class named at a time."""
    bank = FeatureBank.from_arrays(torch.randn(26, E), ["a", "b", *"cde" * 8])
    save_bank(bank, split_path(root, "val"))
    message = (
        "val.safetensors: has only 1 image of class 'a', 'b', and a task needs at least 2 (1 support + 1 "
        "query); merge such classes with others, or leave them out: --data.skip_small_classes true"
    )
    refused(root, message, "fit")


def test_missing_split(root: Path):
    """Catches a training that ends at its first validation."""
    split_path(root, "val").unlink()
    with pytest.raises(InputError, match=r"has no split 'val' \(splits there: train, test\)"):
        prepared(root, "fit")
    prepared(root, "test")
    with pytest.raises(InputError, match=r"none: no such folder of features"):
        prepared(root / "none", "fit")
    (root / "empty").mkdir()
    with pytest.raises(InputError, match=r"has no split 'train' \(splits there: none\)"):
        prepared(root / "empty", "fit")
    with pytest.raises(InputError, match=r"has no split 'train' \(splits there: none\)"):
        _ = EpisodeDataModule(str(root / "empty")).embedding_size


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_class_in_two_splits(stage: str, root: Path):
    """Catches a leak in splits that no stage uses together, or that training on val hides."""
    write_split(root, "test", name="train")
    message = (
        "test.safetensors: classes 'train0', 'train1', 'train2', 'train3', 'train4' in both 'train' and "
        "'test'; splits may not share classes, so give different classes different names"
    )
    refused(root, message, stage)
    refused(root, message, stage, train_on_val=True)


@pytest.mark.parametrize("normalize", ["l2", "center_l2"])
@pytest.mark.parametrize("train_on_val", [False, True])
def test_splits_of_different_backbones(normalize: Any, train_on_val: bool, root: Path):
    """Catches torch's error about shapes, hours later at the first validation or test."""
    write_split(root, "test", size=E + 1)
    message = (
        "test.safetensors: embeddings have 7 numbers, those of 'train' have 6; "
        "use one backbone for all splits"
    )
    for stage in ("fit", "test"):
        refused(root, message, stage, normalize=normalize, train_on_val=train_on_val)


def test_features_that_are_not_finite(root: Path):
    """Catches a loss that is NaN for a reason that nobody finds."""
    write_split(root, "val", bad=True)
    message = (
        "val.safetensors: holds numbers that are not finite in 1 of 100 rows (99); "
        "remove these rows or compute them again"
    )
    refused(root, message, "fit")
    prepared(root, "test")


@pytest.mark.parametrize("name", ["way", "train_way"])
def test_one_way_tasks(name: str):
    """Catches tasks with nothing to tell apart."""
    with pytest.raises(InputError, match=rf"^data\.{name} is 1: it must be at least 2$"):
        prepared(None, **{name: 1})


@pytest.mark.parametrize(
    "name",
    [
        "shot",
        "train_shot",
        "query",
        "test_query",
        "batch_size",
        "eval_batch_size",
        "steps_per_epoch",
        "val_tasks",
        "test_tasks",
        "predict_tasks",
    ],
)
def test_numbers_that_must_be_positive(name: str):
    """Catches a zero that means the default, or an endless loop over empty batches."""
    for value in (0, -1):
        with pytest.raises(InputError, match=rf"^data\.{name} is {value}: it must be at least 1$"):
            prepared(None, **{name: value})


def test_embedding_size_is_that_of_the_files(root: Path):
    """Catches networks of another size than the features, also where there is no train split."""
    assert EpisodeDataModule(str(root)).embedding_size == E
    split_path(root, "train").unlink()
    assert EpisodeDataModule(str(root)).embedding_size == E
    assert EpisodeDataModule("synthetic").embedding_size == 128


def test_each_file_is_opened_once(root: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a file read again for each banner, check, record of a checkpoint or stage."""
    opened = []
    monkeypatch.setattr(splits, "load_bank", lambda path: opened.append(path.stem) or load_bank(path))
    data = EpisodeDataModule(str(root), normalize="center_l2")
    assert data.embedding_size == E
    for stage in ("fit", "validate", "test"):
        data.setup(stage)
        data.banner(stage)
    data.state_dict()
    data.title()
    assert sorted(opened) == sorted(SPLITS)


# Features larger than memory

MEASURE = """
import sys
import torch
from leo_lightning.data.datamodule import EpisodeDataModule

def resident():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmRSS")) / 1000

for in_memory in (False, True):
    data = EpisodeDataModule(sys.argv[1], in_memory=in_memory, test_tasks=4)
    before = resident()
    data.setup("test")
    for rows in data.test_dataloader():
        episode = data.gather(rows, "test")
    print(resident() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to measure memory")
def test_features_on_disk_stay_there(tmp_path: Path):
    """Catches a check or a copy that reads the whole file, which may be larger than memory."""
    embeddings, labels = torch.ones(60_000, 640), torch.arange(100).repeat_interleave(600)
    embeddings[0] = 0
    path = split_path(tmp_path, "test")
    save_bank(FeatureBank(embeddings, labels, tuple(map(str, range(100))), None, {}), path)
    size = path.stat().st_size / 1e6
    assert size > 150
    command = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    on_disk, in_memory = (float(line) for line in done.stdout.split())
    assert on_disk < size / 2 < size < in_memory


def test_features_on_disk_are_those_that_were_checked(root: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches rows read from features that another process has imported since the others were opened."""

    def open_late(path: Path, embeddings: torch.Tensor) -> RowFile:
        save_splits([(split, load_bank(split_path(root, split))) for split in SPLITS], root, overwrite=True)
        return RowFile(path, embeddings)

    monkeypatch.setattr(roots, "RowFile", open_late)
    with pytest.raises(InputError, match="features were replaced while they were read"):
        EpisodeDataModule(str(root), in_memory=False).setup("test")


# Synthetic features


def test_synthetic_features_are_the_same_for_the_same_seed():
    """Catches a global generator, a cache that ignores the seed, and splits that are copies."""
    one = synthesize(3)
    synthesize.cache_clear()
    two, other = synthesize(3), synthesize(4)
    for split in SPLITS:
        assert torch.equal(one[split].embeddings, two[split].embeddings)
        assert not torch.equal(one[split].embeddings, other[split].embeddings)
        assert one[split].num_classes == CLASSES[split]
    names = [name for bank in one.values() for name in bank.class_names]
    assert len(set(names)) == len(names) == sum(CLASSES.values())
    assert not torch.equal(one["val"].embeddings[:600], one["test"].embeddings[:600])


def test_synthetic_tasks_are_neither_trivial_nor_hopeless():
    """scikit-learn's nearest centroid. Catches features on which every method is perfect, or none is."""
    data = prepared(None, "test", test_tasks=200)
    right = total = 0
    for rows in data.test_dataloader():
        episode = data.gather(rows, "test")
        B, N, Q, size = episode.query.shape
        for support, query in zip(episode.support.numpy(), episode.query.numpy(), strict=True):
            with np.errstate(invalid="ignore"):  # the deviation within one image
                centroids = NearestCentroid().fit(support.reshape(-1, size), np.arange(N))
            right += (centroids.predict(query.reshape(-1, size)) == np.arange(N).repeat(Q)).sum()
            total += N * Q
    assert total == 200 * 5 * 15
    assert 0.25 < right / total < 0.45


def test_it_can_be_printed():
    """Catches Lightning's own description, which walks through the tasks and fails."""
    data = EpisodeDataModule(root="synthetic", shot=5)
    assert str(data) == "EpisodeDataModule(5-way 5-shot, root='synthetic')"
    data.setup("fit")
    assert str(data) == "EpisodeDataModule(5-way 5-shot, root='synthetic')"


@pytest.mark.parametrize("test_query", [16, "all"])
def test_small_test_classes_are_named(test_query: int | str, root: Path):
    """Catches other counts than the tasks need, and results that do not say what they leave out."""
    shot = 10 if test_query == 16 else 25
    data = prepared(root, "test", shot=shot, way=2, test_query=test_query, skip_small_classes=True)
    assert data.class_names("test") == ("test0", "test3")
    names = "'test1', 'test2', 'test4'"
    assert f"test: left out 3 classes of fewer than 26 images: {names}" in data.other_features("test")
    assert data.protocol()["small_classes_left_out"] == 3
    assert ": 2 classes, 56 images," in data.banner("test")
    assert "small classes of all splits left out" in data.banner("test")
    stored = load_bank(split_path(root, "test"))
    rows = data.stored("test").embeddings
    kept = torch.cat([stored.embeddings[:30], stored.embeddings[78:104]])
    assert torch.equal(rows, kept)
    episode = data.episode(range(8), "test", torch.device("cpu"))
    near = torch.cdist(episode.support.flatten(0, 2), torch.nn.functional.normalize(kept, dim=1))
    assert near.min(1).values.max() < 1e-3
    assert "small_classes_left_out" not in EpisodeDataModule(str(root)).protocol()


def test_small_classes_with_train_on_val(root: Path):
    """Catches validation classes that are trained on and too small for training tasks."""
    options = {"way": 2, "train_shot": 6, "query": 15, "train_on_val": True, "skip_small_classes": True}
    write_split(root, "val", (20, 21))
    data = prepared(root, "fit", **options)
    assert data.class_names("train") == ("train0", "train2", "train3", "train4", "train5", "val1")


def test_skipping_changes_what_validation_is(root: Path):
    """Catches a resumed run that compares scores of other validation classes with its best."""
    write_split(root, "val", (20, 20, 3))
    data = {skip: EpisodeDataModule(str(root), way=2, skip_small_classes=skip) for skip in (False, True)}
    assert data[True].class_names("val") == ("val0", "val1")
    assert data[False].validation_protocol() != data[True].validation_protocol()


def test_too_few_classes_are_large_enough(root: Path):
    """Catches a refusal that counts classes which the file has more of."""
    write_split(root, "val", (20, 20, 3))
    message = (
        "val.safetensors without 1 small classes: 2 classes are too few for 3-way tasks; lower --data.way"
    )
    refused(root, message, "fit", way=3, skip_small_classes=True)
    write_split(root, "val", (3, 4, 5))
    with pytest.raises(InputError, match=r"\(no class is large enough\): class val0 has 3 images"):
        prepared(root, "fit", way=3, skip_small_classes=True)


def test_small_classes_of_arrays():
    """Catches a setting that `from_arrays` ignores; and features on disk, whose rows would be others."""
    x, y = torch.randn(43, E), [*"a" * 20, *"b" * 20, *"c" * 3]
    data = EpisodeDataModule.from_arrays(test=(x, y), way=2, skip_small_classes=True)
    data.setup("test")
    assert data.class_names("test") == ("a", "b")
    with pytest.raises(InputError, match=r"data\.in_memory true"):
        EpisodeDataModule(skip_small_classes=True, in_memory=False)


# Unknown classes


@pytest.mark.parametrize("in_memory", [True, False])
def test_unknown_queries_are_embedded_as_the_others(in_memory: bool, root: Path):
    """Catches rows as they are stored, another precision, and another device than that of the queries."""
    data = prepared(
        root, "test", way=3, unknown=2, query=4, normalize="center_l2", in_memory=in_memory, test_tasks=6
    )
    rows = next(iter(data.test_dataloader()))
    assert rows.unknown is not None
    assert rows.unknown.shape == (6, 2, 4)
    episode = data.gather(rows, "test").in_precision(torch.float64)
    assert episode.unknown is not None
    assert episode.unknown.dtype == torch.float64
    expected = normalized(root, "test", "center_l2")[rows.unknown.numpy()]
    np.testing.assert_allclose(episode.unknown.numpy(), expected, atol=1e-6)
    moved = data.transfer_batch_to_device(rows, torch.device("meta"), 0)
    assert moved.unknown is not None
    assert moved.unknown.device == moved.query.device == torch.device("meta")


def test_unknown_classes_are_for_the_test_only(root: Path):
    """Catches other training, validation or predictions, and a setting that changes nothing unsaid."""
    data = prepared(root, "fit", "predict", "test", way=3, unknown=2)
    for split in ("train", "val", "predict"):
        assert next(iter(getattr(data, f"{split}_dataloader")())).unknown is None
    note = "predict asks for known classes only: data.unknown is for `test`"
    assert data.other_features("predict") == [note]
    assert data.other_features("test") == []
    assert data.protocol()["unknown"] == 2
    assert "3-way 1-shot, unknown classes: 2," in data.title()
    without = EpisodeDataModule(str(root), way=3)
    assert "unknown" not in without.protocol()
    assert data.validation_protocol() == without.validation_protocol()


@pytest.mark.parametrize("kind", ["none", "l2"])
def test_centred_episodes_are_those_of_centred_features(kind: str, root: Path):
    """Catches a row's number for another's, the mean of the test classes, and a length before the scaling."""
    model = Recorder()
    trainer().test(
        model, EpisodeDataModule(str(root), way=3, unknown=2, test_tasks=4, normalize=kind), verbose=False
    )
    (episode,) = model.seen["test"]
    assert episode.centred is not None
    assert episode.rows is not None
    support, mean, scale, distance = episode.centred
    queries = (episode.query - scale[..., None] * mean) / distance[..., None]
    expected = normalized(root, "test", "center_l2")
    np.testing.assert_allclose(support.numpy(), expected[episode.rows.support.numpy()], atol=1e-6)
    np.testing.assert_allclose(queries.numpy(), expected[episode.rows.query.numpy()], atol=1e-6)


def test_too_few_classes_for_unknown_ones(root: Path):
    """Catches a sampler that draws from classes that are not there, and advice that would not help."""
    message = (
        "test.safetensors: 5 classes are too few for 4-way tasks with 2 unknown classes; "
        "lower --data.unknown or --data.way"
    )
    refused(root, message, "test", way=4, query=10, unknown=2)
    prepared(root, "fit", "predict", way=4, query=10, unknown=2)
    prepared(root, "test", way=4, query=10, unknown=1)


def test_unknown_classes_with_all_remaining_queries():
    """Catches a pool of the known classes' images that is tested without a word about unknown ones."""
    with pytest.raises(InputError, match=r"is 2, and .* set --data.test_query 15, or --data.unknown 0$"):
        EpisodeDataModule("synthetic", unknown=2, test_query="all")
    assert EpisodeDataModule("synthetic", unknown=2).longer_test == " --data.test_query all --data.unknown 0"
