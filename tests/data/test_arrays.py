"""Episodes from arrays in memory."""

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from leo_lightning import LEOClassifier, MetaLearner
from leo_lightning.common.errors import InputError
from leo_lightning.data import datamodule
from leo_lightning.data.arrays import array_splits
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.splits import SPLITS, save_splits
from leo_lightning.learners import LEO
from tests.command_line import call

E = 6
SIZES: dict[str, Any] = {"way": 3, "query": 4, "steps_per_epoch": 4, "val_tasks": 4, "test_tasks": 4}
Arrays = tuple[np.ndarray, np.ndarray]


def arrays(seed: int = 0, prefix: str = "") -> dict[str, Arrays]:
    """Splits of 5 classes of 8 images, whose labels count from 0 in each, or are names."""
    generator, labels = np.random.default_rng(seed), np.repeat(np.arange(5), 8)
    return {
        split: (
            generator.normal(size=(40, E)),
            np.array([f"{prefix}{split}{n}" for n in labels]) if prefix else labels,
        )
        for split in SPLITS
    }


def made(seed: int = 0, **options: Any) -> EpisodeDataModule:
    return EpisodeDataModule.from_arrays(**arrays(seed), separate_labels=True, **SIZES | options)


def trainer(folder: Path, steps: int = 4) -> pl.Trainer:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return pl.Trainer(
        default_root_dir=folder, accelerator="cpu", max_steps=steps, enable_checkpointing=False, **quiet
    )


def leo() -> MetaLearner:
    torch.manual_seed(0)
    return MetaLearner(LEO(num_latents=4))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of a training on arrays."""
    path, run = tmp_path / "x.ckpt", trainer(tmp_path)
    run.fit(leo(), made())
    run.save_checkpoint(path, weights_only=False)
    return path


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "bfloat16 tensor", "lists"])
def test_episodes_are_those_of_the_same_features_in_files(kind: str, tmp_path: Path):
    """Catches rows that move, a type that is refused, and an argument that does not arrive."""
    splits = arrays(prefix="of ")
    given: dict[str, Any] = {}
    for split, (x, y) in splits.items():
        if kind == "bfloat16 tensor":
            given[split] = torch.tensor(x, dtype=torch.bfloat16, requires_grad=True), y.tolist()
        else:
            given[split] = (x.tolist(), y.tolist()) if kind == "lists" else (x.astype(kind), y)
    shuffled = np.random.default_rng(1).permutation(40)
    given["test"] = tuple(
        np.asarray(part)[shuffled] if kind != "bfloat16 tensor" else part for part in given["test"]
    )
    data = EpisodeDataModule.from_arrays(**given, **SIZES, normalize="center_l2")
    save_splits(((split, data.bank(split)) for split in SPLITS), tmp_path)
    of_files = EpisodeDataModule(tmp_path, **SIZES, normalize="center_l2")
    for stage in ("fit", "validate", "test", "predict"):
        data.setup(stage)
        mine, files = (one.episode(range(3), stage, torch.device("cpu")) for one in (data, of_files))
        assert torch.equal(mine.support, files.support)
        assert torch.equal(mine.query, files.query)
    assert data.class_names("test") == tuple(f"of test{n}" for n in range(5))


def test_labels_that_count_from_0_in_each_split():
    """Catches a class of one split that is taken for one of another, and a refusal without the way out."""
    with pytest.raises(InputError, match=r"'0', .* in both 'train' and 'val'.*separate_labels=True"):
        EpisodeDataModule.from_arrays(**arrays())
    assert made().class_names("val") == tuple(f"val/{n}" for n in range(5))
    names = {split: arrays(prefix="a")["train"] for split in SPLITS}
    with pytest.raises(InputError, match=r"give different classes different names$"):
        EpisodeDataModule.from_arrays(**names)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "there are no arrays; give train="),
        ({"train": np.ones((3, 2))}, "train is not a pair; give embeddings and labels as train="),
        ({"val": (np.ones((3, 2)), [0, 1])}, "val .arrays.: 3 embeddings but 2 labels"),
        ({"val": (np.ones(3), [0, 1, 2])}, r"val .arrays.: embeddings have shape \(3,\)"),
        ({"val": (np.ones((2, 2), int), [0, 1])}, "embeddings are int64; they must be floating"),
        ({"train": (np.eye(2), [0, 1]), "val": (np.eye(3), [2, 3, 4])}, "val .* 3 numbers, .*'train' have 2"),
    ],
)
def test_arrays_that_do_not_fit(given: dict[str, Any], message: str):
    """Catches an error that first appears in the middle of a training, or in torch's words."""
    with pytest.raises(InputError, match=message):
        array_splits(given, separate_labels=False)


def test_a_missing_split_is_named_when_it_is_needed():
    """Catches a KeyError, and a refusal of arrays that are enough for what is done."""
    data = EpisodeDataModule.from_arrays(test=arrays()["test"], **SIZES)
    data.setup("test")
    for stage, split in (("fit", "train"), ("validate", "val")):
        with pytest.raises(InputError, match=f"no '{split}' split; give from_arrays {split}="):
            data.setup(stage)


def test_a_checkpoint_is_its_own_record(checkpoint: Path, tmp_path: Path):
    """Catches a root that is no path, a size that nobody recorded, and other arrays taken for the same."""
    x, y = arrays()["test"]
    assert set(LEOClassifier(checkpoint).fit(x, y).predict(x)) <= set(y)
    trainer(tmp_path, steps=6).fit(leo(), made(), ckpt_path=checkpoint, weights_only=True)
    trainer(tmp_path).test(leo(), made(), ckpt_path=checkpoint, weights_only=True, verbose=False)
    with pytest.warns(UserWarning, match=r"^test \(arrays\): these features differ from the ones used in"):
        trainer(tmp_path).test(leo(), made(1), ckpt_path=checkpoint, weights_only=True, verbose=False)


def test_a_command_says_that_the_features_were_arrays(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Catches a test on synthetic features in their place, and a folder that is looked for in vain."""
    monkeypatch.chdir(tmp_path)
    for command in ("test", "figures latents --out x.png"):
        assert call(f"{command} --ckpt_path={checkpoint}") == 2
        error = capsys.readouterr().err
        assert "were arrays in Python" in error
        assert "--data.root" in error
        assert error.count("\n") == 1


def test_the_example_runs():
    """Catches an example that no longer works."""
    finder = doctest.DocTestFinder(recurse=False)
    (example,) = finder.find(EpisodeDataModule.from_arrays, globs={**vars(datamodule)})
    assert doctest.DocTestRunner().run(example).failed == 0
