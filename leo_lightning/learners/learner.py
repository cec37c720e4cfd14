"""Learner: the one interface of all methods."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode
from leo_lightning.learners.parts.noise import Masks, draw
from leo_lightning.learners.parts.objectives import query_cross_entropy
from leo_lightning.learners.parts.query_set import answered
from leo_lightning.learners.parts.unequal_shots import Shots, packed


class Outcome(NamedTuple):
    """Result of a learner for a meta-batch."""

    loss: Float[Tensor, ""]
    """The outer loss, mean over tasks."""
    terms: dict[str, Float[Tensor, ""]]
    """The parts of the loss, with their weights: they add up to `loss`."""
    logits: Float[Tensor, "B N Q N"]
    """Query logits of the adapted classifiers."""
    diagnostics: dict[str, Float[Tensor, ""]]
    """Signs of health of the inner loop, for the log only."""

    @classmethod
    def of(cls, terms: dict[str, Tensor], logits: Tensor, diagnostics: dict[str, Tensor]) -> "Outcome":
        """An outcome with the sum of the terms as its loss."""
        return cls(torch.stack(list(terms.values())).sum(), terms, logits, diagnostics)


@runtime_checkable
class Classifier(Protocol):
    """Result of adaptation to the support of B tasks."""

    def __call__(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B *images N"]:
        """Logits of the N classes for each query, in any arrangement; one task may stand for all B."""
        ...

    def select(self, tasks: Int64[Tensor, " P"]) -> "Classifier":
        """The classifiers of some of the tasks."""
        ...


class LinearClassifier(NamedTuple):
    """A classifier of each task: logits = query · weight + bias."""

    weight: Float[Tensor, "B N E"]
    bias: Float[Tensor, "B N"] | None = None

    def __call__(self, query: Float[Tensor, "#B *images E"]) -> Float[Tensor, "B *images N"]:
        """Logits of the queries."""
        # classes before images: the backward pass then makes a contiguous gradient of the weight
        logits = self.weight @ query.flatten(1, -2).transpose(1, 2)
        if self.bias is not None:
            logits = logits + self.bias[:, :, None]
        return logits.transpose(1, 2).unflatten(1, query.shape[1:-1])

    def select(self, tasks: Int64[Tensor, " P"]) -> "LinearClassifier":
        """The classifiers of some of the tasks."""
        return LinearClassifier(self.weight[tasks], None if self.bias is None else self.bias[tasks])


def check_predictions(*predictions: Tensor) -> None:
    """Refuse predictions, or the weights that make them, that are not finite: their largest means nothing.

    Raises:
        InputError: says why they are NaN.
    """
    if not all(part.isfinite().all() for part in predictions):
        raise InputError(
            "the predictions are NaN: weights of the model are NaN, or the features too large; use another "
            "checkpoint, or normalise the features as in its training"
        )


def arguments_of(built: object) -> dict[str, Any]:
    """Arguments of `__init__`, each read from the attribute of its name; an object as its own arguments."""
    values = {name: getattr(built, name) for name in inspect.signature(type(built)).parameters}
    return {
        name: value
        if isinstance(value, bool | int | float | str | list | None)
        else {"class_path": class_path(value), "init_args": arguments_of(value)}
        for name, value in values.items()
    }


def class_path(built: object) -> str:
    """Name of the class of a learner, or of a part of one, in configurations and checkpoints."""
    return f"{type(built).__module__}.{type(built).__qualname__}"


class Learner(nn.Module, ABC):
    """A few-shot learning method.

    In training mode `forward` may draw random numbers, those of a task from its seed; in evaluation mode a
    learner is deterministic. Both work under `torch.no_grad` and `torch.inference_mode`. As in scikit-learn,
    every argument of `__init__` is kept in an attribute of its name.
    """

    predicts: Literal["classes", "values"] = "classes"
    """Kind of answers: logits of the N classes, or, with N = 1, the value at each point (regression)."""
    trained: ClassVar[bool] = True
    """False for a method that has no parameters, and so is tested without a checkpoint."""
    transductive: ClassVar[bool] = False
    """Whether the answer to a query depends on the other queries of its task."""
    starts: ClassVar[tuple[str, ...]] = ()
    """Arguments that only set where training starts; a checkpoint has learned its own values."""
    unequal_shots: ClassVar[bool] = False
    """Whether `stages` takes `shots`: classes of unequal numbers of images."""
    only_way: int | None = None
    """N of a method that is made for one number of classes; None: for any."""
    compilable: ClassVar[bool] = True
    """False for a method that torch.compile cannot trace."""
    dropout: float = 0.0
    """Dropout rate of embeddings in training."""
    no_noise: ClassVar[Any] = Masks()
    """Takes the place of `draw_noise` in evaluation."""
    embedding_size: int | None
    """E, None until `take_size`; not there if the learner takes embeddings of any size."""

    def __init__(self) -> None:
        super().__init__()

    def init_args(self) -> dict[str, Any]:
        """The arguments that build this learner, as plain types; a part's, with its class path."""
        return arguments_of(self)

    def make_weights(self, E: int) -> None:
        """Make the weights for embeddings of size E. `__init__` calls it through `take_size`."""

    def take_size(self, size: int | None, like: Tensor | None = None) -> None:
        """Make the weights for embeddings of a size, unless there are some; None leaves it to the data.

        Args:
            size: E.
            like: a tensor of the precision, and on the device, that the weights are to have.

        Raises:
            InputError: the weights are for another size.
        """
        needed = getattr(self, "embedding_size", size)
        if needed == size:
            return
        if needed is not None:
            raise InputError(
                f"{type(self).__name__} has embedding_size {needed}, and the embeddings have size {size}; "
                "leave embedding_size out, or use embeddings of its size"
            )
        assert size is not None
        with torch.inference_mode(False):  # they may be trained later
            self.make_weights(size)
            self.embedding_size = size
            self.train(self.training)
            if like is not None:
                self.to(like)

    def check_compilable(self) -> None:
        """Raise an InputError that names what `compile` cannot compile."""
        if not self.compilable:
            raise InputError(f"model.compile cannot compile {type(self).__name__}; leave one of the two out")

    def check_way(self, N: int) -> None:
        """Raise an InputError if the method is made for another number of classes than N."""
        if self.only_way not in (None, N):
            raise InputError(
                f"{type(self).__name__} is made for tasks of {self.only_way} classes, and these have {N}; "
                f"train it with --model.learner.way {N}, or use {self.only_way} classes"
            )

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile all that comes after the drawing of random numbers; arguments as for `torch.compile`."""
        for name in ("outcome", "stages"):
            setattr(self, name, torch.compile(getattr(self, name), *args, **kwargs))

    def forward(self, episode: Episode, seeds: Sequence[int] | None = None, noise: Any = None) -> Outcome:
        """Adapt to the support of B tasks and answer their queries; N, K and Q may differ from call to call.

        Args:
            episode: the tasks.
            seeds: one for each task, of which its random numbers are a function; None: seeds from torch's own
                generator.
            noise: result of `draw_noise`, if the numbers are drawn already.

        Raises:
            InputError: the embeddings have another size than the weights, or not the shape of an `Episode`.
        """
        self._see(episode.support, episode.query)
        if noise is None:
            noise = self.draw_noise(episode, seeds) if self.training else self.no_noise
        return self.outcome(episode, noise)

    def draw_noise(self, episode: Episode, seeds: Sequence[int] | None) -> Any:
        """All random numbers of a training step, those of a task from its seed: dropout masks.

        They depend on the shape and precision of the episode, and not on its embeddings.
        """
        if not self.dropout:
            return Masks()
        shapes = {"support": tuple(episode.support.shape[1:]), "query": tuple(episode.query.shape[1:])}
        return Masks(**draw(episode.support, seeds, {}, shapes, self.dropout))

    def outcome(self, episode: Episode, noise: Any) -> Outcome:
        """Result of `forward` with the given random numbers."""
        episode = noise.on(episode)
        with torch.autocast(episode.support.device.type, enabled=False):
            logits = answered(self.adapt(episode.support), episode.query, episode.valid)
            terms = self.terms(logits, episode)
            with torch.no_grad():
                diagnostics = self.diagnostics()
            return Outcome.of(terms, logits, diagnostics)

    def terms(self, logits: Float[Tensor, "B N Q N"], episode: Episode) -> dict[str, Float[Tensor, ""]]:
        """The parts of the outer loss."""
        if self.predicts == "values":
            return {"query_loss": (logits - episode.query[..., -1:]).square().flatten(1).mean(1).mean()}
        return {"cross_entropy": query_cross_entropy(logits, episode.valid).mean()}

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """Numbers to log of the learner's own parameters."""
        return {}

    @abstractmethod
    def stages(self, support: Float[Tensor, "B N K E"], shots: Shots = None) -> Mapping[str, Classifier]:
        """Classifiers by stage of adaptation, in order; the last one is `final`. Call `.eval()` first."""

    def adapt(
        self, support: Float[Tensor, "B N K E"], valid: Bool[Tensor, "B N K"] | None = None
    ) -> Classifier:
        """Classifiers for new classes, for use after training (call `.eval()` first).

        Classes may have unequal numbers of images: `valid` is False for padding, which has no influence.

        Raises:
            InputError: a class has no image, their numbers differ and the method needs equal ones, or the
                support has another size than the weights, or another shape.
        """
        self._see(support)
        images, shots = packed(support, valid)
        if shots is None:
            return self.stages(images)["final"]
        if not self.unequal_shots:
            raise InputError(
                f"{type(self).__name__} cannot adapt to classes with unequal numbers of examples; "
                "give every class the same number, or use LEO"
            )
        return self.stages(images, shots)["final"]

    def _see(self, support: Tensor, query: Tensor | None = None) -> None:
        """Check shapes, and make weights that are not there yet for the first embeddings."""
        shape, other = support.shape, support.shape if query is None else query.shape
        if len(shape) != 4 or len(other) != 4 or (shape[:2], shape[3]) != (other[:2], other[3]):
            asked = "" if query is None else f", the query {tuple(other)}"
            raise InputError(
                f"the support has shape {tuple(shape)}{asked}; shapes must be (B, N, K, E) and (B, N, Q, E): "
                "tasks, classes, images of each class, size of an embedding"
            )
        self.take_size(shape[3], support)
