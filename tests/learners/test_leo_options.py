"""LEO's variants against a plain transcription with autograd in the inner loop."""

import inspect
import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode
from leo_lightning.learners.leo import LEO, NO_NOISE, Noise
from leo_lightning.learners.parts import objectives
from leo_lightning.learners.parts.sampled_classifier import SampledClassifier
from tests.learners.test_leo import DOUBLE, close, episode_of, noise_of, rearranged, small_leo
from tests.oracles import leo_plain as oracle

VARIANTS = {
    "as published": {},
    "one latent per class": {"one_latent_per_class": True},
    "centroid": {"centroid_scale": 2.0},
    "centroid, one latent": {"centroid_scale": 2.0, "one_latent_per_class": True, "dropout": 0.0},
    "centroid behind a map": {"centroid_scale": 2.0, "centroid_map": True},
    "random prior": {"random_prior": True},
    "random prior, no dropout": {"random_prior": True, "dropout": 0.0},
    "deterministic": {"deterministic": True},
    "deterministic, centroid": {"deterministic": True, "centroid_scale": 2.0},
    "deterministic, no dropout": {"deterministic": True, "dropout": 0.0, "centroid_scale": 2.0},
    "generator only": {"latent_steps": 0, "finetuning_steps": 0},
    "closed form": {"kl": "closed_form"},
    "l1": {"orthogonality": "l1"},
}


def variant(name: str) -> LEO:
    leo = small_leo(**VARIANTS[name])
    with torch.no_grad():  # factors that differ, so that one for another is seen
        if leo.log_scale is not None:
            leo.log_scale.add_(torch.linspace(-0.7, 0.4, 6, dtype=DOUBLE))
        if leo.map is not None:
            leo.map.add_(torch.linspace(-0.5, 0.6, 36, dtype=DOUBLE).reshape(6, 6).roll(1, 1))
    return leo


def plain(leo: LEO, episode: Episode, noise: Noise) -> list[dict[str, Tensor]]:
    """The oracle's answer for each task."""
    copies = 1 if leo.one_latent_per_class else episode.support.shape[2]
    found = []
    for b in range(len(episode.support)):
        parts = rearranged(noise, lambda x, tasks, b=b: None if x is None else x.select(tasks, b))
        found.append(
            oracle.task(
                dict(leo.named_parameters()), episode.support[b], episode.query[b],
                (leo.latent_steps, leo.finetuning_steps), copies, parts.latents, parts.weights,
                parts.encoder_mask, parts.support_masks, parts.query_mask,
            )
        )  # fmt: skip
    return found


