"""The inner loop step by step: classifiers and latent codes, of all learners that have them."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.general_leo import MEANS, GeneralLEO
from leo_lightning.learners.learner import Classifier, Learner, LinearClassifier
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP
from leo_lightning.learners.parts.fast_weights import MLPClassifier
from leo_lightning.training.scoring import score


class Step(NamedTuple):
    """Where an inner step has led."""

    kind: str
    """`start`, or the kind of step."""
    classifier: Classifier


class Codes(NamedTuple):
    """Latent codes of evaluation: of each class, or of a task's function."""

    before: Float[Tensor, "B N H"]
    """z, the mean."""
    after: Float[Tensor, "B N H"]
    """z', adapted."""


def every_step(learner: Learner, support: Float[Tensor, "B N K E"]) -> list[Step]:
    """Classifiers before adaptation and after each step of it.

    Of a learner that does not show its steps, the stages that it names. With `test_samples`, LEO's are those
    of the mean code and weights.
    """
    if isinstance(learner, LEO):
        found = learner.every_step(support)
        weights = [*found.decoded, *found.weights[1:]]
        return _named([LinearClassifier(weight, found.bias) for weight in weights], learner)
    if isinstance(learner, GeneralLEO):
        found = learner.adaptation(support, MEANS)
        return _named(
            [learner.base.predictor(theta) for theta in [*found.decoded, *found.theta[1:]]], learner
        )
    if isinstance(learner, AdaptedMLP):
        with torch.autocast(support.device.type, enabled=False):
            start, *steps = map(MLPClassifier, learner.every_step(support))
        return [Step("start", start), *(Step("gradient", each) for each in steps)]
    # not the compiled method, which would be compiled anew for this number of tasks
    stages = type(learner).stages(learner, support)
    return [Step(name.replace("_", " "), each) for name, each in stages.items()]


def _named(classifiers: list[Classifier], learner: LEO | GeneralLEO) -> list[Step]:
    kinds = ["start", *["latent"] * learner.latent_steps, *["fine-tuning"] * learner.finetuning_steps]
    return [Step(kind, each) for kind, each in zip(kinds, classifiers, strict=True)]


def codes(learner: Learner, support: Float[Tensor, "B N K E"]) -> Codes | None:
    """The codes of a learner that has some and adapts them."""
    if isinstance(learner, LEO) and learner.latent_steps:
        found = learner.every_step(support)
        return Codes(found.code_mean, found.latents[-1].mean(2))
    if isinstance(learner, GeneralLEO) and learner.latent_steps:
        found = learner.adaptation(support, MEANS)
        return Codes(found.code_mean, found.latents[-1])
    return None


def measured(steps: list[Step], episode: Episode, values: bool) -> dict[str, Float64[Tensor, "B steps"]]:
    """What each step is worth on the queries, and on the support itself, by name.

    Args:
        steps: of these tasks.
        episode: the tasks.
        values: whether values are asked for, not classes.
    """
    classifiers = [step.classifier for step in steps]
    if values:
        return {
            "query_error": _errors(classifiers, episode.query),
            "support_error": _errors(classifiers, episode.support),
        }
    itself = Episode(episode.support, episode.support)
    queries, support = (
        [score({"final": each}, asked) for each in classifiers] for asked in (episode, itself)
    )
    return {
        "accuracy": torch.cat([each.accuracy for each in queries], dim=1),
        "support_accuracy": torch.cat([each.accuracy for each in support], dim=1),
        "query_loss": torch.stack([each.cross_entropy for each in queries], dim=1),
        "support_loss": torch.stack([each.cross_entropy for each in support], dim=1),
    }


def _errors(classifiers: list[Classifier], points: Float[Tensor, "B 1 M E"]) -> Float64[Tensor, "B steps"]:
    """Mean squared error of each task."""
    found = [
        (each(points)[..., 0] - points[..., -1]).double().square().flatten(1).mean(1) for each in classifiers
    ]
    return torch.stack(found, dim=1)
