"""Gradient descent on a network of one hidden layer, in NumPy, one task and one image at a time.

A transcription of Finn et al. (ICML 2017), Algorithm 2, of Raghu et al. (ICLR 2020), and of Li et al.
(2017), Eq. 5, for logits = V relu(W x + b) + c, mean cross-entropy inside and outside, and V, c = 0 before
adaptation. Imports nothing of the package.
"""

import numpy as np

Arrays = dict[str, np.ndarray]


def logits_of(p: Arrays, x: np.ndarray) -> np.ndarray:
    hidden = p["W"] @ x + p["b"]
    return p["V"] @ np.maximum(hidden, 0) + p["c"]


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def loss_of(p: Arrays, images: np.ndarray) -> float:
    """Mean cross-entropy over images (N, M, E), labels being rows."""
    N, M, _ = images.shape
    return -sum(np.log(softmax(logits_of(p, images[n, m]))[n]) for n in range(N) for m in range(M)) / (N * M)


def gradient_of(p: Arrays, images: np.ndarray) -> Arrays:
    """The gradient of `loss_of` by every parameter."""
    N, M, _ = images.shape
    total = {name: np.zeros_like(value) for name, value in p.items()}
    for n in range(N):
        for m in range(M):
            x = images[n, m]
            hidden = p["W"] @ x + p["b"]
            error = softmax(logits_of(p, x))
            error[n] -= 1
            back = (p["V"].T @ error) * (hidden > 0)
            total["V"] += np.outer(error, np.maximum(hidden, 0)) / (N * M)
            total["c"] += error / (N * M)
            total["W"] += np.outer(back, x) / (N * M)
            total["b"] += back / (N * M)
    return total


def adapt(start: Arrays, images: np.ndarray, rates: Arrays, steps: int) -> Arrays:
    """θ after `steps` steps θ - rate ∇L(θ); a rate of 0 keeps a parameter."""
    p = dict(start)
    for _ in range(steps):
        g = gradient_of(p, images)
        p = {name: p[name] - rates[name] * g[name] for name in p}
    return p


def start_of(W: np.ndarray, b: np.ndarray, N: int) -> Arrays:
    return {"W": W, "b": b, "V": np.zeros((N, len(b))), "c": np.zeros(N)}


def outer_loss(
    W: np.ndarray, b: np.ndarray, rates: Arrays, support: np.ndarray, query: np.ndarray, steps: int
) -> float:
    """Query loss of the adapted networks, mean over tasks (B, N, K or Q, E)."""
    N = support.shape[1]
    losses = [
        loss_of(adapt(start_of(W, b, N), s, rates, steps), q) for s, q in zip(support, query, strict=True)
    ]
    return float(np.mean(losses))
