"""ProtoMAML against NumPy and finite differences."""

import numpy as np
import pytest
import torch

from leo_lightning.learners.parts.fast_weights import Layer
from leo_lightning.learners.proto_maml import ProtoMAML
from tests.learners.mlp_tasks import Contract, build, close, episode_of, gradients
from tests.oracles import mlp_numpy as oracle

RATE = 0.1


class TestProtoMAML(Contract):
    kind, settings = ProtoMAML, {"hidden_size": 5, "inner_lr": RATE}


def small(**settings: object) -> ProtoMAML:
    return build(ProtoMAML, hidden_size=5, inner_lr=RATE, **settings)


def rates() -> oracle.Arrays:
    return {name: np.float64(RATE) for name in "WbVc"}


@pytest.mark.parametrize("steps", [1, 4])
def test_adapted_weights_are_numpys(steps: int):
    """Catches a head that begins at zero, at c for 2c, or without its bias, and prototypes that move."""
    learner, episode = small(steps=steps), episode_of()
    W, b = (p.detach().numpy() for p in learner.hidden.parameters())
    for layers, after in zip(learner.every_step(episode.support), range(steps + 1), strict=True):
        for task, support in enumerate(episode.support.numpy()):
            expected = oracle.adapt(oracle.prototypes_of(W, b, support), support, rates(), after)
            for layer, (weight, bias) in zip(layers, ("Wb", "Vc"), strict=True):
                close(layer.weight.expand(2, -1, -1)[task], expected[weight], weight)
                close(layer.bias.expand(2, -1)[task], expected[bias], bias)


def test_it_begins_as_the_nearest_prototype():
    """Catches logits that are not distances before adaptation."""
    learner, episode = small(), episode_of()
    hidden, head = learner.every_step(episode.support)[0]
    support, query = (torch.relu(learner.hidden(images)) for images in episode[:2])
    logits = query.flatten(1, 2) @ head.weight.transpose(1, 2) + head.bias[:, None]
    assert hidden.weight.shape[0] == 1
    expected = -torch.cdist(query.flatten(1, 2), support.mean(2)).square()
    torch.testing.assert_close(logits.log_softmax(-1), expected.log_softmax(-1))


def test_the_outer_gradient_passes_through_the_prototypes():
    """NumPy's finite differences. Catches a head that begins at constants, and a detached inner gradient."""
    learner, episode = small(), episode_of()
    found = gradients(learner(episode).loss, learner)
    support, query = episode.support.numpy(), episode.query.numpy()
    for name, parameter in learner.named_parameters():
        numbers, differences = parameter.data.view(-1), []
        for i in range(len(numbers)):
            losses, kept = [], numbers[i].item()
            for sign in (1, -1):
                numbers[i] = kept + sign * 1e-6
                W, b = (p.detach().numpy() for p in learner.hidden.parameters())
                losses.append(oracle.outer_loss(W, b, rates(), support, query, 3, prototypes=True))
            numbers[i] = kept
            differences.append((losses[0] - losses[1]) / 2e-6)
        close(found[name].flatten(), np.array(differences), name, tolerance=1e-7)


def test_first_order_keeps_the_way_through_the_head():
    """Catches a first order that detaches the prototypes, and one that is the second order.

    Without inner gradients in it, the outer gradient is that of the adapted numbers by their start: 1.
    """
    learner, episode = small(first_order=True), episode_of()
    found = gradients(learner(episode).loss, learner)
    start, end = (learner.every_step(episode.support)[i] for i in (0, -1))
    layers = [
        Layer(*(a + (b - a).detach() for a, b in zip(first, last, strict=True)))
        for first, last in zip(start, end, strict=True)
    ]
    images = episode.query.flatten(1, 2)
    features = torch.baddbmm(layers[0].bias[:, None], images, layers[0].weight.mT).relu()
    logits = torch.baddbmm(layers[1].bias[:, None], features, layers[1].weight.mT)
    labels = torch.arange(3).repeat_interleave(4).repeat(2)
    expected = gradients(torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels), learner)
    learner.first_order = False
    second = gradients(learner(episode).loss, learner)
    assert (second["hidden.weight"] - found["hidden.weight"]).abs().max() > 1e-3
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])
