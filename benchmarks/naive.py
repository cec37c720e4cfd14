"""The naive training step, unit of the benchmarks: the reference LEO with plain clipping and Adam."""

import inspect
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from leo_lightning.learners.leo import LEO
from leo_lightning.learners.reference.leo import ReferenceLEO


def reference_of(leo: LEO) -> ReferenceLEO:
    """The reference LEO with the hyperparameters of `leo`, none of whose variants is on."""
    return ReferenceLEO(**{name: getattr(leo, name) for name in inspect.signature(ReferenceLEO).parameters})


@torch.no_grad()
def clip_(parameters: Iterable[nn.Parameter], max_value: float = 0.1, max_norm: float = 0.1) -> None:
    """Clip every gradient by value, then by its own norm."""
    for parameter in parameters:
        assert parameter.grad is not None
        parameter.grad.clamp_(-max_value, max_value)
        norm = parameter.grad.norm()
        if norm > max_norm:
            parameter.grad.mul_(max_norm / norm)


def train_step(model: ReferenceLEO, optimizer: torch.optim.Optimizer, support: Tensor, query: Tensor) -> None:
    """One training step."""
    optimizer.zero_grad()
    model(support, query).loss.backward()
    clip_(model.parameters())
    optimizer.step()
