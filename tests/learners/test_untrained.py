"""Promises of all methods without parameters, each of them in turn."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode
from leo_lightning.learners.baseline_plus_plus import BaselinePlusPlus
from leo_lightning.learners.knn import NearestNeighbors
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.linear_svm import LinearSVM
from leo_lightning.learners.logistic_regression import LogisticRegression
from leo_lightning.learners.parts.objectives import query_cross_entropy
from leo_lightning.learners.parts.sklearn_fit import SklearnClassifier
from tests.learners.tasks import episode_of

METHODS: dict[str, Callable[[], Learner]] = {
    "one neighbour": NearestNeighbors,
    "neighbours": partial(NearestNeighbors, k=3),
    "logistic regression": partial(LogisticRegression, C=10.0),
    "cosine classifier": partial(BaselinePlusPlus, steps=10),
    "support vectors": partial(LinearSVM, C=2.0),
}
each_method = pytest.mark.parametrize("method", METHODS)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@each_method
def test_there_is_nothing_to_train(method: str):
    """Catches a parameter or buffer that sneaks in: the method must run without a checkpoint."""
    learner = METHODS[method]()
    assert not learner.trained
    assert not learner.state_dict()
    again = type(learner)(**learner.init_args())
    assert again.init_args() == learner.init_args()


@each_method
def test_only_torch_is_compiled(method: str):
    """Catches a page of torch.compile's own words about scikit-learn at the first task."""
    learner = METHODS[method]()
    if isinstance(learner, SklearnClassifier):
        with pytest.raises(InputError, match=rf"model\.compile cannot compile {type(learner).__name__};"):
            learner.check_compilable()
    else:
        learner.check_compilable()


@each_method
def test_forward_is_what_adapt_answers(method: str):
    """Catches a classifier for later use that is not the one of forward, and a loss of something else."""
    learner, episode = METHODS[method](), episode_of()
    outcome = learner(episode)
    assert torch.equal(outcome.logits, learner.adapt(episode.support)(episode.query))
    assert outcome.loss == outcome.terms["cross_entropy"] == query_cross_entropy(outcome.logits, None).mean()


@each_method
@pytest.mark.parametrize("N", [2, 3])
def test_permuting_classes_permutes_logits(method: str, N: int):
    """Catches a class that is treated by its place, of two classes also."""
    learner, episode = METHODS[method](), episode_of(N=N, K=3)
    order = torch.tensor([2, 0, 1] if N == 3 else [1, 0])
    found = learner(Episode(episode.support[:, order], episode.query[:, order])).logits
    close(found, learner(episode).logits[:, order][..., order])


@each_method
def test_tasks_do_not_influence_each_other(method: str):
    """Catches a fit that starts where the last task ended."""
    learner, episode = METHODS[method](), episode_of(B=3)
    together = learner(episode).logits
    for b in range(3):
        alone = learner(Episode(episode.support[b : b + 1], episode.query[b : b + 1])).logits[0]
        torch.testing.assert_close(alone, together[b], rtol=1e-12, atol=1e-12)


@each_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_works_without_autograd_in_both_precisions(method: str, dtype: torch.dtype):
    """Catches NumPy that is handed a tensor with gradient, and answers in another precision."""
    learner, episode = METHODS[method](), episode_of()
    episode = Episode(episode.support.to(dtype).requires_grad_(), episode.query.to(dtype))
    expected = learner(episode).logits
    assert expected.dtype == dtype
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(learner(episode).logits, expected)


@each_method
@pytest.mark.parametrize(("N", "K", "Q"), [(2, 1, 3), (20, 10, 2), (3, 5, 1)])
def test_any_way_and_shot(method: str, N: int, K: int, Q: int):
    """Catches two classes with one row, and more images than dimensions."""
    episode = episode_of(N, K, Q, E=12, spread=0.1)
    logits = METHODS[method]()(episode).logits
    assert logits.shape == (2, N, Q, N)
    assert (logits.argmax(-1) == torch.arange(N)[:, None]).double().mean() > 0.9


@each_method
def test_one_set_of_queries_may_stand_for_all_tasks(method: str):
    """Catches queries that are put to one task only, and a selection of classifiers that mixes tasks."""
    learner, episode = METHODS[method](), episode_of(B=4)
    classifier, images = learner.adapt(episode.support), episode.query[:1]
    close(classifier(images), classifier(images.expand(4, -1, -1, -1)))
    close(classifier(images[:, 1]), classifier(images)[:, 1])
    chosen = torch.tensor([3, 1, 1])
    close(classifier.select(chosen)(episode.query[chosen]), classifier(episode.query)[chosen])
    close(classifier.select(chosen)(images), classifier(images)[chosen])
