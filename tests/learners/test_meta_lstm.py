"""Meta-LSTM against NumPy and finite differences."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leo_lightning.data.episode import Episode
from leo_lightning.learners.meta_lstm import MetaLSTM, preprocessed
from tests.learners.mlp_tasks import BAD_SETTINGS, DOUBLE, Contract, build, close, episode_of, refuses
from tests.oracles import meta_lstm_numpy as oracle


class TestMetaLSTM(Contract):
    kind, settings = MetaLSTM, {"hidden_size": 5}


def meta_lstm(**settings: object) -> MetaLSTM:
    """A Meta-LSTM whose gates are far from constant."""
    learner = build(MetaLSTM, hidden_size=4, **settings)
    with torch.no_grad():
        for gate in (learner.forget_gate, learner.input_gate):
            gate.weight.normal_()
            gate.bias.normal_()
        learner.initial_row.normal_()
    return learner


@pytest.mark.parametrize("steps", [1, 3])
def test_adapted_weights_are_numpys(steps: int):
    """Catches swapped gates, a gate's input in the wrong place, a step of the wrong sign."""
    learner, episode = meta_lstm(steps=steps), episode_of()
    arrays = {name: value.numpy() for name, value in learner.state_dict().items()}
    hidden, head = learner.every_step(episode.support)[-1]
    found = torch.cat([head.weight, head.bias[..., None]], dim=-1)
    expected = [oracle.adapt(arrays, support, steps) for support in episode.support.numpy()]
    close(found, np.stack(expected))
    close(hidden.weight[0], arrays["hidden.weight"])
    close(hidden.bias[0], arrays["hidden.bias"])


def test_preprocessing_is_numpys():
    """Catches another p, a logarithm of 0, and a jump at the threshold."""
    edge = np.exp(-10.0)
    numbers = [0.0, 1e-300, 1e-6, -1e-6, edge, -edge, edge * 1.001, edge * 0.999, -0.3, 2.0, -1e9]
    close(
        preprocessed(torch.tensor(numbers, dtype=DOUBLE)), np.array([oracle.preprocess(x) for x in numbers])
    )


def plain_loss(learner: MetaLSTM, episode: Episode) -> Tensor:
    """The outer loss of Eq. 2 task by task, with gradients by autograd that count as constants."""
    hidden, total = learner.hidden, torch.zeros((), dtype=DOUBLE)
    for support, query in zip(episode.support, episode.query, strict=True):
        N, K, _ = support.shape
        labels = torch.arange(N)

        def features(images: Tensor) -> Tensor:
            outputs = hidden(images.flatten(0, 1)).relu()
            return torch.cat([outputs, outputs.new_ones(len(outputs), 1)], dim=1)

        theta = learner.initial_row.expand(N, -1).reshape(-1, 1)
        forget = put = torch.zeros_like(theta)
        state = None
        for _ in range(learner.steps):
            x, free = features(support).detach(), theta.detach().requires_grad_()
            logits = x @ free.view(N, -1).T
            loss = nn.functional.cross_entropy(logits, labels.repeat_interleave(K))
            slope = torch.autograd.grad(loss, free)[0]
            loss = preprocessed(loss.detach()).expand(len(theta), -1)
            state = learner.lstm(torch.cat([preprocessed(slope)[:, 0], loss], dim=1), state)
            forget = learner.forget_gate(torch.cat([state[0], theta, forget], dim=1)).sigmoid()
            put = learner.input_gate(torch.cat([state[0], theta, put], dim=1)).sigmoid()
            theta = forget * theta - put * slope
        logits = features(query) @ theta.view(N, -1).T
        total = total + nn.functional.cross_entropy(logits, labels.repeat_interleave(query.shape[1]))
    return total / len(episode.support)


def test_outer_gradient_is_that_of_constant_gradients():
    """Catches a path of the outer gradient that is cut, or one that the paper leaves out."""
    learner, episode = meta_lstm(steps=3), episode_of()
    expected, found = plain_loss(learner, episode), learner(episode).loss
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    named = dict(learner.named_parameters())
    theirs = torch.autograd.grad(expected, list(named.values()))
    for name, mine, other in zip(
        named, torch.autograd.grad(found, list(named.values())), theirs, strict=True
    ):
        assert mine.any(), name
        torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-12)


def test_gates_begin_at_their_settings():
    """Catches an inner loop that begins at another step size, or forgets from the start."""
    learner, episode = build(MetaLSTM, hidden_size=4, inner_lr=0.3, steps=1), episode_of()
    with torch.no_grad():
        learner.initial_row.fill_(2.0)
        head = learner.every_step(episode.support)[-1][1]
    features = learner.hidden(episode.support.flatten(1, 2)).relu()
    residual = torch.full((3, 6), 1 / 3, dtype=DOUBLE) - torch.eye(3, dtype=DOUBLE).repeat_interleave(
        2, dim=1
    )
    expected = 0.99 * 2.0 - 0.3 * residual @ features / 6
    torch.testing.assert_close(head.weight, expected, rtol=0.02, atol=0.01)
    found = learner(episode).diagnostics
    assert found["input_gate"].item() == pytest.approx(0.3)
    assert found["forget_gate"].item() == pytest.approx(0.99)


@pytest.mark.parametrize(
    "bad",
    [*BAD_SETTINGS, {"hidden_size": 0}, {"inner_lr": 0.0}, {"inner_lr": 1.0}],
    ids=str,
)
def test_bad_settings_are_named(bad: dict):
    """Catches a setting that would fail later, or train nothing."""
    refuses(lambda: MetaLSTM(**bad), *bad)
