"""A perceptron with biases: the encoder and the decoder of `GeneralLEO`."""

import itertools
from collections.abc import Sequence
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn


class Perceptron(nn.Module):
    """Linear layers with ReLU between them. Biases begin at zero."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        for layer in self.linears():
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def linears(self) -> list[nn.Linear]:
        """The layers, first to last."""
        return cast(list[nn.Linear], list(self.layers))

    def forward(self, inputs: Float[Tensor, "*rows _inputs"]) -> Float[Tensor, "*rows _outputs"]:
        """The outputs."""
        *hidden, last = self.linears()
        for layer in hidden:
            inputs = layer(inputs).relu()
        return last(inputs)
