"""Random numbers of a training step, drawn at once, and for each task by itself."""

from collections.abc import Sequence
from math import pi, prod

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

_LEVELS = 1 << 16


def draw(
    like: Float[Tensor, "B *shape"], seeds: Sequence[int] | None, normals: int, factors: int, dropout: float
) -> tuple[Float[Tensor, "B normals"], Float[Tensor, "B factors"]]:
    """Standard normal numbers, and factors of inverted dropout, for the tasks of a meta-batch.

    A factor is 0 with probability `dropout`, rounded to a multiple of 2^-16, and otherwise 1 / (1 - dropout)
    of the rounded rate. A task's numbers are a function of its seed alone, not of the tasks beside it: a
    meta-batch gets the same noise however it is divided among processes. They differ between CPU and GPU.

    Args:
        like: says the number of tasks, the device and the precision.
        seeds: one for each task, 64 bits; None takes them from torch's own generator.
        normals: how many normal numbers a task needs.
        factors: how many dropout factors a task needs.
        dropout: dropout rate.
    """
    if seeds is None:
        seeds = torch.randint(2**63 - 1, (len(like),)).tolist()
    dropped = min(round(dropout * _LEVELS), _LEVELS - 1)
    if like.device.type == "cpu":
        normal, scales = _by_generators(seeds, normals, factors, dropped, like.dtype)
    else:
        keys = torch.from_numpy(np.asarray(seeds, np.uint64).view(np.int64)).to(like.device)
        normal, scales = _by_hashes(keys, normals, factors, dropped)
    return normal.to(like.dtype), scales.to(like.dtype)


def divided(
    drawn: Float[Tensor, "B numbers"], shapes: Sequence[tuple[int, ...]]
) -> list[Float[Tensor, "B *shape"]]:
    """Numbers of each task, divided into tensors of the given shapes."""
    parts = drawn.split([prod(shape) for shape in shapes], dim=1) if shapes else ()
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]


def _by_generators(
    seeds: Sequence[int], normals: int, factors: int, dropped: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "B normals"], Float[Tensor, "B factors"]]:
    """The way for a CPU.

    Masks out of random bits, 16 for a factor: several times cheaper than torch's `bernoulli_`. NumPy makes
    the bits twice, and compares them twelve times, as fast as torch.
    """
    normal = torch.empty(len(seeds), normals, dtype=dtype if dtype == torch.float64 else torch.float32)
    scales = torch.empty(len(seeds), factors)
    kept, scale = np.empty(factors, np.bool_), np.float32(_LEVELS / (_LEVELS - dropped))
    generator, words = torch.Generator(), -(-factors // 4)
    for seed, normal_row, scales_row in zip(seeds, normal, scales.numpy(), strict=True):
        normal_row.normal_(generator=generator.manual_seed(seed))
        bits = np.random.SFC64(seed).random_raw(words).view(np.uint16)
        np.greater_equal(bits[:factors], dropped, out=kept)
        np.multiply(kept, scale, out=scales_row)
    return normal, scales


def _by_hashes(
    keys: Int64[Tensor, " B"], normals: int, factors: int, dropped: int
) -> tuple[Float[Tensor, "B normals"], Float[Tensor, "B factors"]]:
    """The way for a GPU: a few kernels for all tasks, without a state, as a captured graph needs it.

    Number i of a task is a hash of its key and i (SplitMix64, as in `data/sampler.py`); pairs of normal
    numbers by Box and Muller.
    """
    pairs = -(-normals // 2)
    words = _hash(keys, pairs + -(-factors // 4))
    first, second = words[:, :pairs] >> 32, words[:, :pairs] & 0xFFFFFFFF
    radius = (-2 * (((first & 0xFFFFFF) + 1).float() * 2.0**-24).log()).sqrt()
    angle = second.float() * (2 * pi * 2.0**-32)
    normal = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :normals]
    bits = torch.stack([words[:, pairs:] >> shift for shift in (0, 16, 32, 48)], dim=1) & 0xFFFF
    kept = bits.flatten(1)[:, :factors] >= dropped
    return normal, kept.float() * (_LEVELS / (_LEVELS - dropped))


def _hash(keys: Int64[Tensor, " B"], count: int) -> Int64[Tensor, "B count"]:
    """Words 1 to `count` of SplitMix64 for each key, begun at the key's own hash."""

    def mix(x: Tensor) -> Tensor:
        # >> carries the sign along: the mask makes it the shift of an unsigned word
        x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -0x40A7B892E31B1A47
        x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -0x6B2FB644ECCEEE15
        return x ^ ((x >> 31) & 0x1FFFFFFFF)

    counters = torch.arange(1, count + 1, device=keys.device) * -0x61C8864680B583EB
    return mix(mix(keys)[:, None] + counters)
