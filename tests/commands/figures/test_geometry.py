"""Curvature and steps, against autograd and against learners with fewer steps."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from leo_lightning.commands.figures.geometry import curvature, spectrum, theta_steps
from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.maml import MAML
from leo_lightning.learners.meta_lstm import MetaLSTM
from leo_lightning.learners.meta_sgd import MetaSGD
from leo_lightning.learners.parts.noise import NO_NOISE
from tests.commands.figures.subjects import settled, small_leo, support_of, with_steps

VARIANTS = {
    "plain": {},
    "more latent dimensions than images": {"num_latents": 9},
    "beside a centroid": {"centroid_scale": 1.5},
    "beside a mapped centroid": {"centroid_scale": 1.5, "centroid_map": True},
    "random prior": {"random_prior": True},
    "no latent steps": {"latent_steps": 0, "centroid_scale": 1.5},
    "no fine-tuning": {"finetuning_steps": 0},
    "no steps": {"latent_steps": 0, "finetuning_steps": 0},
    "samples in evaluation": {"test_samples": 3},
}


def support_loss(leo: LEO, support: Tensor, z: Tensor | None, theta: Tensor | None = None) -> Tensor:
    """The loss of one task by its definition: decode, classify, sum."""
    head = leo.centroid_head(support, None)
    if theta is None:
        assert z is not None
        theta = z @ leo.decoder.weight[: leo.embedding_size].T
        theta = theta if head is None else theta + head.weight[0]
    logits = LinearClassifier(theta[None], None if head is None else head.bias)(support)[0]
    N, K = logits.shape[:2]
    labels = torch.arange(N).repeat_interleave(K)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels, reduction="sum")


def hessian(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """By backward passes alone: torch.func.hessian's forward ones need a compiler that is deprecated."""
    return torch.func.jacrev(torch.func.jacrev(loss))


@pytest.mark.parametrize("name", VARIANTS)
def test_curvature_against_the_hessian(name: str):
    """Catches a mean in place of the sum, a wrong point, an offset left out, and eigenvalues left out."""
    leo, support = small_leo(**VARIANTS[name]), support_of()
    spectra = curvature(leo, support)
    steps = leo.adaptation(support, NO_NOISE)
    for b in range(len(support)):
        one, z, theta = support[b : b + 1], steps.code_mean[b], steps.decoded[0][b]
        in_z = hessian(lambda z: support_loss(leo, one, z))(z)  # noqa: B023
        in_theta = hessian(lambda theta: support_loss(leo, one, None, theta))(theta)  # noqa: B023
        for ours, whole, size in zip(spectra, (in_z, in_theta), (z.numel(), theta.numel()), strict=True):
            expected = torch.linalg.eigvalsh(whole.reshape(size, size)).abs().sort(descending=True).values
            kept = ours.shape[1]
            torch.testing.assert_close(ours[b], expected[:kept], rtol=1e-8, atol=1e-10)
            assert (expected[kept:] < 1e-10).all()
            assert kept == (3 - 1) * min(6, size // 3)


def test_spectrum_of_sure_answers():
    """Catches square roots of zero probabilities, and rounding that makes an eigenvalue negative."""
    features = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    logits = 2000 * torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    eigenvalues = spectrum(features, logits)
    assert eigenvalues.isfinite().all()
    assert (eigenvalues >= 0).all()


@pytest.mark.parametrize("name", VARIANTS)
def test_every_step_is_a_learner_with_fewer_steps(name: str):
    """Catches a step left out or doubled, a missing centroid, copies that step too far, and wrong codes."""
    leo, support = small_leo(**VARIANTS[name]), support_of()
    adaptation = leo.every_step(support)
    T, F = leo.latent_steps, leo.finetuning_steps
    assert (len(adaptation.latents), len(adaptation.decoded), len(adaptation.weights)) == (
        T + 1,
        T + 1,
        F + 1,
    )
    for step, weight in enumerate([*adaptation.decoded, *adaptation.weights[1:]]):
        fewer = with_steps(leo, latent_steps=min(step, T), finetuning_steps=max(0, step - T), test_samples=0)
        expected = fewer.adapt(support)
        torch.testing.assert_close(weight, expected.weight, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(adaptation.bias, expected.bias)
    expected = leo.adaptation(support, NO_NOISE).latents
    for z, z_expected in zip(adaptation.latents, expected, strict=True):
        torch.testing.assert_close(z, z_expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["plain", "beside a centroid", "no latent steps", "no fine-tuning", "no steps"]
)
def test_lengths_of_leos_steps(name: str):
    """Catches the length of z in place of θ, a mean over tasks or classes, and steps in disorder."""
    leo, support = small_leo(**VARIANTS[name]), support_of()
    T, F = leo.latent_steps, leo.finetuning_steps
    thetas = [
        with_steps(leo, latent_steps=min(step, T), finetuning_steps=max(0, step - T)).adapt(support).weight
        for step in range(T + F + 1)
    ]
    lengths = theta_steps(leo, support)
    assert lengths.shape == (3, T + F)
    for step in range(T + F):
        expected = (thetas[step + 1] - thetas[step]).square().sum((1, 2)).sqrt()
        torch.testing.assert_close(lengths[:, step], expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("kind", [MetaSGD, MAML, MetaLSTM])
def test_lengths_of_the_steps_of_an_adapted_head(kind: type):
    """Catches the hidden layer's steps, and steps in disorder."""
    learner, support = settled(kind(6, 5, steps=3)), support_of()
    lengths = theta_steps(learner, support)
    heads = [with_steps(learner, steps=s).adapt(support).layers[-1].weight for s in range(1, 4)]
    start = (
        learner.initial_row.data[:-1].expand_as(heads[0]) if kind is MetaLSTM else torch.zeros_like(heads[0])
    )
    heads = [start, *heads]
    expected = [(after - before).flatten(1).norm(dim=1) for before, after in itertools.pairwise(heads)]
    torch.testing.assert_close(lengths, torch.stack(expected, 1))
