"""Held-out examples, answered by a classifier that has not seen them: estimates of accuracy, and of scores.

Leave-one-out would take one example away from one class only, whose classifier then is weaker than the
others: it answers its own example wrongly more often than a new one. So one example of every class is left
out at once. Classes with one example keep it and are not asked.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from numpy import ndarray
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.sampler import sample_rows
from leo_lightning.inference.adapted_classifier import AdaptedClassifier

FOLDS, FEWEST, ROWS = 10, 3, 10_000
"""Classifiers to fit to a support: at most 10, and 3 where it has thousands of examples, all of them together
in about 10,000 rows. A class with more examples than folds leaves out several at once."""
TASKS = 100
"""Tasks of other classes."""


class HeldOut(NamedTuple):
    """Answers to the examples that could be held out."""

    label: Int64[Tensor, " m"]
    """Class of each example."""
    probability: Float64[Tensor, "m N"]
    distance: Float64[Tensor, " m"]
    """To the nearest example; see `AdaptedClassifier.distance`."""

    @property
    def entropy(self) -> Float64[Tensor, " m"]:
        """Entropy of the probabilities, in nats."""
        return torch.special.entr(self.probability).sum(-1)

    @property
    def right(self) -> Float64[Tensor, " m"]:
        """1 for an example that is answered correctly, 0 for another."""
        return (self.probability.argmax(1) == self.label).double()

    def beats(self, other: "HeldOut") -> bool:
        """Whether the same examples are answered better by more than a standard error of the difference."""
        gain = self.right - other.right
        # one example more is a standard error exactly: not enough
        return len(gain) > 1 and float(gain.mean()) > 1.001 * float(gain.std()) / len(gain) ** 0.5


def can_hold_out(support: FeatureBank) -> bool:
    """Whether a class has two examples, so that one can be held out."""
    return bool((support.counts > 1).any())


def held_out(support: FeatureBank, fit: Callable[[FeatureBank], AdaptedClassifier]) -> HeldOut:
    """Answer every example that can be held out.

    Args:
        support: in which a class has two examples at least.
        fit: makes a classifier of the rest of the support.

    Raises:
        InputError: the method cannot be fitted to the rest, such as classes of unequal numbers of examples.
    """
    parts = []
    for fold in folds(support):
        kept, asked = (torch.from_numpy(np.flatnonzero(rows)) for rows in (~fold, fold))
        rest = FeatureBank.from_arrays(
            support.embeddings[kept], support.labels[kept], source=f"a part of {support.source}"
        )
        parts.append(_answered(fit(rest), support.embeddings[asked], support.labels[asked]))
    return _together(parts)


def other_tasks(
    features: FeatureBank, fit: Callable[[FeatureBank], AdaptedClassifier], way: int, shot: int
) -> HeldOut:
    """Answer one query of each class in tasks of other classes, such as the validation classes of a training.

    Args:
        features: of the other classes.
        fit: makes a classifier of a support.
        way: N; fewer if `features` has fewer classes with enough images.
        shot: K.

    Raises:
        InputError: fewer than two classes have K + 1 images.
    """
    enough = np.flatnonzero(features.counts > shot)
    if len(enough) < 2:
        raise InputError(
            f"{features.source}: calibration needs two classes with {shot + 1} images, one more than the "
            "support has of a class; add images"
        )
    offsets, counts = features.offsets[enough], features.counts[enough]
    rows = sample_rows(range(TASKS), 0, "val", offsets, counts, min(way, len(enough)), shot, 1)
    parts = []
    for support, query in zip(rows.support, rows.query, strict=True):
        labels = torch.arange(len(support))
        bank = FeatureBank.from_arrays(
            features.embeddings[support.flatten()], labels.repeat_interleave(shot), source=features.source
        )
        parts.append(_answered(fit(bank), features.embeddings[query.flatten()], labels))
    return _together(parts)


def _answered(
    classifier: AdaptedClassifier, rows: Float[Tensor, "m E"], labels: Int64[Tensor, " m"]
) -> HeldOut:
    if classifier.learner.transductive:
        raise InputError(
            f"{type(classifier.learner).__name__} is transductive, and sees the queries together: held-out "
            "examples say nothing about its answers to them; use another method"
        )
    answers = classifier.answers(rows)
    return HeldOut(labels, torch.cat([answer.probability for answer in answers]), classifier.distance(rows))


def _together(parts: list[HeldOut]) -> HeldOut:
    return HeldOut(*(torch.cat(column) for column in zip(*parts, strict=True)))


def folds(support: FeatureBank) -> list[Bool[ndarray, " n"]]:
    """Examples to hold out together: one of each class, or the class's share; each comes once."""
    count = min(int(support.counts.max()), FOLDS, max(FEWEST, ROWS // len(support)))
    place = np.arange(len(support)) - support.offsets[support.labels.numpy()]
    alone = support.counts[support.labels.numpy()] == 1
    chosen = [(place % count == fold) & ~alone for fold in range(count)]
    return [fold for fold in chosen if fold.any()]
