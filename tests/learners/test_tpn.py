"""TPN against its definition in NumPy, and its gradients against finite differences."""

import numpy as np
import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.learners.label_propagation import LabelPropagation
from leo_lightning.learners.parts.query_set import answered
from leo_lightning.learners.tpn import TPN
from tests.learners.tasks import episode_of, moved


def test_it_is_the_papers_graph_and_flow():
    """Catches a length scale of the wrong image, an embedding that is skipped, and the wrong rows of F."""
    learner, episode = moved(TPN(8, size=5, hidden=4, neighbors=50)), episode_of(3, 2, 4, E=8, B=2)
    found = learner.eval()(episode).logits.softmax(-1)
    weight, bias = (each.detach().numpy() for each in learner.log_length.parameters())
    for support, query, probability in zip(episode.support, episode.query, found, strict=True):
        images = learner.embedding(torch.cat([support.flatten(0, 1), query.flatten(0, 1)])).detach().numpy()
        images = images / np.linalg.norm(images, axis=1, keepdims=True)
        scaled = images / np.exp(images @ weight.T + bias)
        W = np.exp(-((scaled[:, None] - scaled) ** 2).sum(-1) / 2)
        np.fill_diagonal(W, 0)
        D = np.diag(W.sum(1) ** -0.5)
        Y = np.zeros((len(images), 3))
        Y[:6] = np.repeat(np.eye(3), 2, axis=0)
        F = np.linalg.solve(np.eye(len(images)) - 0.8 * D @ W @ D, Y)[6:]
        expected = F / F.sum(1, keepdims=True)
        np.testing.assert_allclose(probability.flatten(0, 1).detach().numpy(), expected, rtol=0, atol=1e-10)


def test_it_begins_as_label_propagation():
    """Catches a start that is worse than no training at all."""
    episode = episode_of(3, 2, 4, E=8, B=2)
    untrained = LabelPropagation(neighbors=4, length_scale=0.3)(episode).logits
    begun = TPN(8, neighbors=4, length_scale=0.3).double().eval()(episode).logits
    torch.testing.assert_close(begun, untrained, rtol=1e-6, atol=1e-8)  # log 0.3 was float32


def test_padding_has_no_influence():
    """Catches zeros behind a class's images, or in place of a query, that are nodes of the graph."""
    learner, episode = moved(TPN(8, hidden=4, neighbors=3)).eval(), episode_of(3, 2, 4, E=8, B=2)
    valid = torch.tensor([[True, True], [True, False], [True, True]]).expand(2, 3, 2)
    asked = torch.tensor([True, True, False, True]).expand(2, 3, 4)
    answers = []
    for garbage in (0.0, 7.0):
        support = episode.support.where(valid[..., None], garbage)
        query = episode.query.where(asked[..., None], garbage)
        classifier = learner.adapt(support, valid)
        answers.append(answered(classifier, query, asked)[asked])
    torch.testing.assert_close(*answers, rtol=0, atol=0)
    fewer = learner.adapt(episode.support, valid)(episode.query[:, :, [0, 1, 3]])
    torch.testing.assert_close(answers[0], fewer.flatten(0, 2), rtol=1e-9, atol=1e-10)


def test_gradients_reach_the_length_scales():
    """Finite differences. Catches a graph that is a constant for the outer gradient."""
    learner, episode = moved(TPN(6, neighbors=50, length_scale=0.5)), episode_of(2, 1, 3, E=6, B=1)
    learner(episode, [0]).loss.backward()
    for parameter in learner.parameters():
        numbers, slope = parameter.data.view(-1), parameter.grad.view(-1)
        for i in range(min(3, len(numbers))):
            kept, losses = numbers[i].item(), []
            for sign in (1, -1):
                numbers[i] = kept + sign * 1e-6
                with torch.no_grad():
                    losses.append(learner(episode, [0]).loss.item())
            numbers[i] = kept
            assert slope[i].item() == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-5, abs=1e-8)


def test_bad_settings_are_refused():
    """Catches a flow that never ends, and lengths of zero."""
    for bad, named in (
        ({"alpha": 1.0}, "alpha"),
        ({"neighbors": 0}, "neighbors"),
        ({"length_scale": 0.0}, "length"),
    ):
        with pytest.raises(InputError, match=named):
            TPN(8, **bad)
