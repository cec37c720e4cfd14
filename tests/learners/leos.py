"""Small LEOs, tasks and noise for them, and the plain transcription's answers."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from leo_lightning.data.episode import Episode
from leo_lightning.learners.centroid_leo import CentroidLEO
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.noise import Noise
from tests.oracles import leo_plain as oracle

DOUBLE = torch.float64

VARIANTS = {
    "as published": {},
    "random prior": {"random_prior": True},
    "random prior, no dropout": {"random_prior": True, "dropout": 0.0},
    "deterministic": {"deterministic": True},
    "generator only": {"latent_steps": 0, "finetuning_steps": 0},
}
CENTROIDS = {
    "centroid": {"centroid_scale": 2.0},
    "centroid, no dropout": {"centroid_scale": 2.0, "dropout": 0.0},
    "centroid behind a map": {"centroid_scale": 2.0, "centroid_map": True},
    "deterministic, centroid": {"deterministic": True, "centroid_scale": 2.0},
    "deterministic, no dropout": {"deterministic": True, "dropout": 0.0, "centroid_scale": 2.0},
}


def small_leo(**settings: object) -> LEO:
    """A LEO with random weights and every term of the loss; with a centroid's scale, a CentroidLEO."""
    torch.manual_seed(7)
    defaults = {
        "embedding_size": 6, "num_latents": 4, "latent_steps": 2, "finetuning_steps": 2,
        "latent_lr": 0.3, "finetuning_lr": 0.2, "dropout": 0.3, "kl_weight": 0.1,
        "encoder_penalty_weight": 0.3, "l2_penalty_weight": 0.01, "orthogonality_penalty_weight": 0.2,
    }  # fmt: skip
    kind = CentroidLEO if "centroid_scale" in settings else LEO
    return kind(**(defaults | settings)).to(DOUBLE)


def variant(name: str) -> LEO:
    """One of the variants, with factors that differ, so that a test sees one taken for another."""
    leo = small_leo(**(VARIANTS | CENTROIDS)[name])
    if isinstance(leo, CentroidLEO):
        with torch.no_grad():
            leo.log_scale.add_(torch.linspace(-0.7, 0.4, 6, dtype=DOUBLE))
            if leo.map is not None:
                leo.map.add_(torch.linspace(-0.5, 0.6, 36, dtype=DOUBLE).reshape(6, 6).roll(1, 1))
    return leo


def episode_of(B: int = 2, N: int = 3, K: int = 2, Q: int = 4, E: int = 6, seed: int = 0) -> Episode:
    """Random images of length 1, in float64."""
    generator = torch.Generator().manual_seed(seed)
    support = torch.randn(B, N, K, E, generator=generator, dtype=DOUBLE)
    query = torch.randn(B, N, Q, E, generator=generator, dtype=DOUBLE)
    return Episode(nn.functional.normalize(support, dim=-1), nn.functional.normalize(query, dim=-1))


def noise_of(leo: LEO, episode: Episode, seed: int = 1) -> Noise:
    return leo.draw_noise(episode, range(100 * seed, 100 * seed + len(episode.support)))


def rearranged(noise: Noise, change: Callable[[Tensor, int], Tensor]) -> Noise:
    """Noise with `change(tensor, dimension of the tasks)` applied to every part."""
    return Noise(
        latents=change(noise.latents, 0),
        weights=change(noise.weights, 1),
        encoder_mask=change(noise.encoder_mask, 0),
        support_masks=change(noise.support_masks, 1),
        query_mask=change(noise.query_mask, 0),
    )


def close(found: Tensor, expected: np.ndarray, name: str) -> None:
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-10, atol=1e-10, err_msg=name)


def plain(leo: LEO, episode: Episode, noise: Noise) -> list[dict[str, Tensor]]:
    """The plain transcription's answer for each task."""
    answers = []
    for b in range(len(episode.support)):
        # the samples of evaluation are the same for all tasks
        parts = rearranged(
            noise, lambda x, tasks, b=b: None if x is None else x.select(tasks, b % x.shape[tasks])
        )
        answers.append(
            oracle.task(
                dict(leo.named_parameters()), episode.support[b], episode.query[b],
                (leo.latent_steps, leo.finetuning_steps), episode.support.shape[2], parts.latents,
                parts.weights, parts.encoder_mask, parts.support_masks, parts.query_mask,
            )
        )  # fmt: skip
    return answers


def plain_loss(leo: LEO, episode: Episode, noise: Noise) -> Tensor:
    """Eq. 7 and 8 from the plain transcription."""
    tasks = plain(leo, episode, noise)
    loss = torch.stack([task["loss"] for task in tasks]).mean()
    if leo.training and leo.encoder is not None:
        penalty = torch.stack([(t["end"].detach() - t["start"]).square().mean() for t in tasks]).mean()
        loss = loss + leo.encoder_penalty_weight * penalty
        if not leo.deterministic:
            kls = []
            for b, task in enumerate(tasks):  # log q(z) by the noise that made z, which a clamped std keeps
                log_q = Normal(0.0, 1.0).log_prob(noise.latents[b]) - task["std"].log()[:, None]
                kls.append((log_q - Normal(0.0, 1.0).log_prob(task["start"])).mean())
            loss = loss + leo.kl_weight * torch.stack(kls).mean()
    rows = leo.decoder.weight.T
    lengths = rows.norm(dim=1)
    excess = rows @ rows.T / lengths / lengths[:, None] - torch.eye(len(rows), dtype=DOUBLE)
    networks = ("encoder", "relation_net", "decoder")
    weights = [weight for name, weight in leo.named_parameters() if name.split(".")[0] in networks]
    l2 = sum(weight.square().sum() / 2 for weight in weights)
    return loss + leo.l2_penalty_weight * l2 + leo.orthogonality_penalty_weight * excess.square().mean()


def check_loss(leo: LEO) -> None:
    """Compare the loss and all its gradients with the plain ones."""
    episode = episode_of()
    noise = noise_of(leo, episode)
    expected, outcome = plain_loss(leo, episode, noise), leo.outcome(episode, noise)
    torch.testing.assert_close(outcome.loss, expected, rtol=1e-11, atol=1e-11)
    parameters = list(leo.parameters())
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
    mine = torch.autograd.grad(outcome.loss, parameters, allow_unused=True)
    for (name, _), a, b in zip(leo.named_parameters(), mine, theirs, strict=True):
        assert a is not None, f"{name} has no gradient: distributed training would stop"
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-8, atol=1e-10)


def check_classifiers(leo: LEO, episode: Episode, noise: Noise) -> None:
    """Compare the adapted classifiers of evaluation with the plain ones."""
    answers = leo.adapt(episode.support)(episode.query).log_softmax(-1)
    for answer, task in zip(answers, plain(leo, episode, noise), strict=True):
        close(answer, task["logits"].log_softmax(-1).detach().numpy(), "log-probabilities")
