"""Learner: the one interface that all methods share."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode
from leo_lightning.learners.parts.unequal_shots import packed


class Outcome(NamedTuple):
    """What a learner makes of a meta-batch."""

    loss: Float[Tensor, ""]
    """The outer loss, mean over tasks."""
    terms: dict[str, Float[Tensor, ""]]
    """The parts of the loss, as they enter it: they add up to `loss`."""
    logits: Float[Tensor, "B N Q N"]
    """Query logits of the adapted classifiers."""
    diagnostics: dict[str, Float[Tensor, ""]]
    """Signs of health of the inner loop, for the log only."""


@runtime_checkable
class Classifier(Protocol):
    """What adaptation makes of the support of B tasks."""

    def __call__(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B *images N"]:
        """Logits of the N classes for each query, whatever the arrangement of the queries of a task.

        One task of queries may stand for all B: the same images, put to each classifier.
        """
        ...

    def select(self, tasks: Int64[Tensor, " P"]) -> "Classifier":
        """The classifiers of some of the tasks."""
        ...


class LinearClassifier(NamedTuple):
    """A classifier of each task: logits = query · weight + bias."""

    weight: Float[Tensor, "B N E"]
    bias: Float[Tensor, "B N"] | None = None

    def __call__(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B *images N"]:
        """See `Classifier`."""
        # classes before images: the backward pass then makes a contiguous gradient of the weight
        logits = self.weight @ query.flatten(1, -2).transpose(1, 2)
        if self.bias is not None:
            logits = logits + self.bias[:, :, None]
        return logits.transpose(1, 2).unflatten(1, query.shape[1:-1])

    def select(self, tasks: Int64[Tensor, " P"]) -> "LinearClassifier":
        """See `Classifier`."""
        return LinearClassifier(self.weight[tasks], None if self.bias is None else self.bias[tasks])


def arguments_of(built: object) -> dict[str, Any]:
    """Arguments of `__init__`, each out of the attribute of its name; an object among them as its own."""
    found = {name: getattr(built, name) for name in inspect.signature(type(built)).parameters}
    return {
        name: value
        if isinstance(value, bool | int | float | str | list | None)
        else {"class_path": class_path(value), "init_args": arguments_of(value)}
        for name, value in found.items()
    }


def class_path(built: object) -> str:
    """What configurations and checkpoints call the class of a learner, or of a part of one."""
    return f"{type(built).__module__}.{type(built).__qualname__}"


class Learner(nn.Module, ABC):
    """A few-shot learning method.

    In training mode `forward` may draw random numbers, those of a task from its seed; in evaluation mode a
    learner is deterministic. Both work under `torch.no_grad` and `torch.inference_mode`.

    As in scikit-learn, every argument of `__init__` is kept in an attribute of its name.
    """

    predicts: Literal["classes", "values"] = "classes"
    """What the answers are: logits of the N classes, or, with N = 1, the value at each point (regression)."""
    trained: ClassVar[bool] = True
    """False for a method that has no parameters, and so is tested without a checkpoint."""
    unequal_shots: ClassVar[bool] = False
    """Whether `stages` takes `shots`: classes of unequal numbers of images."""

    def init_args(self) -> dict[str, Any]:
        """The arguments that build this learner, as plain types; a part's, with its class path."""
        return arguments_of(self)

    def check_compilable(self) -> None:
        """Check that `compile` will work.

        Raises:
            InputError: says what to do without.
        """

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """`torch.compile` for all that comes after the drawing of random numbers; its arguments."""
        for name in ("outcome", "stages"):
            setattr(self, name, torch.compile(getattr(self, name), *args, **kwargs))

    def forward(self, episode: Episode, seeds: Sequence[int] | None = None) -> Outcome:
        """Adapt to every task's support set and answer its queries.

        Args:
            episode: B tasks; N, K and Q may differ from call to call.
            seeds: one for each task, whose random numbers are a function of it alone: a meta-batch may be
                divided. None: torch's own generator.
        """
        return self.outcome(episode, self.draw_noise(episode, seeds))

    def draw_noise(self, episode: Episode, seeds: Sequence[int] | None) -> Any:
        """All random numbers of a training step; nothing for a learner that has none, or in evaluation.

        Those of a task depend on its seed alone.
        """
        return None

    @abstractmethod
    def outcome(self, episode: Episode, noise: Any) -> Outcome:
        """What `forward` returns, with the given random numbers."""

    @abstractmethod
    def stages(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> Mapping[str, Classifier]:
        """Classifiers for new classes by stage of adaptation, in order; the last one is `final`.

        Deterministic: call `.eval()` first.

        Args:
            support: the images of each class.
            shots: how many each class has, where that differs: the first of its row, which is zeros behind
                them (`adapt` sees to it). None: K.
        """

    def adapt(
        self, support: Float[Tensor, "B N K E"], valid: Bool[Tensor, "B N K"] | None = None
    ) -> Classifier:
        """Classifiers for new classes, for use after training (call `.eval()` first).

        Args:
            support: the images of each class.
            valid: False where there is none: classes may have unequal numbers of images, and what stands in
                the place of others has no influence. None: all are images.

        Raises:
            InputError: a class has no image, or their numbers differ and the method cannot do with that.
        """
        images, shots = packed(support, valid)
        if shots is None:
            return self.stages(images)["final"]
        if not self.unequal_shots:
            raise InputError(
                f"{type(self).__name__} cannot adapt to classes with unequal numbers of examples; "
                "give every class the same number, or use LEO"
            )
        return self.stages(images, shots)["final"]
