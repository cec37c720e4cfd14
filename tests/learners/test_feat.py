"""FEAT against easyfsl's attention, with the same weights."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode, EpisodeRows
from leo_lightning.learners.feat import FEAT, SetAttention
from tests.learners.tasks import episode_of, moved


def theirs(attention: SetAttention) -> torch.nn.Module:
    """easyfsl's module with our weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of what easyfsl imports
        modules = pytest.importorskip("easyfsl.modules")
    D = attention.output.in_features
    module = modules.MultiHeadAttention(1, D, D, D).double().eval()
    names = {"query": "w_qs", "key": "w_ks", "value": "w_vs", "output": "fc", "norm": "layer_norm"}
    state = {}
    for name, value in attention.state_dict().items():
        part, _, kind = name.partition(".")
        state[f"{names[part]}.{kind}"] = value
    module.load_state_dict(state)
    return module


def log_probabilities(images: Tensor, prototypes: Tensor, temperature: Tensor) -> Tensor:
    """Of the classes (n) for images of one task."""
    return (-torch.cdist(images, prototypes).square() / temperature).log_softmax(-1)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize(("K", "size", "hidden"), [(1, None, 0), (3, 4, 5)])
def test_it_is_easyfsls(K: int, size: int | None, hidden: int, padded: bool):
    """Catches keys for queries, a lost residual, scale or norm, the wrong set, padding in a set."""
    learner = moved(FEAT(6, size, hidden, temperature=0.5, contrastive_weight=0.7)).eval()
    module, episode = theirs(learner.attention), episode_of(N=3, K=K, Q=4)
    valid = torch.ones(2, 3, 4, dtype=torch.bool)
    if padded:
        valid[0, 1, 1:] = valid[1, :, 3:] = False
        index = torch.zeros(2, 3, 4, dtype=torch.int64)
        rows = EpisodeRows(torch.zeros(2, dtype=torch.int64), index[..., :K], index, valid)
        episode = episode._replace(rows=rows)
    outcome, losses = learner(episode), {"cross_entropy": [], "contrastive": []}
    for b in range(2):
        support, query = learner.embedding(episode.support[b]), learner.embedding(episode.query[b])
        prototypes = support.mean(1)[None]
        adapted = module(prototypes, prototypes, prototypes)[0][0]
        expected = log_probabilities(query.flatten(0, 1), adapted, learner.log_temperature.exp())
        found = outcome.logits[b].log_softmax(-1).flatten(0, 1)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
        sets = [torch.cat([support[n], query[n, valid[b, n]]]) for n in range(3)]
        centres = torch.stack(
            [module(images[None], images[None], images[None])[0][0].mean(0) for images in sets]
        )
        labels = torch.cat([torch.full((len(images),), n) for n, images in enumerate(sets)])
        contrast = log_probabilities(torch.cat(sets), centres, learner.log_temperature.exp())
        losses["contrastive"].append(0.7 * F.nll_loss(contrast, labels))
        own = torch.arange(3).repeat_interleave(4)[valid[b].flatten()]
        losses["cross_entropy"].append(F.nll_loss(expected[valid[b].flatten()], own))
    assert list(outcome.terms) == list(losses)
    for name, values in losses.items():
        torch.testing.assert_close(outcome.terms[name], torch.stack(values).mean(), rtol=1e-11, atol=0)


def test_training_starts_from_centred_prototypes():
    """Catches a random adaptation that throws away what the features know."""
    learner, episode = FEAT(6, temperature=0.25).double(), episode_of(E=6, K=3)
    centred = episode.support.mean(2)
    centred = F.normalize(centred - centred.mean(-1, keepdim=True), dim=-1)
    for b in range(2):
        expected = log_probabilities(episode.query[b].flatten(0, 1), centred[b], torch.tensor(0.25))
        found = learner(episode).logits[b].log_softmax(-1).flatten(0, 1)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(learner(episode).diagnostics["temperature"].item(), 0.25)


def test_prototypes_see_each_other_and_queries_do_not():
    """Catches attention across tasks, and an answer that depends on the other queries."""
    learner, episode = moved(FEAT(6)).eval(), episode_of(N=3)
    other = episode.support.clone()
    other[0, 2] = other[0, 2].flip(-1)
    before, after = learner.adapt(episode.support), learner.adapt(other)
    changed = (before.classifier.weight - after.classifier.weight).abs().amax(-1)
    assert (changed[0] > 1e-3).all()
    assert not changed[1].any()
    alone = learner(Episode(episode.support, episode.query[:, :, :1])).logits
    torch.testing.assert_close(alone, learner(episode).logits[:, :, :1])


def test_without_the_contrastive_term():
    """Catches a term that is computed to be multiplied by zero."""
    assert list(FEAT(6, contrastive_weight=0.0).double()(episode_of()).terms) == ["cross_entropy"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature is 0.0: it must be a number above 0"),
        ({"contrastive_weight": -0.1}, "contrastive_weight is -0.1: it must be at least 0"),
    ],
)
def test_bad_settings_are_refused(settings: dict, message: str):
    """Catches a setting that fails later, or not at all."""
    with pytest.raises(InputError, match=message):
        FEAT(6, **settings)
