"""Queries divided by a Dirichlet distribution, against NumPy's, and against balanced tasks."""

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.datamodule import EpisodeDataModule
from leo_lightning.data.sampler import sample_rows
from leo_lightning.data.unbalanced import _divided, query_numbers, unbalanced_rows

COUNTS = np.full(12, 600)
OFFSETS = np.concatenate([[0], np.cumsum(COUNTS)[:-1]])


@pytest.mark.parametrize(("a", "way"), [(1, 3), (2, 5), (7, 4)])
def test_numbers_are_dirichlet(a: int, way: int):
    """Catches gamma variables of another shape, uniform numbers that classes share, and biased rounding."""
    limits = np.full((20_000, way), 10**6)
    share = query_numbers(range(20_000), 0, "test", limits, 100 * way, a) / (100 * way)
    expected = np.random.default_rng(0).dirichlet([a] * way, 20_000)
    np.testing.assert_allclose(share.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(share.mean(0), 1 / way, atol=0.005)
    np.testing.assert_allclose(np.cov(share.T), np.cov(expected.T), atol=0.002)
    np.testing.assert_allclose(np.sort(share).mean(0), np.sort(expected).mean(0), atol=0.005)
    for quantile in (0.05, 0.5, 0.95):
        found, theirs = (np.quantile(part, quantile, axis=0) for part in (share, expected))
        np.testing.assert_allclose(found, theirs, atol=0.012)


def test_support_classes_and_first_queries_stay():
    """Catches other classes, another support, and queries that are drawn anew."""
    rows = unbalanced_rows(range(50), 3, "test", OFFSETS, COUNTS, 5, 2, 15, 2)
    same = sample_rows(range(50), 3, "test", OFFSETS, COUNTS, 5, 2, 15)
    assert rows.valid is not None
    assert rows.classes is not None
    assert same.classes is not None
    for name in ("task", "support", "classes"):
        assert torch.equal(getattr(rows, name), getattr(same, name))
    both = rows.valid[..., :15]
    assert torch.equal(rows.query[..., :15][both], same.query[both])
    assert (rows.valid.sum((1, 2)) == 75).all()
    assert rows.valid.shape[2] == rows.valid.sum(2).max() > 20
    first = torch.from_numpy(OFFSETS)[rows.classes][..., None].expand_as(rows.query)
    assert torch.equal(rows.query[~rows.valid], first[~rows.valid])
    images = torch.cat([rows.support.flatten(1), rows.query.flatten(1).where(rows.valid.flatten(1), -1)], 1)
    for task in images:
        drawn = task[task >= 0]
        assert len(drawn.unique()) == len(drawn) == 85


def test_a_task_is_a_function_of_its_number():
    """Catches a division that depends on the other tasks of a batch, on nothing, or on no seed."""
    together = unbalanced_rows(range(20), 0, "test", OFFSETS, COUNTS, 5, 1, 15, 2)
    alone = unbalanced_rows([13], 0, "test", OFFSETS, COUNTS, 5, 1, 15, 2)
    other = unbalanced_rows(range(20), 1, "test", OFFSETS, COUNTS, 5, 1, 15, 2)
    assert together.valid is not None
    assert alone.valid is not None
    assert other.valid is not None
    most = alone.valid.shape[2]
    assert torch.equal(together.valid[13, :, :most], alone.valid[0])
    assert torch.equal(together.query[13][together.valid[13]], alone.query[0][alone.valid[0]])
    numbers = together.valid.sum(2)
    assert len({tuple(row) for row in numbers.tolist()}) == 20
    assert not torch.equal(numbers, other.valid.sum(2))


def test_a_class_gives_no_more_than_it_has():
    """Catches an image that is asked twice, and queries that are lost where a class is small."""
    counts = np.array([16, 17, 18, 40, 600, 20])
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]])
    rows = unbalanced_rows(range(300), 0, "test", offsets, counts, 5, 1, 15, 1)
    assert rows.valid is not None
    assert rows.classes is not None
    numbers = rows.valid.sum(2)
    assert (numbers.sum(1) == 75).all()
    limits = torch.from_numpy(counts)[rows.classes] - 1
    assert (numbers <= limits).all()
    assert (numbers == limits).any()
    for query, valid, start, size in zip(
        rows.query.flatten(0, 1), rows.valid.flatten(0, 1), offsets[rows.classes].ravel(),
        counts[rows.classes].ravel(), strict=True,
    ):  # fmt: skip
        drawn = query[valid]
        assert len(drawn.unique()) == len(drawn)
        assert ((drawn >= start) & (drawn < start + size)).all()


def test_rounding_by_hand():
    """Catches a remainder that goes to the largest share, and an excess that the limit swallows."""
    shares = np.array([[0.48, 0.32, 0.2], [0.9, 0.06, 0.04], [1.0, 0.0, 0.0]])
    limits = np.array([[9, 9, 9], [4, 9, 9], [2, 4, 3]])
    found = _divided(shares, 7, limits)
    assert found[0].tolist() == [3, 2, 2]  # 3.36, 2.24, 1.4
    # 6.3 0.42 0.28: 6, then the remaining 1 to the largest remainder; 2 over the limit, 1.2 and 0.8 of 2 more
    assert found[1].tolist() == [4, 2, 1]
    assert found[2].sum() == 7
    assert found[2, 0] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_query": "all"}, r"is 2, and .* set --data.test_query 15, or --data.query_dirichlet 0$"),
        ({"unknown": 3}, r"is 2, and .* set --data.unknown 0, or --data.query_dirichlet 0$"),
    ],
)
def test_other_protocols(settings: dict, message: str):
    """Catches a test by one protocol that is reported as another."""
    with pytest.raises(InputError, match=message):
        EpisodeDataModule("synthetic", query_dirichlet=2, **settings)


def test_it_is_for_the_test_only():
    """Catches a validation or a prediction of other tasks, and a result that does not say its protocol."""
    data = EpisodeDataModule("synthetic", query_dirichlet=2, val_tasks=3, test_tasks=3, predict_tasks=3)
    for stage in ("fit", "test", "predict"):
        data.setup(stage)
    assert next(iter(data.val_dataloader())).valid is None
    assert next(iter(data.predict_dataloader())).valid is None
    assert next(iter(data.test_dataloader())).valid is not None
    assert data.protocol()["query_dirichlet"] == 2
    assert "queries per class: 15 on average, by Dirichlet(2)," in data.title()
    assert "query_dirichlet" not in EpisodeDataModule("synthetic").protocol()
    assert "equally many queries" in data.other_features("predict")[-1]
    assert data.other_features("test") == []
