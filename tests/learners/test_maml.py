"""MAML, ANIL and Meta-SGD against NumPy, finite differences and torch.func."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leo_lightning.data.episode import Episode
from leo_lightning.learners.anil import ANIL
from leo_lightning.learners.maml import MAML
from leo_lightning.learners.meta_sgd import MetaSGD
from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP
from leo_lightning.learners.parts.fast_weights import Layer, Rate, activations, descend, gradient
from tests.learners.mlp_tasks import (
    BAD_SETTINGS,
    DOUBLE,
    Contract,
    build,
    close,
    episode_of,
    gradients,
    refuses,
)
from tests.oracles import mlp_numpy as oracle

METHODS = [MAML, ANIL, MetaSGD]


class TestMAML(Contract):
    kind, settings = MAML, {"hidden_size": 5, "inner_lr": 0.7}


class TestFirstOrderMAML(Contract):
    kind, settings = MAML, {"hidden_size": 5, "inner_lr": 0.7, "first_order": True}


class TestANIL(Contract):
    kind, settings = ANIL, {"hidden_size": 5, "inner_lr": 0.7}


class TestMetaSGD(Contract):
    kind, settings = MetaSGD, {"hidden_size": 5, "inner_lr": 0.7}


def small(kind: type[AdaptedMLP], **settings: object) -> AdaptedMLP:
    learner = build(kind, hidden_size=5, inner_lr=0.7, **settings)
    if isinstance(learner, MetaSGD):  # rates that differ
        with torch.no_grad():
            for name, rate in learner.named_parameters():
                if name.endswith("_rate"):
                    rate.mul_(torch.rand_like(rate) + 0.5)
    return learner


def theirs(learner: AdaptedMLP) -> oracle.Arrays:
    """The oracle's rates."""
    if isinstance(learner, MetaSGD):
        rates = (learner.hidden_weight_rate, learner.hidden_bias_rate)
        rates += (learner.head_weight_rate, learner.head_bias_rate)
        return dict(zip("WbVc", (rate.detach().numpy() for rate in rates), strict=True))
    body = 0.0 if isinstance(learner, ANIL) else learner.inner_lr
    return {"W": body, "b": body, "V": learner.inner_lr, "c": learner.inner_lr}


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("kind", METHODS)
def test_adapted_weights_are_numpys(kind: type[AdaptedMLP], steps: int):
    """Catches a wrong inner gradient, a sum for the mean, a hidden layer that moves in ANIL."""
    learner, episode = small(kind, steps=steps), episode_of()
    W, b = (p.detach().numpy() for p in learner.hidden.parameters())
    found = learner.every_step(episode.support)[-1]
    for task, support in enumerate(episode.support.numpy()):
        expected = oracle.adapt(oracle.start_of(W, b, 3), support, theirs(learner), steps)
        for layer, (weight, bias) in zip(found, ("Wb", "Vc"), strict=True):
            close(layer.weight.expand(2, -1, -1)[task], expected[weight], weight)
            close(layer.bias.expand(2, -1)[task], expected[bias], bias)
    rates = theirs(learner)
    loss = oracle.outer_loss(W, b, rates, episode.support.numpy(), episode.query.numpy(), steps)
    close(learner(episode).loss, loss)


@pytest.mark.parametrize("kind", METHODS)
def test_outer_gradient_is_second_order(kind: type[AdaptedMLP]):
    """NumPy's finite differences. Catches a detached inner gradient and rates outside the graph."""
    learner, episode = small(kind), episode_of()
    found = gradients(learner(episode).loss, learner)
    support, query = episode.support.numpy(), episode.query.numpy()
    for name, parameter in learner.named_parameters():
        numbers = parameter.data.view(-1)
        differences = []
        for i in range(len(numbers)):
            losses, kept = [], numbers[i].item()
            for sign in (1, -1):
                numbers[i] = kept + sign * 1e-6
                W, b = (p.detach().numpy() for p in learner.hidden.parameters())
                losses.append(oracle.outer_loss(W, b, theirs(learner), support, query, learner.steps))
            numbers[i] = kept
            differences.append((losses[0] - losses[1]) / 2e-6)
        close(found[name].flatten(), np.array(differences), name, tolerance=1e-7)


@pytest.mark.parametrize("kind", METHODS)
def test_outer_gradient_passes_gradcheck(kind: type[AdaptedMLP]):
    """Catches a wrong derivative by the embeddings, which a trained backbone would need."""
    learner, episode = small(kind, steps=2), episode_of(K=1, Q=2)

    def loss(support: Tensor, query: Tensor) -> Tensor:
        return learner(Episode(support, query)).loss

    inputs = (episode.support.requires_grad_(), episode.query.requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-7, rtol=1e-5)


