"""LEO: meta-learning with latent embedding optimization, for classification.

Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero, Hadsell: Meta-Learning with Latent Embedding Optimization.
ICLR 2019, arXiv:1807.05960. The original: github.com/google-deepmind/leo at de9a0c2, model.py. Where paper
and original differ, the original made the published numbers and is followed; each place says so.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.data.episode import Episode
from leo_lightning.errors import InputError, check_least
from leo_lightning.learners import objectives
from leo_lightning.learners.inner_loop import adapt
from leo_lightning.learners.latent_steps import latent_steps
from leo_lightning.learners.learner import Learner, LinearClassifier, Outcome
from leo_lightning.learners.networks import Decoder, Encoder, RelationNet
from leo_lightning.learners.noise import draw

DEAD_SPREAD = 1e-6
"""A latent dimension whose code varies less than this over the classes of a meta-batch carries nothing."""


class Noise(NamedTuple):
    """All random numbers of one training step; None stands for a number that is not random.

    Masks are factors: 0, or 1 / (1 - dropout).
    """

    latents: Float[Tensor, "B N K H"] | None = None
    """Standard normal, one draw per copy of a class's code. None: the mean code, one copy, no KL."""
    weights: Float[Tensor, "decodes B N K E"] | None = None
    """Standard normal, anew for each of the T + 1 decodes. None: the mean weights."""
    encoder_mask: Float[Tensor, "B N K E"] | None = None
    support_masks: Float[Tensor, "steps B N K E"] | None = None
    """One per gradient step: T latent ones, then F of fine-tuning."""
    query_mask: Float[Tensor, "B N Q E"] | None = None


NO_NOISE = Noise()


class Adaptation(NamedTuple):
    """The inner loop of a meta-batch, step by step.

    C is the number of copies of a class's code: K while sampling, 1 otherwise, when all copies are equal.
    """

    code_mean: Float[Tensor, "B N H"]
    code_std: Float[Tensor, "B N H"]
    latents: list[Float[Tensor, "B N C H"]]
    """z before and after each of the T latent steps."""
    decoded: list[Float[Tensor, "B N E"]]
    """Classifier of each of the T + 1 decodes, mean over the copies; without noise of the first and last."""
    weights: list[Float[Tensor, "B N E"]]
    """Classifier before and after each of the F fine-tuning steps; without dropout before the first and after
    the last."""


