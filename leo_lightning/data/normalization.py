"""Normalization: from stored embeddings to the rows that a learner sees."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Normalize = Literal["none", "l2", "center_l2"]


class Normalization(NamedTuple):
    """No change, scaling to length 1, or scaling after a mean is subtracted."""

    kind: Normalize
    mean: Float[Tensor, " E"] | None = None
    """Mean of the training split, for center_l2; None otherwise."""

    def __call__(self, embeddings: Float[Tensor, "n E"]) -> Float[Tensor, "n E"]:
        """Return the rows as a learner sees them, float32."""
        rows = embeddings.float()
        if self.kind == "none":
            return rows
        if self.mean is not None:
            rows = rows - self.mean.to(rows.device)
        return F.normalize(rows, dim=-1)


def mean_of(embeddings: Float[Tensor, "n E"]) -> Float[Tensor, " E"]:
    """Return the mean embedding, summed in float64, a chunk at a time."""
    total = torch.zeros(embeddings.shape[1], dtype=torch.float64)
    for chunk in embeddings.split(65536):
        total += chunk.double().sum(0)
    return (total / len(embeddings)).float()
