"""LEO beside a nearest centroid against the plain transcription."""

import pytest
import torch

from leo_lightning.common.errors import InputError
from leo_lightning.learners.centroid_leo import CentroidLEO
from leo_lightning.learners.parts.noise import NO_NOISE
from tests.learners import leos
from tests.learners.leos import DOUBLE, episode_of, small_leo, variant


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", leos.CENTROIDS)
def test_loss_and_gradients_are_the_plain_ones(name: str, training: bool):
    """Catches a head that some step or the outer gradient does not see."""
    leos.check_loss(variant(name).train(training))


@pytest.mark.parametrize("name", leos.CENTROIDS)
def test_classifiers_are_the_plain_ones(name: str):
    """Catches a centroid that only training has."""
    leos.check_classifiers(variant(name).eval(), episode_of(K=3), NO_NOISE)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_no_latent_steps(dropout: float):
    """Catches a crash where there are no dropout masks to show the head."""
    leo = small_leo(latent_steps=0, deterministic=True, centroid_scale=1.5, dropout=dropout)
    assert leo.train()(episode_of(), [1, 2]).loss.isfinite()


def test_without_leo_it_is_the_nearest_centroid():
    """Catches a scale or a map that does not begin where it says."""
    leo, episode = small_leo(centroid_scale=3.0, centroid_map=True, finetuning_steps=0).eval(), episode_of()
    with torch.no_grad():
        leo.decoder.weight.zero_()
    logits = leo.adapt(episode.support)(episode.query)
    gaps = episode.query[:, :, :, None] - episode.support.mean(2)[:, None, None]
    expected = -0.5 * 3.0 * gaps.square().sum(-1)
    torch.testing.assert_close(logits.log_softmax(-1), expected.log_softmax(-1))
    assert torch.equal(leo.map, torch.eye(6, dtype=DOUBLE))


def test_init_args_rebuild_the_learner():
    """Catches an argument that is handed on in another's place."""
    settings = {
        "embedding_size": 5, "num_latents": 3, "latent_steps": 1, "finetuning_steps": 2, "latent_lr": 0.5,
        "finetuning_lr": 0.01, "dropout": 0.2, "kl_weight": 0.3, "encoder_penalty_weight": 0.4,
        "l2_penalty_weight": 0.6, "orthogonality_penalty_weight": 0.7, "random_prior": True,
        "deterministic": False, "centroid_scale": 2.0, "centroid_map": True, "test_samples": 4,
    }  # fmt: skip
    assert CentroidLEO(**settings).init_args() == settings


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_a_scale_that_is_none_is_refused(scale: float):
    """Catches the logarithm of a number that has none, deep in torch."""
    with pytest.raises(InputError, match="centroid_scale"):
        CentroidLEO(centroid_scale=scale)
