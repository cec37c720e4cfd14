"""Tasks of sines and lines."""

import math

import pytest
import torch
from scipy.stats import kstest

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode
from leo_lightning.data.function_data import FunctionDataModule
from leo_lightning.data.functions import FAMILIES, Functions, sample_functions, sample_points

MANY = range(4000)
ALPHA = 1e-3  # of every statistical test; seeds are fixed, so a test passes always or never


def rows(episode: Episode) -> torch.Tensor:
    assert episode.rows is not None
    return episode.rows.task


@pytest.mark.parametrize(
    ("family", "first", "second"), [("sine", (0.1, 5), (0, math.pi)), ("line", (-3, 3), (-3, 3))]
)
def test_the_papers_distribution(family: str, first: tuple[float, float], second: tuple[float, float]):
    """Catches a range of the other family, and a share that is not a half."""
    functions = sample_functions(MANY, 0, "train")
    mine = functions.family == FAMILIES.index(family)
    assert abs(mine.double().mean() - 0.5) < 3.3 * 0.5 / math.sqrt(len(MANY))
    for values, (low, high) in ((functions.first, first), (functions.second, second)):
        assert kstest(values[mine].numpy(), "uniform", args=(low, high - low)).pvalue > ALPHA
    assert abs(torch.corrcoef(torch.stack([functions.first[mine], functions.second[mine]]))[0, 1]) < 0.08


def test_values_are_those_of_the_function_and_normal_noise():
    """Catches sines and lines that change places, and noise of another size or on x."""
    episode, functions = sample_points(MANY, 0, "val", 5, 3, 0.3), sample_functions(MANY, 0, "val")
    x, y = episode.support[:, 0].double().unbind(-1)
    assert kstest(x.flatten().numpy(), "uniform", args=(-5, 10)).pvalue > ALPHA
    for task in range(50):
        a, b = functions.first[task], functions.second[task]
        truth = a * (x[task] - b).sin() if functions.family[task] == 0 else a * x[task] + b
        torch.testing.assert_close(functions(x)[task], truth)
    assert kstest(((y - functions(x)) / 0.3).flatten().numpy(), "norm").pvalue > ALPHA
    assert episode.rows is not None
    assert episode.rows.classes is not None
    assert torch.equal(episode.rows.classes[:, 0], functions.family)


def test_a_task_is_a_function_of_its_number():
    """Catches tasks that depend on their batch, on K or Q, or that are the same in two splits or seeds."""
    whole, part = sample_points(range(9), 3, "train", 5, 7, 0.3), sample_points([4], 3, "train", 2, 4, 0.3)
    assert torch.equal(part.support[0], whole.support[4, :, :2])
    assert torch.equal(part.query[0], whole.query[4, :, :4])
    assert not torch.equal(whole.support[:, :, :2], whole.query[:, :, :2])
    for seed, split in ((3, "val"), (4, "train")):
        assert not torch.equal(sample_points([4], seed, split, 2, 4, 0.3).support, part.support)


def test_the_data_module_numbers_its_tasks():
    """Catches validation on training tasks, tasks that change with the batch size, and a lost remainder."""
    for size in (4, 7):
        data = FunctionDataModule(shot=3, query=2, val_tasks=10, eval_batch_size=size, seed=1)
        batches = list(data.val_dataloader())
        assert torch.cat([rows(batch) for batch in batches]).tolist() == list(range(10))
        support = torch.cat([batch.support for batch in batches])
        assert torch.equal(support, sample_points(range(10), 0, "val", 3, 2, 0.3).support)
    first = next(iter(data.train_dataloader()))
    assert torch.equal(first.support, sample_points(range(12), 1, "train", 3, 2, 0.3).support)
    assert data.embedding_size == 2


@pytest.mark.parametrize("settings", [{"shot": 0}, {"query": 0}, {"noise": -0.1}, {"batch_size": 0}])
def test_bad_settings(settings: dict[str, float]):
    """Catches a setting that is accepted and fails at the first batch."""
    [name] = settings
    with pytest.raises(InputError, match=f"data.{name} is"):
        FunctionDataModule(**settings)


def test_functions_take_points_of_any_number():
    """Catches parameters that are not those of the task at hand."""
    functions = Functions(torch.tensor([1, 0]), torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.0]))
    x = torch.tensor([[0.0, 1.0, 2.0], [0.0, math.pi / 2, math.pi]])
    torch.testing.assert_close(
        functions(x), torch.tensor([[1.0, 3.0, 5.0], [0.0, 3.0, 0.0]]), atol=1e-6, rtol=0
    )
