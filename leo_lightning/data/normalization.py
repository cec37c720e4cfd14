"""Normalization: from stored embeddings to the rows that a learner sees; a checkpoint's record of it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from leo_lightning.common.errors import InputError

Normalize = Literal["none", "l2", "center_l2"]
RECORD = "EpisodeDataModule"
"""The record's key in a checkpoint, by Lightning's convention: the name of the class that writes it."""


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


class FeatureRecord(NamedTuple):
    """A checkpoint's record of its embeddings, so that it alone suffices to classify other images."""

    normalization: Normalization
    provenance: dict[str, str]
    """Origin of the features of the training: the recipe by which images become embeddings."""

    def state(self) -> dict[str, Any]:
        """Return the record as plain values and a tensor, which can be read without executing anything."""
        kind, mean = self.normalization
        return {"normalize": str(kind), "mean": mean, "provenance": dict(self.provenance)}

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any], size: int | None) -> "FeatureRecord | None":
        """Return the record in a checkpoint, None if an earlier release wrote it; `size` is E of its learner.

        Raises:
            InputError: the record is damaged.
        """
        if RECORD not in checkpoint:
            return None
        state = checkpoint[RECORD]
        try:
            kind, mean, provenance = state["normalize"], state["mean"], state["provenance"]
            good = kind in get_args(Normalize) and (mean is not None) == (kind == "center_l2")
            good = good and all(isinstance(text, str) for item in provenance.items() for text in item)
            if mean is not None:
                good = good and mean.dtype == torch.float32 and mean.shape == (size or len(mean),)
                good = good and bool(mean.isfinite().all())
        except (AttributeError, KeyError, TypeError):
            good = False
        if not good:
            raise InputError("the checkpoint's record of its features is damaged; use another checkpoint")
        return cls(Normalization(kind, mean), provenance)


def mean_of(embeddings: Float[Tensor, "n E"]) -> Float[Tensor, " E"]:
    """Return the mean embedding, summed in float64, a chunk at a time."""
    total = torch.zeros(embeddings.shape[1], dtype=torch.float64)
    for chunk in embeddings.split(65536):
        total += chunk.double().sum(0)
    return (total / len(embeddings)).float()
