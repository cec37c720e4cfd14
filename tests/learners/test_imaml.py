"""iMAML against autograd, the dense system and finite differences of a solved inner problem."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leo_lightning.data.episode import Episode
from leo_lightning.learners.imaml import IMAML, conjugate_gradients
from tests.learners.mlp_tasks import BAD_SETTINGS, DOUBLE, Contract, build, episode_of, gradients, refuses

SOLVED = {"steps": 250, "cg_steps": 40, "proximal": 1.0, "inner_lr": 0.3}


def solvable() -> Episode:
    """Tasks whose inner problems are solved away from the kinks of ReLU; at one, no gradient is zero."""
    episode = episode_of(seed=1)
    return Episode(0.3 * episode.support, 0.3 * episode.query)


class TestIMAML(Contract):
    kind, settings = IMAML, {"hidden_size": 5, "inner_lr": 0.7, "proximal": 0.2}


def small(**settings: object) -> IMAML:
    return build(IMAML, hidden_size=3, **settings)


def network_of(learner: IMAML, N: int) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, N)).to(DOUBLE)
    network[0].load_state_dict(learner.hidden.state_dict())
    network[2].load_state_dict({"weight": torch.zeros(N, 3), "bias": torch.zeros(N)})
    return network


def test_inner_steps_are_sgds_with_a_proximal_term():
    """Catches a pull to zero in place of the start, a missing half, and another order of the numbers."""
    learner, episode = small(steps=4, inner_lr=0.7, proximal=0.3), episode_of()
    found = learner.every_step(episode.support)[-1]
    for task, support in enumerate(episode.support):
        network, start = network_of(learner, 3), network_of(learner, 3)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.7)
        labels = torch.arange(3).repeat_interleave(support.shape[1])
        for _ in range(4):
            optimizer.zero_grad()
            pull = sum(
                (a - b.detach()).square().sum()
                for a, b in zip(network.parameters(), start.parameters(), strict=True)
            )
            (F.cross_entropy(network(support.flatten(0, 1)), labels) + 0.15 * pull).backward()
            optimizer.step()
        mine = [part[task] for layer in found for part in layer]
        for a, b in zip(mine, network.parameters(), strict=True):
            torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-10, atol=1e-12)


def test_a_step_size_that_is_too_large_is_halved():
    """Catches an inner loop that diverges: at this step size plain gradient descent does."""
    episode = episode_of()
    for learner in (
        small(steps=30, inner_lr=300.0, proximal=0.3),
        small(steps=300, inner_lr=0.3, proximal=0.3),
    ):
        losses = learner(Episode(episode.support, episode.support)).loss
        assert losses < 0.9  # log 3 before adaptation


def test_the_gradient_is_that_of_the_dense_system():
    """Catches λ for 1/λ, a Hessian of the wrong loss or place, and few steps of conjugate gradients.

    The Hessian is autograd's; the inner problem need not be solved for this.
    """
    learner, episode = small(**(SOLVED | {"steps": 6})), solvable()
    found = gradients(learner(episode).loss, learner)
    ends, total = learner.every_step(episode.support)[-1], torch.zeros(6 * 3 + 3, dtype=DOUBLE)
    for task, (support, query) in enumerate(zip(episode.support, episode.query, strict=True)):
        phi = torch.cat([part[task].detach().flatten() for layer in ends for part in layer])

        def loss(phi: Tensor, images: Tensor) -> Tensor:
            w, b, v, c = phi.split([18, 3, 9, 3])
            logits = F.linear(F.linear(images.flatten(0, 1), w.view(3, 6), b).relu(), v.view(3, 3), c)
            return F.cross_entropy(logits, torch.arange(3).repeat_interleave(images.shape[1]))

        hessian = torch.autograd.functional.hessian(lambda at, images=support: loss(at, images), phi)
        slope = torch.func.grad(loss)(phi, query)
        solution = torch.linalg.solve(torch.eye(len(phi), dtype=DOUBLE) + hessian / SOLVED["proximal"], slope)
        total += solution[:21] / len(episode.support)
    torch.testing.assert_close(found["hidden.weight"].flatten(), total[:18], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found["hidden.bias"], total[18:], rtol=1e-7, atol=1e-9)


def test_the_gradient_is_that_of_the_solved_problem():
    """Finite differences through all inner steps. Catches a gradient of something other than the solution."""
    learner, episode = small(**SOLVED), solvable()
    steps = SOLVED["steps"]
    before, after = (learner.adapted(episode.support, None, count) for count in (steps - 1, steps))
    for layer, other in zip(before, after, strict=True):
        torch.testing.assert_close(layer, other, rtol=0, atol=1e-14)
    found = gradients(learner(episode).loss, learner)
    for name, parameter in learner.named_parameters():
        numbers, differences = parameter.data.view(-1), []
        for i in range(0, len(numbers), 3):
            losses, kept = [], numbers[i].item()
            for sign in (1, -1):
                numbers[i] = kept + sign * 1e-5
                with torch.no_grad():
                    losses.append(learner(episode).loss)
            numbers[i] = kept
            differences.append((losses[0] - losses[1]) / 2e-5)
        torch.testing.assert_close(found[name].flatten()[::3], torch.stack(differences), rtol=1e-5, atol=1e-8)


def test_conjugate_gradients_stop_by_task():
    """Catches 0/0 where a task is solved, and steps along a direction of negative curvature."""
    matrices = torch.stack([torch.eye(3), torch.diag(torch.tensor([1.0, 2, 5])), -torch.eye(3)]).double()
    right = torch.tensor([[1.0, 2, 3], [1, 1, 1], [1, 1, 1]], dtype=DOUBLE)
    found = conjugate_gradients(lambda x: (matrices @ x[..., None])[..., 0], right, 6)
    expected = torch.tensor([[1, 2, 3], [1, 0.5, 0.2], [0, 0, 0]], dtype=DOUBLE)
    torch.testing.assert_close(found, expected)
    assert not conjugate_gradients(lambda x: x, torch.zeros_like(right), 3).any()


def test_compiling_is_refused():
    """Catches a page of torch.compile's own words about a backward pass in another."""
    refuses(IMAML().check_compilable, "cannot compile IMAML")


@pytest.mark.parametrize(
    "bad", [*BAD_SETTINGS, {"proximal": 0.0}, {"cg_steps": 0}, {"inner_lr": -1.0}], ids=str
)
def test_bad_settings_are_named(bad: dict):
    """Catches a setting that would fail later, or train nothing."""
    refuses(lambda: IMAML(**bad), *bad)
