"""Dropout of a task's images: factors that are drawn before a training step, and what they act on."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode
from leo_lightning.learners.parts.noise import divided, draw


class Masks(NamedTuple):
    """Dropout factors of a training step: 0, or 1 / (1 - dropout). None: nothing is dropped."""

    support: Float[Tensor, "B N K E"] | None = None
    query: Float[Tensor, "B N Q E"] | None = None

    def on(self, episode: Episode) -> Episode:
        """The episode with some numbers of its embeddings dropped."""
        support, query = masked(episode.support, self.support), masked(episode.query, self.query)
        return episode._replace(support=support, query=query)


def draw_masks(episode: Episode, seeds: Sequence[int] | None, dropout: float) -> Masks:
    """Masks for support and queries; see `noise.draw`. None without dropout."""
    if not dropout:
        return Masks()
    shapes = [episode.support.shape[1:], episode.query.shape[1:]]
    _, factors = draw(episode.support, seeds, 0, sum(map(math.prod, shapes)), dropout)
    return Masks(*divided(factors, shapes))


def masked(x: Float[Tensor, "*shape"], mask: Float[Tensor, "*shape"] | None) -> Float[Tensor, "*shape"]:
    """Embeddings, some of whose numbers may be dropped."""
    return x if mask is None else x * mask


def check_dropout(dropout: float) -> None:
    """Check a dropout rate.

    Raises:
        InputError: it is below 0, or leaves nothing.
    """
    if not 0 <= dropout < 1:
        raise InputError(f"dropout is {dropout}: it must be at least 0 and below 1")
