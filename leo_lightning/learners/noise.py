"""Random numbers of a training step, drawn at once."""

import torch
from jaxtyping import Float
from torch import Tensor

_LEVELS = 1 << 15


def dropout_scales(
    shape: tuple[int, ...],
    rate: float,
    device: torch.device,
    dtype: torch.dtype,
    generator: torch.Generator | None,
) -> Float[Tensor, "*shape"]:
    """Factors of inverted dropout: 0 with probability `rate`, else 1 / (1 - rate).

    Cheaper than `bernoulli_` by far on a CPU: two factors out of every 32 random bits, with integer
    operations only. The rate is rounded to a multiple of 2^-15, and the kept factors match the rounded rate.
    """
    dropped = round(rate * _LEVELS)
    count = torch.Size(shape).numel()
    # random_() fills 63 of 64 bits: bit 31 of a half is never used
    bits = torch.empty((count + 3) // 4, dtype=torch.int64, device=device).random_(generator=generator)
    halves = bits.view(torch.int32)
    words = torch.empty(2, len(halves), dtype=torch.int32, device=device)
    torch.bitwise_and(halves, _LEVELS - 1, out=words[0])
    torch.bitwise_right_shift(halves, 16, out=words[1])
    words[1].bitwise_and_(_LEVELS - 1)
    kept = words.sub_(dropped).bitwise_right_shift_(31).bitwise_not_()  # all ones unless below `dropped`
    scale = torch.tensor(_LEVELS / (_LEVELS - dropped), dtype=torch.float32, device=device)
    return (
        kept.bitwise_and_(scale.view(torch.int32)).view(torch.float32).view(-1)[:count].view(shape).to(dtype)
    )
