"""LEO: meta-learning with latent embedding optimization, for classification.

`leo_lightning.learners.reference.leo` is the same algorithm, written to be read beside Algorithm 1 of the
paper (Rusu et al., ICLR 2019, arXiv:1807.05960). Begin there. This one computes the same numbers several
times faster:

- The first layer of the relation network acts on either half of a pair alone, and its last layer, being
  linear, on the mean over the pairs (`parts/networks.py`).
- Only the mean of a class's K classifiers enters the logits: Σₖ x·wₖ / K = x·w̄.
- Where nothing is drawn, the K copies of a code are equal, and one is kept. Each copy has 1 / K of the
  gradient, so the one that is kept has the rate α / K. Its steps stay in H dimensions.
- All copies of a classifier take the same fine-tuning step, so their mean takes it too; without dropout, all
  steps are one product with the Gram matrix of the support (`parts/finetuning_steps.py`).
- Inner gradients are written out, so that the outer gradient is an ordinary backward pass; the adjoint of the
  sampled latent steps is written by hand (`parts/latent_steps.py`).
- All random numbers of a step are drawn at once (`parts/noise.py`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier, Learner, LinearClassifier, Outcome
from leo_lightning.learners.parts import objectives
from leo_lightning.learners.parts.finetuning_steps import finetuned
from leo_lightning.learners.parts.inner_loop import SupportLoss
from leo_lightning.learners.parts.latent_steps import mean_latent_steps, sampled_latent_steps
from leo_lightning.learners.parts.networks import RelationNet, linear
from leo_lightning.learners.parts.noise import NO_NOISE, Noise, check_dropout, draw, masked
from leo_lightning.learners.parts.sampled_classifier import SampledClassifier
from leo_lightning.learners.parts.unequal_shots import Shots, ShotWeights

DEAD_SPREAD = 1e-6
"""A latent dimension whose code varies less than this over the classes of a meta-batch carries nothing."""


class Adaptation(NamedTuple):
    """The inner loop of a meta-batch, step by step.

    C is the number of copies of a class's code: K while sampling, otherwise 1.
    """

    code_mean: Float[Tensor, "B N H"]
    code_std: Float[Tensor, "B N H"]
    latents: list[Float[Tensor, "B N *C H"]]
    """z before and after each of the T latent steps."""
    decoded: list[Float[Tensor, "B N E"]]
    """Classifier of each of the T + 1 decodes, mean over the copies, plus the centroid head. With neither
    samples nor dropout, only the first and the last."""
    weights: list[Float[Tensor, "B N E"]]
    """Classifier before and after each fine-tuning step. Without dropout, only the first and the last."""
    bias: Float[Tensor, "B N"] | None = None
    """Bias of all classifiers, from the centroid head."""

    def stages(self) -> dict[str, LinearClassifier]:
        """Classifiers by stage."""
        names = ("before_adaptation", "after_latent_steps", "final")
        weights = (self.decoded[0], self.decoded[-1], self.weights[-1])
        return {
            name: LinearClassifier(weight, self.bias) for name, weight in zip(names, weights, strict=True)
        }


class LEO(Learner):
    """Latent Embedding Optimization (Algorithm 1) with a linear softmax classifier per task.

    >>> from leo_lightning.data.episode import Episode
    >>> leo = LEO(embedding_size=16, num_latents=8)
    >>> support = torch.randn(4, 5, 1, 16)  # 4 tasks of 5 classes with 1 image each
    >>> query = torch.randn(4, 5, 15, 16)
    >>> leo(Episode(support, query)).loss.backward()  # a training step
    >>> classifier = leo.eval().adapt(support)  # and use after training
    >>> classifier(query).argmax(-1).shape
    torch.Size([4, 5, 15])

    Args:
        embedding_size: E, size of an image's embedding; null: taken from the data.
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
        random_prior: z ~ p(z) = N(0, 1) in training and z = 0 in evaluation, without an encoder (Table 2).
        deterministic: z and w are the means of their distributions in training, too (Table 2).
        test_samples: samples of (z, w) whose probabilities are averaged in evaluation; 0: the means of both.
    """

    starts = ("latent_lr", "finetuning_lr")

    unequal_shots = True
    no_noise = NO_NOISE

    def __init__(
        self,
        embedding_size: int | None = None,
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
        random_prior: bool = False,
        deterministic: bool = False,
        test_samples: int = 0,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        check_least(1, {"num_latents": num_latents})
        check_least(0, {"latent_steps": latent_steps, "finetuning_steps": finetuning_steps})
        check_least(0, {"latent_lr": latent_lr, "finetuning_lr": finetuning_lr, "test_samples": test_samples})
        check_least(0, {"kl_weight": kl_weight, "encoder_penalty_weight": encoder_penalty_weight})
        check_least(0, {"l2_penalty_weight": l2_penalty_weight})
        check_least(0, {"orthogonality_penalty_weight": orthogonality_penalty_weight})
        if deterministic and (random_prior or test_samples):
            raise InputError(
                "deterministic: nothing is drawn; leave it out, or random_prior and test_samples"
            )
        self.embedding_size = None
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
        self.random_prior = random_prior
        self.deterministic = deterministic
        self.test_samples = test_samples
        self.take_size(embedding_size)

    def make_weights(self, E: int) -> None:
        """Make the networks and the learned rates."""
        H = self.num_latents
        self.encoder = None if self.random_prior else linear(E, H)
        self.relation_net = None if self.random_prior else RelationNet(H)
        self.decoder = linear(H, 2 * E)
        # a rate that no step uses would be a parameter without gradient, which DDP refuses
        self.alpha = nn.Parameter(torch.full((H,), self.latent_lr)) if self.latent_steps else None
        self.eta = nn.Parameter(torch.full((E,), self.finetuning_lr)) if self.finetuning_steps else None

    def check_compilable(self) -> None:
        """Refuse samples: torch.compile does not support the generator that draws them."""
        if self.test_samples:
            raise InputError("model.compile cannot compile test_samples; leave one of the two out")

    def stages(
        self,
        support: Float[Tensor, "B N K E"],
        shots: Shots = None,
        code: Float[Tensor, "B N two_H"] | None = None,
    ) -> Mapping[str, Classifier]:
        """Classifiers before adaptation, after the latent steps and after fine-tuning.

        The code is the same for all samples, and most of the work of many images: `code` saves computing it.
        """
        code = self.code(support, shots) if code is None else code
        if not self.test_samples:
            return self.adaptation(support, NO_NOISE, shots, code).stages()
        samples = [
            self.adaptation(support, noise, shots, code).stages() for noise in self.samples(support, shots)
        ]
        return {
            stage: SampledClassifier(torch.stack([stages[stage].weight for stages in samples], 1), first.bias)
            for stage, first in samples[0].items()
        }

    def samples(self, support: Float[Tensor, "B N K E"], shots: Shots = None) -> Iterator[Noise]:
        """Noise of each sample of evaluation, a function of its number and of a task's largest class."""
        (_, N, K, E), S = support.shape, self.test_samples
        if shots is None:  # the same for all tasks
            for sample in range(S):
                noise = draw(support.new_empty(1, 0), [sample], self._normal_shapes(N, K, E))
                yield Noise(noise["latents"], noise["weights"].transpose(0, 1))
            return
        sizes, size = shots.amax(1).unique(return_inverse=True)
        for sample in range(S):
            drawn = []
            for copies in sizes.tolist():
                noise = draw(support.new_empty(1, 0), [sample], self._normal_shapes(N, copies, E))
                drawn.append([pad(x[0], (0, 0, 0, K - copies)) for x in noise.values()])
            latents, weights = (torch.stack(noises) for noises in zip(*drawn, strict=True))
            yield Noise(latents[size], weights[size].transpose(0, 1))

    def _normal_shapes(self, N: int, copies: int, E: int) -> dict[str, tuple[int, ...]]:
        """Shapes of a task's normal numbers: for z, and for w at each of the T + 1 decodes."""
        T, H = self.latent_steps, self.num_latents
        return {"latents": (N, copies, H), "weights": (T + 1, N, copies, E)}

    def draw_noise(self, episode: Episode, seeds: Sequence[int] | None) -> Noise:
        """Normal numbers of z and w, and dropout masks."""
        (_, N, K, E), Q = episode.support.shape, episode.query.shape[2]
        normals = {} if self.deterministic else self._normal_shapes(N, K, E)
        masks = {} if self.encoder is None else {"encoder_mask": (N, K, E)}
        steps = self.latent_steps + self.finetuning_steps
        masks |= {"support_masks": (steps, N, K, E), "query_mask": (N, Q, E)}
        drawn = draw(episode.support, seeds, normals, masks if self.dropout else {}, self.dropout)
        for name in {"weights", "support_masks"} & drawn.keys():  # steps before tasks
            drawn[name] = drawn[name].transpose(0, 1)
        return Noise(**drawn)

    def outcome(self, episode: Episode, noise: Noise) -> Outcome:
        """Outer loss (Eq. 7 and 8) of the adapted classifiers."""
        adaptation = self.adaptation(episode.support, noise)
        with torch.autocast(episode.support.device.type, enabled=False):
            logits = adaptation.stages()["final"](masked(episode.query, noise.query_mask))
            terms = {"cross_entropy": objectives.query_cross_entropy(logits, episode.valid).mean()}  # line 14
            if self.training and self.encoder is not None:
                z, std = adaptation.latents[0], adaptation.code_std[:, :, None]
                if noise.latents is not None:
                    kl = objectives.kl_divergence(noise.latents, std.expand_as(z), z)
                    terms["kl"] = self.kl_weight * kl.mean()
                penalty = objectives.encoder_penalty(z, adaptation.latents[-1])
                terms["encoder_penalty"] = self.encoder_penalty_weight * penalty.mean()
            return Outcome.of(terms | self.regularisers(), logits, self._diagnostics(adaptation))

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """R of Eq. 8, weighted; the learned rates are not in it."""
        networks = (self.encoder, self.relation_net, self.decoder)
        weights = [weight for network in networks if network for weight in network.parameters()]
        l2, orthogonality = self.l2_penalty_weight, self.orthogonality_penalty_weight
        return objectives.regularisers(l2, weights, orthogonality, self.decoder.weight)

    def code(
        self,
        support: Float[Tensor, "B N K E"],
        shots: Shots = None,
        mask: Float[Tensor, "B N K E"] | None = None,
    ) -> Float[Tensor, "B N two_H"]:
        """Mean and raw standard deviation of each class's code (line 6)."""
        if self.encoder is None or self.relation_net is None:  # z ~ p(z)
            return support.new_zeros(*support.shape[:2], 2 * self.num_latents)
        return self.relation_net(self.encoder(masked(support, mask)), shots)

    def adaptation(
        self,
        support: Float[Tensor, "B N K E"],
        noise: Noise,
        shots: Shots = None,
        code: Float[Tensor, "B N two_H"] | None = None,
    ) -> Adaptation:
        """Adapt to B tasks at once (Algorithm 1, lines 6-13), then fine-tune; `code` saves computing it."""
        (_, N, _, E), H = support.shape, self.num_latents
        code = self.code(support, shots, noise.encoder_mask) if code is None else code
        # under autocast the networks may run in low precision; gradients, exp and KL may not
        with torch.autocast(support.device.type, enabled=False):
            mean, raw_std = code.to(support.dtype).chunk(2, dim=-1)
            std = objectives.std_from_raw(raw_std, offset=1.0 if self.random_prior else 0.0)
            head = self.centroid_head(support, shots)
            bias = None if head is None else head.bias
            logits, shot_weights = None if bias is None else bias[:, :, None], ShotWeights.of(support, shots)
            loss = SupportLoss(support, noise.support_masks, head, logits, shot_weights)
            # the mean of the C copies is in the logits: each has 1 / C of the gradient
            alpha = (mean.new_zeros(H) if self.alpha is None else self.alpha) / shot_weights.copies
            eta = (mean.new_zeros(E) if self.eta is None else self.eta) / shot_weights.copies
            mean_weight, raw_std_weight = self.decoder.weight.chunk(2)
            # lines 7-13: decode, and adapt z
            if noise.latents is None or noise.weights is None:
                latents, decoded = mean_latent_steps(mean, alpha, self.latent_steps, mean_weight, loss)
            else:
                z = mean[:, :, None] + noise.latents * std[:, :, None]
                rate, offset = alpha if shots is None else alpha[:, None], math.sqrt(2.0 / (N + E))
                latents, decoded = sampled_latent_steps(
                    z, rate, mean_weight, raw_std_weight, noise.weights, offset, loss
                )
            weights = finetuned(decoded[-1], eta, self.finetuning_steps, loss)
        return Adaptation(mean, std, latents, decoded, weights, bias)

    def every_step(self, support: Float[Tensor, "B N K E"]) -> Adaptation:
        """The inner loop of evaluation with the classifiers of all steps, of the means of z and w."""
        # a factor of 1 drops nothing, and lets no step be passed over
        masks = support.new_ones(1).expand(self.latent_steps + self.finetuning_steps, *support.shape)
        return self.adaptation(support, Noise(support_masks=masks))

    def centroid_head(self, support: Float[Tensor, "B N K E"], shots: Shots) -> LinearClassifier | None:
        """Classifier that every decoded one is added to; see `CentroidLEO`. The paper has none."""
        return None

    @torch.no_grad()
    def _diagnostics(self, adaptation: Adaptation) -> dict[str, Float[Tensor, ""]]:
        diagnostics = {}
        if self.encoder is not None:
            spread = adaptation.code_mean.flatten(0, 1).std(0)
            diagnostics["dead_latents"] = (spread < DEAD_SPREAD).float().mean()
            diagnostics["clamped_stds"] = (adaptation.code_std <= objectives.MIN_STD).float().mean()
        if self.alpha is not None:
            diagnostics["latent_lr"] = self.alpha.mean()
        if self.eta is not None:
            diagnostics["finetuning_lr"] = self.eta.mean()
        return diagnostics
