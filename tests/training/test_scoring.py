"""Accuracy and cross-entropy, query by query, against loops over NumPy arrays and torch's own loss."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from leo_lightning.data.episode import Episode, EpisodeRows, Pool
from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.training.scoring import BINS, score
from leo_lightning.training.task_scores import calibration_error

B, N, K, E = 4, 3, 2, 6
STAGES = ("first", "final", "biased")


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def classifiers() -> dict[str, LinearClassifier]:
    found = {name: LinearClassifier(randn(B, N, E, seed=seed)) for seed, name in enumerate(STAGES)}
    return found | {"biased": LinearClassifier(found["biased"].weight, randn(B, N, seed=9))}


def one_by_one(each: LinearClassifier, queries: list[list[Tensor]]) -> tuple[list[float], list[float]]:
    """Accuracy and mean loss of each task; its queries class by class."""
    accuracy, loss = [], []
    for b, task in enumerate(queries):
        hits, losses = [], []
        for n, images in enumerate(task):
            for image in images:
                logits = each.weight[b] @ image
                if each.bias is not None:
                    logits = logits + each.bias[b]
                hits.append(int(np.argmax(logits.numpy())) == n)
                losses.append(F.cross_entropy(logits, torch.tensor(n)).item())
        accuracy.append(float(np.mean(hits)))
        loss.append(float(np.mean(losses)))
    return accuracy, loss


class Disguised:
    """A linear classifier that scoring cannot know for one."""

    def __init__(self, inner: LinearClassifier) -> None:
        self.inner = inner

    def __call__(self, query: Tensor) -> Tensor:
        return self.inner(query)

    def select(self, tasks: Tensor) -> "Disguised":
        return Disguised(self.inner.select(tasks))


def check_reliability(found: Tensor, classifier: LinearClassifier, queries: list[list[Tensor]]) -> None:
    """Check all tasks together; a task's queries are given class by class. torchmetrics knows the error."""
    chances, labels = [], []
    for b, task in enumerate(queries):
        chances.append(classifier.select(torch.tensor([b]))(torch.cat(task)[None])[0].softmax(-1))
        labels.append(torch.repeat_interleave(torch.tensor([len(each) for each in task])))
    chance, label = torch.cat(chances), torch.cat(labels)
    confidence, answer = chance.max(-1)
    for number, (count, total, hits) in enumerate(found):
        inside = (confidence > number / BINS) & (confidence <= (number + 1) / BINS)
        assert count == pytest.approx(inside.sum().item(), abs=1e-9)
        assert total == pytest.approx(confidence[inside].sum().item(), abs=1e-9)
        assert hits == pytest.approx((answer == label)[inside].sum().item(), abs=1e-9)
    reference = MulticlassCalibrationError(num_classes=N, n_bins=BINS, norm="l1")
    assert calibration_error(found) == pytest.approx(reference(chance, label).item(), abs=1e-6)


def rows(query: Tensor, valid: Tensor | None = None, **options) -> EpisodeRows:
    return EpisodeRows(torch.arange(B), torch.zeros(B, N, K).long(), query, valid, **options)


def check(episode: Episode, queries: list[list[Tensor]]) -> None:
    found = score(classifiers(), episode)
    general = score({name: Disguised(each) for name, each in classifiers().items()}, episode)
    for mine, other in zip(general, found, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)
    check_reliability(found.reliability, classifiers()["final"], queries)
    for column, (name, each) in zip(found.accuracy.T, classifiers().items(), strict=True):
        accuracy, loss = one_by_one(each, queries)
        np.testing.assert_allclose(column, accuracy, rtol=1e-15)
        if name == "final":
            np.testing.assert_allclose(found.cross_entropy, loss, rtol=1e-12)


@pytest.mark.parametrize("Q", [5, 1])
def test_every_query_is_scored_by_every_classifier(Q: int):
    """Catches queries, classes or classifiers mixed up, a bias given to all, and another stage's loss.

    With one query per class: logits that are subtracted from themselves while they are read.
    """
    query = randn(B, N, Q, E, seed=20)
    support = randn(B, N, K, E, seed=21)
    check(Episode(support, query, rows(torch.zeros(B, N, Q).long())), [list(task) for task in query])


