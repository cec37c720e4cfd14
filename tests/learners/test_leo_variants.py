"""LEO's variants against a plain transcription with autograd in the inner loop."""

import math

import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.noise import NO_NOISE
from leo_lightning.learners.parts.sampled_classifier import SampledClassifier
from tests.learners import leos
from tests.learners.leos import close, episode_of, noise_of, plain, small_leo, variant


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", leos.VARIANTS)
def test_loss_and_gradients_are_the_plain_ones(name: str, training: bool):
    """Catches a factor of the copies, a term too many or few, and a part that autograd does not reach."""
    leos.check_loss(variant(name).train(training))


@pytest.mark.parametrize("name", leos.VARIANTS)
def test_classifiers_are_the_plain_ones(name: str):
    """Catches an evaluation that draws, or that differs from training."""
    leos.check_classifiers(variant(name).eval(), episode_of(K=3), NO_NOISE)


def test_random_prior_has_no_encoder_and_starts_at_zero():
    """Catches an encoder that is trained by a penalty alone, and codes drawn in evaluation."""
    leo, episode = variant("random prior"), episode_of()
    assert not any("encoder" in name or "relation" in name for name, _ in leo.named_parameters())
    assert not {"kl", "encoder_penalty"} & leo(episode, [1, 2]).terms.keys()
    noise = noise_of(leo, episode)
    assert torch.equal(leo.adaptation(episode.support, noise).latents[0], noise.latents)
    assert not leo.eval().adaptation(episode.support, NO_NOISE).latents[0].any()


def test_deterministic_training_is_evaluation():
    """Catches something that is still drawn."""
    leo, episode = small_leo(deterministic=True, dropout=0.0), episode_of()
    trained = leo(episode, [3, 4])
    assert torch.equal(trained.logits, leo.eval()(episode).logits)
    assert "kl" not in trained.terms


def sampling_leo(samples: int, **settings: object) -> LEO:
    """A LEO whose samples differ much."""
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
    noises = list(leo.samples(episode.support))
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
        leo.decoder.weight[6:] = 0
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
    ("settings", "words"),
    [
        ({"deterministic": True, "random_prior": True}, "deterministic"),
        ({"deterministic": True, "test_samples": 3}, "test_samples"),
        ({"test_samples": -1}, "test_samples"),
        ({"num_latents": 0}, "num_latents"),
        ({"latent_steps": -1}, "latent_steps"),
        ({"finetuning_lr": -1.0}, "finetuning_lr"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_contradictions_are_refused(settings: dict, words: str):
    """Catches a setting that is silently ignored."""
    with pytest.raises(InputError, match=words):
        LEO(**settings)
