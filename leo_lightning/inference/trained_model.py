"""TrainedModel: all that a checkpoint holds of use after training."""

from pathlib import Path
from typing import NamedTuple

import torch

from leo_lightning.common.errors import InputError
from leo_lightning.common.yaml_files import check_config, load_yaml
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.importers.sources import sha256_of
from leo_lightning.data.new_classes import check_made_alike, check_size
from leo_lightning.data.normalization import FeatureRecord, Normalization
from leo_lightning.inference.adapted_classifier import SAMPLES, AdaptedClassifier
from leo_lightning.learners.learner import Learner
from leo_lightning.runs.folder import CONFIG, folder_of
from leo_lightning.training.checkpoint import read_checkpoint
from leo_lightning.training.meta_learner import MetaLearner


class TrainedModel(NamedTuple):
    """A learner for new classes, and what is known of its embeddings."""

    source: str
    """What messages call it: the checkpoint."""
    learner: Learner
    """In evaluation mode, on the CPU, in the precision of its training."""
    record: FeatureRecord
    sha256: str
    """Of the checkpoint."""

    @classmethod
    def load(cls, path: Path) -> "TrainedModel":
        """Read a checkpoint, without executing anything.

        One of an earlier release records no normalisation: it is then that of the config.yaml of its run.

        Raises:
            InputError: there is none, it is damaged, does not predict classes or lacks the normalisation.
        """
        checkpoint = read_checkpoint(path)
        model = MetaLearner.load_from_checkpoint(path)
        if any(weight.dtype == torch.float64 for weight in checkpoint["state_dict"].values()):
            model.double().load_state_dict(
                checkpoint["state_dict"]
            )  # as float32 they have lost half their digits
        learner = model.learner.eval()
        if learner.predicts != "classes":
            raise InputError(
                f"{path}: holds a {type(learner).__name__}, which predicts {learner.predicts}; name a "
                "checkpoint of a method for classes"
            )
        try:
            record = FeatureRecord.of(checkpoint, getattr(learner, "embedding_size", None))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        with path.open("rb") as file:
            return cls(str(path), learner, record or _record_of_run(path), sha256_of(file))

    def adapt(self, support: FeatureBank, samples: int = SAMPLES) -> AdaptedClassifier:
        """Learn new classes.

        Args:
            support: a few examples of each.
            samples: see `AdaptedClassifier`.

        Raises:
            InputError: the embeddings are not those of the model.
        """
        self.check_size(support)
        check_made_alike(support, self.record.provenance, "the features of the training")
        dtype = next((weight.dtype for weight in self.learner.parameters()), torch.float32)
        return AdaptedClassifier(self.learner, self.record.normalization, support, samples, dtype=dtype)

    def check_size(self, features: FeatureBank) -> None:
        """Check that embeddings may be those that the learner was trained on.

        Raises:
            InputError: they have more numbers, or fewer.
        """
        needed = getattr(self.learner, "embedding_size", None)
        if needed is None and self.record.normalization.mean is not None:
            needed = len(self.record.normalization.mean)
        if needed is not None:
            check_size(features.source, features.embedding_size, self.source, needed)


def _record_of_run(path: Path) -> FeatureRecord:
    """What the configuration beside a checkpoint of an earlier release says of its features."""
    folder = folder_of(path)
    if folder is None:
        raise InputError(
            f"{path}: records no normalisation, as checkpoints of earlier releases, and lies in no run "
            f"folder, whose {CONFIG} has it; copy it, too"
        )
    check_config(folder / CONFIG)
    content = load_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    data = content.get("data") if isinstance(content, dict) else None
    settings = data.get("init_args", data) if isinstance(data, dict) else None
    kind = settings.get("normalize", "l2") if isinstance(settings, dict) else None
    if kind not in ("none", "l2"):
        raise InputError(
            f"{path}: records no mean for data.normalize {kind!r:.20}, as checkpoints of earlier releases; "
            "resume its run for a step, and take its last.ckpt"
        )
    return FeatureRecord(Normalization(kind), {})
