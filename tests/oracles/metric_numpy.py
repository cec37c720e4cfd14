"""Metric-based methods in NumPy: one task, one query, one support image at a time, as the papers write them.

It imports nothing of the package. Weights come as a dictionary of arrays by the names of PyTorch's modules,
as in `state_dict`.
"""

import numpy as np

Weights = dict[str, np.ndarray]


def embed(weights: Weights, image: np.ndarray) -> np.ndarray:
    """A x, plus C relu(B x + b) if there is a hidden layer."""
    embedded = weights["embedding.linear.weight"] @ image
    if "embedding.branch.0.weight" in weights:
        hidden = weights["embedding.branch.0.weight"] @ image + weights["embedding.branch.0.bias"]
        embedded = embedded + weights["embedding.branch.2.weight"] @ np.maximum(hidden, 0)
    return embedded


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def prototypical(weights: Weights, support: np.ndarray, query: np.ndarray, distance: str) -> np.ndarray:
    """Probabilities (N,) of a query's classes (Snell et al., Eq. 1 and 2), with a temperature."""
    temperature = np.exp(weights["log_temperature"])
    logits = []
    for images in support:
        prototype = sum(embed(weights, image) for image in images) / len(images)
        if distance == "euclidean":
            logits.append(-np.sum((embed(weights, query) - prototype) ** 2) / temperature)
        else:
            logits.append(cosine(embed(weights, query), prototype) / temperature)
    return softmax(np.array(logits))
