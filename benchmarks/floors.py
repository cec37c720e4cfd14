"""Lower bounds of a training step: its matrix products, and the bytes that must move at least once."""

import time
from collections.abc import Callable

import torch

from benchmarks.sizes import Sizes


def operations(shot: int, sizes: Sizes) -> int:
    """Floating-point operations of the matrix products of a step, forward and backward.

    The backward pass takes two more products of the same size if both factors are learned, and one if one
    factor is an image.
    """
    B, N, K, Q, E, H = sizes.tasks, sizes.way, shot, sizes.query, sizes.embedding_size, sizes.num_latents
    T, F, M = sizes.latent_steps, sizes.finetuning_steps, N * K
    encoder = 2 * B * M * E * H * 2
    relation = 3 * 2 * B * (2 * M * H * 2 * H + M * M * 4 * H * H + N * 4 * H * H)
    decode = 2 * B * (N + M) * H * E
    classify = 2 * B * N * M * E
    latent = 3 * (2 * T + 1) * decode + 2 * 2 * T * classify
    finetuning = 2 * 2 * F * classify
    query = 2 * 2 * B * N * N * Q * E
    orthogonality = 2 * 2 * H * H * 2 * E
    return encoder + relation + latent + finetuning + query + orthogonality


def bytes_moved(shot: int, sizes: Sizes) -> int:
    """Bytes of a step in float32: images gathered and read, random numbers made and read, Adam."""
    B, N, K, Q, E, H = sizes.tasks, sizes.way, shot, sizes.query, sizes.embedding_size, sizes.num_latents
    T, F = sizes.latent_steps, sizes.finetuning_steps
    images = B * N * (K + Q) * E
    random = B * N * (K * H + (T + 1) * K * E + (1 + T + F) * K * E + Q * E)
    weights = E * H + 3 * 4 * H * H + 2 * E * H + H + E
    return 4 * (3 * images + 2 * random + 8 * weights)


def measure_floors() -> tuple[float, float]:
    """Operations per second of a large matrix product, bytes per second of a large copy."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    source, target = torch.randn(2**25), torch.empty(2**25)
    product = _fastest(lambda: torch.mm(a, b))
    copy = _fastest(lambda: target.copy_(source))
    return 2 * 1024**3 / product, 2 * 4 * 2**25 / copy


def _fastest(work: Callable[[], object]) -> float:
    times = []
    for _ in range(7):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
