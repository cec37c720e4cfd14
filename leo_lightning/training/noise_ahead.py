"""NoiseAhead: the noise of the next training step, drawn while this step is computed."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner


class _Wanted(NamedTuple):
    """All that noise depends on."""

    seeds: tuple[int, ...]
    support: torch.Size
    query: torch.Size
    dtype: torch.dtype

    @classmethod
    def by(cls, episode: Episode, seeds: Sequence[int]) -> "_Wanted":
        return cls(tuple(seeds), episode.support.shape, episode.query.shape, episode.support.dtype)


class NoiseAhead:
    """Draws noise with a thread, one training step ahead.

    Noise is a function of its seeds. Which ones come next is a guess: if it fails, noise is drawn again, and
    time is all that is lost.
    """

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="next-noise")
        self._coming: tuple[_Wanted, Future[Any]] | None = None

    def draw(self, episode: Episode, seeds: Sequence[int], next_seeds: Sequence[int]) -> Any:
        """Return the noise of an episode, and begin to draw for one of the same shape with other seeds."""
        wanted = _Wanted.by(episode, seeds)
        if self._coming is not None and self._coming[0] == wanted:
            noise = self._coming[1].result()
        else:
            noise = self._learner.draw_noise(episode, seeds)
        coming = self._thread.submit(self._learner.draw_noise, episode, next_seeds)
        self._coming = _Wanted.by(episode, next_seeds), coming
        return noise

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()
