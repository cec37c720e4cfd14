"""LEO: meta-learning with latent embedding optimization, for classification.

Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero, Hadsell: Meta-Learning with Latent Embedding Optimization.
ICLR 2019, arXiv:1807.05960. The original: github.com/google-deepmind/leo at de9a0c2, model.py. Where paper
and original differ, the original made the published numbers and is followed; each place says so.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import pad

from leo_lightning.common.errors import InputError, check_choice, check_least
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier, Learner, LinearClassifier, Outcome
from leo_lightning.learners.parts import objectives
from leo_lightning.learners.parts.dropout import check_dropout, masked
from leo_lightning.learners.parts.inner_loop import adapt
from leo_lightning.learners.parts.latent_steps import latent_steps
from leo_lightning.learners.parts.networks import Decoder, Encoder, RelationNet
from leo_lightning.learners.parts.noise import divided, draw
from leo_lightning.learners.parts.sampled_classifier import SampledClassifier
from leo_lightning.learners.parts.unequal_shots import class_mean, present

DEAD_SPREAD = 1e-6
"""A latent dimension whose code varies less than this over the classes of a meta-batch carries nothing."""


class Noise(NamedTuple):
    """All random numbers of one training step; None stands for a number that is not random.

    Masks are factors: 0, or 1 / (1 - dropout).
    """

    latents: Float[Tensor, "B N C H"] | None = None
    """Standard normal, one draw per copy of a class's code. None: the mean code, one copy, no KL."""
    weights: Float[Tensor, "decodes B N C E"] | None = None
    """Standard normal, anew for each of the T + 1 decodes. None: the mean weights."""
    encoder_mask: Float[Tensor, "B N K E"] | None = None
    support_masks: Float[Tensor, "steps B N K E"] | None = None
    """One per gradient step: T latent ones, then F of fine-tuning."""
    query_mask: Float[Tensor, "B N Q E"] | None = None


NO_NOISE = Noise()


