"""Promises of all methods that adapt without an inner loop, each of them in turn."""

import contextlib
import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode, EpisodeRows
from leo_lightning.learners.dynamic_few_shot import DynamicFewShot
from leo_lightning.learners.feat import FEAT
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.matching import MatchingNetworks
from leo_lightning.learners.metaoptnet import MetaOptNet
from leo_lightning.learners.parts.noise import Masks
from leo_lightning.learners.predicted_parameters import PredictedParameters
from leo_lightning.learners.prototypical import PrototypicalNetworks
from leo_lightning.learners.r2d2 import R2D2
from leo_lightning.learners.relation import RelationNetworks
from leo_lightning.learners.siamese import SiameseNetworks
from tests.learners.tasks import episode_of, moved

METHODS: dict[str, Callable[..., Learner]] = {
    "linear": PrototypicalNetworks,
    "euclidean": partial(PrototypicalNetworks, hidden=4, temperature=0.5),
    "cosine": partial(PrototypicalNetworks, size=5, distance="cosine"),
    "matching": partial(MatchingNetworks, temperature=0.5),
    "full context": partial(MatchingNetworks, hidden=4, temperature=0.5, full_context=True),
    "relation": partial(RelationNetworks, relation_size=8),
    "ridge regression": partial(R2D2, ridge=0.5),
    "ridge regression, hidden": partial(R2D2, hidden=4, ridge=0.5, scale=3.0),
    "support vectors": partial(MetaOptNet, hidden=4, C=0.5, scale=3.0),
    "relation by cross-entropy": partial(RelationNetworks, hidden=4, relation_size=8, loss="cross_entropy"),
    "FEAT": partial(FEAT, hidden=4, temperature=0.5),
    "dynamic few-shot": partial(DynamicFewShot, hidden=4, bases=5, temperature=0.5),
    "predicted parameters": partial(PredictedParameters, hidden=4, temperature=0.5, mean_probability=1.0),
    "siamese": partial(SiameseNetworks, hidden=4, temperature=0.5),
    "siamese, the nearest": partial(SiameseNetworks, temperature=0.5, pooling="max"),
}
each_method = pytest.mark.parametrize("method", METHODS)


def learner_of(method: str, **settings: object) -> Learner:
    torch.manual_seed(5)
    return moved(METHODS[method](6, **settings))


