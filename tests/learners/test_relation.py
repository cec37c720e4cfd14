"""Relation Networks against a transcription of the paper."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import EpisodeRows
from leo_lightning.learners.parts.objectives import query_cross_entropy
from leo_lightning.learners.relation import RelationNetworks
from tests.learners.tasks import episode_of, moved
from tests.oracles import metric_numpy as oracle


@pytest.mark.parametrize(("size", "hidden"), [(None, 0), (4, 5)])
@pytest.mark.parametrize("K", [1, 3])
def test_scores_and_loss_are_the_papers(K: int, size: int | None, hidden: int):
    """Catches halves that are swapped or share weights, a lost bias or ReLU, an error without its square."""
    learner = moved(RelationNetworks(6, size, hidden, relation_size=7)).eval()
    weights = {name: value.numpy() for name, value in learner.state_dict().items()}
    episode = episode_of(N=3, K=K, Q=2)
    outcome = learner(episode)
    found = outcome.logits.sigmoid().detach().numpy()
    expected = np.zeros_like(found)
    for b, n, q in np.ndindex(found.shape[:3]):
        expected[b, n, q] = oracle.relation(
            weights, episode.support[b].numpy(), episode.query[b, n, q].numpy()
        )
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    assert list(outcome.terms) == ["mse"]
    np.testing.assert_allclose(
        outcome.loss.item(), np.mean([oracle.relation_loss(task) for task in expected])
    )


def test_loss_may_be_the_cross_entropy():
    """Catches a choice that is not listened to."""
    learner, episode = moved(RelationNetworks(6, loss="cross_entropy")), episode_of()
    outcome = learner(episode)
    torch.testing.assert_close(outcome.loss, query_cross_entropy(outcome.logits, None).mean())
    assert list(outcome.terms) == ["cross_entropy"]


def test_padding_is_not_in_the_squared_error():
    """Catches padding that takes part in a task's mean, or tasks weighted by their number of queries."""
    learner, episode = moved(RelationNetworks(6)).eval(), episode_of(Q=4)
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    valid[0, :, 1:] = False
    index = torch.zeros(2, 3, 4, dtype=torch.int64)
    rows = EpisodeRows(torch.zeros(2, dtype=torch.int64), index[..., :2], index, valid)
    first = episode._replace(support=episode.support[:1], query=episode.query[:1, :, :1])
    second = episode._replace(support=episode.support[1:], query=episode.query[1:])
    expected = (learner(first).loss + learner(second).loss) / 2
    torch.testing.assert_close(learner(episode._replace(rows=rows)).loss, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"relation_size": 0}, "relation_size is 0: it must be at least 1"),
        ({"loss": "hinge"}, "loss is 'hinge': it must be mse or cross_entropy"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    """Catches a setting that fails later, or not at all; also where nobody checks the types."""
    build = partial(inspect.unwrap(RelationNetworks.__init__), RelationNetworks.__new__(RelationNetworks))
    with pytest.raises(InputError, match=message):
        build(6, **settings)
