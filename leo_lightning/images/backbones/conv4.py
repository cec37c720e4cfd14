"""Conv-4: the small network of few-shot learning (Vinyals et al., Matching Networks, NeurIPS 2016)."""

from itertools import pairwise

from torch import Tensor, nn


class Conv4(nn.Sequential):
    """`CNN4Backbone` of learn2learn 0.2.0 without its last reshape: the same names, weights and draws.

    Args:
        channels: of an image.
        hidden_size: channels of every block.
        layers: number of blocks.
        max_pool: whether pooling makes the maps smaller; otherwise the convolutions do, by their stride.
        max_pool_factor: of the 2 by which a block divides the sides of a map; None: 4 // layers.
    """

    def __init__(
        self,
        channels: int = 3,
        hidden_size: int = 64,
        layers: int = 4,
        max_pool: bool = True,
        max_pool_factor: float | None = None,
    ) -> None:
        factor = 4 // layers if max_pool_factor is None else max_pool_factor
        sizes = pairwise([channels] + [hidden_size] * layers)
        super().__init__(*(_Block(*size, int(2 * factor), max_pool) for size in sizes))


class _Block(nn.Module):
    def __init__(self, channels: int, hidden_size: int, stride: int, max_pool: bool) -> None:
        super().__init__()
        self.max_pool = nn.MaxPool2d(stride) if max_pool else nn.Identity()
        self.normalize = nn.BatchNorm2d(hidden_size)
        nn.init.uniform_(self.normalize.weight)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(channels, hidden_size, 3, 1 if max_pool else stride, padding=1)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Tensor) -> Tensor:
        return self.max_pool(self.relu(self.normalize(self.conv(x))))