def part(episode: Episode, tasks: slice) -> Episode:
    return Episode(episode.support[tasks], episode.query[tasks])


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@each_method
def test_gradients_are_those_of_finite_differences(method: str):
    """Catches a detached support, embedding or temperature; in training, with dropout."""
    learner, episode = learner_of(method, dropout=0.3), episode_of(N=2, K=2, Q=1, B=1)
    noise = learner.draw_noise(episode, [3])
    names = list(dict(learner.named_parameters()))
    parameters = [p.detach().clone().requires_grad_() for p in learner.parameters()]

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.learner = learner

        def forward(self, support: Tensor) -> Tensor:
            return self.learner.outcome(Episode(support, episode.query), noise).loss

    def loss(support: Tensor, *values: Tensor) -> Tensor:
        state = {f"learner.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Loss(), state, (support,))

    inputs = (episode.support.requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-7, rtol=1e-4, fast_mode=True)


@each_method
def test_every_parameter_gets_a_gradient(method: str):
    """Catches a parameter without use, which stops distributed training."""
    learner = learner_of(method)
    learner(episode_of(N=4, Q=6)).loss.backward()
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@each_method
def test_a_meta_batch_may_be_divided(method: str):
    """Catches masks by a task's place, statistics over the meta-batch, a sum of losses for their mean."""
    learner, episode = learner_of(method, dropout=0.4), episode_of(B=3)
    state = torch.get_rng_state()
    together = learner(episode, [7, 8, 9])
    alone = [learner(part(episode, slice(b, b + 1)), [7 + b]) for b in range(3)]
    close(torch.cat([outcome.logits for outcome in alone]), together.logits)
    close(torch.stack([outcome.loss for outcome in alone]).mean(), together.loss)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.allclose(learner(episode, [7, 8, 5]).logits[2], together.logits[2])
    close(sum(together.terms.values()), together.loss)


@each_method
def test_dropout_acts_in_training_alone_on_support_and_query(method: str):
    """Catches noise in evaluation, one that is never used, and a rate that is not the one asked for."""
    learner, episode = learner_of(method, dropout=0.4), episode_of(Q=40)
    noise = learner.draw_noise(episode, [1, 2])
    for mask, images in ((noise.support, episode.support), (noise.query, episode.query)):
        assert mask.shape == images.shape
        torch.testing.assert_close(
            mask[mask > 0].unique().float(), torch.tensor([1 / 0.6]), rtol=1e-4, atol=0
        )
    assert 0.35 < (noise.query == 0).double().mean() < 0.45
    dropped = learner.outcome(episode, noise).logits
    raw = Episode(episode.support * noise.support, episode.query * noise.query)
    close(learner.eval()(raw).logits, dropped)
    assert learner_of(method).train().draw_noise(episode, [1, 2]) == Masks()


@each_method
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_evaluation_is_the_same_in_every_gradient_mode(method: str, dtype: torch.dtype):
    """Catches noise in evaluation, a need for autograd, and another precision on the way."""
    learner, episode = learner_of(method).to(dtype).eval(), episode_of()
    episode = Episode(episode.support.to(dtype), episode.query.to(dtype))
    expected = learner(episode)
    for mode in (contextlib.nullcontext, torch.no_grad, torch.inference_mode):
        with mode():
            logits = learner(episode).logits
            assert torch.equal(learner.adapt(episode.support)(episode.query), logits)
        # torch has an LSTM for each mode, which agree but for rounding
        torch.testing.assert_close(logits, expected.logits, rtol=0, atol=1e-5 if "context" in method else 0)
    assert expected.logits.dtype == dtype
    assert list(learner.stages(episode.support)) == ["final"]


@each_method
def test_mixed_precision_does_not_reach_the_distances(method: str):
    """Catches distances in bfloat16, which cannot tell near classes apart."""
    learner, episode = learner_of(method).float(), episode_of()
    episode = Episode(episode.support.float(), episode.query.float())
    expected = learner(episode).logits
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(learner(episode).logits, expected)
        classifier = learner.adapt(episode.support)
    assert torch.equal(classifier(episode.query), expected)


@each_method
def test_way_and_shot_may_differ_from_training(method: str):
    """Catches a layer or a state whose size is that of the training tasks."""
    learner = learner_of(method)
    learner(episode_of(N=5, K=1)).loss.backward()
    learner.eval()
    for N, K, Q in ((20, 10, 2), (2, 1, 3)):
        outcome = learner(episode_of(N=N, K=K, Q=Q))
        assert outcome.logits.shape == (2, N, Q, N)
        assert outcome.loss.isfinite()


@each_method
def test_permuting_classes_permutes_logits(method: str):
    """Catches a class that is treated by its place, as an LSTM over the support does by its nature."""
    if method == "full context":
        pytest.skip("reads the support in its order")
    learner, episode = learner_of(method), episode_of(K=3)
    order = torch.tensor([2, 0, 1])
    found = learner(Episode(episode.support[:, order], episode.query[:, order])).logits
    close(found, learner(episode).logits[:, order][..., order])


@each_method
def test_one_set_of_queries_may_stand_for_all_tasks(method: str):
    """Catches queries that are put to one task only, and an arrangement that gets lost."""
    learner, episode = learner_of(method).eval(), episode_of(B=4)
    classifier = learner.adapt(episode.support)
    images = episode.query[:1]
    close(classifier(images), classifier(images.expand(4, -1, -1, -1)))
    close(classifier(images[:, 1]), classifier(images)[:, 1])


@each_method
def test_selected_classifiers_are_those_of_the_tasks(method: str):
    """Catches a part of a classifier that stays with all tasks."""
    learner, episode = learner_of(method).eval(), episode_of(B=4)
    chosen = torch.tensor([3, 1, 1])
    classifier = learner.adapt(episode.support)
    close(classifier.select(chosen)(episode.query[chosen]), classifier(episode.query)[chosen])
    close(classifier.select(chosen)(episode.query[:1]), classifier(episode.query[:1])[chosen])


@each_method
def test_loss_counts_valid_queries_only(method: str):
    """Catches padding that takes part in the loss."""
    learner, episode = learner_of(method).eval(), episode_of(B=1)
    valid = torch.ones(1, 3, 4, dtype=torch.bool)
    valid[:, :, 3] = False
    index = torch.zeros(1, 3, 4, dtype=torch.int64)
    rows = EpisodeRows(torch.zeros(1, dtype=torch.int64), index[..., :2], index, valid)
    close(
        learner(episode._replace(rows=rows)).loss,
        learner(Episode(episode.support, episode.query[:, :, :3])).loss,
    )


@each_method
def test_arguments_build_the_same_learner(method: str):
    """Catches an argument that is not kept, without which a checkpoint cannot be loaded.

    Before it is, the learner is built without memory, for its sizes.
    """
    sized = {"size": 4} if "size" in inspect.signature(METHODS[method]).parameters else {}
    learner = learner_of(method, dropout=0.2, **sized)
    with torch.device("meta"):
        sizes = {
            name: value.shape for name, value in type(learner)(**learner.init_args()).state_dict().items()
        }
    assert sizes == {name: value.shape for name, value in learner.state_dict().items()}
    again = type(learner)(**learner.init_args()).double()
    assert again.init_args() == learner.init_args()
    again.load_state_dict(learner.state_dict())
    close(again(episode_of(), [1, 2]).logits, learner(episode_of(), [1, 2]).logits)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 1.0}, "dropout is 1.0: it must be at least 0 and below 1"),
        ({"size": 0}, "size is 0: it must be at least 1"),
        ({"hidden": -1}, "hidden is -1: it must be at least 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    """Catches a setting that fails later, or not at all."""
    with pytest.raises(InputError, match=message):
        PrototypicalNetworks(6, **settings)