class Adaptation(NamedTuple):
    """The inner loop of a meta-batch, step by step.

    C is the number of copies of a class's code: while sampling K, or 1 with `one_latent_per_class`; otherwise
    1, when all copies are equal. Of a class with fewer than K images the last copies count for nothing.
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
    bias: Float[Tensor, "B N"] | None
    """That of all classifiers; None without a nearest centroid beside them."""

    def stages(self) -> dict[str, LinearClassifier]:
        """Classifiers by stage."""
        weights = {
            "before_adaptation": self.decoded[0],
            "after_latent_steps": self.decoded[-1],
            "final": self.weights[-1],
        }
        return {stage: LinearClassifier(weight, self.bias) for stage, weight in weights.items()}


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
        kl: the KL term by the one sample at hand, as the authors' code has it, or in closed form.
        orthogonality: mean square of the correlations, as the authors' code has it, or l1, the sum of their
            absolute values, as Eq. 8 has it: of another scale, so that λ2 must be smaller.
        one_latent_per_class: draw one z and w for a class, as Eq. 3 reads; false: one for each of its K
            images, averaged in the logits, as the authors' code does.
        random_prior: z ~ p(z) = N(0, 1) in training and z = 0 in evaluation, without an encoder (Table 2).
        deterministic: z and w are the means of their distributions in training, too (Table 2).
        centroid_scale: initial value of a learned scale s, one per embedding dimension, of a nearest-centroid
            classifier with logits -½ Σ s (x - c)² that every decoded w is added to; its logarithm is what is
            learned. 0: none, as in the paper.
        centroid_map: measure these distances after a learned linear map A, too, which begins as the identity:
            logits -½ ‖A √s (x - c)‖².
        test_samples: samples of (z, w) whose probabilities are averaged in evaluation; 0: the means of both.
    """

    unequal_shots = True

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
        kl: Literal["sample", "closed_form"] = "sample",
        orthogonality: Literal["squared", "l1"] = "squared",
        one_latent_per_class: bool = False,
        random_prior: bool = False,
        deterministic: bool = False,
        centroid_scale: float = 0.0,
        centroid_map: bool = False,
        test_samples: int = 0,
    ) -> None:
        super().__init__()
        check_dropout(dropout)
        not_negative = {
            "latent_steps": latent_steps, "finetuning_steps": finetuning_steps,
            "latent_lr": latent_lr, "finetuning_lr": finetuning_lr,
            "kl_weight": kl_weight, "encoder_penalty_weight": encoder_penalty_weight,
            "l2_penalty_weight": l2_penalty_weight,
            "orthogonality_penalty_weight": orthogonality_penalty_weight,
            "centroid_scale": centroid_scale, "test_samples": test_samples,
        }  # fmt: skip
        check_least(1, {"num_latents": num_latents})
        check_least(0, not_negative)
        check_choice("kl", kl, ("sample", "closed_form"))
        check_choice("orthogonality", orthogonality, ("squared", "l1"))
        if centroid_map and not centroid_scale:
            raise InputError("centroid_map is true and centroid_scale 0: there is no centroid; set its scale")
        if deterministic and (random_prior or test_samples):
            other = "random_prior" if random_prior else "test_samples"
            raise InputError(
                f"deterministic and {other} exclude each other: nothing is drawn; set one of them"
            )
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
        self.kl: Literal["sample", "closed_form"] = kl
        self.orthogonality: Literal["squared", "l1"] = orthogonality
        self.one_latent_per_class = one_latent_per_class
        self.random_prior = random_prior
        self.deterministic = deterministic
        self.centroid_scale = centroid_scale
        self.centroid_map = centroid_map
        self.test_samples = test_samples
        self.encoder = None if random_prior else Encoder(embedding_size, num_latents)
        self.relation_net = None if random_prior else RelationNet(num_latents)
        self.decoder = Decoder(num_latents, embedding_size)
        # a rate that no step uses would be a parameter without gradient, which DDP refuses
        self.alpha = nn.Parameter(torch.full((num_latents,), latent_lr)) if latent_steps else None
        self.eta = nn.Parameter(torch.full((embedding_size,), finetuning_lr)) if finetuning_steps else None
        log_scale = torch.full((embedding_size,), math.log(centroid_scale)) if centroid_scale else None
        self.log_scale = None if log_scale is None else nn.Parameter(log_scale)
        self.map = nn.Parameter(torch.eye(embedding_size)) if centroid_map else None

    def check_compilable(self) -> None:
        """See `Learner.check_compilable`. torch.compile knows no generator, which samples are drawn with."""
        if self.test_samples:
            raise InputError("model.compile cannot compile test_samples; leave one of the two out")

    def stages(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> Mapping[str, Classifier]:
        """See `Learner.stages`."""
        if not self.test_samples:
            return self.adaptation(support, NO_NOISE, shots).stages()
        noises = self._samples(support) if shots is None else self._samples_by_size(support, shots)
        samples = [self.adaptation(support, noise, shots).stages() for noise in noises]
        return {
            stage: SampledClassifier(torch.stack([each[stage].weight for each in samples], 1), first.bias)
            for stage, first in samples[0].items()
        }

    def _samples(self, support: Float[Tensor, "B N K E"]) -> Iterator[Noise]:
        """Noise of evaluation: that of a sample is the same for all tasks, and in every call."""
        shapes = self._normal_shapes(support)
        like = support.new_empty(self.test_samples, 0)
        drawn, _ = draw(like, range(self.test_samples), sum(map(math.prod, shapes)), 0, 0.0)
        for latents, weights in zip(*divided(drawn, shapes), strict=True):
            tasks = len(support)
            yield Noise(latents.expand(tasks, -1, -1, -1), weights[:, None].expand(-1, tasks, -1, -1, -1))

    def _samples_by_size(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"]
    ) -> Iterator[Noise]:
        """`_samples` for the largest class of each task, so that none hangs on the tasks beside it."""
        sizes, size = shots.amax(1).unique(return_inverse=True)
        for noises in zip(*(self._samples(support[:1, :, :most]) for most in sizes.tolist()), strict=True):
            copies = max(noise.latents.shape[2] for noise in noises)
            latents, weights = (
                torch.cat([pad(x, (0, 0, 0, copies - x.shape[-2])) for x in field], dim=-4)
                for field in zip(*((noise.latents, noise.weights) for noise in noises), strict=True)
            )
            yield Noise(latents[size], weights[:, size])

    def _normal_shapes(self, support: Float[Tensor, "B N K E"]) -> list[tuple[int, ...]]:
        """Shapes of a task's normal numbers: those of z, and those of w at each of the T + 1 decodes."""
        _, N, K, E = support.shape
        copies = 1 if self.one_latent_per_class else K
        return [(N, copies, self.num_latents), (self.latent_steps + 1, N, copies, E)]

    def draw_noise(self, episode: Episode, seeds: Sequence[int] | None) -> Noise:
        """See `Learner.draw_noise`."""
        if not self.training:
            return NO_NOISE
        (_, N, K, E), Q = episode.support.shape, episode.query.shape[2]
        normals = [] if self.deterministic else self._normal_shapes(episode.support)
        factors = {
            "encoder_mask": (N, K, E),
            "support_masks": (self.latent_steps + self.finetuning_steps, N, K, E),
            "query_mask": (N, Q, E),
        }
        if self.encoder is None:
            del factors["encoder_mask"]
        if not self.dropout:
            factors.clear()
        count, kept = (sum(map(math.prod, shapes)) for shapes in (normals, factors.values()))
        normal, scales = draw(episode.support, seeds, count, kept, self.dropout)
        drawn = dict(zip(factors, divided(scales, list(factors.values())), strict=True))
        drawn |= dict(zip(("latents", "weights"), divided(normal, normals), strict=bool(normals)))
        for steps in {"weights", "support_masks"} & drawn.keys():
            drawn[steps] = drawn[steps].transpose(0, 1)
        return Noise(**drawn)

    def outcome(self, episode: Episode, noise: Noise) -> Outcome:
        """See `Learner.outcome`."""
        adaptation = self.adaptation(episode.support, noise)
        with torch.autocast(episode.support.device.type, enabled=False):
            return self._judge(episode, noise, adaptation)

    def _judge(self, episode: Episode, noise: Noise, adaptation: Adaptation) -> Outcome:
        final = adaptation.stages()["final"](masked(episode.query, noise.query_mask))
        terms = {"cross_entropy": objectives.query_cross_entropy(final, episode.valid).mean()}
        if self.training and self.encoder is not None:
            z = adaptation.latents[0]
            if noise.latents is not None:
                terms["kl"] = self.kl_weight * self._kl(noise.latents, adaptation).mean()
            penalty = objectives.encoder_penalty(z, adaptation.latents[-1])
            terms["encoder_penalty"] = self.encoder_penalty_weight * penalty.mean()
        terms |= self.regularisers()
        loss = torch.stack(list(terms.values())).sum()
        return Outcome(loss, terms, final, self._diagnostics(adaptation))

    def _kl(self, eps: Float[Tensor, "B N C H"], adaptation: Adaptation) -> Float[Tensor, " B"]:
        if self.kl == "closed_form":
            return objectives.exact_kl_divergence(adaptation.code_mean, adaptation.code_std)
        z = adaptation.latents[0]
        return objectives.kl_divergence(eps, adaptation.code_std[:, :, None].expand_as(z), z)

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """R(θ) of Eq. 8, weighted; the learned rates are not in it."""
        networks = (self.encoder, self.relation_net, self.decoder)
        l2 = objectives.l2_penalty(w for network in networks if network for w in network.parameters())
        penalty = {"squared": objectives.orthogonality_penalty, "l1": objectives.orthogonality_norm}
        orthogonality = penalty[self.orthogonality](self.decoder.weight.T)
        return {
            "l2_penalty": self.l2_penalty_weight * l2,
            "orthogonality_penalty": self.orthogonality_penalty_weight * orthogonality,
        }

    def adaptation(
        self, support: Float[Tensor, "B N K E"], noise: Noise, shots: Int64[Tensor, "B N"] | None = None
    ) -> Adaptation:
        """Algorithm 1, lines 4-15: encode, adapt the code, decode, fine-tune.

        The paper knows equal shots only. Where `shots` differ (see `Learner.stages`), a class has as many
        copies of its code as it has images. With C images per class on average the rates are α / C and η / C,
        and in the sum of the support loss an image of a class that has k counts C / k: all classes weigh the
        same in it, and all of it as much as with equal shots. If all images counted 1, adaptation would take
        the numbers of images for the frequencies of the classes.
        """
        (_, N, K, E), H, T, F = support.shape, self.num_latents, self.latent_steps, self.finetuning_steps
        copies, share, counted = (1 if self.one_latent_per_class else K), None, None
        if shots is not None:
            images = shots.to(support.dtype)[..., None]
            average = images.mean(1, keepdim=True)
            counted = (average / images).expand(-1, -1, K).flatten(1)[:, None]
            if not self.one_latent_per_class:
                copies, share = average, (present(support, shots) / images)[..., None]
        code = self._code(support, noise, shots)
        # under autocast the networks above may run in low precision; gradients, exp and KL may not
        with torch.autocast(support.device.type, enabled=False):
            mean, raw_std = code.to(support.dtype).chunk(2, dim=-1)
            std, _ = objectives.std_from_raw(raw_std, offset=1.0 if self.random_prior else 0.0)
            masks, beside = noise.support_masks, self._nearest_centroid(support, shots)
            bias = None if beside is None or beside.bias is None else beside.bias[:, :, None]
            z = mean[:, :, None]
            if noise.latents is not None:
                z = z + noise.latents * std[:, :, None]
            # each copy enters the logits through the mean over the copies, 1 / C of the gradient is its own
            alpha = (mean.new_zeros(H) if self.alpha is None else self.alpha) / copies
            eta = (mean.new_zeros(E) if self.eta is None else self.eta) / copies
            if noise.weights is None:
                latents, decoded = self._exact_latent_steps(z, alpha, support, masks, beside, counted)
            else:
                z = z.expand(-1, -1, noise.weights.shape[3], -1)
                offset = math.sqrt(2.0 / (N + E))
                rate = alpha if share is None else alpha[:, None]
                mean_weight, raw_std_weight = self.decoder.weight.chunk(2)
                rest = support, masks, noise.weights, offset, beside, share, counted
                weight, latents, decoded = latent_steps(z, rate, mean_weight, raw_std_weight, *rest)
                latents, decoded = [z, *latents[1:]], [*decoded[:-1], weight]
            if masks is None:
                weights = self._exact_finetuning(decoded[-1], eta, support, bias, counted)
            else:
                # all copies take the same step, so their mean takes it too
                weights = adapt(
                    decoded[-1],
                    lambda weight, step: objectives.support_gradient(support * masks[T + step], weight, bias),
                    eta,
                    F,
                )
        return Adaptation(mean, std, latents, decoded, weights, None if beside is None else beside.bias)

    def every_step(self, support: Float[Tensor, "B N K E"]) -> Adaptation:
        """The inner loop of evaluation with the classifiers of all steps, of which `stages` needs three.

        Those of the means of z and w, also where answers are averages over `test_samples`.
        """
        # a factor of 1 drops nothing, and lets no step be passed over
        masks = support.new_ones(1).expand(self.latent_steps + self.finetuning_steps, *support.shape)
        found = self.adaptation(support, Noise(support_masks=masks))
        with torch.autocast(support.device.type, enabled=False):
            beside = self._nearest_centroid(support)
            decoded = [z.squeeze(2) @ self.decoder.mean_weight.T for z in found.latents]
            if beside is not None:
                decoded = [weight + beside.weight for weight in decoded]
        return found._replace(decoded=decoded)

    def _code(
        self, support: Float[Tensor, "B N K E"], noise: Noise, shots: Int64[Tensor, "B N"] | None
    ) -> Float[Tensor, "B N codes"]:
        """Mean and raw standard deviation of every class's z: zeros for p(z)."""
        if self.encoder is None or self.relation_net is None:
            B, N, _, _ = support.shape
            return support.new_zeros(B, N, 2 * self.num_latents)
        return self.relation_net(self.encoder(masked(support, noise.encoder_mask)), shots)

    def _nearest_centroid(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> LinearClassifier | None:
        """What decoded classifiers are added to: -½ ‖A √s (x - c)‖², less what is equal for all classes."""
        if self.log_scale is None:
            return None
        scale, centroids = self.log_scale.exp(), class_mean(support, shots)
        if self.map is None:
            return LinearClassifier(scale * centroids, -0.5 * (centroids.square() @ scale))
        root = scale.sqrt()
        mapped = (root * centroids) @ self.map.T
        return LinearClassifier(root * (mapped @ self.map), -0.5 * mapped.square().sum(-1))

    def _exact_latent_steps(
        self,
        z: Float[Tensor, "B N 1 H"],
        rate: Float[Tensor, "*#tasks H"],
        support: Float[Tensor, "B N K E"],
        masks: Float[Tensor, "steps B N K E"] | None,
        beside: LinearClassifier | None,
        counted: Float[Tensor, "B 1 M"] | None,
    ) -> tuple[list[Float[Tensor, "B N 1 H"]], list[Float[Tensor, "B N E"]]]:
        """Latent steps without sampling of weights. They stay in H dimensions: x · W_μ z = (x W_μ) · z.

        Returns all iterates, and the classifiers of the first and the last.
        """
        mean_weight = self.decoder.mean_weight

        def gradient(z: Tensor, step: int) -> Tensor:
            each = step if masks is not None else 0
            beside_z = None if known is None else known[each]
            return objectives.support_gradient(projected[each], z, beside_z, counted)

        images = support[None] if masks is None else support * masks[: self.latent_steps]
        projected = images @ mean_weight
        known = None
        if beside is not None and len(images):  # with T = 0 masks leave none
            known = torch.stack([beside(each).flatten(1, 2).mT for each in images])
        latents = adapt(z.squeeze(2), gradient, rate, self.latent_steps)
        ends = latents if len(latents) == 1 else [latents[0], latents[-1]]
        decoded = [z @ mean_weight.T for z in ends]
        if beside is not None:
            decoded = [weight + beside.weight for weight in decoded]
        return [z[:, :, None] for z in latents], decoded

    def _exact_finetuning(
        self,
        weight: Float[Tensor, "B N E"],
        rate: Float[Tensor, "*#tasks E"],
        support: Float[Tensor, "B N K E"],
        bias: Float[Tensor, "B N 1"] | None,
        counted: Float[Tensor, "B 1 M"] | None,
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
        if bias is not None:
            logits = logits + bias
        residuals = torch.zeros_like(logits)
        target = objectives.one_hot(support.shape[1], support.shape[2], logits)
        for _ in range(self.finetuning_steps):
            residual = logits.softmax(1) - target
            if counted is not None:
                residual = residual * counted
            residuals = residuals + residual
            logits = logits - torch.bmm(residual, gram)
        return [weight, weight - torch.bmm(residuals, moved)]

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
