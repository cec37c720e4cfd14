"""Centring: the embeddings of `normalize: center_l2` beside those that a learner sees otherwise."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.data.episode import Centred, Episode, EpisodeRows
from leo_lightning.data.normalization import Normalization

_CHUNK = 65536


class Centring:
    """Two numbers for each image that stand for a second embedding.

    Of an embedding r a learner sees x = s r, with s = 1, or 1 / ‖r‖. `center_l2` would be
    c = (r - m) / ‖r - m‖. Hence x - s m = ‖x - s m‖ c, of which s and the length are kept.

    Args:
        embeddings: of a split, as stored.
        normalization: what makes x of them: `none` or `l2`.
        mean: m, of the training split.
    """

    def __init__(
        self, embeddings: Float[Tensor, "n E"], normalization: Normalization, mean: Float[Tensor, " E"]
    ) -> None:
        self._mean = mean
        self._scale, self._distance = torch.ones(len(embeddings)), torch.empty(len(embeddings))
        for start in range(0, len(embeddings), _CHUNK):
            part = slice(start, start + _CHUNK)
            rows = normalization(embeddings[part])
            if normalization.kind == "l2":
                self._scale[part] = embeddings[part].float().norm(dim=1).clamp_min(1e-12).reciprocal()
            self._distance[part] = (rows - self._scale[part, None] * mean).norm(dim=1)

    def of(self, episode: Episode, rows: EpisodeRows) -> Centred:
        """Return what is needed beside an episode's own embeddings."""

        def numbers(table: Float[Tensor, " n"], index: Int64[Tensor, "B N M"]) -> Float[Tensor, "B N M"]:
            return table.to(index.device)[index]

        mean = self._mean.to(episode.support)
        support = episode.support - numbers(self._scale, rows.support)[..., None] * mean
        scale, distance = (numbers(table, rows.query) for table in (self._scale, self._distance))
        return Centred(F.normalize(support, dim=-1), mean, scale, distance)
