"""The sampler of tasks: equal to a plain-Python oracle, fair, and the same wherever it runs."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from leo_lightning.data.episode import EpisodeRows
from leo_lightning.data.sampler import sample_rows
from tests.oracles import sampling as oracle

UNEQUAL = (20, 25, 31, 22, 40, 21, 28)
ALPHA = 1e-3  # of every statistical test; seeds are fixed, so a test passes always or never


def draw(
    tasks: list[int] | range,
    sizes: tuple[int, ...] = UNEQUAL,
    way: int = 5,
    shot: int = 1,
    queries: int | None = 15,
    seed: int = 0,
    split: str = "train",
    unknown: int = 0,
) -> EpisodeRows:
    """Sample from classes of the given sizes."""
    counts = np.array(sizes, np.int64)
    return sample_rows(tasks, seed, split, np.cumsum(counts) - counts, counts, way, shot, queries, unknown)


def class_rows(sizes: tuple[int, ...]) -> list[range]:
    """Return the rows of every class."""
    ends = list(itertools.accumulate(sizes))
    return [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def class_of(rows: torch.Tensor, sizes: tuple[int, ...]) -> np.ndarray:
    """Return the class of every row."""
    return np.repeat(np.arange(len(sizes)), sizes)[rows.numpy()]


def queries_of(rows: EpisodeRows, task: int) -> list[list[int]]:
    """Return the queries of one task of a batch, without padding."""
    valid = torch.ones_like(rows.query, dtype=torch.bool) if rows.valid is None else rows.valid
    return [query[kept].tolist() for query, kept in zip(rows.query[task], valid[task], strict=True)]


@st.composite
def settings_of_tasks(draw_from: st.DrawFn) -> dict[str, object]:
    """Draw anything that `draw` takes, from the smallest class and way up."""
    shot = draw_from(st.integers(1, 6))
    queries = draw_from(st.none() | st.integers(1, 20))
    least = shot + (queries or 1)
    sizes = draw_from(st.lists(st.integers(least, least + 12), min_size=1, max_size=12))
    return {
        "sizes": tuple(sizes),
        "way": draw_from(st.integers(1, len(sizes))),
        "shot": shot,
        "queries": queries,
        "seed": draw_from(st.integers(0, 2**32 - 1)),
        "split": draw_from(st.sampled_from(["train", "val", "test"])),
    }


# What a task is


@pytest.mark.parametrize("unknown", [1, 2])
def test_unknown_classes_are_the_next_ones(unknown: int):
    """Catches known classes, supports or queries that change, and unknown ones that are drawn otherwise."""
    known, more, both = draw(range(20)), draw(range(20), unknown=unknown), draw(range(20), way=5 + unknown)
    for field in ("task", "support", "query", "classes"):
        assert torch.equal(getattr(known, field), getattr(more, field))
    assert known.unknown is None
    assert more.unknown is not None
    assert torch.equal(more.unknown, both.query[:, 5:])


@settings(max_examples=200)
@given(settings_of_tasks(), st.lists(st.integers(0, 2**31), min_size=1, max_size=4))
def test_equals_drawing_from_lists(options: dict, tasks: list[int]):
    """Catches a wrong rank among those that remain, slots mixed up, and remaining queries out of order."""
    rows = draw(tasks, **options)
    way, shot, queries = options["way"], options["shot"], options["queries"]
    for i, task in enumerate(tasks):
        support, query = oracle.episode(
            task, options["seed"], options["split"], class_rows(options["sizes"]), way, shot, queries
        )
        assert rows.support[i].tolist() == support
        assert queries_of(rows, i) == query
    assert rows.task.tolist() == tasks


@settings(max_examples=200)
@given(settings_of_tasks())
def test_nothing_is_drawn_twice_nor_from_another_class(options: dict):
    """Catches replacement, queries that are in the support, and offsets of unequal classes."""
    rows = draw(range(3), **options)
    for i in range(3):
        queries = queries_of(rows, i)
        labels = []
        for support, query in zip(rows.support[i].tolist(), queries, strict=True):
            images = support + query
            assert len(set(images)) == len(images)
            (label,) = set(class_of(torch.tensor(images), options["sizes"]).tolist())
            labels.append(label)
        assert len(set(labels)) == options["way"]


@pytest.mark.parametrize("queries", [15, None])
def test_task_does_not_depend_on_its_batch(queries: int | None):
    """Catches a generator that runs on from task to task."""
    whole = draw(range(24), queries=queries)
    order = np.random.default_rng(0).permutation(24)
    for tasks in np.array_split(order, [1, 6, 7]):
        part = draw(tasks.tolist(), queries=queries)
        assert part.task.tolist() == tasks.tolist()
        for i, task in enumerate(tasks):
            assert torch.equal(part.support[i], whole.support[task])
            assert queries_of(part, i) == queries_of(whole, task)


@pytest.mark.slow
def test_task_does_not_depend_on_the_process():
    """Catches Python's hash, which differs between processes, and global generators."""
    program = """
import numpy as np
from leo_lightning.data.sampler import sample_rows
np.random.seed(7)
rows = sample_rows(range(5), 0, "train", np.arange(9) * 30, np.full(9, 30), 5, 1, 15)
print(rows.support.tolist(), rows.query.tolist())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": "1"},
    )
    rows = draw(range(5), sizes=(30,) * 9)
    assert done.stdout == f"{rows.support.tolist()} {rows.query.tolist()}\n"


def test_seeds_splits_and_tasks_differ():
    """Catches a seed, split or task number that is ignored, or that only shifts the sequence."""
    seen: set[tuple[int, ...]] = set()
    variants = [(seed, split) for seed in (*range(6), 2**31, 2**32 - 1) for split in ("train", "val", "test")]
    for seed, split in variants:
        rows = draw(range(20), seed=seed, split=split)
        seen |= {tuple(task.flatten().tolist()) for task in torch.cat([rows.support, rows.query], -1)}
    assert len(seen) == 20 * len(variants)


def test_every_image_is_used_when_just_enough():
    """Catches a last draw that runs over the end of the class."""
    rows = draw(range(200), sizes=(8,) * 5, shot=3, queries=5)
    images = torch.cat([rows.support, rows.query], dim=-1).flatten(1).sort(dim=1).values
    assert torch.equal(images, torch.arange(40).expand(200, 40))


def test_tasks_are_nested():
    """Catches comparisons over way, shot and protocol that are not paired."""
    large = draw(range(30), sizes=(60,) * 12, way=10, shot=5, queries=15)
    small = draw(range(30), sizes=(60,) * 12, way=5, shot=1, queries=15)
    assert torch.equal(large.support[:, :5, :1], small.support)
    for queries in (1, 30, None):
        other = draw(range(30), sizes=(60,) * 12, way=10, shot=5, queries=queries)
        assert torch.equal(other.support, large.support)


# All remaining images as queries


def test_remaining_queries_are_the_complement_of_the_support():
    """Catches a support image among the queries, an image left out, and padding that counts."""
    rows = draw(range(50), shot=3, queries=None)
    assert rows.valid is not None
    assert rows.query.shape == rows.valid.shape == (50, 5, max(UNEQUAL) - 3)
    classes = class_of(rows.support[..., 0], UNEQUAL)
    for i, n in np.ndindex(50, 5):
        own = class_rows(UNEQUAL)[classes[i, n]]
        assert queries_of(rows, i)[n] == [row for row in own if row not in rows.support[i, n]]
        assert set(rows.query[i, n][~rows.valid[i, n]].tolist()) <= {own[0]}
        assert not rows.valid[i, n].diff().int().clamp(min=0).logical_and(~rows.valid[i, n][:-1]).any()


def test_remaining_queries_of_equal_classes_need_no_padding():
    """Catches a mask where none is needed, which costs time in every evaluation."""
    rows = draw(range(4), sizes=(9,) * 6, shot=5, queries=None)
    assert rows.valid is None
    assert rows.query.shape == (4, 5, 4)


# Fairness


def assert_uniform(observed: np.ndarray, cells: int) -> None:
    """Check by chi-square that all cells are equally likely."""
    counts = np.bincount(observed.ravel(), minlength=cells)
    assert len(counts) == cells
    assert chisquare(counts).pvalue > ALPHA


def test_every_class_is_equally_likely_in_every_slot():
    """Catches draws that favour low numbers, in the first slot or the last."""
    rows = draw(range(40_000), sizes=(2,) * 20, queries=1)
    classes = class_of(rows.support[..., 0], (2,) * 20)
    for slot in range(5):
        assert_uniform(classes[:, slot], 20)


def test_every_image_is_equally_likely_in_every_place():
    """Catches a last image that is never drawn, and queries that are drawn less fairly than the support."""
    sizes = (30,) * 6
    rows = draw(range(8_000), sizes=sizes, shot=2, queries=3)
    images = torch.cat([rows.support, rows.query], dim=-1).numpy() % 30
    for place in range(5):
        assert_uniform(images[..., place], 30)


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_every_ordered_pair_is_equally_likely(n: int):
    """Catches a second draw that depends on the first: the image next to a drawn one drawn twice as often."""
    rows = draw(range(20_000), sizes=(n,) * n, way=2, queries=1)
    classes = class_of(rows.support[..., 0], (n,) * n)
    first, second = rows.support[:, 0, 0].numpy() % n, rows.query[:, 0, 0].numpy() % n
    for a, b in ((classes[:, 0], classes[:, 1]), (first, second)):
        assert (a != b).all()
        assert_uniform(a * (n - 1) + b - (b > a), n * (n - 1))


@pytest.mark.parametrize("n", [3, 4])
def test_every_order_of_a_small_class_is_equally_likely(n: int):
    """Catches a bias that shows only after two draws, when the sorted ones are searched."""
    rows = draw(range(20_000), sizes=(n,) * 2, way=1, shot=1, queries=n - 1)
    images = torch.cat([rows.support, rows.query], dim=-1)[:, 0].numpy() % n
    number = {order: i for i, order in enumerate(itertools.permutations(range(n)))}
    assert_uniform(np.array([number[tuple(order)] for order in images.tolist()]), len(number))


@pytest.mark.parametrize("step", [1, 2, 12, 64])
def test_neighbouring_tasks_are_independent(step: int):
    """Catches a weak hash: task numbers differ in few bits."""
    rows = draw(range(40_000), sizes=(6,) * 6, queries=1)
    classes, images = class_of(rows.support[:, 0, 0], (6,) * 6), rows.support[:, 0, 0].numpy() % 6
    for values in (classes, images):
        assert_uniform(values[:-step] * 6 + values[step:], 36)


def test_class_slots_are_independent():
    """Catches slots that share their random numbers: the same image number in two classes of a task."""
    rows = draw(range(40_000), sizes=(6,) * 6, queries=1)
    classes, images = class_of(rows.support[..., 0], (6,) * 6), rows.support[..., 0].numpy() % 6
    for a, b in itertools.combinations(range(5), 2):
        assert_uniform(images[:, a] * 6 + images[:, b], 36)
    assert_uniform(classes[:, 0] * 6 + images[:, 0], 36)


@pytest.mark.parametrize("other", [{"seed": 1}, {"split": "val"}])
def test_seeds_and_splits_are_independent(other: dict):
    """Catches sequences of neighbouring seeds, or of two splits, that go together."""
    one, two = (draw(range(40_000), sizes=(6,) * 6, queries=1, **options) for options in ({}, other))
    a, b = one.support[:, 0, 0].numpy() % 6, two.support[:, 0, 0].numpy() % 6
    assert_uniform(a * 6 + b, 36)


def test_sequence_of_tasks_is_the_published_one():
    """Pinned. Catches any change of the tasks: results published with their seed depend on it."""
    rows = draw(range(2), sizes=(600,) * 20, queries=2, split="test")
    assert rows.support[..., 0].tolist() == [[3424, 11378, 5088, 2891, 9126], [7961, 11587, 5014, 1873, 1369]]
    assert rows.query[0].tolist() == [
        [3391, 3502],
        [11283, 11127],
        [5246, 5131],
        [2433, 2786],
        [9438, 9437],
    ]
    assert draw([10**6], sizes=(600,) * 64, shot=5, seed=42).support[0, 0].tolist() == [
        32149,
        32355,
        31926,
        32347,
        32399,
    ]
