"""Promises of all transductive methods without parameters, each of them in turn."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from leo_lightning import learners
from leo_lightning.data.episode import Episode, EpisodeRows
from leo_lightning.learners.bdcspn import BDCSPN
from leo_lightning.learners.label_propagation import LabelPropagation
from leo_lightning.learners.laplacian_shot import LaplacianShot
from leo_lightning.learners.parts.objectives import query_cross_entropy
from leo_lightning.learners.parts.query_set import QuerySet
from leo_lightning.learners.parts.transductive import TransductiveLearner
from leo_lightning.learners.pt_map import PTMAP
from leo_lightning.learners.tim import TIM
from leo_lightning.learners.transductive_finetuning import TransductiveFinetuning
from leo_lightning.training.scoring import score
from tests.learners.tasks import episode_of

METHODS: dict[str, Callable[[], TransductiveLearner]] = {
    "BD-CSPN": BDCSPN,
    "BD-CSPN, two queries": partial(BDCSPN, most=2),
    "LaplacianShot": LaplacianShot,
    "TIM-ADM": partial(TIM, steps=20),
    "TIM-GD": partial(TIM, solver="gd", steps=20, rate=1e-2),
    "label propagation": LabelPropagation,
    "PT-MAP": PTMAP,
    "fine-tuning": TransductiveFinetuning,
}
each_method = pytest.mark.parametrize("method", METHODS)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-8)


def test_all_are_tested():
    """Catches a transductive method that has made none of these promises."""
    kinds = {getattr(learners, name) for name in learners.__all__}
    kinds = {kind for kind in kinds if issubclass(kind, TransductiveLearner) and not kind.trained}
    assert {type(make()) for make in METHODS.values()} == kinds


@each_method
def test_there_is_nothing_to_train(method: str):
    """Catches a parameter or buffer that sneaks in, and a method that is not marked."""
    learner = METHODS[method]()
    assert learner.transductive
    assert not learner.trained
    assert not learner.state_dict()
    again = type(learner)(**learner.init_args())
    assert again.init_args() == learner.init_args()


@each_method
def test_forward_is_what_adapt_answers(method: str):
    """Catches a classifier for later use that is not the one of forward, and a loss of something else."""
    learner, episode = METHODS[method](), episode_of()
    outcome = learner(episode)
    assert torch.equal(outcome.logits, learner.adapt(episode.support)(episode.query))
    assert outcome.loss == outcome.terms["cross_entropy"] == query_cross_entropy(outcome.logits, None).mean()


@each_method
def test_an_answer_depends_on_the_other_queries(method: str):
    """Catches a method that is inductive after all."""
    learner, episode = METHODS[method](), episode_of(Q=6)
    few = learner.adapt(episode.support)(episode.query[:, :, :3])
    assert (few - learner(episode).logits[:, :, :3]).abs().max() > 1e-4


@each_method
@pytest.mark.parametrize("N", [2, 3])
def test_permuting_classes_permutes_logits(method: str, N: int):
    """Catches a class that is treated by its place."""
    learner, episode = METHODS[method](), episode_of(N=N, K=3)
    order = torch.tensor([2, 0, 1] if N == 3 else [1, 0])
    found = learner(Episode(episode.support[:, order], episode.query[:, order])).logits
    close(found, learner(episode).logits[:, order][..., order])


@each_method
def test_permuting_queries_permutes_logits(method: str):
    """Catches labels that leak through the order of the queries: the episode has them class by class."""
    learner, episode = METHODS[method](), episode_of(N=3, K=2, Q=5)
    images, order = (
        episode.query.flatten(1, 2),
        torch.randperm(15, generator=torch.Generator().manual_seed(1)),
    )
    classifier = learner.adapt(episode.support)
    close(classifier(images[:, order]), classifier(images)[:, order])
    close(classifier(images), classifier(episode.query).flatten(1, 2))


@each_method
def test_tasks_do_not_influence_each_other(method: str):
    """Catches iterations that end when all tasks of a batch have converged."""
    learner, episode = METHODS[method](), episode_of(B=4)
    harder = episode_of(B=4, seed=3, spread=2.0)
    episode = Episode(*(torch.cat(pair) for pair in zip(episode[:2], harder[:2], strict=True)))
    together = learner(episode).logits
    for b in range(8):
        alone = learner(Episode(episode.support[b : b + 1], episode.query[b : b + 1])).logits[0]
        torch.testing.assert_close(alone, together[b], rtol=1e-10, atol=1e-10)


@each_method
def test_padding_has_no_influence(method: str):
    """Catches a mean, an entropy or a neighbour of padded queries, and padding that is scored."""
    learner, episode = METHODS[method](), episode_of(B=3, N=3, Q=5)
    valid = torch.ones(3, 3, 5, dtype=torch.bool)
    valid[:, 1, 3:] = False
    valid[:, 2, 2:] = False
    padded = episode.query.where(valid[..., None], torch.nan)
    classifier = learner.adapt(episode.support)
    assert isinstance(classifier, QuerySet)
    expected = classifier(episode.query[valid].view(3, 10, -1))
    found = classifier(padded, valid)
    close(found[valid].view(3, 10, 3), expected)
    index = torch.zeros(3, 3, 5, dtype=torch.int64)
    rows = EpisodeRows(torch.arange(3), index[..., :2], index, valid)
    outcome = learner(Episode(episode.support, episode.query, rows))
    close(outcome.logits[valid].view(3, 10, 3), expected)
    scores = score({"final": classifier}, Episode(episode.support, episode.query, rows))
    label = torch.arange(3)[:, None].expand(3, 5).expand(3, 3, 5)[valid].view(3, 10)
    close(scores.accuracy[:, 0], (expected.argmax(-1) == label).double().mean(1))
    close(scores.cross_entropy, -expected.log_softmax(-1).gather(-1, label[..., None])[..., 0].mean(1))


@each_method
def test_classes_may_differ_in_their_shots(method: str):
    """Catches padding of the support that is taken for images."""
    learner, episode = METHODS[method](), episode_of(B=2, N=3, K=4, Q=5)
    valid = torch.tensor([[True, False, True, False], [True] * 4, [False, True, True, True]])
    valid = valid.expand(2, 3, 4)
    support = episode.support.where(valid[..., None], torch.nan)
    found = learner.adapt(support, valid)(episode.query)
    assert found.isfinite().all()
    moved = episode.support.where(valid[..., None], 7.0).flip(2)
    close(learner.adapt(moved, valid.flip(2))(episode.query), found)


@each_method
def test_repeated_images_are_one_shot(method: str):
    """Catches classes that count by their number of images: the same image twice says nothing new."""
    learner, episode = METHODS[method](), episode_of(B=2, N=3, K=1, Q=5)
    valid = torch.tensor([[True, False], [True, True], [True, False]]).expand(2, 3, 2)
    found = learner.adapt(episode.support.expand(-1, -1, 2, -1), valid)(episode.query)
    expected = learner.adapt(episode.support)(episode.query)
    assert (found.argmax(-1) == expected.argmax(-1)).double().mean() > 0.9


@each_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_works_without_autograd_in_both_precisions(method: str, dtype: torch.dtype):
    """Catches autograd inside of the method, which inference mode forbids, and a graph of all iterations."""
    learner, episode = METHODS[method](), episode_of()
    episode = Episode(episode.support.to(dtype).requires_grad_(), episode.query.to(dtype))
    expected = learner(episode).logits
    assert expected.dtype == dtype
    assert not expected.requires_grad
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(learner(episode).logits, expected)


@each_method
@pytest.mark.parametrize(("N", "K", "Q"), [(2, 1, 3), (20, 5, 2), (3, 5, 1)])
def test_any_way_and_shot(method: str, N: int, K: int, Q: int):
    """Catches a fixed number of neighbours that a task does not have."""
    episode = episode_of(N, K, Q, E=12, spread=0.1)
    logits = METHODS[method]()(episode).logits
    assert logits.shape == (2, N, Q, N)
    assert (logits.argmax(-1) == torch.arange(N)[:, None]).double().mean() > 0.9


@each_method
def test_one_query_alone(method: str):
    """Catches a division by the number of other queries."""
    episode = episode_of(N=3, K=2, Q=1)
    logits = METHODS[method]().adapt(episode.support)(episode.query[:, :1, 0])
    assert logits.isfinite().all()


@each_method
def test_one_set_of_queries_may_stand_for_all_tasks(method: str):
    """Catches queries that are put to one task only, and a selection of classifiers that mixes tasks."""
    learner, episode = METHODS[method](), episode_of(B=4)
    classifier, images = learner.adapt(episode.support), episode.query[:1]
    close(classifier(images), classifier(images.expand(4, -1, -1, -1)))
    chosen = torch.tensor([3, 1, 1])
    close(classifier.select(chosen)(episode.query[chosen]), classifier(episode.query)[chosen])
    close(classifier.select(chosen)(images), classifier(images)[chosen])


@each_method
def test_it_beats_its_start(method: str):
    """Catches a sign: with clusters of queries, looking at them must help, against the nearest mean."""
    episode = episode_of(B=40, N=4, K=1, Q=15, E=16, spread=1.0, seed=5)
    found = METHODS[method]()(episode).logits.argmax(-1)
    distance = torch.cdist(episode.query.flatten(1, 2), episode.support.flatten(1, 2)).argmin(-1)
    label = torch.arange(4)[:, None]
    baseline = (distance.unflatten(1, (4, 15)) == label).double().mean()
    assert (found == label).double().mean() > baseline + 0.01
