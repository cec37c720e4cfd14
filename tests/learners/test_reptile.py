"""Reptile against torch's own SGD."""

import pytest
import torch
from torch import nn

from leo_lightning.learners.reptile import Reptile
from tests.learners.mlp_tasks import BAD_SETTINGS, DOUBLE, Contract, build, episode_of, gradients, refuses


class TestReptile(Contract):
    kind, settings = Reptile, {"hidden_size": 5, "inner_lr": 0.7}


def reptile(**settings: object) -> Reptile:
    return build(Reptile, hidden_size=5, inner_lr=0.75, **settings)


@pytest.mark.parametrize("steps", [1, 4])
def test_the_gradient_is_the_way_to_sgds_weights(steps: int):
    """Catches a direction of the other sign, a sum over tasks, and an inner loop on the support alone."""
    learner, episode = reptile(steps=steps), episode_of(B=3)
    N, images = 3, torch.cat([episode.support, episode.query], dim=2)
    ends = []
    for task in images:
        network = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, N)).to(DOUBLE)
        network[0].load_state_dict(learner.hidden.state_dict())
        network[2].load_state_dict({"weight": torch.zeros(N, 5), "bias": torch.zeros(N)})
        optimizer = torch.optim.SGD(network.parameters(), lr=0.75)
        for _ in range(steps):
            optimizer.zero_grad()
            labels = torch.arange(N).repeat_interleave(task.shape[1])
            nn.functional.cross_entropy(network(task.flatten(0, 1)), labels).backward()
            optimizer.step()
        # a learned row for all classes of the head would not move
        assert network[2].weight.mean(0).abs().max() < 1e-12
        ends.append(network[0].state_dict())
    found = gradients(learner(episode).loss, learner)
    for name, parameter in learner.hidden.named_parameters():
        expected = parameter - torch.stack([end[name] for end in ends]).mean(0)
        torch.testing.assert_close(found[f"hidden.{name}"], expected, rtol=1e-10, atol=1e-12)
        assert (expected.abs().max() > 1e-3) == (steps > 1)


def test_the_loss_is_that_of_unseen_queries():
    """Catches a reported loss of images that the classifier was adapted to."""
    learner, episode = reptile(), episode_of()
    outcome = learner(episode)
    assert torch.equal(outcome.loss, learner.eval()(episode).loss)
    assert torch.equal(outcome.logits, learner.adapt(episode.support)(episode.query))


def test_outer_steps_of_any_size_reach_the_adapted_weights():
    """Catches a gradient that follows the moving weights: at rate 1, plain descent lands on mean θ'."""
    learner, episode = reptile(), episode_of(B=1)
    images = torch.cat([episode.support, episode.query], dim=2)
    target = learner.every_step(images)[-1][0]
    learner(episode).loss.backward()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter -= parameter.grad
    torch.testing.assert_close(learner.hidden.weight.data, target.weight[0].data)
    torch.testing.assert_close(learner.hidden.bias.data, target.bias[0].data)


@pytest.mark.parametrize("bad", [*BAD_SETTINGS, {"hidden_size": 0}, {"inner_lr": -1.0}], ids=str)
def test_bad_settings_are_named(bad: dict):
    """Catches a setting that would fail later, or train nothing."""
    refuses(lambda: Reptile(**bad), *bad)