def plain_loss(leo: LEO, episode: Episode, noise: Noise) -> Tensor:
    """Eq. 7 and 8 with the oracle's parts."""
    tasks = plain(leo, episode, noise)
    loss = torch.stack([task["loss"] for task in tasks]).mean()
    if leo.training and leo.encoder is not None:
        penalty = torch.stack([(t["end"].detach() - t["start"]).square().mean() for t in tasks]).mean()
        loss = loss + leo.encoder_penalty_weight * penalty
        if not leo.deterministic:
            kls = []
            for b, task in enumerate(tasks):
                q = Normal(task["mean"], task["std"])
                if leo.kl == "closed_form":
                    kls.append(kl_divergence(q, Normal(0.0, 1.0)).mean())
                    continue
                z = task["start"]  # log q(z) by the noise that made it, which a clamped std keeps
                log_q = Normal(0.0, 1.0).log_prob(noise.latents[b]) - task["std"].log()[:, None]
                kls.append((log_q - Normal(0.0, 1.0).log_prob(z)).mean())
            loss = loss + leo.kl_weight * torch.stack(kls).mean()
    rows = leo.decoder.weight.T
    lengths = rows.norm(dim=1)
    excess = rows @ rows.T / lengths / lengths[:, None] - torch.eye(len(rows), dtype=DOUBLE)
    correlation = excess.abs().sum() if leo.orthogonality == "l1" else excess.square().mean()
    named = dict(leo.named_parameters())
    networks = [
        w for name, w in named.items() if name.split(".")[0] in ("encoder", "relation_net", "decoder")
    ]
    l2 = sum(w.square().sum() / 2 for w in networks)
    return loss + leo.l2_penalty_weight * l2 + leo.orthogonality_penalty_weight * correlation


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradients_are_the_plain_ones(name: str, training: bool):
    """Catches a factor of the copies, a term too many or few, and a part that autograd does not reach."""
    leo, episode = variant(name).train(training), episode_of()
    noise = noise_of(leo, episode)
    expected, outcome = plain_loss(leo, episode, noise), leo.outcome(episode, noise)
    torch.testing.assert_close(outcome.loss, expected, rtol=1e-11, atol=1e-11)
    parameters = list(leo.parameters())
    theirs = torch.autograd.grad(expected, parameters, allow_unused=True)
    mine = torch.autograd.grad(outcome.loss, parameters, allow_unused=True)
    for (key, _), a, b in zip(leo.named_parameters(), mine, theirs, strict=True):
        assert a is not None, f"{key} has no gradient: distributed training would stop"
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", VARIANTS)
def test_stages_are_the_plain_classifiers(name: str):
    """Catches a nearest centroid that only training has, and an evaluation that draws."""
    leo, episode = variant(name).eval(), episode_of(K=3)
    found = leo.adapt(episode.support)(episode.query).log_softmax(-1)
    for b, task in enumerate(plain(leo, episode, NO_NOISE)):
        close(found[b], task["logits"].log_softmax(-1).detach().numpy(), name)


def test_closed_form_is_what_the_estimate_estimates():
    """Catches a factor ½, a variance for a standard deviation, and a sum in place of a mean."""
    generator = torch.Generator().manual_seed(0)
    mean, std = torch.randn(2, 3, 4, generator=generator), torch.rand(2, 3, 4, generator=generator) + 0.1
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).flatten(1).mean(1)
    torch.testing.assert_close(objectives.exact_kl_divergence(mean, std), expected)
    eps = torch.randn(100_000, 2, 3, 4, generator=generator)
    estimates = [objectives.kl_divergence(e, std, mean + e * std) for e in eps[:2000]]
    torch.testing.assert_close(torch.stack(estimates).mean(0), expected, rtol=0.05, atol=0.02)


def test_random_prior_has_no_encoder_and_starts_at_zero():
    """Catches an encoder that is trained by a penalty alone, and codes drawn in evaluation."""
    leo, episode = variant("random prior"), episode_of()
    assert not any("encoder" in name or "relation" in name for name, _ in leo.named_parameters())
    assert not {"kl", "encoder_penalty"} & leo(episode, [1, 2]).terms.keys()
    noise = noise_of(leo, episode)
    assert torch.equal(leo.adaptation(episode.support, noise).latents[0], noise.latents)
    assert not leo.eval().adaptation(episode.support, NO_NOISE).latents[0].any()


@pytest.mark.parametrize("name", ["deterministic, no dropout"])
def test_deterministic_training_is_evaluation(name: str):
    """Catches something that is still drawn."""
    leo, episode = variant(name), episode_of()
    trained = leo(episode, [3, 4])
    assert torch.equal(trained.logits, leo.eval()(episode).logits)
    assert "kl" not in trained.terms


def sampling_leo(samples: int, **settings: object) -> LEO:
    """One whose samples differ much."""
    leo = small_leo(test_samples=samples, **settings).eval()
    with torch.no_grad():
        leo.relation_net.layers[2].weight.mul_(3)
        leo.decoder.weight.mul_(2)
    return leo


