"""The networks of LEO. Glorot-uniform weights; for classification no biases."""

import itertools
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from leo_lightning.learners.parts.unequal_shots import Shots, present_images

BLOCK_PAIRS = {True: 80 * 1024, False: 64 * 2**20}
"""Numbers in a block of pairs, by whether the device is a CPU: what fits into a cache, or fills a GPU."""
KEPT_PAIRS = 32 * 2**20
"""Numbers that the relation net keeps for its backward pass at most: 128 MiB."""


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A layer without biases: LEO's encoder, E → H (Section 2.3.1), and decoder, H → 2E (Eq. 4)."""
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer


class RelationNet(nn.Module):
    """Codes of a task to one Gaussian per class (Eq. 3).

    Every ordered pair of the N·K codes of a task, concatenated, goes through 2H → 2H → 2H → 2H with ReLU
    between the layers; the outputs are averaged over the partners and over the K codes of a class. Two
    identities spare most of the work: the first layer acts on either half of a pair alone, and the last one,
    being linear, can wait until after the average.
    """

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        width = 2 * num_latents
        self.layers = nn.ModuleList(linear(width, width) for _ in range(3))

    def forward(self, codes: Float[Tensor, "B N K H"], shots: Shots = None) -> Float[Tensor, "B N 2*H"]:
        """Mean and raw standard deviation (first and last H entries) of every class's latent code.

        Where shots differ, all pairs of a class's own image with any image of the task weigh the same.
        """
        _, N, K, H = codes.shape
        first, second, last = cast(list[nn.Linear], list(self.layers))
        flat = codes.flatten(1, 2)
        left, right = flat @ first.weight[:, :H].T, flat @ first.weight[:, H:].T
        valid = present_images(codes, shots)
        if valid is not None:
            # far below every ReLU: a pair with padding adds nothing to a sum
            left, right = (half.masked_fill(~valid[..., None], -torch.inf) for half in (left, right))
        hidden = cast(Tensor, _PairMean.apply(left, right, second.weight.to(left.dtype)))
        of_class = hidden.unflatten(1, (N, K)).mean(2)
        if shots is not None:
            of_class = of_class * (N * K) / shots.sum(1)[:, None, None] * K / shots[..., None]
        return last(of_class)


class _PairMean(torch.autograd.Function):
    """yᵢ = meanⱼ hᵢⱼ with hᵢⱼ = relu(W pᵢⱼ) and pᵢⱼ = relu(lᵢ + rⱼ), l `left` and r `right` of M images.

    A block's pairs p stay in the cache. The backward pass computes p again, and h if it is large.
    """

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, weight: Tensor) -> Float[Tensor, "B M W"]:
        B, M, W = left.shape
        total = torch.empty_like(left)
        blocks, buffer = _blocks(left)
        keep = ctx.needs_input_grad[0] and B * M * M * W <= KEPT_PAIRS
        kept = left.new_empty(B, M, M, W) if keep else None
        spare = torch.empty_like(buffer)
        for block in blocks:
            pairs = _pairs(left, right, block, buffer)
            hidden = spare[: len(pairs), : pairs.shape[1]] if kept is None else kept[block]
            torch.mm(pairs.flatten(0, 2), weight.T, out=hidden.view(-1, W)).relu_()
            torch.sum(hidden, 2, out=total[block])
        ctx.save_for_backward(left, right, weight, kept)
        return total.div_(M)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_mean: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right, weight, kept = ctx.saved_tensors
        # every hᵢⱼ has 1 / M of the derivative of its mean
        by_hidden = by_mean / left.shape[1]
        # sums over many blocks, which half precision would round at each
        precise = torch.promote_types(left.dtype, torch.float32)
        by_left, by_right = torch.empty_like(left), torch.zeros_like(right, dtype=precise)
        by_weight = torch.zeros_like(weight, dtype=precise)
        blocks, buffer = _blocks(left)
        for block in blocks:
            pairs = _pairs(left, right, block, buffer)
            hidden = pairs @ weight.T if kept is None else kept[block]
            # a ReLU passes the derivative on where it was open: ∂/∂(W p), and from it ∂/∂W and ∂/∂p
            back = relu_backward(by_hidden[block][:, :, None].expand_as(hidden), hidden)
            by_weight += back.flatten(0, 2).T @ pairs.flatten(0, 2)
            back = relu_backward(back @ weight, pairs)
            # lᵢ is in the pairs of row i, rⱼ in those of column j
            torch.sum(back, 2, out=by_left[block])
            by_right[block[0]] += back.sum(1)
        return by_left, by_right.to(right.dtype), by_weight.to(weight.dtype)


def _blocks(left: Float[Tensor, "B M W"]) -> tuple[list[tuple[slice, slice]], Tensor]:
    """Tasks and images of each block (several tasks, or one, or images of one), and room for its pairs."""
    B, M, W = left.shape
    rows = BLOCK_PAIRS[left.device.type == "cpu"] // W
    tasks, images = min(B, max(1, rows // M**2)), min(M, max(1, rows // M))
    starts = itertools.product(range(0, B, tasks), range(0, M, images))
    blocks = [(slice(task, task + tasks), slice(image, image + images)) for task, image in starts]
    return blocks, left.new_empty(tasks, images, M, W)


def _pairs(left: Tensor, right: Tensor, block: tuple[slice, slice], buffer: Tensor) -> Tensor:
    """relu(left_i + right_j) of a block, in the buffer."""
    firsts, seconds = left[block][:, :, None], right[block[0]][:, None]
    return torch.add(firsts, seconds, out=buffer[: len(firsts), : firsts.shape[1]]).relu_()


relu_backward = partial(torch.ops.aten.threshold_backward, threshold=0)
"""The derivative where a ReLU was open, of (derivative, what is positive there); faster than `where`."""
