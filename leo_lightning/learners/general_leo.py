"""LEO in its general form: any base learner, whose parameters are decoded from one latent code or several.

Rusu et al., ICLR 2019, arXiv:1807.05960: Section 2.3 and Algorithm 1; with `MLPRegressor` the regression of
Section 4.1, for which the authors published no code. `LEO` is the same for a linear softmax, several times
faster, and with the details of the authors' code. Two things differ here: a standard deviation is exp(u)
times an initial one, which neither vanishes nor stops learning, and step sizes are learned as multiples of
their initial values, which for squared errors are so small that an optimiser's steps would toss them about.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier, Learner, Outcome
from leo_lightning.learners.leo import Adaptation
from leo_lightning.learners.parts import objectives
from leo_lightning.learners.parts.base_learner import BaseLearner
from leo_lightning.learners.parts.generated_steps import InnerLoop, adapted, last_theta
from leo_lightning.learners.parts.networks import RelationNet
from leo_lightning.learners.parts.noise import NO_NOISE, Noise, draw
from leo_lightning.learners.parts.normal_mixture import Predictive, of_samples
from leo_lightning.learners.parts.perceptron import Perceptron


class GeneralLEO(Learner):
    """Latent Embedding Optimization (Algorithm 1) of the parameters of a base learner.

    Args:
        embedding_size: E, numbers that an example has; null: taken from the data.
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
        gradient_clip: largest length of the inner loop's gradient of θ, which squared errors of a deep
            network do not bound; null: any. Not in the paper.
        predictive_samples: samples of (z, θ) that make a predictive distribution; 0: the means of both alone.
    """

    predicts: Literal["classes", "values"]
    """As its base learner."""

    def __init__(
        self,
        embedding_size: int | None = None,
        *,
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
        check_positive({"gradient_clip": gradient_clip})
        check_least(0, {"latent_steps": latent_steps, "finetuning_steps": finetuning_steps})
        check_least(0, {"latent_lr": latent_lr, "finetuning_lr": finetuning_lr, "code_std": code_std})
        check_least(0, {"parameter_std": parameter_std, "predictive_samples": predictive_samples})
        self.embedding_size = None
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
        self.take_size(embedding_size)

    def make_weights(self, E: int) -> None:
        """Make the networks and the learned rates."""
        H, initial = self.num_latents, self.base.initial(E)
        self.encoder = Perceptron([E, *self.encoder_sizes, H])
        self.relation_net = RelationNet(H)
        self.decoder = Perceptron([H, *self.decoder_sizes, 2 * len(initial)])
        last = self.decoder.linears()[-1]
        with torch.no_grad():
            last.bias[: len(initial)] = initial
            last.weight[len(initial) :] = 0.0
        # a rate that no step uses would be a parameter without gradient, which DDP refuses
        self.alpha = nn.Parameter(torch.ones(H)) if self.latent_steps else None
        self.eta = nn.Parameter(torch.ones(len(initial))) if self.finetuning_steps else None

    def draw_noise(self, episode: Episode, seeds: Sequence[int] | None) -> Noise:
        """Normal numbers of z and θ."""
        return self._noise(episode.support, seeds)

    def outcome(self, episode: Episode, noise: Noise) -> Outcome:
        """Outer loss (Eq. 7 and 8) of the adapted networks."""
        adaptation = self.adaptation(episode.support, noise)
        with torch.autocast(episode.support.device.type, enabled=False):
            prediction = self.base.predictor(adaptation.weights[-1])(episode.query)
            terms = {"query_loss": self.base.query_loss(prediction, episode).mean()}
            if self.training:
                z = adaptation.latents[0]
                if noise.latents is not None:
                    kl = objectives.kl_divergence(noise.latents, adaptation.code_std, z)
                    terms["kl"] = self.kl_weight * kl.mean()
                penalty = objectives.encoder_penalty(z, adaptation.latents[-1])
                terms["encoder_penalty"] = self.encoder_penalty_weight * penalty.mean()
            networks = (self.encoder, self.relation_net, self.decoder)
            weights = [weight for network in networks for weight in network.parameters()]
            l2, orthogonality = self.l2_penalty_weight, self.orthogonality_penalty_weight
            terms |= objectives.regularisers(l2, weights, orthogonality, self.decoder.linears()[0].weight)
            return Outcome.of(terms, prediction, {})

    def stages(self, support: Float[Tensor, "B N K E"]) -> Mapping[str, Classifier]:
        """Networks before adaptation, after the latent steps and after fine-tuning."""
        stages = self.adaptation(support, NO_NOISE).stages()
        return {name: self.base.predictor(theta) for name, (theta, _) in stages.items()}

    def samples(self, support: Float[Tensor, "B N K E"], count: int) -> Iterator[Classifier]:
        """Networks of `count` samples of (z, θ), with the same noise for all tasks and in every call."""
        code = self.relation_net(self.encoder(support))
        for seed in range(count):
            with torch.autocast(support.device.type, enabled=False):
                _, _, loop = self._inner_loop(support, code, self._noise(support[:1], [seed]))
                function = self.base.predictor(last_theta(loop))
            yield function

    def predictive(self, episode: Episode, final: Classifier) -> Predictive:
        """A mixture of `predictive_samples` functions."""
        count = self.predictive_samples
        functions = self.samples(episode.support, count) if count else [final]
        means = [function(episode.query)[:, 0, :, 0] for function in functions]
        return of_samples(torch.stack(means, dim=1), episode.noise)

    def adaptation(self, support: Float[Tensor, "B N K E"], noise: Noise) -> Adaptation:
        """Adapt to B tasks at once (Algorithm 1, lines 6-13), then fine-tune."""
        code = self.relation_net(self.encoder(support))  # line 6
        with torch.autocast(support.device.type, enabled=False):
            mean, std, loop = self._inner_loop(support, code, noise)
            return Adaptation(mean, std, *adapted(loop))  # lines 7-13

    def _inner_loop(
        self, support: Float[Tensor, "B N K E"], code: Float[Tensor, "B N two_H"], noise: Noise
    ) -> tuple[Float[Tensor, "B N H"], Float[Tensor, "B N H"], InnerLoop]:
        """Mean and standard deviation of z, and the inner loop that begins with a sample of it."""
        mean, raw_std = code.to(support.dtype).chunk(2, dim=-1)
        std = self.code_std * raw_std.exp()
        z = mean if noise.latents is None else mean + noise.latents * std
        alpha = self._rate(self.alpha, self.latent_lr, z, self.num_latents)
        eta = self._rate(self.eta, self.finetuning_lr, z, len(self.decoder.linears()[-1].bias) // 2)
        scales = None if noise.weights is None else noise.weights * self.parameter_std
        steps = self.latent_steps, self.finetuning_steps
        rest = self.decoder, self.base, support, scales, *steps, self.gradient_clip
        return mean, std, InnerLoop(z, alpha, eta, *rest)

    @staticmethod
    def _rate(multiple: Tensor | None, initial: float, like: Tensor, size: int) -> Float[Tensor, " D"]:
        return like.new_zeros(size) if multiple is None else initial * multiple

    def _noise(self, support: Float[Tensor, "B N K E"], seeds: Sequence[int] | None) -> Noise:
        N, parameters = support.shape[1], len(self.decoder.linears()[-1].bias) // 2
        shapes = {"latents": (N, self.num_latents), "weights": (self.latent_steps + 1, N, parameters)}
        drawn = draw(support, seeds, shapes)
        return Noise(drawn["latents"], drawn["weights"].transpose(0, 1))
