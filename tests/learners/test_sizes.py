"""Embedding sizes: taken from the data, and refused in a sentence."""

import inspect
from collections.abc import Callable
from functools import partial

import pytest
import torch

from leo_lightning import learners
from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode
from leo_lightning.learners import LEO, NearestCentroid
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.linear_softmax import LinearSoftmax

E = 6
SIZED: dict[str, Callable[..., Learner]] = {
    name: kind
    for name in learners.__all__
    if issubclass(kind := getattr(learners, name), Learner)
    and "embedding_size" in inspect.signature(kind).parameters
}
SIZED["GeneralLEO"] = partial(learners.GeneralLEO, base=LinearSoftmax())
SIZED["MatchingNetworks in context"] = partial(learners.MatchingNetworks, full_context=True)
SIZED["CentroidLEO with a map"] = partial(learners.CentroidLEO, centroid_map=True)


@pytest.mark.parametrize("method", SIZED)
def test_weights_that_are_made_later_are_the_same(method: str):
    """Catches weights that the same seed no longer makes, or that are registered in another order."""
    torch.manual_seed(0)
    at_once = SIZED[method](embedding_size=E)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    later = SIZED[method]()
    assert not list(later.parameters())
    later.take_size(E)
    assert torch.equal(torch.get_rng_state(), state)
    assert later.init_args() == at_once.init_args()
    assert list(later.state_dict()) == list(at_once.state_dict())
    pairs = zip(later.state_dict().values(), at_once.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_alone_it_takes_the_size_of_what_it_sees_first():
    """Catches weights of another precision, weights that can never be trained, and a second size."""
    support = torch.randn(2, 3, 1, E, dtype=torch.float64)
    leo = LEO(num_latents=4).eval()
    with torch.inference_mode():
        assert leo.adapt(support)(support).shape == (2, 3, 1, 3)
    assert not any(module.training for module in leo.modules())
    leo.train()(Episode(support, support)).loss.backward()
    assert all(weight.grad is not None for weight in leo.parameters())
    assert leo.embedding_size == E
    with pytest.raises(InputError, match="LEO has embedding_size 6, and the embeddings have size 5"):
        leo.adapt(support[..., 1:])


def test_weights_cannot_be_made_twice():
    """Catches trained weights that are thrown away."""
    leo = LEO(E, num_latents=4)
    before = leo.decoder.weight
    leo.take_size(E)
    assert leo.decoder.weight is before
    with pytest.raises(InputError, match="LEO has embedding_size 6, and the embeddings have size 7; leave"):
        leo.take_size(7)


def test_a_method_without_weights_takes_any_size():
    """Catches the first size taken for the only one."""
    centroid = NearestCentroid()
    for size in (4, 5):
        assert centroid.adapt(torch.ones(1, 2, 1, size)).weight.shape == (1, 2, size)


@pytest.mark.parametrize("learner", [LEO(num_latents=4), LEO(E, num_latents=4), NearestCentroid()])
@pytest.mark.parametrize(
    ("support", "query"),
    [((3, 1, E), None), ((2, 3, 1, E), (2, 3, 4, 5)), ((2, 3, 1, E), (2, 4, 4, E)), ((2, 3, 1, E), (4, E))],
)
def test_wrong_shapes(learner: Learner, support: tuple[int, ...], query: tuple[int, ...] | None):
    """Catches "mat1 and mat2 shapes cannot be multiplied". Types are checked only in tests, so not here."""
    adapt, forward = (inspect.unwrap(part) for part in (Learner.adapt, Learner.forward))
    work = partial(adapt, learner, torch.ones(support))
    if query is not None:
        work = partial(forward, learner, Episode(torch.ones(support), torch.ones(query)))
    with pytest.raises(InputError, match=r"support has shape .*; shapes must be \(B, N, K, E\)") as refusal:
        work()
    assert str(support) in str(refusal.value)
    assert query is None or str(query) in str(refusal.value)
