"""MetaOptNet's machine against LIBLINEAR, scikit-learn's, and finite differences."""

import math
import warnings

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.metaoptnet import MetaOptNet
from leo_lightning.learners.parts.crammer_singer import machines
from tests.learners.tasks import episode_of, moved


def liblinear(images: Tensor, labels: Tensor, C: float) -> Tensor:
    """Rows of the machine of one task, by Crammer and Singer's own method of one image at a time."""
    estimator = LinearSVC(C=C, multi_class="crammer_singer", fit_intercept=False, tol=1e-8, max_iter=100_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        rows = torch.from_numpy(estimator.fit(images.numpy(), labels.numpy()).coef_)
    # of two classes it has the difference
    return torch.cat([-rows, rows]) / 2 if len(rows) == 1 else rows


@pytest.mark.parametrize("C", [0.1, 3.0])
@pytest.mark.parametrize(("N", "K", "E"), [(3, 2, 6), (5, 1, 30), (5, 5, 30), (2, 3, 8), (10, 3, 20)])
def test_the_optimum_is_liblinears(N: int, K: int, E: int, C: float):
    """Catches another margin or C, a step that stops early, and a task that the others' steps move."""
    images = episode_of(N, K, E=E, B=3).support.flatten(1, 2)
    labels, root = torch.arange(N).repeat_interleave(K), math.sqrt(C)
    one_hot = torch.eye(N, dtype=torch.float64)[:, labels]
    found = root * machines(root * images, one_hot, images.new_ones(3, N * K))
    for task, rows in zip(images, found, strict=True):
        torch.testing.assert_close(rows, liblinear(task, labels, C), rtol=1e-5, atol=1e-5 * min(1, C))


def test_unequal_shots_weigh_images():
    """Catches padding that a hidden layer makes an image, and a class that counts for more by its images.

    LIBLINEAR has no weights of images here: each image comes as many times as it weighs.
    """
    learner = moved(MetaOptNet(6, hidden=5, C=0.3)).eval()
    support = episode_of(3, 4).support
    valid = torch.zeros(2, 3, 4, dtype=torch.bool)
    times = {1: 12, 4: 3, 2: 6}
    for n, count in enumerate(times):
        valid[:, n, :count] = True
    classifier, average = learner.adapt(support, valid).classifier, 7 / 3
    for b, rows in enumerate(classifier.weight.detach()):
        images = [learner.embedding(support[b, n, :k]).detach() for n, k in enumerate(times)]
        repeated = torch.cat([x.repeat(times[len(x)], 1) for x in images])
        labels = torch.arange(3).repeat_interleave(12)
        expected = liblinear(repeated, labels, 0.3 * average / 12) * learner.log_scale.exp().item()
        torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("C", [0.1, 3.0])
@pytest.mark.parametrize(("N", "K", "E"), [(3, 2, 8), (4, 3, 5), (2, 5, 3)])
def test_the_gradient_is_that_of_the_optimum(N: int, K: int, E: int, C: float):
    """Finite differences. Catches masses that are constants, and a wrong sign or system at the last step."""
    images = episode_of(N, K, E=E).support.flatten(1, 2)
    labels = torch.eye(N, dtype=torch.float64).repeat_interleave(K, dim=1)
    root, weights = (
        math.sqrt(C),
        0.5 + torch.rand(2, N * K, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
    )

    def machine(images: Tensor) -> Tensor:
        return root * machines(root * images, labels, weights)

    inputs = images.requires_grad_()
    assert torch.autograd.gradcheck(machine, inputs, eps=1e-6, atol=1e-5, rtol=1e-4, fast_mode=True)
    by_images = torch.autograd.grad(machine(images).square().sum(), images)[0]
    mass = (labels[None] - 1 / N).expand(2, -1, -1)  # any constant
    constant = torch.autograd.grad((mass @ images).square().sum(), images)[0]
    assert (by_images - constant).abs().max() > 1e-2


def test_twins_and_single_precision():
    """Catches a singular Gram matrix, and an interior-point method in float32."""
    episode = episode_of(5, 1)
    twins = episode.support.expand(-1, -1, 10, -1)
    learner = MetaOptNet(6, C=1.0)
    exact = learner.double().adapt(twins)(episode.query)
    outcome = learner.float().adapt(twins.float())(episode.query.float())
    torch.testing.assert_close(outcome.double(), exact, rtol=1e-4, atol=1e-4)
    outcome.sum().backward()
    assert all(p.grad.isfinite().all() for p in learner.parameters())


@pytest.mark.parametrize("C", [1e-6, 1e6])
def test_extreme_weights_are_solved(C: float):
    """Catches a solver whose tolerance is right for one scale only: all images on or beyond the margin."""
    episode = episode_of(4, 3, E=30)
    learner = MetaOptNet(30, C=C, scale=1.0).double()
    logits = learner.adapt(episode.support)(episode.support).detach()
    own = logits.diagonal(dim1=1, dim2=3).transpose(1, 2)[..., None]
    others = logits.masked_fill(torch.eye(4, dtype=torch.bool)[:, None], -torch.inf)
    margin = own[..., 0] - others.amax(-1)
    if C == 1e6:  # separable: a hard margin
        torch.testing.assert_close(
            margin.flatten(1).amin(1), torch.ones(2, dtype=torch.float64), rtol=0, atol=1e-3
        )
    else:  # masses as of all images inside the margin
        assert logits.abs().max() < 1e-4
        assert logits.isfinite().all()


def test_a_linear_embedding_gives_a_linear_classifier():
    """Catches a classifier that cannot be exported as one matrix."""
    assert isinstance(MetaOptNet(6).double().adapt(episode_of().support), LinearClassifier)


def test_compiling_is_refused():
    """Catches a page of torch.compile's own words about a loop that ends by its data."""
    with pytest.raises(InputError, match="cannot compile MetaOptNet"):
        MetaOptNet().check_compilable()


@pytest.mark.parametrize("name", ["C", "scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_bad_settings_are_refused(name: str, value: float):
    """Catches a root or logarithm of what has none."""
    with pytest.raises(InputError, match=f"{name} is"):
        MetaOptNet(6, **{name: value})
