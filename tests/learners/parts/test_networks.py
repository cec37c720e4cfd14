"""The three networks against plain layers."""

import pytest
import torch
from torch import Tensor, nn

from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts import networks
from leo_lightning.learners.parts.networks import RelationNet

DOUBLE = torch.float64


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def pair_by_pair(net: RelationNet, codes: Tensor) -> Tensor:
    """Every ordered pair concatenated, through three whole layers, then averaged."""
    B, N, K, H = codes.shape
    first, second, last = net.layers
    out = []
    for b in range(B):
        every = codes[b].reshape(N * K, H)
        for n in range(N):
            total = torch.zeros(2 * H, dtype=codes.dtype)
            for k in range(K):
                for partner in every:
                    pair = torch.cat([codes[b, n, k], partner])
                    total = total + last(torch.relu(second(torch.relu(first(pair)))))
            out.append(total / (K * N * K))
    return torch.stack(out).view(B, N, 2 * H)


@pytest.mark.parametrize(("B", "N", "K", "H"), [(1, 1, 1, 2), (2, 3, 1, 4), (1, 5, 2, 3), (2, 2, 3, 1)])
def test_relation_net_sees_every_ordered_pair(B: int, N: int, K: int, H: int):
    """Catches a final ReLU, pairs left out or turned round, and a mean over the wrong images."""
    torch.manual_seed(0)
    net, codes = RelationNet(H).to(DOUBLE), randn(B, N, K, H)
    torch.testing.assert_close(net(codes), pair_by_pair(net, codes), rtol=0, atol=1e-13)


def test_relation_net_has_the_same_slopes():
    """Catches a short cut that holds for values only."""
    torch.manual_seed(0)
    net, codes = RelationNet(3).to(DOUBLE), randn(2, 3, 2, 3).requires_grad_()
    weights = [codes, *net.parameters()]
    mine = torch.autograd.grad(net(codes).square().sum(), weights)
    other = torch.autograd.grad(pair_by_pair(net, codes).square().sum(), weights)
    for a, b in zip(mine, other, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 3, 7, 36, 80, 1000])
@pytest.mark.parametrize("kept", [0, 2**20])
def test_relation_net_in_blocks(rows: int, kept: int, monkeypatch: pytest.MonkeyPatch):
    """Catches blocks that overlap or leave pairs out, at any size, and a wrong value computed again."""
    torch.manual_seed(0)
    net, codes = RelationNet(3).to(DOUBLE), randn(5, 3, 2, 3).requires_grad_()
    weights = [codes, *net.parameters()]
    expected = torch.autograd.grad(pair_by_pair(net, codes).square().sum(), weights)
    monkeypatch.setattr(networks, "BLOCK_PAIRS", {True: rows * 6})
    monkeypatch.setattr(networks, "KEPT_PAIRS", kept)
    torch.testing.assert_close(net(codes), pair_by_pair(net, codes), rtol=0, atol=1e-13)
    found = torch.autograd.grad(net(codes).square().sum(), weights)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_many_blocks_in_half_precision(monkeypatch: pytest.MonkeyPatch):
    """Catches gradients that are rounded after every block: the small ones would be lost."""
    torch.manual_seed(0)
    net, codes = RelationNet(8), randn(64, 4, 1, 8).float()
    exact = torch.autograd.grad(net(codes).square().sum(), net.layers[1].weight)[0]
    monkeypatch.setattr(networks, "BLOCK_PAIRS", {True: 16})
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(codes).square().sum()
    found = torch.autograd.grad(loss, net.layers[1].weight)[0]
    assert (found - exact).norm() < 0.01 * exact.norm()


def test_relation_net_gives_both_signs():
    """Catches a ReLU after the last layer: means below 0 must be possible."""
    torch.manual_seed(0)
    code = RelationNet(8).to(DOUBLE)(randn(4, 5, 1, 8))
    assert (code < 0).any()
    assert (code > 0).any()


@pytest.mark.parametrize(
    ("layer", "inputs", "outputs"),
    [
        (lambda: LEO(40, 8).encoder, 40, 8),
        (lambda: LEO(40, 8).decoder, 8, 80),
        (lambda: RelationNet(8).layers[0], 16, 16),
        (lambda: RelationNet(8).layers[1], 16, 16),
        (lambda: RelationNet(8).layers[2], 16, 16),
    ],
    ids=["encoder", "decoder", "relation-0", "relation-1", "relation-2"],
)
def test_layers_are_glorot_uniform_without_bias(layer, inputs: int, outputs: int):
    """Catches torch's default initial weights, biases, and swapped sizes."""
    torch.manual_seed(0)
    linear = layer()
    assert isinstance(linear, nn.Linear)
    assert linear.bias is None
    assert linear.weight.shape == (outputs, inputs)
    bound = (6 / (inputs + outputs)) ** 0.5
    largest = linear.weight.abs().max().item()
    assert 0.95 * bound < largest <= bound
    assert linear.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.15)
