"""LEO for regression task by task, from Section 4.1 and Algorithm 1: plain layers, autograd inside."""

from itertools import pairwise

import torch
from torch import Tensor

Parameters = dict[str, Tensor]


def perceptron(layers: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """Layers of (weight, bias) with ReLU in between."""
    for number, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if number < len(layers) - 1:
            x = x.clamp_min(0)
    return x


def unpacked(theta: Tensor, sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    """All parameters of a network in one vector: weight, then bias, layer by layer."""
    layers, at = [], 0
    for inputs, outputs in pairwise(sizes):
        weight = theta[at : at + inputs * outputs].reshape(outputs, inputs)
        at += inputs * outputs
        layers.append((weight, theta[at : at + outputs]))
        at += outputs
    assert at == len(theta)
    return layers


def named(parameters: Parameters, network: str) -> list[tuple[Tensor, Tensor]]:
    """Layers of one of the networks."""
    count = sum(name.startswith(f"{network}.") and name.endswith("weight") for name in parameters)
    names = [f"{network}.layers.{number}" for number in range(count)]
    zero = torch.zeros((), dtype=torch.float64)
    return [(parameters[f"{name}.weight"], parameters.get(f"{name}.bias", zero)) for name in names]


def task_loss(
    parameters: Parameters,
    sizes: list[int],
    support: Tensor,
    query: Tensor,
    code_noise: Tensor,
    theta_noise: Tensor,
    steps: tuple[int, int],
    weights: tuple[float, float],
    rates: tuple[float, float],
    stds: tuple[float, float],
) -> tuple[Tensor, Tensor]:
    """One task's query loss, KL and encoder penalty, weighted; and its θ after adaptation.

    Args:
        parameters: of the learner, by name.
        sizes: of the generated network's layers.
        support, query: (points, 2).
        code_noise: (H,); theta_noise: (T + 1, D).
        steps: T and F.
        weights: β and γ.
        rates: α and η where their multiples are 1.
        stds: of z and θ where the raw ones are 0.
    """
    codes = perceptron(named(parameters, "encoder"), support)
    pairs = [torch.cat([one, other]) for one in codes for other in codes]
    out = torch.stack([perceptron(named(parameters, "relation_net"), pair) for pair in pairs]).mean(0)
    mean, raw = out.chunk(2)
    std = stds[0] * raw.exp()
    first = z = mean + code_noise * std

    def decoded(z: Tensor, number: int) -> Tensor:
        mean, raw = perceptron(named(parameters, "decoder"), z).chunk(2)
        return mean + theta_noise[number] * stds[1] * raw.exp()

    def errors(theta: Tensor, points: Tensor) -> Tensor:
        return (perceptron(unpacked(theta, sizes), points[:, :1])[:, 0] - points[:, 1]).square()

    for number in range(steps[0]):
        loss = errors(decoded(z, number), support).sum()
        z = z - rates[0] * parameters["alpha"] * torch.autograd.grad(loss, z, create_graph=True)[0]
    theta = decoded(z, steps[0])
    for _ in range(steps[1]):
        loss = errors(theta, support).sum()
        theta = theta - rates[1] * parameters["eta"] * torch.autograd.grad(loss, theta, create_graph=True)[0]
    # log q(z) - log p(z), with (z - mean) / std = code_noise
    kl = (-0.5 * code_noise.square() - std.log() + 0.5 * first.square()).mean()
    penalty = (z.detach() - first).square().mean()
    return errors(theta, query).mean() + weights[0] * kl + weights[1] * penalty, theta
