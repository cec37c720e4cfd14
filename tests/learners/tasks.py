"""Episodes for the tests of learners."""

import torch
from torch import nn

from leo_lightning.data.episode import Episode


def episode_of(
    N: int = 3, K: int = 2, Q: int = 4, E: int = 6, B: int = 2, seed: int = 0, spread: float = 0.7
) -> Episode:
    """Overlapping classes of images of length 1, in float64."""
    generator = torch.Generator().manual_seed(seed)

    def images(count: int) -> torch.Tensor:
        noise = torch.randn(B, N, count, E, generator=generator, dtype=torch.float64)
        return nn.functional.normalize(centres + spread * noise, dim=-1)

    centres = torch.randn(B, N, 1, E, generator=generator, dtype=torch.float64)
    return Episode(images(K), images(Q))


def moved(learner: nn.Module, seed: int = 0, by: float = 0.3) -> nn.Module:
    """The learner in float64, with all of its parameters moved: no zeros, no identity."""
    generator = torch.Generator().manual_seed(seed)
    learner.double()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return learner
