"""Random numbers: their distribution to within five standard errors, and what they depend on.

On a GPU they are made in another way; both are tested here, on the CPU.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from leo_lightning.data import hashes
from leo_lightning.learners.parts import noise

COUNT = 1 << 18
WAYS = ["generators", "hashes"]


def numbers_of(
    like: Tensor, seeds: Sequence[int] | None, normals: int, factors: int, rate: float
) -> tuple[Tensor, Tensor]:
    drawn = noise.draw(like, seeds, {"normal": (normals,)}, {"factor": (factors,)}, rate)
    return drawn["normal"], drawn["factor"]


def draw(
    way: str, normals: int, factors: int, rate: float, seeds: Sequence[int] = (3,)
) -> tuple[Tensor, Tensor]:
    """Numbers of the tasks with these seeds, made in one of the two ways."""
    if way == "generators":
        return numbers_of(torch.empty(len(seeds), 1), seeds, normals, factors, rate)
    keys = torch.from_numpy(np.asarray(seeds, np.uint64).view(np.int64))
    return noise._by_hashes(keys, normals, factors, round(rate * 2**16))


def rounded(rate: float) -> float:
    return round(rate * 2**16) / 2**16


def assert_share(found: Tensor, expected: float) -> None:
    """A share of independent events lies within five standard errors of its probability."""
    sigma = (expected * (1 - expected) / found.numel()) ** 0.5
    assert abs(found.double().mean().item() - expected) < 5 * sigma


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rate", [0.001, 0.1, 0.25, 0.307651, 0.475126, 0.5, 0.9, 0.999])
def test_rate_and_mean_of_the_masks(way: str, rate: float):
    """Catches a keep rate in place of a drop rate, a forgotten 1/(1-rate), and a threshold that is off."""
    scales = draw(way, 0, COUNT, rate)[1]
    kept = 1 / (1 - rounded(rate))
    assert set(scales.unique().tolist()) == {0.0, torch.tensor(kept, dtype=torch.float32).item()}
    assert_share(scales == 0, rate)
    sigma = (rate / (1 - rate) / COUNT) ** 0.5
    assert abs(scales.double().mean().item() - 1) < 5 * sigma


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rate", [0.307651, 0.5])
def test_factors_are_independent_of_each_other(way: str, rate: float):
    """Catches factors that are made of the same random bits."""
    zero = draw(way, 0, COUNT, rate)[1][0] == 0
    half, quarter = COUNT // 2, COUNT // 4
    parts = {f"{lag} apart": (zero[:-lag], zero[lag:]) for lag in (1, 2, 3, 4, 8, 64)}
    parts |= {"halves": (zero[:half], zero[half:]), "quarters": (zero[:quarter], zero[quarter:half])}
    for name, (a, b) in parts.items():
        assert_share(a, rate)
        assert_share(a & b, rate * rate), name


@pytest.mark.parametrize("way", WAYS)
def test_all_bits_of_the_threshold_count(way: str):
    """Catches fewer than 16 bits for a factor: rates one step apart drop different shares of a draw."""
    step, count = 2.0**-16, 1 << 21
    zeros = [draw(way, 0, count, 0.5 + i * step)[1][0] == 0 for i in range(5)]
    for fewer, more in pairwise(zeros):
        assert not (fewer & ~more).any()
        for part in range(4):  # of a word
            assert_share((more & ~fewer)[part::4], step)
            assert (more & ~fewer)[part::4].any()


@pytest.mark.parametrize("way", WAYS)
def test_normal_numbers_are_standard_normal(way: str):
    """Kolmogorov-Smirnov, moments and tails. Catches a wrong variance, lost tails, and halves that repeat."""
    normal = draw(way, COUNT + 1, 0, 0.0)[0][0].double()
    assert stats.kstest(normal.numpy(), "norm").pvalue > 1e-4
    for power, expected, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        error = (variance / len(normal)) ** 0.5
        assert abs(normal.pow(power).mean().item() - expected) < 5 * error, f"moment {power}"
    for limit in (3.0, 4.0):
        assert_share(normal > limit, stats.norm.sf(limit))
        assert_share(normal < -limit, stats.norm.sf(limit))
    for lag in (1, 2, COUNT // 2, COUNT // 2 + 1):  # a product of independent ones: mean 0, variance 1
        assert abs((normal[:-lag] * normal[lag:]).mean().item()) < 5 / (len(normal) - lag) ** 0.5, lag


@pytest.mark.parametrize("way", WAYS)
def test_normal_numbers_and_masks_are_independent(way: str):
    """Catches a mask made of the bits that a normal number beside it was made of."""
    normal, scales = draw(way, COUNT, COUNT, 0.5)
    for shift in (0, 1, COUNT // 2):
        assert_share((normal[0] > 0) & (scales[0].roll(shift) == 0), 0.25)


def test_hashes_are_those_of_the_sampler():
    """Catches a sign that a shift carries along, and a constant of SplitMix64 mistyped."""
    seeds = [0, 1, 2**63, 2**64 - 1]
    keys = torch.from_numpy(np.asarray(seeds, np.uint64).view(np.int64))
    found = noise._hash(keys, 3).numpy().view(np.uint64)
    for seed, words in zip(seeds, found.tolist(), strict=True):
        key = int(hashes.mix(np.array([seed], np.uint64))[0])
        counters = np.arange(1, 4, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        assert words == hashes.mix(np.uint64(key) + counters).tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_any_dtype(dtype: torch.dtype):
    """Catches noise that changes the precision of what it is applied to, and masks that depend on it."""
    normal, scales = numbers_of(torch.empty(1, dtype=dtype), [7], 50, 1000, 0.3)
    assert normal.dtype == scales.dtype == dtype
    single = numbers_of(torch.empty(1), [7], 50, 1000, 0.3)[1]
    assert torch.equal(scales == 0, single == 0)
    kept = scales[scales > 0].double()
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rounded(0.3))), rtol=2.0**-7, atol=0)


@pytest.mark.parametrize("way", WAYS)
def test_no_dropout_keeps_everything(way: str):
    """Catches a threshold that drops the word 0 at rate 0."""
    assert (draw(way, 0, COUNT, 0.0)[1] == 1).all()


def test_a_rate_close_to_one_keeps_something():
    """Catches a rate that is rounded to 1, and factors that are then infinite."""
    scales = numbers_of(torch.empty(1), [1], 0, COUNT, 1 - 1e-9)[1]
    assert scales.unique().tolist() == [0.0, 65536.0]


@pytest.mark.parametrize("way", WAYS)
def test_a_tasks_numbers_depend_on_its_seed_alone(way: str):
    """Catches draws that run on from task to task, or from torch's global state."""
    state, seeds = torch.get_rng_state(), [5, 6, 2**64 - 1, 5]
    together = draw(way, 50, 90, 0.5, seeds)
    for part in (slice(2), slice(2, 4)):
        for some, all_of_them in zip(draw(way, 50, 90, 0.5, seeds[part]), together, strict=True):
            assert torch.equal(some, all_of_them[part])
    assert torch.equal(torch.get_rng_state(), state)
    for numbers in together:
        assert torch.equal(numbers[0], numbers[3])
        assert not torch.equal(numbers[0], numbers[1])


def test_without_seeds_the_draw_is_torchs_own():
    """Catches a None that becomes a fixed seed."""
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(torch.cat(numbers_of(torch.empty(2, 1), None, 5, 64, 0.5), 1))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0][0], draws[0][1])


def test_shapes_are_cut_out_of_one_draw():
    """Catches parts that overlap, or that depend on the shapes around them."""
    shapes = {"z": (2, 3), "w": (4, 5)}
    drawn = noise.draw(torch.empty(2, 1), [3, 4], shapes, {"mask": (7,)}, 0.5)
    assert {name: x.shape for name, x in drawn.items()} == {"z": (2, 2, 3), "w": (2, 4, 5), "mask": (2, 7)}
    normal, factors = numbers_of(torch.empty(2, 1), [3, 4], 26, 7, 0.5)
    assert torch.equal(torch.cat([drawn["z"].flatten(1), drawn["w"].flatten(1)], 1), normal)
    assert torch.equal(drawn["mask"], factors)
