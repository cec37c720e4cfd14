"""The inner loop step by step: classifiers and latent codes of every learner that has them."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from leo_lightning.data.episode import Episode
from leo_lightning.learners.general_leo import GeneralLEO
from leo_lightning.learners.learner import Classifier, Learner, LinearClassifier
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP
from leo_lightning.learners.parts.fast_weights import MLPClassifier
from leo_lightning.learners.parts.noise import NO_NOISE
from leo_lightning.training.scoring import score


class Step(NamedTuple):
    """The classifier after an inner step."""

    kind: str  # `start` before adaptation, then the kind of step
    classifier: Classifier


class Codes(NamedTuple):
    """Latent codes in evaluation: a code per class, or one for the function of a task."""

    before: Float[Tensor, "B N H"]  # z, the mean
    after: Float[Tensor, "B N H"]  # z', adapted


def every_step(learner: Learner, support: Float[Tensor, "B N K E"]) -> list[Step]:
    """Classifiers before adaptation and after each of its steps.

    For a learner that does not expose its steps, the stages that it names. With `test_samples`, LEO's steps
    are those of the mean code and the mean weights.
    """
    if isinstance(learner, LEO):
        adaptation = learner.every_step(support)
        weights = [*adaptation.decoded, *adaptation.weights[1:]]
        return _named([LinearClassifier(weight, adaptation.bias) for weight in weights], learner)
    if isinstance(learner, GeneralLEO):
        adaptation = learner.adaptation(support, NO_NOISE)
        thetas = [*adaptation.decoded, *adaptation.weights[1:]]
        return _named([learner.base.predictor(theta) for theta in thetas], learner)
    if isinstance(learner, AdaptedMLP):
        with torch.autocast(support.device.type, enabled=False):
            start, *steps = map(MLPClassifier, learner.every_step(support))
        return [Step("start", start), *(Step("gradient", step) for step in steps)]
    # the uncompiled method: the compiled one would be compiled again for this number of tasks
    stages = type(learner).stages(learner, support)
    return [Step(name.replace("_", " "), classifier) for name, classifier in stages.items()]


def _named(classifiers: list[Classifier], learner: LEO | GeneralLEO) -> list[Step]:
    kinds = ["start", *["latent"] * learner.latent_steps, *["fine-tuning"] * learner.finetuning_steps]
    return [Step(kind, classifier) for kind, classifier in zip(kinds, classifiers, strict=True)]


def codes(learner: Learner, support: Float[Tensor, "B N K E"]) -> Codes | None:
    """The codes before and after adaptation; None if the learner adapts no codes."""
    if isinstance(learner, LEO) and learner.latent_steps:
        adaptation = learner.every_step(support)
        return Codes(adaptation.code_mean, adaptation.latents[-1].mean(2))
    if isinstance(learner, GeneralLEO) and learner.latent_steps:
        adaptation = learner.adaptation(support, NO_NOISE)
        return Codes(adaptation.code_mean, adaptation.latents[-1])
    return None


def measured(steps: list[Step], episode: Episode, values: bool) -> dict[str, Float64[Tensor, "B steps"]]:
    """Scores of each step on the queries and on the support itself, by name.

    Args:
        steps: `every_step` of these tasks.
        episode: the tasks.
        values: whether the learner predicts values in place of classes.
    """
    classifiers = [step.classifier for step in steps]
    if values:
        return {
            "query_error": _errors(classifiers, episode.query),
            "support_error": _errors(classifiers, episode.support),
        }
    measures = {}
    for name, asked in (("", episode), ("support_", Episode(episode.support, episode.support))):
        scores = [score({"final": classifier}, asked) for classifier in classifiers]
        measures[f"{name}accuracy"] = torch.cat([step.accuracy for step in scores], dim=1)
        measures[f"{name or 'query_'}loss"] = torch.stack([step.cross_entropy for step in scores], dim=1)
    return measures


def _errors(classifiers: list[Classifier], points: Float[Tensor, "B 1 M E"]) -> Float64[Tensor, "B steps"]:
    """Mean squared error of each task."""
    errors = [classifier(points)[..., 0] - points[..., -1] for classifier in classifiers]
    return torch.stack([error.double().square().flatten(1).mean(1) for error in errors], dim=1)
