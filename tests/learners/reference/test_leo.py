"""The reference LEO: it draws all of its noise, and both LEOs agree beyond the authors' fixtures.

tests/test_parity.py compares it with the authors' numbers.
"""

import pytest
import torch

from leo_lightning.learners.parts.noise import NO_NOISE
from leo_lightning.learners.reference import leo as reference
from leo_lightning.learners.reference.leo import ReferenceLEO
from tests.learners.leos import episode_of, noise_of, small_leo
from tests.parity import variables


def test_it_draws_its_own_noise(monkeypatch: pytest.MonkeyPatch):
    """Catches random numbers that are left out or shared, and an evaluation that draws."""
    drawn = {"normal": 0, "dropout": 0}
    randn_like, dropout = torch.randn_like, torch.nn.functional.dropout

    def normal(like: torch.Tensor) -> torch.Tensor:
        drawn["normal"] += like.numel()
        return randn_like(like)

    def dropped(x: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
        drawn["dropout"] += x.numel() * training
        return dropout(x, rate, training)

    monkeypatch.setattr(reference.torch, "randn_like", normal)
    monkeypatch.setattr(reference.F, "dropout", dropped)
    B, N, K, Q, E, H, T, F = 2, 5, 2, 3, 6, 4, 5, 5
    model = ReferenceLEO(embedding_size=E, num_latents=H)
    support, query = torch.ones(B, N, K, E), torch.ones(B, N, Q, E)
    losses = [model(support, query).loss for _ in range(2)]
    assert losses[0] != losses[1]
    assert drawn["normal"] == 2 * B * N * K * (H + (T + 1) * E)
    assert drawn["dropout"] == 2 * B * N * E * (K * (1 + T + F) + Q)
    model.eval()
    assert model(support, query).loss == model(support, query).loss
    assert drawn["normal"] == 2 * B * N * K * (H + (T + 1) * E)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"K": 1}, {"N": 4, "K": 3, "B": 1}], ids=str)
def test_both_leos_are_the_same(sizes: dict[str, int], training: bool):
    """Catches a shortcut of the fast LEO that is no identity: loss, logits and every gradient."""
    leo, episode = small_leo().train(training), episode_of(**sizes)
    names = ("latent_steps", "finetuning_steps", "dropout", "kl_weight", "encoder_penalty_weight")
    names += ("l2_penalty_weight", "orthogonality_penalty_weight")
    settings = {name: getattr(leo, name) for name in names}
    twin = ReferenceLEO(leo.embedding_size, leo.num_latents, **settings).double().train(training)
    with torch.no_grad():
        for name, weight in variables(twin).items():
            weight.copy_(variables(leo)[name])
    noise = noise_of(leo, episode) if training else NO_NOISE
    fast, plain = leo.outcome(episode, noise), twin(episode.support, episode.query, noise)
    torch.testing.assert_close(fast.loss, plain.loss, rtol=1e-12, atol=0)
    torch.testing.assert_close(fast.logits, plain.logits, rtol=1e-11, atol=1e-11)
    expected = torch.autograd.grad(plain.loss, list(variables(twin).values()))
    gradients = torch.autograd.grad(fast.loss, list(variables(leo).values()))
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-9, atol=1e-12)
