"""Normalization: from embeddings as they are stored to what a learner sees; a checkpoint's record of it."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from leo_lightning.common.errors import InputError

Normalize = Literal["none", "l2", "center_l2"]
RECORD = "EpisodeDataModule"
"""The record's key in a checkpoint, by Lightning's convention: the name of the class that writes it."""


class Normalization(NamedTuple):
    """Nothing, scaling to length 1, or the same after a mean is subtracted."""

    kind: Normalize
    mean: Float[Tensor, " E"] | None = None
    """Of the training split, for center_l2; None otherwise."""

    def __call__(self, embeddings: Float[Tensor, "n E"]) -> Float[Tensor, "n E"]:
        """Rows as a learner sees them, float32."""
        rows = embeddings.float()
        if self.kind == "none":
            return rows
        if self.mean is not None:
            rows = rows - self.mean.to(rows.device)
        return F.normalize(rows, dim=-1)


class FeatureRecord(NamedTuple):
    """What a checkpoint says of its embeddings, so that it alone suffices to classify other images."""

    normalization: Normalization
    provenance: dict[str, str]
    """Of the features that it was trained on: the recipe by which images become embeddings."""

    def state(self) -> dict[str, Any]:
        """The record as plain values and a tensor, which reading executes nothing for."""
        kind, mean = self.normalization
        return {"normalize": str(kind), "mean": mean, "provenance": dict(self.provenance)}

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any], size: int | None) -> "FeatureRecord | None":
        """The record in a checkpoint; None in one of an earlier release.

        Args:
            checkpoint: what is in it.
            size: E of its learner; None for one that takes any.

        Raises:
            InputError: the record is damaged.
        """
        if RECORD not in checkpoint:
            return None
        state = checkpoint[RECORD] if isinstance(checkpoint[RECORD], dict) else {}
        kind, mean, provenance = (state.get(key) for key in ("normalize", "mean", "provenance"))
        if (
            not isinstance(kind, str)
            or kind not in get_args(Normalize)
            or (mean is not None) != (kind == "center_l2")
            or not (mean is None or _is_mean(mean, size))
            or not isinstance(provenance, dict)
            or not all(isinstance(text, str) for item in provenance.items() for text in item)
        ):
            raise InputError("the checkpoint's record of its features is damaged; use another checkpoint")
        return cls(Normalization(cast(Normalize, kind), mean), provenance)


def mean_of(embeddings: Float[Tensor, "n E"]) -> Float[Tensor, " E"]:
    """The mean embedding, summed in float64, a chunk at a time."""
    total = torch.zeros(embeddings.shape[1], dtype=torch.float64)
    for chunk in embeddings.split(65536):
        total += chunk.double().sum(0)
    return (total / len(embeddings)).float()


def _is_mean(mean: object, size: int | None) -> bool:
    return (
        isinstance(mean, Tensor)
        and mean.dtype == torch.float32
        and mean.dim() == 1
        and len(mean) == (size or len(mean))
        and bool(mean.isfinite().all())
    )
