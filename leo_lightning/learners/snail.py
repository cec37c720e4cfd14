"""SNAIL: temporal convolutions and causal attention over a sequence of labelled images.

Mishra, Rohaninejad, Chen, Abbeel: A Simple Neural Attentive Meta-Learner. ICLR 2018, arXiv:1707.03141.
"""

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from leo_lightning.common.errors import check_least
from leo_lightning.learners.parts.metric_learner import Embedded, MetricLearner
from leo_lightning.learners.parts.unequal_shots import Shots

ATTENTION = ((64, 32), (256, 128), (512, 256))
"""Sizes of keys and values of the three attention blocks, as in the paper's few-shot classification."""
Memory = tuple[Tensor, ...]
"""What a layer keeps of the support of B tasks, for queries that come after it."""


class DenseBlock(nn.Module):
    """A causal convolution of two taps, `dilation` apart, gated, beside its input: x to [x, tanh(f) σ(g)]."""

    def __init__(self, inputs: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.now = nn.Linear(inputs, 2 * filters)
        self.past = nn.Linear(inputs, 2 * filters, bias=False)

    def read(self, support: Float[Tensor, "B M C"]) -> tuple[Float[Tensor, "B M D"], Memory]:
        """Outputs for the support, and what the next image sees of the past."""
        M = support.shape[1]
        past = F.pad(self.past(support), (0, 0, self.dilation, 0))
        return self._gated(support, past[:, :M]), (past[:, M : M + 1],)

    def answer(self, query: Float[Tensor, "B P C"], memory: Memory) -> Float[Tensor, "B P D"]:
        """Outputs for queries, each right after the support."""
        return self._gated(query, memory[0])

    def _gated(self, images: Tensor, past: Tensor) -> Tensor:
        f, g = (self.now(images) + past).chunk(2, dim=-1)
        return torch.cat([images, f.tanh() * g.sigmoid()], dim=-1)


class AttentionBlock(nn.Module):
    """One head of attention to an image itself and all before it, beside its input: x to [x, read].

    Keys begin as queries do: at first an image attends to those that are like it.
    """

    def __init__(self, inputs: int, key_size: int, value_size: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(inputs, key_size), nn.Linear(inputs, key_size)
        self.key.load_state_dict(self.query.state_dict())
        self.value = nn.Linear(inputs, value_size)

    def read(self, support: Float[Tensor, "B M C"]) -> tuple[Float[Tensor, "B M D"], Memory]:
        """Outputs for the support; its keys and values."""
        query, key, value = self.query(support), self.key(support), self.value(support)
        seen = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return torch.cat([support, seen], dim=-1), (key, value)

    def answer(self, images: Float[Tensor, "B P C"], memory: Memory) -> Float[Tensor, "B P D"]:
        """Outputs for queries: each sees the support and itself."""
        keys, values = memory
        query = self.query(images) / math.sqrt(keys.shape[-1])
        own = (query * self.key(images)).sum(-1, keepdim=True)
        attention = torch.cat([query @ keys.transpose(1, 2), own], dim=-1).softmax(-1)
        seen = attention[..., :-1] @ values + attention[..., -1:] * self.value(images)
        return torch.cat([images, seen], dim=-1)


class SnailClassifier(NamedTuple):
    """Answers for embedded queries, each the last image of a sequence of its own."""

    snail: "SNAIL"
    memories: tuple[Memory, ...]
    """Of each layer, in order."""

    def __call__(self, query: Float[Tensor, "#B *images D"]) -> Float[Tensor, "B *images N"]:
        """Logits of the classes."""
        images = query.flatten(1, -2).expand(len(self.memories[0][0]), -1, -1)
        images = _scaled(images)
        x = torch.cat([images, images.new_zeros(*images.shape[:2], self.snail.way)], dim=-1)
        for layer, memory in zip(self.snail.blocks(), self.memories, strict=True):
            x = layer.answer(x, memory)
        return self.snail.head(x).unflatten(1, query.shape[1:-1])

    def select(self, tasks: Int64[Tensor, " P"]) -> "SnailClassifier":
        """The classifiers of some of the tasks."""
        return self._replace(
            memories=tuple(tuple(part[tasks] for part in memory) for memory in self.memories)
        )


class SNAIL(MetricLearner):
    """Simple neural attentive learner: the support is a sequence, and a query is what comes after it.

    An image of the support enters as its embedding and the one-hot label, a query as its embedding and
    zeros. Attention (64, 32), temporal convolutions, attention (256, 128), temporal convolutions, attention
    (512, 256), and a linear layer to the N logits: the network of the paper's few-shot classification.
    Temporal convolutions are dense blocks of dilation 1, 2, 4, ... that reach over the whole sequence. (The
    paper's pseudo-code begins at 2, with which an image would see every second one only.) All is causal:
    the support is read once, and every query sees it and itself, as if it were alone.

    One-hot labels make it a method for one N, `way`; the classes are not alike, but the places of a task are
    drawn. The order of the images is not drawn, as it is in the paper: first one image of each class, then
    the next. Embeddings are scaled to length √D, so that their entries are about as large as labels. The
    embedding, which begins as the identity, stands for the paper's convolutional network.

    Args:
        way: N, classes of a task, in training and afterwards.
        shot: images of each class that the temporal convolutions reach; attention sees any number.
        filters: width of each dense block.
    """

    unequal_shots = False

    def __init__(
        self,
        embedding_size: int | None = None,
        size: int | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
        way: int = 5,
        shot: int = 1,
        filters: int = 128,
    ) -> None:
        check_least(2, {"way": way})
        check_least(1, {"shot": shot, "filters": filters})
        self.way = self.only_way = way
        self.shot = shot
        self.filters = filters
        super().__init__(embedding_size, size, hidden, dropout)

    def make_weights(self, E: int) -> None:
        """Make the embedding, the blocks and the last layer."""
        super().make_weights(E)
        width, dilations = (self.size or E) + self.way, (self.way * self.shot).bit_length()
        layers: list[nn.Module] = []
        for place, (key_size, value_size) in enumerate(ATTENTION):
            layers.append(AttentionBlock(width, key_size, value_size))
            width += value_size
            if place < len(ATTENTION) - 1:
                for i in range(dilations):
                    layers.append(DenseBlock(width, self.filters, 2**i))
                    width += self.filters
        self.layers = nn.ModuleList(layers)
        self.head = nn.Linear(width, self.way)

    def blocks(self) -> list[AttentionBlock | DenseBlock]:
        """The layers before the last one, in order."""
        return cast(list[AttentionBlock | DenseBlock], list(self.layers))

    def classifier(self, support: Float[Tensor, "B N K E"], shots: Shots) -> Embedded:
        """What every layer keeps of the support."""
        _, N, K, _ = support.shape
        self.check_way(N)
        images = _scaled(self.embedding(support).transpose(1, 2).flatten(1, 2))
        labels = torch.eye(N, dtype=images.dtype, device=images.device).repeat(K, 1)
        x = torch.cat([images, labels.expand(len(images), -1, -1)], dim=-1)
        memories = []
        for layer in self.blocks():
            x, memory = layer.read(x)
            memories.append(memory)
        return Embedded(self.embedding, SnailClassifier(self, tuple(memories)))


def _scaled(images: Float[Tensor, "*images D"]) -> Float[Tensor, "*images D"]:
    """Embeddings of length √D."""
    return math.sqrt(images.shape[-1]) * F.normalize(images, dim=-1)