def functional_loss(learner: AdaptedMLP, episode: Episode, first_order: bool) -> Tensor:
    """The outer loss by torch.func, task by task, on an ordinary network with its head at zero."""
    N, E = episode.support.shape[1], learner.embedding_size
    network = nn.Sequential(nn.Linear(E, learner.hidden_size), nn.ReLU(), nn.Linear(learner.hidden_size, N))
    rates = {"0.weight": 0.75, "0.bias": 0.75, "2.weight": 0.75, "2.bias": 0.75}

    def loss(parameters: dict[str, Tensor], images: Tensor) -> Tensor:
        logits = torch.func.functional_call(network, parameters, (images.flatten(0, 1),))
        return F.cross_entropy(logits, torch.arange(N).repeat_interleave(images.shape[1]))

    total = torch.zeros((), dtype=DOUBLE)
    for support, query in zip(episode.support, episode.query, strict=True):
        zeros = {f"2.{name}": torch.zeros_like(p, dtype=DOUBLE) for name, p in network[2].named_parameters()}
        parameters = {f"0.{name}": p for name, p in learner.hidden.named_parameters()} | zeros
        for _ in range(learner.steps):
            by = torch.func.grad(loss)(parameters, support)
            by = {name: g.detach() if first_order else g for name, g in by.items()}
            parameters = {name: p - rates[name] * by[name] for name, p in parameters.items()}
        total = total + loss(parameters, query)
    return total / len(episode.support)


@pytest.mark.parametrize(("kind", "first_order"), [(MAML, True), (MAML, False), (MetaSGD, False)])
def test_both_orders_are_torch_funcs(kind: type[AdaptedMLP], first_order: bool):
    """Catches a first order that is the second, and a gradient cut at the wrong place."""
    learner, episode = build(kind, hidden_size=5, inner_lr=0.75), episode_of()
    learner.first_order = first_order
    expected = torch.autograd.grad(
        functional_loss(learner, episode, first_order), list(learner.hidden.parameters())
    )
    found = torch.autograd.grad(learner(episode).loss, list(learner.hidden.parameters()))
    for mine, other in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-12)
    other_order = build(MAML, hidden_size=5, inner_lr=0.75, first_order=not first_order)
    differs = torch.autograd.grad(other_order(episode).loss, other_order.hidden.weight)[0]
    assert (differs - found[0]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", METHODS)
def test_a_shared_vector_for_the_head_would_change_nothing(kind: type[AdaptedMLP]):
    """Catches a head at zero that is another method than a learned row for all classes (UNICORN-MAML)."""
    learner, episode = small(kind), episode_of()
    expected, start = learner(episode), learner.start
    row, bias = torch.randn(1, 1, 5, dtype=DOUBLE), torch.randn(1, 1, dtype=DOUBLE)
    row.requires_grad_()

    def with_row(N: int) -> list[Layer]:
        hidden, _ = start(N)
        return [hidden, Layer(row.expand(1, N, 5), bias.expand(1, N))]

    learner.start = with_row  # pyright: ignore[reportAttributeAccessIssue]
    outcome = learner(episode)
    shift = outcome.logits - expected.logits
    torch.testing.assert_close(shift, shift[..., :1].expand_as(shift), rtol=1e-9, atol=1e-12)
    assert shift.abs().max() > 0.01
    torch.testing.assert_close(outcome.loss, expected.loss)
    assert torch.autograd.grad(outcome.loss, row)[0].abs().max() < 1e-14


@pytest.mark.parametrize("sizes", [[4], [4, 3], [4, 7, 5, 3], [1, 8, 8, 1]])
@pytest.mark.parametrize("tasks", [1, 3])
def test_gradient_is_autograds_at_any_depth(sizes: list[int], tasks: int):
    """Catches a layer left out, a ReLU at the wrong place, and shared weights that are not summed."""
    generator = torch.Generator().manual_seed(0)
    sizes = [*sizes, 2] if len(sizes) == 1 else sizes

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=DOUBLE)

    layers = [Layer(numbers(tasks, b, a), numbers(tasks, b)) for a, b in pairwise(sizes)]
    images, target = numbers(3, 5, sizes[0]), numbers(3, 5, sizes[-1])
    each = [Layer(w.expand(3, -1, -1).clone(), b.expand(3, -1).clone()) for w, b in layers]
    flat = [tensor.requires_grad_() for layer in each for tensor in layer]
    outputs = images
    for i, (weight, bias) in enumerate(each):
        outputs = torch.einsum("bmi,boi->bmo", outputs.relu() if i else outputs, weight) + bias[:, None]
    expected = torch.autograd.grad(0.5 * (outputs - target).square().sum(), flat)
    found = activations(layers, images)
    torch.testing.assert_close(found[-1], outputs)
    mine = [tensor for layer in gradient(layers, found, found[-1] - target) for tensor in layer]
    for a, b in zip(mine, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_descent_serves_regression():
    """Catches a loop that knows of classes: with a squared error it fits a curve."""
    generator = torch.Generator().manual_seed(0)
    x = torch.linspace(-2, 2, 20, dtype=DOUBLE).expand(2, -1)[..., None]
    y = torch.stack([x[0].sin(), x[1].cos()])
    sizes = [1, 40, 40, 1]
    layers = []
    for a, b in pairwise(sizes):
        weight = torch.randn(1, b, a, generator=generator, dtype=DOUBLE) / a**0.5
        layers.append(Layer(weight, weight.new_zeros(1, b)))
    adapted = descend(layers, x, lambda outputs: (outputs - y) / 20, 3 * [Rate(0.05, 0.05)], 300)
    before, after = ((activations(each, x)[-1] - y).square().flatten(1).mean(1) for each in (layers, adapted))
    assert (after < 0.2 * before).all()


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    "bad", [*BAD_SETTINGS, {"hidden_size": 0}, {"inner_lr": 0.0}, {"inner_lr": float("nan")}], ids=str
)
def test_bad_settings_are_named(kind: Callable[..., AdaptedMLP], bad: dict):
    """Catches a setting that would fail later, or train nothing."""
    refuses(lambda: kind(**bad), *bad)
