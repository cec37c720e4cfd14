"""FeatureRecord: a checkpoint's record of the embeddings that it was trained on."""

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import torch

from leo_lightning.common.errors import InputError, without_controls
from leo_lightning.data.bank import FeatureBank, listed
from leo_lightning.data.normalization import Normalization, Normalize

RECORD = "EpisodeDataModule"
"""The record's key in a checkpoint, by Lightning's convention: the name of the class that writes it."""
_OF_A_FILE = {"split", "source", "source_sha256"}
"""Entries of a provenance that differ from split to split."""


class FeatureRecord(NamedTuple):
    """How the embeddings of a training were made, so that the checkpoint alone suffices to use others."""

    normalization: Normalization
    provenance: dict[str, str]
    """Origin of the training features: the recipe by which images become embeddings."""
    fingerprints: dict[str, str]
    """`FeatureBank.fingerprint` of each split beside them; empty in checkpoints of earlier releases."""
    classes: tuple[str, ...]
    """Names of the classes that were trained on; empty in checkpoints of earlier releases."""

    def state(self) -> dict[str, Any]:
        """Return the record as plain values and a tensor, which can be read without executing anything."""
        kind, mean = self.normalization
        return {
            "normalize": str(kind),
            "mean": mean,
            "provenance": dict(self.provenance),
            "fingerprints": dict(self.fingerprints),
            "classes": list(self.classes),
        }

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
            fingerprints, classes = state.get("fingerprints", {}), state.get("classes", [])
            good = kind in get_args(Normalize) and (mean is not None) == (kind == "center_l2")
            texts = [*provenance.items(), *fingerprints.items(), classes]
            good = good and all(isinstance(text, str) for item in texts for text in item)
            if mean is not None:
                good = good and mean.dtype == torch.float32 and mean.shape == (size or len(mean),)
                good = good and bool(mean.isfinite().all())
        except (AttributeError, KeyError, TypeError):
            good = False
        if not good:
            raise InputError("the checkpoint's record of its features is damaged; use another checkpoint")
        names = {without_controls(key): without_controls(text) for key, text in provenance.items()}
        return cls(Normalization(kind, mean), names, fingerprints, tuple(map(without_controls, classes)))

    def notes(self, split: str, features: FeatureBank, normalize: Normalize) -> list[str]:
        """Return lines about what an evaluation of a split should not be mistaken for."""
        notes = [self._origin(split, features), self._shared(split, features)]
        if normalize != self.normalization.kind:
            notes.append(f"normalize is {normalize}, and was {self.normalization.kind} in training")
        return [note for note in notes if note]

    def _origin(self, split: str, features: FeatureBank) -> str:
        recorded = self.fingerprints.get(split)
        changes = [
            f"{key} {before} → {features.provenance[key]}"
            if len(before + features.provenance[key]) < 80
            else f"another {key}"
            for key, before in self.provenance.items()
            if key not in _OF_A_FILE and features.provenance.get(key, before) != before
        ]
        if recorded == features.fingerprint or (recorded is None and not changes):
            return ""
        details = f" ({', '.join(changes)})" if changes else ""
        return f"{features.source}: these features differ from the ones used in training{details}"

    def _shared(self, split: str, features: FeatureBank) -> str:
        """Name classes that were trained on; numbers as names mean nothing across data sets."""
        trained_on = {name for name in self.classes if not name.isdecimal()}
        shared = [name for name in features.class_names if name in trained_on] if split != "train" else []
        if not shared:
            return ""
        return (
            f"{features.source}: {len(shared)} of {features.num_classes} classes have the names of training "
            f"classes ({listed(shared)}), so their scores may say nothing about new classes"
        )
