"""AdaptedClassifier: a learner adapted to a few examples of new classes."""

from collections.abc import Iterator
from copy import copy
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from leo_lightning.common.errors import InputError
from leo_lightning.data.bank import FeatureBank
from leo_lightning.data.new_classes import queries_at_once
from leo_lightning.data.normalization import Normalization
from leo_lightning.learners.learner import Classifier, Learner, LinearClassifier, check_predictions
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.nearest_example import nearest_distance
from leo_lightning.learners.parts.sampled_classifier import SampledClassifier
from leo_lightning.learners.parts.unequal_shots import packed

SAMPLES = 20
"""S, classifiers to draw: their disagreement shows how certain the learner is of its classifier."""


class Answer(NamedTuple):
    """Predictions for M queries."""

    probability: Float64[Tensor, "M N"]
    disagreement: Float64[Tensor, " M"] | None
    """Share of the drawn classifiers that predict another class; None if none are drawn."""

    def entropy(self) -> Float64[Tensor, " M"]:
        """Entropy of the probabilities, in nats: 0 if a class is certain, log N if all are equally likely."""
        return torch.special.entr(self.probability).sum(-1)


class AdaptedClassifier:
    """A classifier of N new classes. It takes embeddings as they are stored and normalises them itself.

    It predicts as the learner is tested: without random numbers, or averaged over its `test_samples`.

    Args:
        learner: a trained learner in evaluation mode.
        normalization: normalisation of the embeddings in training.
        support: the examples; classes may differ in their number.
        samples: S, classifiers to draw.
        device: device of the learner.
        dtype: precision of the learner.

    Raises:
        InputError: the learner needs equally many examples of each class.
    """

    _code: Float[Tensor, "1 N two_H"] | None = None
    """LEO's code of the support, the same with and without samples."""

    def __init__(
        self,
        learner: Learner,
        normalization: Normalization,
        support: FeatureBank,
        samples: int = SAMPLES,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.learner = learner
        self.normalization = normalization
        self.support = support
        self.samples = samples
        self.device, self.dtype = device, dtype
        self.classifier = self._adapt(learner)

    @cached_property
    def sampled(self) -> list[LinearClassifier]:
        """The drawn classifiers, the same in every call; empty if the learner draws none."""
        twin = _with_samples(self.learner, self.samples)
        drawn = None if twin is None or not self.samples else self._adapt(twin)
        if not isinstance(drawn, SampledClassifier):
            return []
        return [LinearClassifier(weight, drawn.bias) for weight in drawn.weight.unbind(1)]

    @cached_property
    def _examples(self) -> tuple[Float[Tensor, "1 N K E"], Bool[Tensor, "1 N K"] | None]:
        """The support, normalised; see `_by_class`."""
        return _by_class(self._rows(self.support.embeddings), self.support.counts.tolist())

    @torch.no_grad()
    def answer(self, query: Float[Tensor, "M E"], disagreement: bool = False) -> Answer:
        """Classify some queries at once.

        Args:
            query: embeddings as they are stored.
            disagreement: whether to compare with the drawn classifiers.

        Raises:
            InputError: the probabilities are NaN.
        """
        rows = self._rows(query)[None]
        with torch.autocast(rows.device.type, enabled=False):
            probability = self.classifier(rows)[0].double().softmax(-1)
            check_predictions(probability)
            asked = self.sampled if disagreement else []
            others = [drawn(rows)[0].argmax(-1) != probability.argmax(-1) for drawn in asked]
        return Answer(probability, torch.stack(others).double().mean(0) if others else None)

    def answers(self, query: Float[Tensor, "n E"], disagreement: bool = False) -> Iterator[Answer]:
        """Classify any number of queries; see `answer`.

        They are taken in batches, but all at once by a transductive learner, whose answers depend on it.
        """
        at_once = len(query) if self.learner.transductive else queries_at_once(self.support)
        for rows in query.split(at_once):
            yield self.answer(rows, disagreement)

    @torch.no_grad()
    def distance(self, query: Float[Tensor, "M E"]) -> Float64[Tensor, " M"]:
        """Euclidean distance of each query to the nearest example, both normalised.

        Large for queries that are of none of the classes.
        """
        support, valid = self._examples
        parts = query.split(queries_at_once(self.support))
        distances = [nearest_distance(support, self._rows(rows)[None], valid)[0] for rows in parts]
        return torch.cat(distances).double()

    def linear(self) -> LinearClassifier:
        """The classifier as weights for normalised embeddings; of a sampling learner, the mean classifier.

        Raises:
            InputError: the classifier is not linear, or its weights are NaN.
        """
        classifier = self.classifier
        if isinstance(classifier, SampledClassifier) and (mean := _with_samples(self.learner, 0)) is not None:
            classifier = self._adapt(mean)
        if not isinstance(classifier, LinearClassifier):
            raise InputError(
                f"{type(self.learner).__name__} makes a classifier that is not linear in the embeddings, and "
                "only weights are exported; use it in Python, or take another method"
            )
        check_predictions(classifier.weight)
        return classifier

    @torch.no_grad()
    def _adapt(self, learner: Learner) -> Classifier:
        support, valid = self._examples
        if isinstance(learner, LEO):
            if self._code is None:
                learner.take_size(support.shape[3], support)
                self._code = learner.code(*packed(support, valid))
            return learner.stages(*packed(support, valid), self._code)["final"]
        if valid is None:
            return learner.adapt(support)
        return learner.adapt(support, valid)

    def _rows(self, embeddings: Float[Tensor, "n E"]) -> Float[Tensor, "n E"]:
        """Normalised embeddings, on the learner's device."""
        return self.normalization(embeddings.to(self.device)).to(self.dtype)


def _by_class(
    rows: Float[Tensor, "n E"], counts: list[int]
) -> tuple[Float[Tensor, "1 N K E"], Bool[Tensor, "1 N K"] | None]:
    """Rows sorted by class as the support of one task, and False where it is padding (None: nowhere)."""
    support = pad_sequence(list(rows.split(counts)), batch_first=True)[None]
    shots = torch.tensor(counts, device=rows.device)
    K = support.shape[2]
    if (shots == K).all():
        return support, None
    return support, (torch.arange(K, device=rows.device) < shots[:, None])[None]


def _with_samples(learner: Learner, samples: int) -> LEO | None:
    """The same learner and weights with other `test_samples`; None if it draws nothing."""
    if not isinstance(learner, LEO) or learner.deterministic:
        return None
    twin = copy(learner)
    twin.test_samples = samples
    vars(twin).pop("stages", None)  # if compiled, it belongs to the other learner
    return twin
