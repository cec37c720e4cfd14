"""The ways to classify new classes: a trained model, and methods that need no training."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.normalization import Normalization
from leo_lightning.inference.adapted_classifier import AdaptedClassifier
from leo_lightning.inference.trained_model import TrainedModel
from leo_lightning.learners.bdcspn import BDCSPN
from leo_lightning.learners.centroid import NearestCentroid
from leo_lightning.learners.label_propagation import LabelPropagation
from leo_lightning.learners.laplacian_shot import LaplacianShot
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.linear_svm import LinearSVM
from leo_lightning.learners.logistic_regression import LogisticRegression
from leo_lightning.learners.pt_map import PTMAP
from leo_lightning.learners.tim import TIM

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

TRANSDUCTIVE: dict[str, Callable[[], Learner]] = {
    "bd-cspn": BDCSPN,
    "laplacian-shot": LaplacianShot,
    "tim": TIM,
    "label-propagation": LabelPropagation,
    "pt-map": PTMAP,
}
"""Methods without training that answer all queries together, by the name that `--transductive` takes.

Not transductive fine-tuning: without a mean to subtract, its queries tend to end in one class.
"""

TITLES = {
    "cl2n": "CL2N",
    "linear-svm": "linear SVM",
    "bd-cspn": "BD-CSPN",
    "laplacian-shot": "LaplacianShot",
    "tim": "TIM",
    "pt-map": "PT-MAP",
}
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
    return found | {name: _way(name) for name in UNTRAINED}


def transductive_way(name: str) -> Way:
    """One of `TRANSDUCTIVE`; embeddings are scaled to length 1."""
    return _way(name)


def _way(name: str) -> Way:
    return Way(name, TITLES.get(name, name.replace("-", " ")), _untrained(name))


def _untrained(name: str) -> Callable[[FeatureBank], AdaptedClassifier]:
    def fit(support: FeatureBank) -> AdaptedClassifier:
        normalization = Normalization("l2")
        if name == "cl2n":
            classes = support.embeddings.float().split(support.counts.tolist())
            normalization = Normalization(
                "center_l2", torch.stack([rows.mean(0) for rows in classes]).mean(0)
            )
        return AdaptedClassifier((UNTRAINED | TRANSDUCTIVE)[name]().eval(), normalization, support)

    return fit
