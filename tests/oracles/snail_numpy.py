"""SNAIL in NumPy: one whole sequence for each query, position by position, as the paper writes it.

It imports nothing of the package. Weights come as a dictionary of arrays by the names of PyTorch's modules,
as in `state_dict`.
"""

import numpy as np

from tests.oracles.metric_numpy import Weights, embed, sigmoid, softmax, unit


def linear(weights: Weights, name: str, x: np.ndarray) -> np.ndarray:
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def dense_block(weights: Weights, name: str, sequence: list[np.ndarray], dilation: int) -> list[np.ndarray]:
    """Causal convolution of kernel size 2, f and g in one matrix; zeros before the first position."""
    outputs = []
    for t, x in enumerate(sequence):
        taps = linear(weights, f"{name}.now", x)
        if t >= dilation:
            taps = taps + weights[f"{name}.past.weight"] @ sequence[t - dilation]
        f, g = np.split(taps, 2)
        outputs.append(np.concatenate([x, np.tanh(f) * sigmoid(g)]))
    return outputs


def attention_block(weights: Weights, name: str, sequence: list[np.ndarray]) -> list[np.ndarray]:
    """Causally masked attention: position t sees 0 to t."""
    keys = [linear(weights, f"{name}.key", x) for x in sequence]
    values = [linear(weights, f"{name}.value", x) for x in sequence]
    outputs = []
    for t, x in enumerate(sequence):
        query = linear(weights, f"{name}.query", x)
        weight = softmax(np.array([query @ key for key in keys[: t + 1]]) / np.sqrt(len(query)))
        read = sum(w * value for w, value in zip(weight, values[: t + 1], strict=True))
        outputs.append(np.concatenate([x, read]))
    return outputs


def snail(weights: Weights, support: np.ndarray, query: np.ndarray, dilations: int) -> np.ndarray:
    """Logits (N,) of a query that comes after the support (N, K, E), shot by shot."""
    N, K, _ = support.shape
    sequence = []
    for image, label in [(support[n, k], n) for k in range(K) for n in range(N)] + [(query, None)]:
        embedded = embed(weights, image)
        one_hot = np.array([1.0 if n == label else 0.0 for n in range(N)])
        sequence.append(np.concatenate([np.sqrt(len(embedded)) * unit(embedded), one_hot]))
    place = 0
    for block in ("attention", "convolutions", "attention", "convolutions", "attention"):
        if block == "attention":
            sequence = attention_block(weights, f"layers.{place}", sequence)
            place += 1
        else:
            for i in range(dilations):
                sequence = dense_block(weights, f"layers.{place}", sequence, 2**i)
                place += 1
    assert f"layers.{place}.key.weight" not in weights
    return linear(weights, "head", sequence[-1])