class LEO(Learner):
    """Latent Embedding Optimization (Algorithm 1) with a linear softmax classifier per task.

    Args:
        embedding_size: E, size of an image's embedding; taken from the data.
        num_latents: H, size of the latent code z of a class.
        latent_steps: T, gradient steps on z.
        finetuning_steps: F, gradient steps on the classifier weights w after the latent ones.
        latent_lr: initial value of α, the learned step size on z, one per latent dimension.
        finetuning_lr: initial value of η, the learned step size on w, one per embedding dimension.
        dropout: dropout rate of embeddings in training, at the encoder and at every prediction.
        kl_weight: β, weight of KL(q(z) || N(0, 1)).
        encoder_penalty_weight: γ, weight of the squared distance of initial to adapted codes.
        l2_penalty_weight: λ1, weight of half the squared weights of encoder, relation net and decoder.
        orthogonality_penalty_weight: λ2, weight of the correlation between the decoder's latent dimensions.
    """

    def __init__(
        self,
        embedding_size: int = 640,
        num_latents: int = 64,
        latent_steps: int = 5,
        finetuning_steps: int = 5,
        latent_lr: float = 1.0,
        finetuning_lr: float = 0.001,
        dropout: float = 0.5,
        kl_weight: float = 1e-3,
        encoder_penalty_weight: float = 1e-9,
        l2_penalty_weight: float = 1e-8,
        orthogonality_penalty_weight: float = 1e-3,
    ) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}: it must be at least 0 and below 1")
        not_negative = {
            "latent_steps": latent_steps, "finetuning_steps": finetuning_steps,
            "latent_lr": latent_lr, "finetuning_lr": finetuning_lr,
            "kl_weight": kl_weight, "encoder_penalty_weight": encoder_penalty_weight,
            "l2_penalty_weight": l2_penalty_weight,
            "orthogonality_penalty_weight": orthogonality_penalty_weight,
        }  # fmt: skip
        check_least(1, {"num_latents": num_latents})
        check_least(0, not_negative)
        self.embedding_size = embedding_size
        self.num_latents = num_latents
        self.latent_steps = latent_steps
        self.finetuning_steps = finetuning_steps
        self.latent_lr = latent_lr
        self.finetuning_lr = finetuning_lr
        self.dropout = dropout
        self.kl_weight = kl_weight
        self.encoder_penalty_weight = encoder_penalty_weight
        self.l2_penalty_weight = l2_penalty_weight
        self.orthogonality_penalty_weight = orthogonality_penalty_weight
        self.encoder = Encoder(embedding_size, num_latents)
        self.relation_net = RelationNet(num_latents)
        self.decoder = Decoder(num_latents, embedding_size)
        # a rate that no step uses would be a parameter without gradient, which DDP refuses
        self.alpha = nn.Parameter(torch.full((num_latents,), latent_lr)) if latent_steps else None
        self.eta = nn.Parameter(torch.full((embedding_size,), finetuning_lr)) if finetuning_steps else None

    def stages(self, support: Float[Tensor, "B N K E"]) -> dict[str, LinearClassifier]:
        """See `Learner.stages`."""
        adaptation = self.adaptation(support, NO_NOISE)
        weights = {
            "before_adaptation": adaptation.decoded[0],
            "after_latent_steps": adaptation.decoded[-1],
            "final": adaptation.weights[-1],
        }
        return {stage: LinearClassifier(weight) for stage, weight in weights.items()}

    def draw_noise(self, episode: Episode, seeds: Sequence[int] | None) -> Noise:
        """See `Learner.draw_noise`."""
        if not self.training:
            return NO_NOISE
        (_, N, K, E), Q = episode.support.shape, episode.query.shape[2]
        T, F, H = self.latent_steps, self.finetuning_steps, self.num_latents
        support, query = N * K * E, N * Q * E
        normals = [N * K * H, (T + 1) * support]
        factors = [support, (T + F) * support, query] if self.dropout else [0]
        normal, scales = draw(episode.support, seeds, sum(normals), sum(factors), self.dropout)
        latents, weights = normal.split(normals, dim=1)
        noise = Noise(
            latents=latents.unflatten(1, (N, K, H)),
            weights=weights.unflatten(1, (T + 1, N, K, E)).transpose(0, 1),
        )
        if not self.dropout:
            return noise
        encoder_mask, support_masks, query_mask = scales.split(factors, dim=1)
        return noise._replace(
            encoder_mask=encoder_mask.unflatten(1, (N, K, E)),
            support_masks=support_masks.unflatten(1, (T + F, N, K, E)).transpose(0, 1),
            query_mask=query_mask.unflatten(1, (N, Q, E)),
        )

    def outcome(self, episode: Episode, noise: Noise) -> Outcome:
        """See `Learner.outcome`."""
        adaptation = self.adaptation(episode.support, noise)
        with torch.autocast(episode.support.device.type, enabled=False):
            return self._judge(episode, noise, adaptation)

    def _judge(self, episode: Episode, noise: Noise, adaptation: Adaptation) -> Outcome:
        final = LinearClassifier(adaptation.weights[-1])(_masked(episode.query, noise.query_mask))
        terms = {"cross_entropy": objectives.query_cross_entropy(final, episode.valid).mean()}
        if noise.latents is not None:
            z = adaptation.latents[0]
            kl = objectives.kl_divergence(noise.latents, adaptation.code_std[:, :, None].expand_as(z), z)
            penalty = objectives.encoder_penalty(z, adaptation.latents[-1])
            terms["kl"] = self.kl_weight * kl.mean()
            terms["encoder_penalty"] = self.encoder_penalty_weight * penalty.mean()
        terms |= self.regularisers()
        loss = torch.stack(list(terms.values())).sum()
        return Outcome(loss, terms, final, self._diagnostics(adaptation))

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """R(θ) of Eq. 8, weighted; the learned rates are not in it."""
        layers = [self.encoder, *self.relation_net.layers, self.decoder]
        l2 = objectives.l2_penalty(layer.weight for layer in layers)
        orthogonality = objectives.orthogonality_penalty(self.decoder.weight.T)
        return {
            "l2_penalty": self.l2_penalty_weight * l2,
            "orthogonality_penalty": self.orthogonality_penalty_weight * orthogonality,
        }

    def adaptation(self, support: Float[Tensor, "B N K E"], noise: Noise) -> Adaptation:
        """Algorithm 1, lines 4-15: encode, adapt the code, decode, fine-tune."""
        (_, N, K, E), H, T, F = support.shape, self.num_latents, self.latent_steps, self.finetuning_steps
        code = self.relation_net(self.encoder(_masked(support, noise.encoder_mask)))
        # under autocast the networks above may run in low precision; gradients, exp and KL may not
        with torch.autocast(support.device.type, enabled=False):
            mean, raw_std = code.to(support.dtype).chunk(2, dim=-1)
            std, _ = objectives.std_from_raw(raw_std, offset=0.0)
            masks = noise.support_masks
            z = mean[:, :, None]
            if noise.latents is not None:
                z = z + noise.latents * std[:, :, None]
            # each copy enters the logits through the mean over the copies: 1 / K of the gradient is its own
            alpha = mean.new_zeros(H) if self.alpha is None else self.alpha / K
            eta = mean.new_zeros(E) if self.eta is None else self.eta / K
            if noise.weights is None:
                latents, decoded = self._exact_latent_steps(z, alpha, support, masks)
            else:
                z = z.expand(-1, -1, K, -1)
                offset = math.sqrt(2.0 / (N + E))
                mean_weight, raw_std_weight = self.decoder.weight.chunk(2)
                weight, latents, decoded = latent_steps(
                    z, alpha, mean_weight, raw_std_weight, support, masks, noise.weights, offset
                )
                latents, decoded = [z, *latents[1:]], [*decoded[:-1], weight]
            if masks is None:
                weights = self._exact_finetuning(decoded[-1], eta, support)
            else:
                # all copies take the same step, so their mean takes it too
                weights = adapt(
                    decoded[-1],
                    lambda weight, step: objectives.support_gradient(support * masks[T + step], weight),
                    eta,
                    F,
                )
        return Adaptation(mean, std, latents, decoded, weights)

    def _exact_latent_steps(
        self,
        z: Float[Tensor, "B N 1 H"],
        rate: Float[Tensor, " H"],
        support: Float[Tensor, "B N K E"],
        masks: Float[Tensor, "steps B N K E"] | None,
    ) -> tuple[list[Float[Tensor, "B N 1 H"]], list[Float[Tensor, "B N E"]]]:
        """Latent steps without sampling of weights. They stay in H dimensions: x · W_μ z = (x W_μ) · z.

        Returns all iterates, and the classifiers of the first and the last.
        """
        mean_weight = self.decoder.mean_weight

        def gradient(z: Tensor, step: int) -> Tensor:
            return objectives.support_gradient(projected[step if masks is not None else 0], z)

        images = support[None] if masks is None else support * masks[: self.latent_steps]
        projected = images @ mean_weight
        latents = adapt(z.squeeze(2), gradient, rate, self.latent_steps)
        ends = latents if len(latents) == 1 else [latents[0], latents[-1]]
        return [z[:, :, None] for z in latents], [z @ mean_weight.T for z in ends]

    def _exact_finetuning(
        self, weight: Float[Tensor, "B N E"], rate: Float[Tensor, " E"], support: Float[Tensor, "B N K E"]
    ) -> list[Float[Tensor, "B N E"]]:
        """Fine-tuning without dropout, by way of the Gram matrix of the support.

        All steps together move the classifier by a combination of the images, and the logits by that of the
        images' products: w_F = w - η ⊙ (Σₛ rₛ) X, with rₛ = softmax(logits) - onehot of step s.

        Returns the classifier before and after.
        """
        if not self.finetuning_steps:
            return [weight]
        images = support.flatten(1, 2)
        moved = rate * images
        gram = torch.bmm(moved, images.transpose(1, 2))
        logits = torch.bmm(weight, images.transpose(1, 2))
        residuals = torch.zeros_like(logits)
        target = objectives.one_hot(support.shape[1], support.shape[2], logits)
        for _ in range(self.finetuning_steps):
            residual = logits.softmax(1) - target
            residuals = residuals + residual
            logits = logits - torch.bmm(residual, gram)
        return [weight, weight - torch.bmm(residuals, moved)]

    @torch.no_grad()
    def _diagnostics(self, adaptation: Adaptation) -> dict[str, Float[Tensor, ""]]:
        spread = adaptation.code_mean.flatten(0, 1).std(0)
        diagnostics = {
            "dead_latents": (spread < DEAD_SPREAD).float().mean(),
            "clamped_stds": (adaptation.code_std <= objectives.MIN_STD).float().mean(),
        }
        if self.alpha is not None:
            diagnostics["latent_lr"] = self.alpha.mean()
        if self.eta is not None:
            diagnostics["finetuning_lr"] = self.eta.mean()
        return diagnostics


def _masked(x: Float[Tensor, "*shape"], mask: Float[Tensor, "*shape"] | None) -> Float[Tensor, "*shape"]:
    return x if mask is None else x * mask
