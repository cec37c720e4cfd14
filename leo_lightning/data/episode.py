"""Episode: a meta-batch of few-shot tasks, and the symbols of the whole package.

| symbol | meaning |
|---|---|
| B | tasks in a meta-batch |
| N | way: classes of a task |
| K | shot: labelled (support) images per class |
| M | classes of a test task that have queries only |
| Q | query images per class |
| E | embedding size |
| H | latent size, `num_latents` |
| T | latent steps, `latent_steps` |
| F | fine-tuning steps, `finetuning_steps` |

Labels need no tensor: an image's label is the row n < N that its class takes in the task.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


class EpisodeRows(NamedTuple):
    """The rows of a meta-batch's images, which a loader carries in place of embeddings."""

    task: Int64[Tensor, " B"]
    """Number of each task within its split, on the host."""
    support: Int64[Tensor, "B N K"]
    """Rows of the feature bank."""
    query: Int64[Tensor, "B N Q"]
    """Rows of the feature bank; entries where `valid` is False repeat the class's first image."""
    valid: Bool[Tensor, "B N Q"] | None = None
    """False where a class has fewer than Q queries; None when all have Q."""
    classes: Int64[Tensor, "B N"] | None = None
    """Number of each class within its split, on the host."""
    unknown: Int64[Tensor, "B M Q"] | None = None
    """Rows of queries of M more classes, which have no support; None without such classes."""


class Pool(NamedTuple):
    """All images of a split: a task's queries are the images of its classes that are not in its support."""

    images: Callable[[int], Float[Tensor, "n E"]]
    """Returns the images of a class, by its number."""
    offsets: Int64[Tensor, " C"]
    """First row of each class in the feature bank."""


class Centred(NamedTuple):
    """What `normalize: center_l2` changes in an episode; `data/centring.py` explains it."""

    support: Float[Tensor, "B N K E"]
    """The support, centred."""
    mean: Float[Tensor, " E"]
    """m, the mean that is subtracted."""
    scale: Float[Tensor, "B N Q"]
    """s of each query x = s r."""
    distance: Float[Tensor, "B N Q"]
    """‖x - s m‖ of each query: the centred one is (x - s m) / ‖x - s m‖."""


class Episode(NamedTuple):
    """A meta-batch of tasks, as embeddings."""

    support: Float[Tensor, "B N K E"]
    query: Float[Tensor, "B N Q E"]
    rows: EpisodeRows | None = None
    """Rows of the images in their bank; None without a bank."""
    pool: Pool | None = None
    """Source of the queries if these are all remaining images; Q is then 0."""
    noise: float = 0.0
    """Standard deviation of the values' noise in tasks of regression (N = 1, E: inputs and value)."""
    offset: float = 0.0
    """Number that was subtracted from the values of regression before they were divided by `scale`."""
    scale: float = 1.0
    """Units of the values as the user gave them in one of the episode's."""
    known_families: bool = False
    """Whether a task's class is its function's family in `data/functions.py`, so that oracles can predict."""
    centred: Centred | None = None
    """The same images with `normalize: center_l2`, in a test of a learner that sees them otherwise."""
    unknown: Float[Tensor, "B M Q E"] | None = None
    """Queries of M classes without support, in a test that has some."""

    def in_precision(self, dtype: torch.dtype) -> "Episode":
        """Return the tasks with embeddings in another precision (Lightning would call a `to` for devices)."""
        pool = self.pool
        if self.support.dtype == dtype and pool is None:
            return self
        if pool is not None:
            images = pool.images
            pool = pool._replace(images=lambda number: images(number).to(dtype))
        support, query = self.support.to(dtype), self.query.to(dtype)
        centred = None if self.centred is None else Centred(*(part.to(dtype) for part in self.centred))
        unknown = None if self.unknown is None else self.unknown.to(dtype)
        return self._replace(support=support, query=query, pool=pool, centred=centred, unknown=unknown)

    @property
    def valid(self) -> Bool[Tensor, "B N Q"] | None:
        """False where a query is padding; None when none is."""
        return None if self.rows is None else self.rows.valid
