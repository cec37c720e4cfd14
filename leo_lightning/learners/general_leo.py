"""LEO in its general form: any base learner, whose parameters are decoded from one latent code or several.

Rusu et al.: Meta-Learning with Latent Embedding Optimization. ICLR 2019, arXiv:1807.05960: Section 2.3 and
Algorithm 1; with `MLPRegressor` the regression of Section 4.1, for which the authors published no code. `LEO`
is the same for a linear softmax, as fast as could be made, and with the details of the authors' code. Two
things differ here: a standard deviation is exp(u) times an initial one, which neither vanishes nor stops to
learn, and the step sizes are learned as multiples of their initial values, which for squared errors are so
small that an optimiser's usual steps would toss them about.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.errors import check_least
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier, Learner, Outcome
from leo_lightning.learners.parts import objectives
from leo_lightning.learners.parts.base_learner import BaseLearner
from leo_lightning.learners.parts.inner_loop import adapt, check_clip, shortened
from leo_lightning.learners.parts.networks import Perceptron, RelationNet
from leo_lightning.learners.parts.noise import divided, draw
from leo_lightning.learners.parts.normal_mixture import Predictive, of_samples


class CodeNoise(NamedTuple):
    """All random numbers of a training step, standard normal; None: the means in their place."""

    latents: Float[Tensor, "B N H"] | None = None
    weights: Float[Tensor, "decodes B N D"] | None = None
    """Anew for each of the T + 1 decodes."""


MEANS = CodeNoise()


class CodeAdaptation(NamedTuple):
    """The inner loop of a meta-batch, step by step."""

    code_mean: Float[Tensor, "B N H"]
    code_std: Float[Tensor, "B N H"]
    latents: list[Float[Tensor, "B N H"]]
    """z before and after each of the T latent steps."""
    decoded: list[Float[Tensor, "B N D"]]
    """θ of each of the T + 1 decodes."""
    theta: list[Float[Tensor, "B N D"]]
    """θ before and after each of the F fine-tuning steps."""


class GeneralLEO(Learner):
    """Latent Embedding Optimization (Algorithm 1) of the parameters of a base learner.

    Args:
        embedding_size: E, numbers that an example has; taken from the data.
        base: the network that is generated for a task, and its loss.
        num_latents: H, size of a latent code z; the relation net has hidden layers of 2H.
        encoder_sizes: sizes of the encoder's hidden layers; none: a linear encoder.
        decoder_sizes: sizes of the decoder's hidden layers; none: a linear decoder.
        latent_steps: T, gradient steps on z.
        finetuning_steps: F, gradient steps on θ after the latent ones.
        latent_lr: initial value of α, the learned step size on z, one per latent dimension.
        finetuning_lr: initial value of η, the learned step size on θ, one per parameter.
        code_std: initial standard deviation of z.
        parameter_std: initial standard deviation of θ.
        kl_weight: β, weight of KL(q(z) || N(0, 1)).
        encoder_penalty_weight: γ, weight of the squared distance of initial to adapted codes.
        l2_penalty_weight: λ1, weight of half the squared weights of encoder, relation net and decoder.
        orthogonality_penalty_weight: λ2, weight of the correlation between the latent dimensions in the
            decoder's first layer.
        gradient_clip: largest length that the gradient of θ may have in the inner loop; null: any. That of
            squared errors of a deep network has no bound. Not in the paper.
        predictive_samples: samples of (z, θ) that make a predictive distribution; 0: the means of both alone.
    """

    def __init__(
        self,
        embedding_size: int,
        base: BaseLearner,
        num_latents: int = 16,
        encoder_sizes: Sequence[int] = (16, 16),
        decoder_sizes: Sequence[int] = (32, 32),
        latent_steps: int = 5,
        finetuning_steps: int = 5,
        latent_lr: float = 0.1,
        finetuning_lr: float = 0.001,
        code_std: float = 0.1,
        parameter_std: float = 0.02,
        kl_weight: float = 1e-3,
        encoder_penalty_weight: float = 1e-9,
        l2_penalty_weight: float = 1e-8,
        orthogonality_penalty_weight: float = 1e-3,
        gradient_clip: float | None = None,
        predictive_samples: int = 100,
    ) -> None:
        super().__init__()
        sizes = (num_latents, *encoder_sizes, *decoder_sizes)
        check_least(1, {"num_latents, encoder_sizes and decoder_sizes": min(sizes)})
        check_clip(gradient_clip)
        not_negative = {
            "latent_steps": latent_steps, "finetuning_steps": finetuning_steps,
            "latent_lr": latent_lr, "finetuning_lr": finetuning_lr,
            "code_std": code_std, "parameter_std": parameter_std,
            "kl_weight": kl_weight, "encoder_penalty_weight": encoder_penalty_weight,
            "l2_penalty_weight": l2_penalty_weight,
            "orthogonality_penalty_weight": orthogonality_penalty_weight,
            "predictive_samples": predictive_samples,
        }  # fmt: skip
        check_least(0, not_negative)
        self.embedding_size = embedding_size
        self.base = base
        self.predicts = base.predicts
        self.num_latents = num_latents
        self.encoder_sizes = list(encoder_sizes)
        self.decoder_sizes = list(decoder_sizes)
        self.latent_steps = latent_steps
        self.finetuning_steps = finetuning_steps
        self.latent_lr = latent_lr
        self.finetuning_lr = finetuning_lr
        self.code_std = code_std
        self.parameter_std = parameter_std
        self.kl_weight = kl_weight
        self.encoder_penalty_weight = encoder_penalty_weight
        self.l2_penalty_weight = l2_penalty_weight
        self.orthogonality_penalty_weight = orthogonality_penalty_weight
        self.gradient_clip = gradient_clip
        self.predictive_samples = predictive_samples
        beginning = base.initial(embedding_size)
        self.encoder = Perceptron([embedding_size, *encoder_sizes, num_latents])
        self.relation_net = RelationNet(num_latents)
        self.decoder = Perceptron([num_latents, *decoder_sizes, 2 * len(beginning)])
        with torch.no_grad():
            self.decoder.last.bias[: len(beginning)] = beginning
            self.decoder.last.weight[len(beginning) :] = 0.0
        # a rate that no step uses would be a parameter without gradient, which DDP refuses
        self.alpha = nn.Parameter(torch.ones(num_latents)) if latent_steps else None
        self.eta = nn.Parameter(torch.ones(len(beginning))) if finetuning_steps else None

    def draw_noise(self, episode: Episode, seeds: Sequence[int] | None) -> CodeNoise:
        """See `Learner.draw_noise`."""
        return self._noise(episode.support, seeds) if self.training else MEANS

    def outcome(self, episode: Episode, noise: CodeNoise) -> Outcome:
        """See `Learner.outcome`."""
        adaptation = self.adaptation(episode.support, noise)
        with torch.autocast(episode.support.device.type, enabled=False):
            prediction = self.base.predictor(adaptation.theta[-1])(episode.query)
            terms = {"query_loss": self.base.query_loss(prediction, episode.query, episode.valid).mean()}
            if self.training:
                z = adaptation.latents[0]
                if noise.latents is not None:
                    kl = objectives.kl_divergence(noise.latents, adaptation.code_std, z)
                    terms["kl"] = self.kl_weight * kl.mean()
                penalty = objectives.encoder_penalty(z, adaptation.latents[-1])
                terms["encoder_penalty"] = self.encoder_penalty_weight * penalty.mean()
            terms |= self._regularisers()
            loss = torch.stack(list(terms.values())).sum()
        return Outcome(loss, terms, prediction, {})

    def stages(self, support: Float[Tensor, "B N K E"]) -> Mapping[str, Classifier]:
        """See `Learner.stages`."""
        adaptation = self.adaptation(support, MEANS)
        thetas = {
            "before_adaptation": adaptation.decoded[0],
            "after_latent_steps": adaptation.decoded[-1],
            "final": adaptation.theta[-1],
        }
        return {stage: self.base.predictor(theta) for stage, theta in thetas.items()}

    def samples(self, support: Float[Tensor, "B N K E"], count: int) -> Iterator[Classifier]:
        """Networks of the given number of samples of (z, θ), each adapted by itself: the same in every call.

        The noise of a sample is the same for all tasks.
        """
        for seed in range(count):
            noise = self._noise(support[:1], [seed])
            assert noise.latents is not None
            assert noise.weights is not None
            tasks = len(support)
            spread = CodeNoise(noise.latents.expand(tasks, -1, -1), noise.weights.expand(-1, tasks, -1, -1))
            yield self.base.predictor(self.adaptation(support, spread).theta[-1])

    def predictive(self, episode: Episode, final: Classifier) -> Predictive:
        """See `Regressor`. A mixture of `predictive_samples` functions."""
        count = self.predictive_samples
        sampled = self.samples(episode.support, count) if count else [final]
        means = [each(episode.query)[:, 0, :, 0] for each in sampled]
        return of_samples(torch.stack(means, dim=1), episode.noise)

    def adaptation(self, support: Float[Tensor, "B N K E"], noise: CodeNoise) -> CodeAdaptation:
        """Algorithm 1, lines 4-15: encode, adapt the code, decode, fine-tune."""
        code = self.relation_net(self.encoder(support))
        with torch.autocast(support.device.type, enabled=False):
            mean, raw_std = code.to(support.dtype).chunk(2, dim=-1)
            std = self.code_std * raw_std.exp()
            z = mean if noise.latents is None else mean + noise.latents * std
            decoded: list[Tensor] = []

            def theta_of(z: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
                """θ, its derivative by the raw standard deviation, what the decoder's layers were given."""
                found = self.decoder.activations(z)
                theta, raw = found[-1].chunk(2, dim=-1)
                by_raw = torch.zeros_like(raw)
                if noise.weights is not None:
                    by_raw = noise.weights[len(decoded)] * self.parameter_std * raw.exp()
                    theta = theta + by_raw
                decoded.append(theta)
                return theta, by_raw, found

            def gradient(z: Tensor, step: int) -> Tensor:
                theta, by_raw, found = theta_of(z)
                by_theta = self._support_gradient(theta, support)
                return self.decoder.pulled_back(torch.cat([by_theta, by_theta * by_raw], dim=-1), found)

            latents = adapt(z, gradient, self._rate(self.alpha, self.latent_lr, z), self.latent_steps)
            theta, _, _ = theta_of(latents[-1])
            weights = adapt(
                theta,
                lambda theta, step: self._support_gradient(theta, support),
                self._rate(self.eta, self.finetuning_lr, theta),
                self.finetuning_steps,
            )
        return CodeAdaptation(mean, std, latents, decoded, weights)

    @staticmethod
    def _rate(multiple: Tensor | None, initial: float, like: Float[Tensor, "B N D"]) -> Float[Tensor, " D"]:
        return torch.zeros_like(like[0, 0]) if multiple is None else initial * multiple

    def _support_gradient(
        self, theta: Float[Tensor, "B N D"], support: Float[Tensor, "B N K E"]
    ) -> Float[Tensor, "B N D"]:
        return shortened(self.base.support_gradient(theta, support), self.gradient_clip)

    def _noise(self, support: Float[Tensor, "B N K E"], seeds: Sequence[int] | None) -> CodeNoise:
        N, parameters = support.shape[1], len(self.decoder.last.bias) // 2
        shapes = [(N, self.num_latents), (self.latent_steps + 1, N, parameters)]
        normal, _ = draw(support, seeds, sum(map(math.prod, shapes)), 0, 0.0)
        latents, weights = divided(normal, shapes)
        return CodeNoise(latents, weights.transpose(0, 1))

    def _regularisers(self) -> dict[str, Float[Tensor, ""]]:
        networks = (self.encoder, self.relation_net, self.decoder)
        l2 = objectives.l2_penalty(w for network in networks for w in network.parameters())
        orthogonality = objectives.orthogonality_penalty(self.decoder.first_weight.T)
        return {
            "l2_penalty": self.l2_penalty_weight * l2,
            "orthogonality_penalty": self.orthogonality_penalty_weight * orthogonality,
        }
