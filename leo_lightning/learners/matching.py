"""Matching Networks: attention over the support images.

Vinyals, Blundell, Lillicrap, Kavukcuoglu, Wierstra: Matching Networks for One Shot Learning. NeurIPS 2016,
arXiv:1606.04080.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from leo_lightning.common.errors import InputError, check_positive
from leo_lightning.learners.parts.metric_learner import Embedded, MetricLearner
from leo_lightning.learners.parts.unequal_shots import Shots, images_first, present_images

PROCESSING_STEPS = 5
"""Reads of the support by each query."""


class FullContext(nn.Module):
    """Full context embeddings: images are embedded in view of the whole support set S (Appendix A)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.support_lstm = nn.LSTM(size, size, batch_first=True, bidirectional=True)
        self.query_lstm = nn.LSTMCell(2 * size, size)

    def support(
        self, images: Float[Tensor, "B N K D"], valid: Bool[Tensor, "B M"] | None = None
    ) -> Float[Tensor, "B N K D"]:
        """g(x, S) from g'(x) (A.2): a bidirectional LSTM over the support, both outputs added to its input.

        It reads class by class, so that a class's place has an influence; the places of a task are drawn.
        """
        if valid is None:
            outputs, _ = self.support_lstm(images.flatten(1, 2))
        else:
            order = images_first(valid)[..., None]
            sequence = images.flatten(1, 2).take_along_dim(order, 1)
            read = pack_padded_sequence(sequence, valid.sum(1).cpu(), batch_first=True, enforce_sorted=False)
            outputs, _ = pad_packed_sequence(
                self.support_lstm(read)[0], batch_first=True, total_length=valid.shape[1]
            )
            outputs = outputs.take_along_dim(order.argsort(dim=1), 1)
        forth, back = outputs.unflatten(1, images.shape[1:3]).chunk(2, dim=-1)
        return images + forth + back

    def query(
        self,
        images: Float[Tensor, "#B images D"],
        support: Float[Tensor, "B M D"],
        valid: Bool[Tensor, "B M"] | None,
    ) -> Float[Tensor, "B images D"]:
        """f(x, S) from f'(x) and all g(x, S) (A.1): at each step an LSTM reads the support.

        The paper does not say where h begins. Here ĥ₀ is 0, and so h₀, with its connection past the LSTM,
        is f'(x): the first read is by the query's own embedding.
        """
        images = images.expand(len(support), -1, -1)
        hidden, cell = images, torch.zeros_like(images).flatten(0, 1)
        for _ in range(PROCESSING_STEPS):
            read = _masked(hidden @ support.transpose(1, 2), valid).softmax(-1) @ support
            # the paper's LSTM takes x as its input and [h, r] as its state: the same sums as for [x, r] and h
            seen = torch.cat([images, read], dim=-1).flatten(0, 1)
            step, cell = self.query_lstm(seen, (hidden.flatten(0, 1), cell))
            hidden = images + step.unflatten(0, images.shape[:2])
        return hidden


def _masked(similarity: Float[Tensor, "B images M"], valid: Bool[Tensor, "B M"] | None) -> Tensor:
    """Similarities without attention to padding."""
    return similarity if valid is None else similarity.masked_fill(~valid[:, None], -torch.inf)


class AttentionClassifier(NamedTuple):
    """Attention of embedded queries to embedded support images."""

    support: Float[Tensor, "B N K D"]
    """g(x, S)."""
    temperature: Float[Tensor, ""]
    context: FullContext | None
    valid: Bool[Tensor, "B M"] | None = None
    """False where `support`, class by class, is padding; None: nowhere."""

    def __call__(self, query: Float[Tensor, "#B *images D"]) -> Float[Tensor, "B *images N"]:
        """Logarithm of the attention to a class's images, up to a constant."""
        images, support = query.flatten(1, -2), self.support.flatten(1, 2)
        if self.context is not None:
            images = self.context.query(images, support, self.valid)
        support = F.normalize(support, dim=-1) / self.temperature
        similarity = _masked(F.normalize(images, dim=-1) @ support.transpose(1, 2), self.valid)
        logits = similarity.unflatten(-1, self.support.shape[1:3]).logsumexp(-1)
        return logits.unflatten(1, query.shape[1:-1])

    def select(self, tasks: Int64[Tensor, " P"]) -> "AttentionClassifier":
        """The classifiers of some of the tasks."""
        valid = None if self.valid is None else self.valid[tasks]
        return self._replace(support=self.support[tasks], valid=valid)


class MatchingNetworks(MetricLearner):
    """Classify by attention over the support images (Eq. 1 and 2).

    p(n | x) is the sum, over the support images of class n, of the softmax over all N·K of cos(f(x), g(xᵢ))
    / τ. The paper has τ = 1, a nearly flat softmax; here log τ is learned. f and g share the embedding; with
    full context they differ after it.

    Args:
        temperature: initial value of τ, by which cosines are divided before the softmax; it is learned.
        full_context: let embeddings depend on the whole support (appendix A); answers then depend a little
            on the order of classes and images.
    """

    starts = ("temperature",)

    def __init__(
        self,
        embedding_size: int | None = None,
        size: int | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
        temperature: float = 0.1,
        full_context: bool = False,
    ) -> None:
        check_positive({"temperature": temperature})
        self.temperature = temperature
        self.full_context = full_context
        super().__init__(embedding_size, size, hidden, dropout)

    def make_weights(self, E: int) -> None:
        """Make the embedding, the temperature and the context."""
        super().make_weights(E)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(self.temperature)))
        self.context = FullContext(self.size or E) if self.full_context else None

    def check_compilable(self) -> None:
        """Refuse full context: torch.compile does not support LSTMs."""
        if self.full_context:
            raise InputError("model.compile cannot compile full_context; leave one of the two out")

    def classifier(self, support: Float[Tensor, "B N K E"], shots: Shots) -> Embedded:
        """Attention to the embedded support."""
        embedded = self.embedding(support)
        valid = present_images(support, shots)
        if self.context is not None:
            embedded = self.context.support(embedded, valid)
        attention = AttentionClassifier(embedded, self.log_temperature.exp(), self.context, valid)
        return Embedded(self.embedding, attention)

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """The learned temperature."""
        return {"temperature": self.log_temperature.exp()}
