"""The networks of LEO: for classification three without biases. Glorot-uniform weights."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from leo_lightning.learners.parts.unequal_shots import present

BLOCK_PAIRS = {True: 80 * 1024, False: 64 * 2**20}
"""Numbers in a block of pairs, by whether the device is a CPU: what fits into a cache, or fills a GPU."""
KEPT_PAIRS = 32 * 2**20
"""Numbers that the relation net keeps for its backward pass at most: 128 MiB."""


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer


class Encoder(nn.Linear):
    """Embedding to code, E → H (Section 2.3.1). Dropout of the input is the caller's."""

    def __init__(self, embedding_size: int, num_latents: int) -> None:
        super().__init__(embedding_size, num_latents, bias=False)
        nn.init.xavier_uniform_(self.weight)


class RelationNet(nn.Module):
    """Codes of a task to one Gaussian per class (Eq. 3).

    The network sees every ordered pair of the N·K codes of a task, concatenated, through
    2H → 2H → 2H → 2H with ReLU between the layers and none after the last; the outputs are averaged over the
    partners and over the K codes of a class. Two identities spare most of the work: the first layer acts on
    either half of a pair alone, and the last one, being linear, can wait until after the average.
    """

    def __init__(self, num_latents: int) -> None:
        super().__init__()
        width = 2 * num_latents
        self.layers = nn.ModuleList(_linear(width, width) for _ in range(3))

    def forward(
        self, codes: Float[Tensor, "B N K H"], shots: Int64[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N 2*H"]:
        """Mean and raw standard deviation (first and last H entries) of every class's latent code.

        The paper knows equal shots only. Where they differ, the code of a class is the mean over all pairs of
        one of its own images with any image of the task: all pairs weigh the same.

        Args:
            codes: of the images.
            shots: see `Learner.stages`.
        """
        _, N, K, H = codes.shape
        first, second, last = cast(list[nn.Linear], list(self.layers))
        flat = codes.flatten(1, 2)
        left, right = flat @ first.weight[:, :H].T, flat @ first.weight[:, H:].T
        if shots is not None:
            # far below every ReLU: a pair with what is no image adds nothing to a sum
            absent = ~present(codes, shots).flatten(1)[..., None]
            left, right = (half.masked_fill(absent, -torch.inf) for half in (left, right))
        hidden = cast(Tensor, _PairMean.apply(left, right, second.weight.to(left.dtype)))
        of_class = hidden.unflatten(1, (N, K)).mean(2)
        if shots is not None:
            of_class = of_class * (N * K) / shots.sum(1)[:, None, None] * K / shots[..., None]
        return last(of_class)


class _PairMean(torch.autograd.Function):
    """mean_j relu(W relu(left_i + right_j)), block by block, so that a block's pairs stay in the cache.

    What the second ReLU gives is kept for the backward pass, unless it is large: then it is computed again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        left: Float[Tensor, "B M W"],
        right: Float[Tensor, "B M W"],
        weight: Float[Tensor, "W W"],
    ) -> Float[Tensor, "B M W"]:
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
        by_hidden = by_mean / left.shape[1]
        # sums over many blocks, which half precision would round at each
        precise = torch.promote_types(left.dtype, torch.float32)
        by_left, by_right = torch.empty_like(left), torch.zeros_like(right, dtype=precise)
        by_weight = torch.zeros_like(weight, dtype=precise)
        blocks, buffer = _blocks(left)
        for block in blocks:
            pairs = _pairs(left, right, block, buffer)
            hidden = pairs @ weight.T if kept is None else kept[block]
            back = _relu_backward(by_hidden[block][:, :, None].expand_as(hidden), hidden)
            by_weight += back.flatten(0, 2).T @ pairs.flatten(0, 2)
            back = _relu_backward(back @ weight, pairs)
            torch.sum(back, 2, out=by_left[block])
            by_right[block[0]] += back.sum(1)
        return by_left, by_right.to(right.dtype), by_weight.to(weight.dtype)


def _blocks(
    left: Float[Tensor, "B M W"],
) -> tuple[list[tuple[slice, slice]], Float[Tensor, "tasks images M W"]]:
    """Tasks and images of each block: several tasks, or one, or images of one. And room for its pairs."""
    B, M, W = left.shape
    rows = BLOCK_PAIRS[left.device.type == "cpu"] // W
    tasks, images = min(B, max(1, rows // M**2)), min(M, max(1, rows // M))
    starts = itertools.product(range(0, B, tasks), range(0, M, images))
    blocks = [(slice(task, task + tasks), slice(image, image + images)) for task, image in starts]
    return blocks, left.new_empty(tasks, images, M, W)


def _pairs(
    left: Tensor, right: Tensor, block: tuple[slice, slice], buffer: Tensor
) -> Float[Tensor, "b m M W"]:
    """relu(left_i + right_j) of a block, in the buffer."""
    firsts, seconds = left[block][:, :, None], right[block[0]][:, None]
    return torch.add(firsts, seconds, out=buffer[: len(firsts), : firsts.shape[1]]).relu_()


_relu_backward = partial(torch.ops.aten.threshold_backward, threshold=0)


class Decoder(nn.Linear):
    """Latent code to a Gaussian over a class's weights, H → 2E (Eq. 4)."""

    def __init__(self, num_latents: int, embedding_size: int) -> None:
        super().__init__(num_latents, 2 * embedding_size, bias=False)
        nn.init.xavier_uniform_(self.weight)

    @property
    def mean_weight(self) -> Float[Tensor, "E H"]:
        """Rows that make the mean of the classifier weights."""
        return self.weight[: self.out_features // 2]

    @property
    def raw_std_weight(self) -> Float[Tensor, "E H"]:
        """Rows that make the raw standard deviation of the classifier weights."""
        return self.weight[self.out_features // 2 :]


class Perceptron(nn.Module):
    """Linear layers with ReLU between them, and the way back through them written out. Biases begin at zero.

    Args:
        sizes: of the input, the hidden layers and the output.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        for layer in self._layers():
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    @property
    def first_weight(self) -> Float[Tensor, "_outputs _inputs"]:
        """Of the layer that reads the inputs."""
        return self._layers()[0].weight

    @property
    def last(self) -> nn.Linear:
        """The layer that gives the outputs."""
        return self._layers()[-1]

    def forward(self, inputs: Float[Tensor, "*rows _inputs"]) -> Float[Tensor, "*rows _outputs"]:
        """The outputs."""
        return self.activations(inputs)[-1]

    def activations(self, inputs: Float[Tensor, "*rows _inputs"]) -> list[Float[Tensor, "*rows _width"]]:
        """What each layer is given, and last the outputs."""
        *hidden, last = self._layers()
        found = [inputs]
        for layer in hidden:
            found.append(layer(found[-1]).relu())
        return [*found, last(found[-1])]

    def pulled_back(
        self, slope: Float[Tensor, "*rows _outputs"], found: Sequence[Float[Tensor, "*rows _width"]]
    ) -> Float[Tensor, "*rows _inputs"]:
        """Gradient with respect to the inputs: an ordinary tensor expression.

        Args:
            slope: gradient with respect to the outputs.
            found: what `activations` returned.
        """
        for layer, inputs in zip(reversed(self._layers()), reversed(found[:-1]), strict=True):
            slope = slope @ layer.weight
            if inputs is not found[0]:
                slope = slope * (inputs > 0)
        return slope

    def _layers(self) -> list[nn.Linear]:
        return cast(list[nn.Linear], list(self.layers))
