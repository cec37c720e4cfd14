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
    kind, settings = MetaLSTM, {"hidden_size": 5, "lstm_size": 3}


class TestSecondOrderMetaLSTM(Contract):
    kind, settings = MetaLSTM, {"hidden_size": 5, "lstm_size": 3, "first_order": False}


def meta_lstm(**settings: object) -> MetaLSTM:
    """One whose gates are far from constant."""
    learner = build(MetaLSTM, hidden_size=4, lstm_size=3, **settings)
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
    hidden, head = learner.adapted(episode.support)
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


def test_second_order_is_the_whole_derivative():
    """Finite differences by every parameter. Catches a path of the outer gradient that is cut."""
    learner, episode = meta_lstm(first_order=False, steps=2), episode_of(K=1, Q=2)
    names = [name for name, _ in learner.named_parameters()]
    parameters = [p.detach().clone().requires_grad_() for p in learner.parameters()]

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.learner = learner

        def forward(self) -> Tensor:
            return self.learner(episode).loss

    def loss(*values: Tensor) -> Tensor:
        state = {f"learner.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(Loss(), state, ())

    assert torch.autograd.gradcheck(loss, tuple(parameters), eps=1e-6, atol=1e-7, rtol=1e-5)


def test_first_order_takes_gradients_for_constants():
    """Catches an assumption of the paper that is not made."""
    learner, episode = meta_lstm(steps=3), episode_of(K=1)
    support = episode.support.clone().requires_grad_()
    logits = learner(Episode(support, episode.query)).logits
    assert torch.autograd.grad(logits.sum(), support, allow_unused=True)[0] is None
    other = meta_lstm(steps=3, first_order=False)
    names = dict(learner.named_parameters())
    first = torch.autograd.grad(learner(episode).loss, list(names.values()))
    second = torch.autograd.grad(other(episode).loss, list(other.parameters()))
    assert torch.equal(learner(episode).loss, other(episode).loss)
    for name, a, b in zip(names, first, second, strict=True):
        assert a.any(), name
        assert not torch.allclose(a, b), name


def test_gates_begin_at_their_settings():
    """Catches an inner loop that begins at another step size, or forgets from the start."""
    learner, episode = build(MetaLSTM, hidden_size=4, inner_lr=0.3, steps=1), episode_of()
    with torch.no_grad():
        learner.initial_row.fill_(2.0)
        head = learner.adapted(episode.support)[1]
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
    [*BAD_SETTINGS, {"hidden_size": 0}, {"lstm_size": 0}, {"inner_lr": 0.0}, {"inner_lr": 1.0}],
    ids=str,
)
def test_bad_settings_are_named(bad: dict):
    """Catches a setting that would fail later, or train nothing."""
    refuses(lambda: MetaLSTM(**bad), *bad)
