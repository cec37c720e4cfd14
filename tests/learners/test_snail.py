"""SNAIL against a transcription that reads a whole sequence for every query."""

import contextlib

import numpy as np
import pytest
import torch
from torch import nn

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode
from leo_lightning.learners.parts.objectives import query_cross_entropy
from leo_lightning.learners.snail import SNAIL
from tests.learners.tasks import episode_of, moved
from tests.oracles import snail_numpy as oracle


def small_snail(**settings: object) -> SNAIL:
    torch.manual_seed(5)
    return moved(SNAIL(**({"embedding_size": 6, "way": 3, "shot": 2, "filters": 4} | settings)), by=0.05)


@pytest.mark.parametrize(("size", "hidden"), [(None, 0), (4, 5)])
@pytest.mark.parametrize(
    ("N", "K", "shot", "dilations"), [(3, 1, 1, 2), (3, 2, 2, 3), (3, 5, 2, 3), (4, 1, 2, 4)]
)
def test_logits_are_the_papers(N: int, K: int, shot: int, dilations: int, size: int | None, hidden: int):
    """Catches a look into the future, a tap at another place, another order, queries that see each other."""
    learner = small_snail(size=size, hidden=hidden, way=N, shot=shot).eval()
    weights = {name: value.numpy() for name, value in learner.state_dict().items()}
    episode = episode_of(N=N, K=K, Q=2)
    outcome = learner(episode)
    found = outcome.logits.detach().numpy()
    for b, n, q in np.ndindex(found.shape[:3]):
        support, query = episode.support[b].numpy(), episode.query[b, n, q].numpy()
        np.testing.assert_allclose(
            found[b, n, q], oracle.snail(weights, support, query, dilations), rtol=1e-9
        )
    torch.testing.assert_close(outcome.loss, query_cross_entropy(outcome.logits, None).mean())


def test_every_image_of_the_support_is_within_reach():
    """Catches convolutions that are too few: the last dilations must see the first image."""
    for shot in (1, 2, 5):
        learner = small_snail(way=5, shot=shot)
        reach = sum(layer.dilation for layer in learner.blocks() if hasattr(layer, "dilation")) // 2
        assert 5 * shot <= reach < 2 * 5 * shot


def test_gradients_are_those_of_finite_differences():
    """Catches a detached support or query; in training, with dropout."""
    learner, episode = small_snail(way=2, dropout=0.3, hidden=3), episode_of(N=2, K=2, Q=1, B=1)
    noise = learner.draw_noise(episode, [3])
    names, values = zip(*learner.named_parameters(), strict=True)

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.learner = learner

        def forward(self, support: torch.Tensor) -> torch.Tensor:
            return self.learner.outcome(Episode(support, episode.query), noise).loss

    def loss(support: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        state = {f"learner.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Loss(), state, (support,))

    inputs = (
        episode.support.requires_grad_(),
        *(value.detach().clone().requires_grad_() for value in values),
    )
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-7, rtol=1e-4, fast_mode=True)


def test_every_parameter_gets_a_gradient():
    """Catches a parameter without use, which stops distributed training."""
    learner = small_snail(hidden=3)
    learner(episode_of(Q=6)).loss.backward()
    for name, parameter in learner.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_evaluation_is_the_same_in_every_gradient_mode(dtype: torch.dtype):
    """Catches noise in evaluation, a need for autograd, half precision, and another precision on the way."""
    learner, episode = small_snail(dropout=0.4).to(dtype).eval(), episode_of()
    episode = Episode(episode.support.to(dtype), episode.query.to(dtype))
    expected = learner(episode).logits
    assert expected.dtype == dtype
    half = torch.autocast("cpu", torch.bfloat16)
    for mode in (contextlib.nullcontext(), torch.no_grad(), torch.inference_mode(), half):
        with mode:
            assert torch.allclose(learner(episode).logits, expected, rtol=1e-5, atol=1e-5)


def test_tasks_do_not_influence_each_other():
    """Catches a sequence that goes on in the next task, and masks by a task's place."""
    learner, episode = small_snail(dropout=0.4), episode_of(B=3)
    together = learner(episode, [7, 8, 9]).logits
    for b in range(3):
        alone = learner(Episode(episode.support[b : b + 1], episode.query[b : b + 1]), [7 + b]).logits[0]
        torch.testing.assert_close(alone, together[b])


def test_classifiers_select_and_share_queries():
    """Catches a memory that stays with all tasks, and an arrangement of queries that gets lost."""
    learner, episode = small_snail().eval(), episode_of(B=4)
    chosen, images = torch.tensor([3, 1, 1]), episode.query[:1]
    classifier = learner.adapt(episode.support)
    torch.testing.assert_close(classifier.select(chosen)(images), classifier(images)[chosen])
    torch.testing.assert_close(classifier(images), classifier(images.expand(4, -1, -1, -1)))
    torch.testing.assert_close(classifier(images[:, 1]), classifier(images)[:, 1])


def test_arguments_build_the_same_learner():
    """Catches an argument that is not kept, without which a checkpoint cannot be loaded."""
    learner = small_snail(dropout=0.2, size=4, hidden=3, filters=5, shot=3)
    again = SNAIL(**learner.init_args()).double()
    again.load_state_dict(learner.state_dict())
    torch.testing.assert_close(again(episode_of(), [1, 2]).logits, learner(episode_of(), [1, 2]).logits)


def test_another_way_is_refused_in_one_line():
    """Catches labels that are cut off, and shapes that cannot be multiplied."""
    said = (
        "^SNAIL is made for tasks of 3 classes, and these have 4; train it with --model.learner.way 4, "
        "or use 3 classes$"
    )
    for work in (small_snail(), lambda episode: small_snail().adapt(episode.support)):
        with pytest.raises(InputError, match=said):
            work(episode_of(N=4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"way": 1}, "way is 1: it must be at least 2"),
        ({"shot": 0}, "shot is 0: it must be at least 1"),
        ({"filters": 0}, "filters is 0: it must be at least 1"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    """Catches a setting that fails later, or not at all."""
    with pytest.raises(InputError, match=message):
        SNAIL(6, **settings)
