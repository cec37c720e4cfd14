"""The three networks of LEO for classification. No biases anywhere; Glorot-uniform weights."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn


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

    def forward(self, codes: Float[Tensor, "B N K H"]) -> Float[Tensor, "B N 2*H"]:
        """Mean and raw standard deviation (first and last H entries) of every class's latent code."""
        B, N, K, H = codes.shape
        first, second, last = cast(list[nn.Linear], list(self.layers))
        flat = codes.flatten(1, 2)
        left, right = flat @ first.weight[:, :H].T, flat @ first.weight[:, H:].T
        pairs = torch.relu(left[:, :, None] + right[:, None])  # (B, N·K, N·K, 2H)
        hidden = torch.relu(second(pairs))
        return last(hidden.mean(2).unflatten(1, (N, K)).mean(2))


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
