"""LEOClassifier: classify new classes with scikit-learn's interface."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.common.threads import one_thread
from leo_lightning.data.bank import FeatureBank
from leo_lightning.inference.adapted_classifier import SAMPLES, Answer
from leo_lightning.inference.export import export
from leo_lightning.inference.pretrained import save_pretrained
from leo_lightning.inference.trained_model import TrainedModel


class LEOClassifier(ClassifierMixin, BaseEstimator):
    """Learn new classes from a few embeddings of each, with a trained LEO or another method for classes.

    Pass embeddings as they are stored: they are normalised like the features of the training.

        classifier = LEOClassifier("runs/leo/DATE/checkpoints/best.ckpt").fit(X, y)
        classifier.predict(X_new)

    Args:
        checkpoint: path of a best.ckpt or last.ckpt, or a folder that `save_pretrained` wrote.
        samples: S, classifiers to draw for `disagreement`.

    Attributes:
        classes_: labels of the classes, sorted.
        n_features_in_: E, size of an embedding.
        trained_: the learner of the checkpoint.
        adapted_: the adapted classifier, in torch.
    """

    def __init__(self, checkpoint: str | Path | None = None, samples: int = SAMPLES) -> None:
        self.checkpoint = checkpoint
        self.samples = samples

    @classmethod
    def from_checkpoint(cls, path: str | Path, samples: int = SAMPLES) -> "LEOClassifier":
        """An unfitted classifier; `fit` reads the checkpoint."""
        return cls(path, samples)

    @classmethod
    def from_pretrained(
        cls, name: str | Path, revision: str | None = None, samples: int = SAMPLES
    ) -> "LEOClassifier":
        """An unfitted classifier, from a folder that `save_pretrained` wrote or OWNER/NAME on the hub.

        Raises:
            InputError: there is none, or it is damaged.
        """
        folder = Path(name)
        if not folder.is_dir():
            from leo_lightning.inference.hub import fetch

            folder = fetch(str(name), revision)
        TrainedModel.load(folder)  # which says what is wrong with it
        return cls(folder, samples)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the trained learner, without the classes it was fitted to, for `from_pretrained`."""
        save_pretrained(self._trained(), Path(folder))

    def push_to_hub(self, name: str, private: bool | None = None) -> str:
        """Upload what `save_pretrained` writes to OWNER/NAME on the hub; return its address."""
        from leo_lightning.inference.hub import push

        return push(self._trained(), name, private)

    @one_thread()
    def fit(self, X: Any, y: Any) -> "LEOClassifier":
        """Learn classes, in place of earlier ones.

        Args:
            X: (n, E), embeddings.
            y: (n,), labels of any kind; classes may differ in their number of examples.

        Raises:
            InputError: the checkpoint cannot be read, or was trained on other embeddings.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        check_least(0, {"samples": self.samples})
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            only = self.classes_.tolist()[0]
            raise InputError(f"y holds one class only ({only!r:.99}); add examples of another")
        support = FeatureBank.from_arrays(X, numbers, source="X")
        self.trained_ = self._trained()
        self.adapted_ = self.trained_.adapt(support, self.samples)
        return self

    def predict(self, X: Any) -> ndarray:
        """The most probable class of each row of X (n, E)."""
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X: Any) -> Float64[ndarray, "n N"]:
        """Probability of each class, in the order of `classes_`, for the rows of X (n, E)."""
        return torch.cat([answer.probability for answer in self._answers(X)]).numpy()

    def entropy(self, X: Any) -> Float64[ndarray, " n"]:
        """Entropy of each row's probabilities, in nats: 0 if a class is certain, log N if all are equal."""
        return torch.cat([answer.entropy() for answer in self._answers(X)]).numpy()

    def disagreement(self, X: Any) -> Float64[ndarray, " n"]:
        """Share of classifiers drawn by the learner that predict another class than `predict`.

        Raises:
            InputError: the learner draws none.
        """
        answers = self._answers(X, disagreement=True)
        shares = [answer.disagreement for answer in answers if answer.disagreement is not None]
        if not shares:
            name = type(self.trained_.learner).__name__
            raise InputError(
                f"{name} draws no classifiers that could disagree; see `entropy`, or set samples"
            )
        return torch.cat(shares).numpy()

    def distance(self, X: Any) -> Float64[ndarray, " n"]:
        """Distance of each row to the nearest example, both normalised: large for other classes."""
        check_is_fitted(self)
        return self.adapted_.distance(self._rows(X)).numpy()

    def export(self, path: str | Path) -> None:
        """Write the classifier as .onnx or .safetensors; `leo_lightning.inference.export` has the format."""
        check_is_fitted(self)
        names = [str(name) for name in self.classes_.tolist()]
        export(self.adapted_, names, self.trained_, Path(path))

    def _trained(self) -> TrainedModel:
        if self.checkpoint is None:
            raise InputError("checkpoint is None: it must be the path of a best.ckpt or last.ckpt")
        return TrainedModel.load(Path(self.checkpoint))

    @one_thread()
    def _answers(self, X: Any, disagreement: bool = False) -> list[Answer]:
        check_is_fitted(self)
        return list(self.adapted_.answers(self._rows(X), disagreement))

    def _rows(self, X: Any) -> Float[torch.Tensor, "n E"]:
        X = validate_data(self, X, reset=False, dtype=np.float32)
        return torch.from_numpy(np.require(X, requirements="W"))
