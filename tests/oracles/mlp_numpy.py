"""Gradient descent on a network of one hidden layer, in NumPy, one task and one image at a time.

A transcription of Finn et al. (ICML 2017), Algorithm 2, of Raghu et al. (ICLR 2020), and of Li et al.
(2017), Eq. 5, for logits = V relu(W x + b) + c, mean cross-entropy inside and outside, and V, c = 0 before
adaptation. Imports nothing of the package.
"""

from collections.abc import Sequence

import numpy as np

Arrays = dict[str, np.ndarray]
Images = Sequence[np.ndarray]
"""Images of each class (M, E); M may differ."""


def logits_of(p: Arrays, x: np.ndarray) -> np.ndarray:
    hidden = p["W"] @ x + p["b"]
    return p["V"] @ np.maximum(hidden, 0) + p["c"]


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def loss_of(p: Arrays, images: Images) -> float:
    """Mean cross-entropy over all images, labels being rows."""
    losses = [-np.log(softmax(logits_of(p, x))[n]) for n, of_class in enumerate(images) for x in of_class]
    return sum(losses) / len(losses)


def gradient_of(p: Arrays, images: Images) -> Arrays:
    """The gradient of `loss_of` by every parameter."""
    count = sum(map(len, images))
    total = {name: np.zeros_like(value) for name, value in p.items()}
    for n, of_class in enumerate(images):
        for x in of_class:
            hidden = p["W"] @ x + p["b"]
            error = softmax(logits_of(p, x))
            error[n] -= 1
            back = (p["V"].T @ error) * (hidden > 0)
            total["V"] += np.outer(error, np.maximum(hidden, 0)) / count
            total["c"] += error / count
            total["W"] += np.outer(back, x) / count
            total["b"] += back / count
    return total


def adapt(start: Arrays, images: Images, rates: Arrays, steps: int) -> Arrays:
    """θ after `steps` steps θ - rate ∇L(θ); a rate of 0 keeps a parameter."""
    p = dict(start)
    for _ in range(steps):
        g = gradient_of(p, images)
        p = {name: p[name] - rates[name] * g[name] for name in p}
    return p


def start_of(W: np.ndarray, b: np.ndarray, N: int) -> Arrays:
    return {"W": W, "b": b, "V": np.zeros((N, len(b))), "c": np.zeros(N)}


def prototypes_of(W: np.ndarray, b: np.ndarray, images: Images) -> Arrays:
    """A head that compares with the mean features c of each class: rows 2c and biases -‖c‖².

    Triantafillou et al. (ICLR 2020), Proto-MAML.
    """
    means = [sum(np.maximum(W @ x + b, 0) for x in of_class) / len(of_class) for of_class in images]
    return {"W": W, "b": b, "V": np.array([2 * c for c in means]), "c": np.array([-(c @ c) for c in means])}


def outer_loss(
    W: np.ndarray,
    b: np.ndarray,
    rates: Arrays,
    support: np.ndarray,
    query: np.ndarray,
    steps: int,
    prototypes: bool = False,
) -> float:
    """Query loss of the adapted networks, mean over tasks (B, N, K or Q, E)."""
    losses = []
    for s, q in zip(support, query, strict=True):
        start = prototypes_of(W, b, s) if prototypes else start_of(W, b, len(s))
        losses.append(loss_of(adapt(start, s, rates, steps), q))
    return float(np.mean(losses))