def test_padding_is_not_scored():
    """Catches padded queries in the count of hits, of queries, or in the loss."""
    query = randn(B, N, 5, E, seed=20)
    valid = torch.rand(B, N, 5, generator=torch.Generator().manual_seed(1)) < 0.6
    assert len(valid.flatten(1).sum(1).unique()) > 1
    episode = Episode(randn(B, N, K, E, seed=21), query, rows(torch.zeros(B, N, 5).long(), valid))
    check(episode, [[query[b, n][valid[b, n]] for n in range(N)] for b in range(B)])


def pooled(bank: list[Tensor], classes: Tensor, support: Tensor) -> Episode:
    """Tasks whose queries are left to a pool; `support` numbers images within their class."""
    offsets = torch.tensor([0, *(len(images) for images in bank)]).cumsum(0)[:-1]
    images = torch.stack([torch.stack([bank[c][s] for c, s in zip(*task, strict=True)]) for task in zip(
        classes.tolist(), support, strict=True)])  # fmt: skip
    where = offsets[classes][..., None] + support
    empty = torch.zeros(B, N, 0).long()
    return Episode(
        images, images[:, :, :0], EpisodeRows(torch.arange(B), where, empty, None, classes),
        Pool(bank.__getitem__, offsets),
    )  # fmt: skip


def test_all_remaining_images_are_queries():
    """Catches support images among the queries, unequal classes, and a class at another place in a task."""
    bank = [randn(size, E, seed=30 + size) for size in (4, 9, 6, 7, 5)]
    generator = torch.Generator().manual_seed(2)
    classes = torch.stack([torch.randperm(5, generator=generator)[:N] for _ in range(B)])
    support = torch.stack([
        torch.stack([torch.randperm(len(bank[c]), generator=generator)[:K] for c in task])
        for task in classes.tolist()
    ])  # fmt: skip
    left = [
        [
            torch.stack([image for i, image in enumerate(bank[c]) if i not in chosen.tolist()])
            for c, chosen in zip(task, chosens, strict=True)
        ]
        for task, chosens in zip(classes.tolist(), support, strict=True)
    ]
    check(pooled(bank, classes, support), left)


@pytest.mark.parametrize("from_pool", [False, True])
def test_the_earlier_class_wins_a_tie(from_pool: bool):
    """Catches a classifier of zeros, whose answer is always the first class, that scores 100% or 0%."""
    nothing = {"final": LinearClassifier(torch.zeros(B, N, E, dtype=torch.float64))}
    if from_pool:
        bank = [randn(6, E, seed=c) for c in range(N)]
        classes, support = torch.arange(N).expand(B, N), torch.zeros(B, N, K).long() + torch.arange(K)
        episode = pooled(bank, classes, support)
    else:
        episode = Episode(
            randn(B, N, K, E, seed=1), randn(B, N, 5, E, seed=2), rows(torch.zeros(B, N, 5).long())
        )
    found = score(nothing, episode)
    torch.testing.assert_close(found.accuracy, torch.full((B, 1), 1 / N, dtype=torch.float64))
    torch.testing.assert_close(found.cross_entropy, torch.full((B,), np.log(N), dtype=torch.float64))


def test_large_logits_make_no_infinite_loss():
    """Catches exp of a logit that is far above that of the right class."""
    weight = torch.zeros(B, N, E)
    weight[:, 0] = 1000.0
    query = torch.ones(B, N, 2, E)
    found = score(
        {"final": LinearClassifier(weight)}, Episode(query, query, rows(torch.zeros(B, N, 2).long()))
    )
    torch.testing.assert_close(found.cross_entropy, torch.full((B,), 4000.0).double())


def test_accuracy_is_in_double_precision():
    """Catches float32: 1/3 of a task must be 1/3 to the last digit."""
    weight = torch.zeros(B, N, E)
    episode = Episode(torch.ones(B, N, K, E), torch.ones(B, N, 1, E), rows(torch.zeros(B, N, 1).long()))
    found = score({"final": LinearClassifier(weight)}, episode)
    assert found.accuracy.dtype == torch.float64
    assert found.accuracy[0, 0].item() == 1 / 3
