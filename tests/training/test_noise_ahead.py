"""Noise that is drawn one step ahead is the noise that would be drawn at the step."""

import threading
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from leo_lightning.data.episode import Episode
from leo_lightning.learners.leo import LEO
from leo_lightning.training.noise_ahead import NoiseAhead
from tests.training.models import data, system, trainer


def episode(K: int = 2, dtype: torch.dtype = torch.float32) -> Episode:
    return Episode(torch.rand(2, 3, K, 6, dtype=dtype), torch.rand(2, 3, 4, 6, dtype=dtype))


@pytest.fixture
def ahead() -> NoiseAhead:
    return NoiseAhead(LEO(embedding_size=6, num_latents=4))


def same(found: tuple, expected: tuple) -> bool:
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))


def test_a_right_guess_is_used_and_a_wrong_one_is_not(ahead: NoiseAhead, monkeypatch: pytest.MonkeyPatch):
    """Catches noise of other seeds, shapes or precision, and a guess that never serves."""
    learner, drawn = ahead._learner, []
    draw = learner.draw_noise
    monkeypatch.setattr(learner, "draw_noise", lambda *given: drawn.append(given[1]) or draw(*given))
    first, three_shot, double = episode(), episode(K=3), episode(dtype=torch.float64)
    assert same(ahead.draw(first, [1, 2], [3, 4]), draw(first, [1, 2]))
    assert same(ahead.draw(first, [3, 4], [5, 6]), draw(first, [3, 4]))  # as guessed
    assert same(ahead.draw(first, [7, 8], [9, 10]), draw(first, [7, 8]))
    assert same(ahead.draw(three_shot, [9, 10], [11, 12]), draw(three_shot, [9, 10]))
    assert same(ahead.draw(double, [11, 12], [13, 14]), draw(double, [11, 12]))
    ahead.close()
    # [3, 4] was drawn once, by the thread; the wrong guesses were drawn again
    assert sorted(drawn) == sorted([[1, 2], [3, 4], [5, 6], [7, 8], *2 * [[9, 10], [11, 12]], [13, 14]])


@pytest.mark.parametrize("accumulated", [1, 2])
def test_training_guesses_right(accumulated: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a guess of the next step, or of its tasks, that fails: noise would be drawn twice."""
    model, drawn = system(), []
    draw = model.learner.draw_noise
    monkeypatch.setattr(model.learner, "draw_noise", lambda *given: drawn.append(given[1]) or draw(*given))
    options = {"limit_val_batches": 0, "accumulate_grad_batches": accumulated}
    trainer(tmp_path, max_steps=4, **options).fit(model, data())
    assert len(drawn) == 4 * accumulated + 1
    assert len({tuple(seeds) for seeds in drawn}) == len(drawn)


class Started(pl.Callback):
    """Says when a validation has begun."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.event.set()


def test_a_validation_in_between_leaves_the_noise_alone(tmp_path: Path):
    """Catches noise that is drawn while the learner is in evaluation mode, and so is none."""
    model, started, noises = system(), Started(), []
    draw, outcome = model.learner.draw_noise, model.learner.outcome

    def late(*given: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            started.event.wait(60)
        return draw(*given)

    def recorded(episode: Episode, noise: Any) -> Any:
        noises.append(noise)
        return outcome(episode, noise)

    model.learner.draw_noise, model.learner.outcome = late, recorded
    options = {"limit_val_batches": 1, "limit_train_batches": 1, "callbacks": [started]}
    trainer(tmp_path, max_steps=2, **options).fit(model, data())
    assert [noise.latents is not None for noise in noises] == [True, True]
