"""The ways to classify new classes: a trained model, and methods that need no training."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.normalization import Normalization
from leo_lightning.inference.adapted_classifier import AdaptedClassifier
from leo_lightning.inference.trained_model import TrainedModel
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.linear_svm import LinearSVM
from leo_lightning.learners.logistic_regression import LogisticRegression

TRAINED = "trained"
UNTRAINED: dict[str, Callable[[], Learner]] = {
    "logistic-regression": partial(LogisticRegression, C=3.0),
    "cl2n": NearestCentroid,
    "nearest-centroid": NearestCentroid,
    "linear-svm": LinearSVM,
}
"""Methods without training, in order of preference, by the name that `--method` takes.

C = 3 lies between scikit-learn's 1, which is better where classes differ in their number of examples, and
10, which is better where there are many.
"""

TITLES = {"cl2n": "CL2N", "linear-svm": "linear SVM"}
"""Titles that are more than the name."""


class Way(NamedTuple):
    """A method, ready to learn new classes from a support."""

    name: str
    """The name that `--method` takes."""
    title: str
    """Its name for people."""
    fit: Callable[[FeatureBank], AdaptedClassifier]


def ways(trained: TrainedModel | None) -> dict[str, Way]:
    """All ways by name: the trained model first, if there is one.

    Embeddings are scaled to length 1. `cl2n` first subtracts the mean of the support, each class counted
    alike: without a training there is no other mean.
    """
    found = {}
    if trained is not None:
        found[TRAINED] = Way(TRAINED, type(trained.learner).__name__, trained.adapt)
    return found | {
        name: Way(name, TITLES.get(name, name.replace("-", " ")), _untrained(name)) for name in UNTRAINED
    }


def _untrained(name: str) -> Callable[[FeatureBank], AdaptedClassifier]:
    def fit(support: FeatureBank) -> AdaptedClassifier:
        normalization = Normalization("l2")
        if name == "cl2n":
            classes = support.embeddings.float().split(support.counts.tolist())
            normalization = Normalization(
                "center_l2", torch.stack([rows.mean(0) for rows in classes]).mean(0)
            )
        return AdaptedClassifier(UNTRAINED[name]().eval(), normalization, support)

    return fit
