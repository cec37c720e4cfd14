"""TrainedModel: the learner of a checkpoint, and how its embeddings were made."""

from pathlib import Path
from typing import NamedTuple

import torch

from leo_lightning.common.errors import InputError
from leo_lightning.common.files import checksum_of
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.feature_record import FeatureRecord
from leo_lightning.data.new_classes import check_made_alike, check_size
from leo_lightning.inference.adapted_classifier import SAMPLES, AdaptedClassifier
from leo_lightning.inference.pretrained import read_model
from leo_lightning.learners.learner import Learner
from leo_lightning.training.checkpoint import load_learner


class TrainedModel(NamedTuple):
    """A learner that is ready for new classes, with the record of the features that it was trained on."""

    path: Path
    """The checkpoint, or the weights of a folder that `save_pretrained` wrote."""
    learner: Learner
    """In evaluation mode, on the CPU, in the precision of its training."""
    record: FeatureRecord

    @property
    def sha256(self) -> str:
        """Digest of that file."""
        with self.path.open("rb") as file:
            return checksum_of(file)

    @classmethod
    def load(cls, path: Path) -> "TrainedModel":
        """Read a checkpoint, or a folder that `save_pretrained` wrote, without executing anything.

        Raises:
            InputError: it is missing, damaged, or predicts values rather than classes.
        """
        path, checkpoint = read_model(path)
        learner = load_learner(checkpoint, path)
        if learner.predicts != "classes":
            raise InputError(
                f"{path}: holds a {type(learner).__name__}, which predicts {learner.predicts}; name a "
                "checkpoint of a method for classes"
            )
        try:
            record = FeatureRecord.of(checkpoint, getattr(learner, "embedding_size", None))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        if record is None:
            raise InputError(
                f"{path}: records no normalisation of its features; resume its run for a step, and use the "
                "new last.ckpt"
            )
        return cls(path, learner, record)

    def adapt(self, support: FeatureBank, samples: int = SAMPLES) -> AdaptedClassifier:
        """Learn new classes.

        Args:
            support: a few examples of each class.
            samples: classifiers to draw for `Answer.disagreement`.

        Raises:
            InputError: the embeddings differ in size or origin from the features of the training.
        """
        self.check_size(support)
        check_made_alike(support, self.record.provenance, "the features of the training")
        dtype = next((weight.dtype for weight in self.learner.parameters()), torch.float32)
        return AdaptedClassifier(self.learner, self.record.normalization, support, samples, dtype=dtype)

    def check_size(self, features: FeatureBank) -> None:
        """Check that embeddings have the size that the learner was trained on.

        Raises:
            InputError: names both sizes.
        """
        needed = getattr(self.learner, "embedding_size", None)
        if needed is None and self.record.normalization.mean is not None:
            needed = len(self.record.normalization.mean)
        if needed is not None:
            check_size(features.source, features.embedding_size, str(self.path), needed)
