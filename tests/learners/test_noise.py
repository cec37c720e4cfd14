"""Dropout factors: their distribution, to within five standard errors, and their exact values."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from leo_lightning.learners import noise
from leo_lightning.learners.noise import dropout_scales

COUNT = 1 << 18


def bits(words: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(1, words, dtype=torch.int64).random_(generator=generator)


def draw(count: int, rate: float, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return dropout_scales(bits(-(-count // 4), seed), rate, dtype)[0, :count]


def rounded(rate: float) -> float:
    return round(rate * 2**15) / 2**15


def assert_share(found: Tensor, expected: float) -> None:
    """A share of independent events lies within five standard errors of its probability."""
    sigma = (expected * (1 - expected) / found.numel()) ** 0.5
    assert abs(found.double().mean().item() - expected) < 5 * sigma


@pytest.mark.parametrize("rate", [0.001, 0.1, 0.25, 0.307651, 0.475126, 0.5, 0.9, 0.999])
def test_rate_and_mean(rate: float):
    """Catches a keep rate in place of a drop rate, a forgotten 1/(1-rate), and a threshold that is off."""
    scales = draw(COUNT, rate)
    kept = 1 / (1 - rounded(rate))
    assert set(scales.unique().tolist()) == {0.0, torch.tensor(kept, dtype=torch.float32).item()}
    assert_share(scales == 0, rate)
    sigma = (rate / (1 - rate) / COUNT) ** 0.5
    assert abs(scales.double().mean().item() - 1) < 5 * sigma


@pytest.mark.parametrize("rate", [0.307651, 0.5])
def test_factors_are_independent_of_each_other(rate: float):
    """Catches halves, quarters or neighbours made of the same random bits."""
    zero = draw(COUNT, rate) == 0
    half, quarter = COUNT // 2, COUNT // 4
    parts = {
        "low and high halves of a word": (zero[:half], zero[half:]),
        "the two words of a draw": (zero[:half:2], zero[1:half:2]),
        "the two words, crosswise": (zero[:half:2], zero[half + 1 :: 2]),
        "neighbours": (zero[:-1:2], zero[1::2]),
        "next draw": (zero[: half - 2], zero[2:half]),
        "quarters": (zero[:quarter], zero[quarter:half]),
    }
    for name, (a, b) in parts.items():
        assert_share(a, rate)
        assert_share(b, rate)
        assert_share(a & b, rate * rate), name


def test_all_bits_of_the_threshold_count():
    """Catches fewer than 15 bits in either half: rates one step apart drop different shares of a draw."""
    step, count = 2.0**-15, 1 << 21
    zeros = [draw(count, 0.5 + i * step) == 0 for i in range(5)]
    for fewer, more in pairwise(zeros):
        assert not (fewer & ~more).any()
        for half in (slice(count // 2), slice(count // 2, None)):
            assert_share(more[half] & ~fewer[half], step)
            assert (more[half] & ~fewer[half]).any()


def test_factors_of_a_row_come_from_its_bits():
    """Catches factors of one task made of another's bits, and rows that are interleaved."""
    words = torch.cat([bits(7, seed) for seed in (1, 2, 3)])
    together = dropout_scales(words, 0.4, torch.float32)
    assert together.shape == (3, 28)
    for row, expected in zip(words, together, strict=True):
        assert torch.equal(dropout_scales(row[None], 0.4, torch.float32)[0], expected)
    assert dropout_scales(words[:, :0], 0.4, torch.float32).shape == (3, 0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_any_dtype(dtype: torch.dtype):
    """Catches masks that change the precision of what they multiply, or that depend on it."""
    scales = draw(1000, 0.3, dtype=dtype)
    assert scales.dtype == dtype
    assert torch.equal(scales == 0, draw(1000, 0.3) == 0)
    kept = scales[scales > 0].double()
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rounded(0.3))), rtol=2.0**-7, atol=0)


def test_no_dropout_keeps_everything():
    """Catches a threshold that drops the word 0 at rate 0."""
    assert (draw(COUNT, 0.0) == 1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_tasks_numbers_depend_on_its_seed_alone(dtype: torch.dtype):
    """Catches draws that run on from task to task, or from torch's global state."""
    state = torch.get_rng_state()
    like, seeds = torch.empty(4, 2, dtype=dtype), [5, 6, 2**64 - 1, 5]
    normal, words = noise.draw(like, seeds, 50, 9)
    for part in (slice(2), slice(2, 4)):
        some_normal, some_words = noise.draw(like[part], seeds[part], 50, 9)
        assert torch.equal(some_normal, normal[part])
        assert torch.equal(some_words, words[part])
    assert torch.equal(torch.get_rng_state(), state)
    assert normal.dtype == dtype
    assert torch.equal(normal[0], normal[3])
    assert not torch.equal(normal[0], normal[1])
    assert not torch.equal(words[0], words[1])


def test_without_seeds_the_draw_is_torchs_own():
    """Catches a None that becomes a fixed seed."""
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(torch.cat([part.double() for part in noise.draw(torch.empty(2, 1), None, 5, 5)], 1))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0][0], draws[0][1])
