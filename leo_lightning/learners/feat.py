"""FEAT: prototypes that attend to each other.

Ye, Hu, Zhan, Sha: Few-Shot Learning via Embedding Adaptation with Set-to-Set Functions. CVPR 2020,
arXiv:1812.03664. The authors' code: github.com/Sha-Lab/FEAT, model/models/feat.py at fa66901.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.parts.metric_learner import Embedded, MetricLearner
from leo_lightning.learners.parts.objectives import query_cross_entropy
from leo_lightning.learners.parts.unequal_shots import Shots, class_mean


class SetAttention(nn.Module):
    """The set-to-set function: one head of self-attention, added to its input, then layer normalisation.

    The output projection begins at zero, and the gain of the normalisation at 1 / √D: at first a member of a
    set is its own centred direction, of length 1 as the embeddings are.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(size, size, bias=False) for _ in range(3))
        for layer in (self.query, self.key, self.value):
            nn.init.normal_(layer.weight, std=size**-0.5)
        self.output = nn.Linear(size, size)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)
        self.norm = nn.LayerNorm(size)
        nn.init.constant_(self.norm.weight, size**-0.5)

    def forward(
        self, members: Float[Tensor, "*sets M D"], valid: Bool[Tensor, "*sets M"] | None = None
    ) -> Float[Tensor, "*sets M D"]:
        """Adapted members of each set; nothing attends to those that are not valid."""
        mask = None if valid is None else valid[..., None, :]
        read = F.scaled_dot_product_attention(
            self.query(members), self.key(members), self.value(members), attn_mask=mask
        )
        return self.norm(members + self.output(read))


class FEAT(MetricLearner):
    """Few-shot embedding adaptation with a transformer: distances to prototypes that see each other.

    p(n | x) = softmax over n of -‖f(x) - c'_n‖² / τ: the prototypes c' of a task are its class means after
    one block of self-attention among them. The queries are not adapted. In training a second cross-entropy
    teaches the block ("Contrastive Learning of Set-to-Set Functions" in the paper): it adapts the set of
    all images of a class, support and query, and every image f(x) is classified by its distance to the
    means of the adapted sets.

    The paper pre-trains a network and trains it on together with the block; here the embedding f, which
    begins as the identity, stands for that. The dropout is that of the embeddings, in place of the authors'
    within the block. log τ is learned; the authors search τ, and a second one for the contrastive term.

    Args:
        temperature: initial value of τ, by which distances are divided before the softmax; it is learned.
        contrastive_weight: weight of the contrastive term in the loss, λ in the paper; 0: without it.
    """

    starts = ("temperature",)

    def __init__(
        self,
        embedding_size: int | None = None,
        size: int | None = None,
        hidden: int = 0,
        dropout: float = 0.0,
        temperature: float = 0.1,
        contrastive_weight: float = 0.1,
    ) -> None:
        check_positive({"temperature": temperature})
        check_least(0, {"contrastive_weight": contrastive_weight})
        self.temperature = temperature
        self.contrastive_weight = contrastive_weight
        super().__init__(embedding_size, size, hidden, dropout)

    def make_weights(self, E: int) -> None:
        """Make the embedding, the attention and the temperature."""
        super().make_weights(E)
        self.attention = SetAttention(self.size or E)
        self.log_temperature = nn.Parameter(torch.tensor(math.log(self.temperature)))

    def classifier(self, support: Float[Tensor, "B N K E"], shots: Shots) -> Embedded:
        """Distances to the adapted prototypes, as a linear classifier."""
        prototypes = self.attention(class_mean(self.embedding(support), shots))
        return Embedded(self.embedding, self._distances(prototypes))

    def _distances(self, prototypes: Float[Tensor, "B N D"]) -> LinearClassifier:
        """-‖f - c‖² / τ but for ‖f‖², which is the same for all classes."""
        scale = self.log_temperature.neg().exp()
        return LinearClassifier(2 * scale * prototypes, -scale * prototypes.square().sum(-1))

    def terms(self, logits: Float[Tensor, "B N Q N"], episode: Episode) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of the queries, and the contrastive term."""
        terms = super().terms(logits, episode)
        if self.contrastive_weight:
            terms["contrastive"] = self.contrastive_weight * self.contrastive(episode).mean()
        return terms

    def contrastive(self, episode: Episode) -> Float[Tensor, " B"]:
        """Cross-entropy of all images of a task, by distance to the means of its classes' adapted sets."""
        images = self.embedding(torch.cat([episode.support, episode.query], dim=2))
        valid = episode.valid
        if valid is not None:
            valid = torch.cat([valid.new_ones(episode.support.shape[:3]), valid], dim=2)
            weights = valid.to(images)[..., None]
            centres = (self.attention(images, valid) * weights).sum(2) / weights.sum(2)
        else:
            centres = self.attention(images).mean(2)
        return query_cross_entropy(self._distances(centres)(images), valid)

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """The learned temperature."""
        return {"temperature": self.log_temperature.exp()}
