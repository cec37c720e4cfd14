"""Mixed precision: the inner loop stays in float32, and a bad step is a bad step under a loss scaler too."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins.precision import MixedPrecision

from leo_lightning.common.errors import DivergedError
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Learner
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.sampled_classifier import SampledClassifier
from leo_lightning.learners.prototypical import PrototypicalNetworks
from leo_lightning.training.meta_learner import MetaLearner
from tests.training.models import Poisoned, Weights, data, system, trainer


def half(scaled: bool) -> MixedPrecision:
    """float16 with a loss scaler, which Lightning offers on a GPU only; or bfloat16, without."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10) if scaled else None
    return MixedPrecision("16-mixed" if scaled else "bf16-mixed", "cpu", scaler)


class Unfused(torch.optim.Adam):
    """As on a GPU: the fused one unscales the gradients itself, after they would have been clipped."""

    def __init__(self, parameters, lr: float, fused: bool) -> None:
        super().__init__(parameters, lr=lr)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("gradient_only", [False, True])
def test_bad_step_under_mixed_precision(
    gradient_only: bool, scaled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Catches a scaler that hides a bad step from the count, or one that is no longer skipped."""
    monkeypatch.setattr("leo_lightning.training.meta_learner.Adam", Unfused)
    model, weights, plugin = system(Poisoned), Weights(), half(scaled)
    model.learner.steps, model.learner.gradient_only = (2, 4), gradient_only
    trainer(tmp_path, max_steps=5, callbacks=[weights], plugins=[plugin]).fit(model, data())
    unchanged = [
        all(torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairwise(weights.seen)
    ]
    assert unchanged == [True, False, True, False]
    assert model.bad_steps == 2
    assert all(torch.isfinite(p).all() for p in model.parameters())
    if scaled:
        assert plugin.scaler is not None
        assert plugin.scaler.get_scale() == 2.0**8  # halved by each of the two


def test_bad_steps_in_a_row_stop_training_under_a_scaler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a scaler that halves its scale for ever while nothing is learned."""
    monkeypatch.setattr("leo_lightning.training.meta_learner.Adam", Unfused)
    model = system(Poisoned, max_bad_steps=3)
    model.learner.steps = (2, 3, 4)
    with pytest.raises(DivergedError, match=r"3 steps in a row"):
        trainer(tmp_path, max_steps=20, plugins=[half(True)]).fit(model, data())


@pytest.mark.parametrize("scaled", [False, True])
def test_scaled_training_stays_close_to_float32(
    scaled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Catches clipping of scaled gradients, which the thresholds would cut to nothing."""
    monkeypatch.setattr("leo_lightning.training.meta_learner.Adam", Unfused)
    seen = []
    for plugins in ([], [half(scaled)]):
        model, weights = system(learning_rate=1e-3), Weights()
        model.learner.kl_weight = 0.0  # its slope 1 / std magnifies a last digit without end
        start = [p.detach().clone() for p in model.parameters()]
        trainer(tmp_path, max_steps=10, callbacks=[weights], plugins=plugins).fit(model, data())
        seen.append([a - b for a, b in zip(weights.seen[-1], start, strict=True)])
    for exact, rough in zip(*seen, strict=True):
        assert (exact - rough).norm() < 0.2 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_adaptation_is_in_float32_under_autocast(dtype: torch.dtype):
    """Catches inner gradients, codes or their standard deviations in half precision."""
    torch.manual_seed(0)
    leo = LEO(embedding_size=16, num_latents=4, dropout=0.3)
    support, query = torch.rand(2, 5, 1, 16), torch.rand(2, 5, 3, 16)
    seen = []
    leo.encoder.register_forward_hook(lambda *args: seen.append(args[-1].dtype))
    with torch.autocast("cpu", dtype=dtype):
        episode = Episode(support, query)
        adaptation = leo.adaptation(support, leo.draw_noise(episode, range(2)))
        outcome = leo(episode, range(2))
    assert set(seen) == {dtype}  # the networks run in half precision
    parts = [adaptation.code_std, *adaptation.latents, *adaptation.decoded, *adaptation.weights]
    parts += [outcome.loss, *outcome.terms.values(), outcome.logits]
    assert {part.dtype for part in parts} == {torch.float32}


@pytest.mark.parametrize(
    "build", [partial(PrototypicalNetworks, 16), partial(LEO, 16, 4, latent_lr=0.1, test_samples=2)]
)
def test_predictions_are_what_a_test_scores(build: Callable[[], Learner]):
    """Catches queries answered in half precision, which gives other classes than `test` counts."""
    torch.manual_seed(0)
    model = MetaLearner(build()).eval()
    episode = Episode(torch.rand(2, 5, 1, 16), torch.rand(2, 5, 3, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, classifier = model.predict_step(episode, 0), model.learner.adapt(episode.support)
    assert torch.equal(found.probability, classifier(episode.query).softmax(-1))
    if isinstance(classifier, SampledClassifier):
        assert found.spread is not None
        assert torch.equal(found.spread, classifier.spread(episode.query))
