"""Gradient clipping as the authors do it: each tensor by itself, first by value, then by norm."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def gradient_norm(gradients: Sequence[Float[Tensor, "..."]]) -> Float[Tensor, ""]:
    """Norm over all tensors; not finite if any entry is not finite."""
    return torch.stack(torch._foreach_norm(list(gradients))).norm()


@torch.no_grad()
def clip_(gradients: Sequence[Float[Tensor, "..."]], max_value: float, max_norm: float) -> None:
    """Clip each tensor's entries to ±max_value, then the tensor's own norm to max_norm, in place.

    Not the global norm: google-deepmind/leo@de9a0c2, runner.py, `clip_gradients`.
    """
    gradients = list(gradients)
    torch._foreach_clamp_min_(gradients, -max_value)
    torch._foreach_clamp_max_(gradients, max_value)
    norms = torch._foreach_norm(gradients)
    torch._foreach_clamp_min_(norms, max_norm)
    torch._foreach_div_(norms, max_norm)
    torch._foreach_div_(gradients, norms)
