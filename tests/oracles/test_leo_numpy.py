"""The NumPy oracle itself: it must agree with the authors before it may judge anyone else."""

import numpy as np
import pytest

from tests.oracles import leo_numpy as oracle
from tests.places import FIXTURES


def read(name: str) -> oracle.Arrays:
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize(
    "name", ["leo_eval_1shot", "leo_eval_5shot", "leo_train_noclamp_1shot", "leo_train_dropout_5shot"]
)
def test_oracle_computes_the_authors_numbers(name: str):
    """Catches a misreading of the reference that oracle and package could share."""
    arrays = read(name)
    found = oracle.solve(arrays)
    compared = [quantity for quantity in found if quantity in arrays]
    assert len(compared) >= 19
    for quantity in compared:
        # the authors keep these two in float32
        tolerance = 1e-7 if quantity in ("accuracy", "encoder_penalty") else 1e-9
        np.testing.assert_allclose(
            found[quantity], arrays[quantity], rtol=0, atol=tolerance, err_msg=quantity
        )
        assert np.shape(found[quantity]) == arrays[quantity].shape


def test_complex_steps_give_the_authors_outer_gradients():
    """Catches a function of the oracle that is not analytic, and an inner gradient cut from the outer one."""
    arrays = read("leo_train_noclamp_1shot")
    adapted = oracle.solve(arrays)["latents_adapted"]
    weights = {name: arrays[name].astype(complex) for name in oracle.VARIABLES}
    rng = np.random.default_rng(0)
    for name, weight in weights.items():
        for _ in range(3):
            entry = tuple(rng.integers(size) for size in weight.shape)
            weight[entry] += 1j * oracle.TINY
            found = oracle.meta_loss(weights, arrays, adapted).imag / oracle.TINY
            weight[entry] -= 1j * oracle.TINY
            np.testing.assert_allclose(found, arrays[f"grad_raw_{name}"][entry], rtol=0, atol=1e-11)


@pytest.mark.parametrize("sampling", [True, False])
def test_written_inner_gradients_are_those_of_the_written_inner_loss(sampling: bool):
    """Catches a wrong inner derivative, a mean for the sum, and a forgotten 1/K, copy by copy."""
    arrays = oracle.problem(3, B=1, N=3, K=2, E=4, H=3)
    task = oracle.task_of(arrays, 0)
    rng = np.random.default_rng(1)
    latents = rng.normal(size=(3, 2, 3))
    eps = task.eps_decoder[0] if sampling else None

    def loss_of_latents(z: np.ndarray) -> np.ndarray:
        return oracle.support_losses(task.support, oracle.decode(arrays, z, eps)).sum()

    def loss_of_weights(w: np.ndarray) -> np.ndarray:
        return oracle.support_losses(task.support, w).sum()

    classifier = oracle.decode(arrays, latents, eps)
    for loss, at, gradient in (
        (loss_of_latents, latents, oracle.latent_gradient(arrays, latents, eps, task.support)),
        (loss_of_weights, classifier, oracle.weight_gradient(task.support, classifier)),
    ):
        expected = np.zeros(at.shape)
        for entry in np.ndindex(at.shape):
            step = np.zeros(at.shape, complex)
            step[entry] = 1j * oracle.TINY
            expected[entry] = loss(at + step).imag / oracle.TINY
        assert np.abs(expected).min() > 1e-6
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-13)
