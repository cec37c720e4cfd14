"""AdaptedClassifier: what a learner makes of a few examples of new classes, ready to classify others."""

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
from leo_lightning.learners.learner import Classifier, Learner, LinearClassifier
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.sampled_classifier import SampledClassifier

SAMPLES = 20
"""S, classifiers that are drawn to see whether they agree."""


class Answer(NamedTuple):
    """What is said of M queries."""

    probability: Float64[Tensor, "M N"]
    disagreement: Float64[Tensor, " M"] | None
    """Share of the drawn classifiers that name another class; None if nothing is drawn."""

    def entropy(self) -> Float64[Tensor, " M"]:
        """Of the probabilities, in nats: 0 if a class is certain, log N if nothing is known."""
        return torch.special.entr(self.probability).sum(-1)


class AdaptedClassifier:
    """A learner that has seen the examples of N classes, and classifies embeddings as they are stored.

    Answers are those of the learner as it is tested: without random numbers, or averages over its
    `test_samples`. How sure it is of its classifier shows in others, drawn from its distribution.

    Args:
        learner: trained, in evaluation mode.
        normalization: that it was trained with.
        support: the examples; some classes may have more than others.
        samples: S, classifiers that are drawn.
        device: where the learner is.
        dtype: its precision.

    Raises:
        InputError: the learner needs as many examples of each class.
    """

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
        """The drawn classifiers, the same ones every time; none of a learner that draws nothing."""
        twin = _with_samples(self.learner, self.samples)
        drawn = None if twin is None or not self.samples else self._adapt(twin)
        if not isinstance(drawn, SampledClassifier):
            return []
        return [LinearClassifier(weight, drawn.bias) for weight in drawn.weight.unbind(1)]

    @torch.no_grad()
    def answer(self, query: Float[Tensor, "M E"], disagreement: bool = True) -> Answer:
        """Classify some queries at once.

        Args:
            query: embeddings as they are stored.
            disagreement: whether to ask the drawn classifiers, too.

        Raises:
            InputError: the answers are no numbers.
        """
        rows = self._rows(query)[None]
        with torch.autocast(rows.device.type, enabled=False):
            probability = self.classifier(rows)[0].double().softmax(-1)
            if not probability.isfinite().all():
                raise InputError(
                    "the answers are no numbers, since weights of this model are none; use another checkpoint"
                )
            asked = self.sampled if disagreement else []
            others = [each(rows)[0].argmax(-1) != probability.argmax(-1) for each in asked]
        return Answer(probability, torch.stack(others).double().mean(0) if others else None)

    def answers(self, query: Float[Tensor, "n E"], disagreement: bool = True) -> Iterator[Answer]:
        """Classify any number of queries, so many at once as need little memory. See `answer`."""
        for rows in query.split(queries_at_once(self.support)):
            yield self.answer(rows, disagreement)

    def linear(self) -> LinearClassifier:
        """The classifier as weights for normalised embeddings: that of the means, where others are drawn.

        Raises:
            InputError: it is not linear.
        """
        classifier = self.classifier
        if isinstance(classifier, SampledClassifier) and (mean := _with_samples(self.learner, 0)) is not None:
            classifier = self._adapt(mean)
        if not isinstance(classifier, LinearClassifier):
            raise InputError(
                f"{type(self.learner).__name__} makes a classifier that is not linear in the embeddings, and "
                "only weights are exported; use it in Python, or take another method"
            )
        return classifier

    @torch.no_grad()
    def _adapt(self, learner: Learner) -> Classifier:
        support, valid = _by_class(self._rows(self.support.embeddings), self.support.counts.tolist())
        if valid is None:
            return learner.adapt(support)
        return learner.adapt(support, valid)

    def _rows(self, embeddings: Float[Tensor, "n E"]) -> Float[Tensor, "n E"]:
        """Embeddings as the learner sees them."""
        return self.normalization(embeddings.to(self.device)).to(self.dtype)


def _by_class(
    rows: Float[Tensor, "n E"], counts: list[int]
) -> tuple[Float[Tensor, "1 N K E"], Bool[Tensor, "1 N K"] | None]:
    """Rows that are sorted by class as the support of one task, and where it is none but padding."""
    support = pad_sequence(list(rows.split(counts)), batch_first=True)[None]
    shots = torch.tensor(counts, device=rows.device)
    K = support.shape[2]
    if (shots == K).all():
        return support, None
    return support, (torch.arange(K, device=rows.device) < shots[:, None])[None]


def _with_samples(learner: Learner, samples: int) -> LEO | None:
    """The same learner with other `test_samples`, its weights shared; None if it draws nothing."""
    if not isinstance(learner, LEO) or learner.deterministic:
        return None
    twin = copy(learner)
    twin.test_samples = samples
    vars(twin).pop("stages", None)  # compiled, these would be the other's
    return twin
