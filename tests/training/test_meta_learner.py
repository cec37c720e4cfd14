"""The outer loop: noise, bad steps, state."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from leo_lightning.common.errors import DivergedError, InputError
from leo_lightning.data.episode import Episode
from leo_lightning.learners.leo import LEO
from leo_lightning.training.meta_learner import MetaLearner
from tests.training.models import Weights, data, poisoned, system, trainer


@pytest.mark.parametrize("gradient_only", [False, True])
def test_bad_step_changes_no_weight_and_is_counted(gradient_only: bool, tmp_path: Path):
    """Catches a NaN that reaches the weights or Adam's moments, and a bad step that nobody hears of."""
    model, weights = poisoned((2, 4), gradient_only), Weights()
    trainer(tmp_path, max_steps=5, callbacks=[weights]).fit(model, data())
    unchanged = [
        all(torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairwise(weights.seen)
    ]
    assert unchanged == [True, False, True, False]
    assert model.bad_steps == 2
    assert model.bad_steps_in_a_row == 0
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_bad_steps_in_a_row_stop_training(tmp_path: Path):
    """Catches a run that goes on for days without learning anything."""
    model = poisoned((2, 3, 5, 6, 7), max_bad_steps=3)
    with pytest.raises(DivergedError, match=r"3 steps in a row.*step 6.*lower --model.learning_rate"):
        trainer(tmp_path, max_steps=20).fit(model, data())
    assert model.learner.calls == 7


def test_a_training_that_never_began_is_said_to_need_other_features(tmp_path: Path):
    """Catches the advice to lower a learning rate that has changed nothing yet."""
    model = poisoned((1, 2, 3), max_bad_steps=3)
    with pytest.raises(DivergedError, match=r"3 steps in a row, from the first.*--data.normalize l2"):
        trainer(tmp_path, max_steps=20).fit(model, data())


def test_count_of_bad_steps_survives_a_checkpoint(tmp_path: Path):
    """Catches a resumed run that forgets how many steps were bad."""
    model, first = poisoned((2,)), trainer(tmp_path, max_steps=3)
    first.fit(model, data())
    first.save_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    again = poisoned(())
    trainer(tmp_path, max_steps=4).fit(again, data(), ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    assert again.bad_steps == 1


def test_noise_is_a_function_of_seed_and_step(tmp_path: Path):
    """Catches noise that hangs on torch's global state: two runs differ, or using it changes another draw."""
    losses = []
    for disturbance in (1, 2):
        model, weights = system(seed=3), Weights()
        torch.manual_seed(disturbance)
        torch.rand(disturbance)
        state = torch.get_rng_state()
        trainer(tmp_path, max_steps=3, limit_val_batches=0, callbacks=[weights]).fit(model, data())
        assert torch.equal(torch.get_rng_state(), state)
        losses.append(weights.seen[-1])
    assert all(torch.equal(a, b) for a, b in zip(*losses, strict=True))


def test_noise_differs_between_steps_and_seeds(tmp_path: Path):
    """Catches the same noise at every step, and a seed without effect."""
    batch = Episode(torch.rand(2, 5, 1, 128), torch.rand(2, 5, 3, 128))
    model = system().train()
    draws = []
    for seed, step in ((0, 0), (0, 1), (1, 0)):
        seeds = model.noise_seeds(seed, step, torch.arange(2))
        draws.append(model.learner.draw_noise(batch, seeds).latents)
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_gradients_are_clipped_per_tensor(tmp_path: Path):
    """Catches clipping left to Lightning, which takes the norm over all tensors."""
    model = system()
    optimizer = model.configure_optimizers()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 5.0)
    model.configure_gradient_clipping(optimizer)
    for parameter in model.parameters():
        assert parameter.grad.norm().item() == pytest.approx(0.1, rel=1e-5)


def test_double_precision_trains(tmp_path: Path):
    """Catches float32 features that meet float64 weights."""
    model = system()
    trainer(tmp_path, max_steps=2, precision="64-true").fit(model, data())
    assert next(model.parameters()).dtype == torch.float64


def test_double_precision_tests_all_queries(tmp_path: Path):
    """Catches float32 queries of a whole split that meet float64 weights."""
    found = trainer(tmp_path, precision="64-true").test(system(), data(test_query="all"))
    assert 0 <= found[0]["test/accuracy"] <= 1


def test_validation_reports_stages_of_adaptation(tmp_path: Path):
    """Catches the accuracy of one stage logged under another's name: T = F = 0 makes all three equal."""
    torch.manual_seed(0)
    still = MetaLearner(LEO(embedding_size=128, num_latents=4, latent_steps=0, finetuning_steps=0))
    moving = system()
    for model, equal in ((still, True), (moving, False)):
        run = trainer(tmp_path, max_steps=4)
        run.fit(model, data())
        values = {run.callback_metrics[f"val/accuracy{s}"].item() for s in ("", "_before_adaptation")}
        assert (len(values) == 1) == equal


def test_unhealthy_latents_are_reported(tmp_path: Path):
    """Catches a LEO that died, as ports with a final ReLU do, without a word."""

    class Dead(LEO):
        def _diagnostics(self, adaptation):
            return super()._diagnostics(adaptation) | {"dead_latents": torch.tensor(1.0)}

    with pytest.warns(UserWarning, match="dead_latents = 1.00; most latent dimensions carry nothing"):
        trainer(tmp_path, max_steps=4).fit(system(Dead), data())


def test_a_learner_takes_its_size_from_the_data(tmp_path: Path):
    """Catches a copy that is trained in its place, other weights, and a checkpoint that records no size."""
    trained = []
    for size in (128, None):
        torch.manual_seed(0)
        leo = LEO(size, num_latents=4)
        model, run = MetaLearner(leo), trainer(tmp_path, max_steps=2)
        run.fit(model, data())
        trained.append(list(leo.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*trained, strict=True))
    run.save_checkpoint(tmp_path / "x.ckpt", weights_only=False)
    assert MetaLearner.load_from_checkpoint(tmp_path / "x.ckpt").learner.embedding_size == 128
    run.test(MetaLearner(LEO(num_latents=4)), data(), ckpt_path=tmp_path / "x.ckpt", weights_only=True)


@pytest.mark.parametrize("work", ["fit", "validate", "test", "predict"])
def test_data_of_another_size(work: str, tmp_path: Path):
    """Catches torch's words about matrices."""
    with pytest.raises(
        InputError, match="LEO has embedding_size 64, and the embeddings have size 128; leave"
    ):
        getattr(trainer(tmp_path, max_steps=1), work)(MetaLearner(LEO(64)), data())


def test_a_forked_process_does_not_make_the_weights(tmp_path: Path):
    """Catches a learner that is as untrained after the training as before."""
    model, run = MetaLearner(LEO()), trainer(tmp_path, devices=2, strategy="ddp_fork")
    model.trainer = run
    run._data_connector.attach_datamodule(model, data())
    with pytest.raises(InputError, match=r"give it embedding_size=data\.embedding_size"):
        model.setup("fit")
