"""Random numbers of a training step, drawn at once, and for each task by itself."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_LEVELS = 1 << 15


def draw(
    like: Float[Tensor, "B *shape"], seeds: Sequence[int] | None, normals: int, words: int
) -> tuple[Float[Tensor, "B normals"], Int64[Tensor, "B words"]]:
    """Standard normal numbers and random bits for the tasks of a meta-batch.

    A task's numbers are a function of its seed alone, not of the tasks beside it: a meta-batch gets the same
    noise however it is divided among processes.

    Args:
        like: says the number of tasks, the device, and the precision of the normal numbers.
        seeds: one for each task; None draws from torch's own generator.
        normals: how many normal numbers a task needs.
        words: how many words of 63 random bits a task needs; see `dropout_scales`.
    """
    normal = torch.empty(len(like), normals, device=like.device, dtype=like.dtype)
    bits = torch.empty(len(like), words, device=like.device, dtype=torch.int64)
    if seeds is None:
        return normal.normal_(), bits.random_()
    generator = torch.Generator(like.device)
    for seed, normal_row, bits_row in zip(seeds, normal, bits, strict=True):
        generator.manual_seed(seed)
        normal_row.normal_(generator=generator)
        bits_row.random_(generator=generator)
    return normal, bits


def dropout_scales(
    bits: Int64[Tensor, "B words"], rate: float, dtype: torch.dtype
) -> Float[Tensor, "B factors"]:
    """Factors of inverted dropout, four for each word: 0 with probability `rate`, else 1 / (1 - rate).

    Cheaper than `bernoulli_` by far on a CPU: two factors out of every 32 random bits, with integer
    operations only. The rate is rounded to a multiple of 2^-15, and the kept factors match the rounded rate.
    """
    dropped = round(rate * _LEVELS)
    halves = bits.view(torch.int32)  # random_() fills 63 of 64 bits: bit 31 of a half is never used
    B, count = halves.shape
    words = torch.empty(B, 2, count, dtype=torch.int32, device=bits.device)
    torch.bitwise_and(halves, _LEVELS - 1, out=words[:, 0])
    torch.bitwise_right_shift(halves, 16, out=words[:, 1])
    words[:, 1].bitwise_and_(_LEVELS - 1)
    kept = words.sub_(dropped).bitwise_right_shift_(31).bitwise_not_()  # all ones unless below `dropped`
    scale = torch.tensor(_LEVELS / (_LEVELS - dropped), dtype=torch.float32, device=bits.device)
    return kept.bitwise_and_(scale.view(torch.int32)).view(torch.float32).view(B, 2 * count).to(dtype)