def test_samples_are_drawn_from_z_and_w_and_averaged():
    """Catches a mean of logits for that of probabilities, and noise in z or w alone."""
    leo, episode = sampling_leo(3), episode_of()
    classifier = leo.adapt(episode.support)
    assert isinstance(classifier, SampledClassifier)
    assert classifier.weight.shape == (2, 3, 3, 6)
    chances = torch.einsum("bsne,bmqe->bsmqn", classifier.weight, episode.query).softmax(-1)
    torch.testing.assert_close(classifier(episode.query).exp(), chances.mean(1))
    spread = classifier.spread(episode.query)
    torch.testing.assert_close(spread, (chances - chances.mean(1, keepdim=True)).square().mean(1).sqrt())
    assert spread.max() > 0.05
    noises = list(leo._samples(episode.support))
    for sample, noise in enumerate(noises):
        for b, task in enumerate(plain(leo, episode, noise)):
            close(classifier.weight[b, sample], task["w"].mean(1).detach().numpy(), "sample")
    for field in ("latents", "weights"):
        values = torch.stack([getattr(noise, field) for noise in noises])
        assert len(values.flatten(1).unique(dim=0)) == 3
        assert values.std() > 0.7


def test_samples_are_the_same_in_every_call_and_batch():
    """Catches an evaluation that depends on the batch, on earlier calls, or on torch's generator."""
    leo, episode = sampling_leo(4), episode_of(B=3)
    expected = leo.adapt(episode.support).weight
    torch.manual_seed(99)
    assert torch.equal(leo.adapt(episode.support).weight, expected)
    alone = torch.cat([leo.adapt(support[None]).weight for support in episode.support])
    torch.testing.assert_close(alone, expected, rtol=1e-12, atol=1e-12)


def test_sampled_classifier_selects_tasks_and_shares_queries():
    """Catches the samples of another task, and queries that belong to one task only."""
    leo, episode = sampling_leo(3), episode_of(B=3)
    classifier = leo.adapt(episode.support)
    shared = episode.query[:1].flatten(1, 2)
    for method in ("__call__", "spread"):
        all_tasks = getattr(classifier, method)(shared.expand(3, -1, -1))
        torch.testing.assert_close(getattr(classifier, method)(shared), all_tasks)
        chosen = getattr(classifier.select(torch.tensor([2, 0])), method)(shared)
        torch.testing.assert_close(chosen, all_tasks[[2, 0]])


def test_many_samples_with_little_noise_agree_with_the_means():
    """Catches noise that is not centred."""
    leo, episode = small_leo(test_samples=64).eval(), episode_of()
    with torch.no_grad():
        leo.decoder.raw_std_weight.fill_(0)
    mean = small_leo().eval()
    mean.load_state_dict(leo.state_dict())
    spread = leo.adapt(episode.support).weight.std(1)
    found, expected = leo.adapt(episode.support).weight.mean(1), mean.adapt(episode.support).weight
    assert ((found - expected).abs() < 5 * spread / math.sqrt(64) + 1e-3).all()


def test_samples_are_not_compiled():
    """Catches a page of torch.compile's own words about generators, after the training."""
    small_leo().check_compilable()
    with pytest.raises(InputError, match=r"model\.compile cannot compile test_samples;"):
        small_leo(test_samples=2).check_compilable()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"deterministic": True, "random_prior": True}, "deterministic and random_prior"),
        ({"deterministic": True, "test_samples": 3}, "deterministic and test_samples"),
        ({"centroid_scale": -1.0}, "centroid_scale is -1.0"),
        ({"centroid_map": True}, "centroid_map is true and centroid_scale 0: there is no centroid"),
        ({"test_samples": -1}, "test_samples is -1"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict, message: str):
    """Catches a setting that is silently ignored."""
    with pytest.raises(InputError, match=message):
        LEO(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl": "exact"}, "kl is 'exact': it must be sample or closed_form"),
        ({"orthogonality": "l2"}, "orthogonality is 'l2': it must be squared or l1"),
    ],
)
def test_unknown_forms_are_refused(settings: dict, message: str):
    """Catches the sampled KL in place of one with another name."""
    build = inspect.unwrap(LEO.__init__)  # without the tests' check of types
    with pytest.raises(InputError, match=message):
        build(LEO.__new__(LEO), **settings)
