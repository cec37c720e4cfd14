"""Random numbers of a training step: drawn all at once, each task's from a seed of its own."""

from collections.abc import Mapping, Sequence
from math import pi, prod
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from leo_lightning.common.errors import InputError
from leo_lightning.data.episode import Episode

_LEVELS = 1 << 16
Shapes = Mapping[str, tuple[int, ...]]


class Noise(NamedTuple):
    """All random numbers of a training step of LEO; None: means in place of samples, and no dropout.

    Latents and weights are standard normal: new for each copy of a class's code, and weights for each of the
    T + 1 decodes. Masks are dropout factors, 0 or 1 / (1 - dropout): one for each of the T latent and F
    fine-tuning steps on the support.
    """

    latents: Float[Tensor, "#B N *C H"] | None = None
    weights: Float[Tensor, "decodes #B N *C E"] | None = None
    encoder_mask: Float[Tensor, "B N K E"] | None = None
    support_masks: Float[Tensor, "steps B N K E"] | None = None
    query_mask: Float[Tensor, "B N Q E"] | None = None


NO_NOISE = Noise()


class Masks(NamedTuple):
    """Dropout factors of an episode's images: 0, or 1 / (1 - dropout). None: nothing is dropped."""

    support: Float[Tensor, "B N K E"] | None = None
    query: Float[Tensor, "B N Q E"] | None = None

    def on(self, episode: Episode) -> Episode:
        """The episode with some numbers of its embeddings dropped."""
        support, query = masked(episode.support, self.support), masked(episode.query, self.query)
        return episode._replace(support=support, query=query)


def draw(
    like: Float[Tensor, "B *shape"],
    seeds: Sequence[int] | None,
    normals: Shapes,
    factors: Shapes | None = None,
    dropout: float = 0.0,
) -> dict[str, Tensor]:
    """Standard normal numbers, and factors of inverted dropout, for the tasks of a meta-batch.

    A factor is 0 with probability `dropout`, rounded to a multiple of 2^-16, and otherwise 1 / (1 - dropout)
    of the rounded rate. A task's numbers depend on its seed alone: a meta-batch gets the same noise however
    it is divided among processes. CPU and GPU draw different numbers.

    Args:
        like: has the number of tasks, the device and the precision.
        seeds: one for each task, 64 bits; None takes them from torch's own generator.
        normals: shapes of a task's normal numbers, by name.
        factors: shapes of a task's dropout factors, by name.
        dropout: dropout rate.
    """
    factors = factors or {}
    if seeds is None:
        seeds = torch.randint(2**63 - 1, (len(like),)).tolist()
    dropped = min(round(dropout * _LEVELS), _LEVELS - 1)
    count, masked = (sum(map(prod, shapes.values())) for shapes in (normals, factors))
    if like.device.type == "cpu":
        numbers = _by_generators(seeds, count, masked, dropped, like.dtype)
    else:
        keys = torch.from_numpy(np.asarray(seeds, np.uint64).view(np.int64)).to(like.device)
        numbers = _by_hashes(keys, count, masked, dropped)
    drawn = {}
    for row, shapes in zip(numbers, (normals, factors), strict=True):
        parts = row.to(like.dtype).split([prod(shape) for shape in shapes.values()], dim=1) if shapes else ()
        for (name, shape), part in zip(shapes.items(), parts, strict=True):
            drawn[name] = part.unflatten(1, shape)
    return drawn


def masked(x: Float[Tensor, "*shape"], mask: Float[Tensor, "*shape"] | None) -> Float[Tensor, "*shape"]:
    """Embeddings, some of whose numbers may be dropped."""
    return x if mask is None else x * mask


def check_dropout(dropout: float) -> None:
    """Raise an InputError for a dropout rate that is below 0, or leaves nothing."""
    if not 0 <= dropout < 1:
        raise InputError(f"dropout is {dropout}: it must be at least 0 and below 1")


def _by_generators(
    seeds: Sequence[int], normals: int, factors: int, dropped: int, dtype: torch.dtype
) -> tuple[Float[Tensor, "B normals"], Float[Tensor, "B factors"]]:
    """Numbers on a CPU.

    Masks come from random bits, 16 for a factor: several times cheaper than torch's `bernoulli_`. NumPy makes
    the bits twice as fast as torch, and compares them twelve times as fast.
    """
    normal = torch.empty(len(seeds), normals, dtype=dtype if dtype == torch.float64 else torch.float32)
    scales = torch.empty(len(seeds), factors, dtype=torch.float32)
    kept, scale = np.empty(factors, np.bool_), np.float32(_LEVELS / (_LEVELS - dropped))
    generator, words = torch.Generator(), -(-factors // 4)
    for seed, normal_row, scales_row in zip(seeds, normal, scales.numpy(), strict=True):
        normal_row.normal_(generator=generator.manual_seed(seed))
        # the words of `random_raw`, which would keep Python's lock from other threads
        generated = np.random.Generator(np.random.SFC64(seed)).integers(
            2**64 - 1, endpoint=True, size=words, dtype=np.uint64
        )
        bits = generated.view(np.uint16)
        np.greater_equal(bits[:factors], dropped, out=kept)
        np.multiply(kept, scale, out=scales_row)
    return normal, scales


def _by_hashes(
    keys: Int64[Tensor, " B"], normals: int, factors: int, dropped: int
) -> tuple[Float[Tensor, "B normals"], Float[Tensor, "B factors"]]:
    """Numbers on a GPU: a few kernels for all tasks, without a state, as a captured graph needs it.

    Number i of a task is a hash of its key and i (SplitMix64, as in `data/sampler.py`). Box and Muller's
    formula makes pairs of normal numbers.
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
