"""Meta-LSTM in NumPy, one number of the classifier at a time.

A transcription of Ravi and Larochelle (ICLR 2017): Eq. 2 for the cell, the gates below it, and of Section
3.2 the preprocessing, with an ordinary LSTM (Hochreiter and Schmidhuber; gates in torch's order i, f, g, o)
before the gates. Imports nothing of the package.
"""

from collections.abc import Sequence

import numpy as np

Arrays = dict[str, np.ndarray]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def preprocess(x: float, p: float = 10.0) -> list[float]:
    if abs(x) >= np.exp(-p):
        return [np.log(abs(x)) / p, np.sign(x)]
    return [-1.0, np.exp(p) * x]


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max())
    return e / e.sum()


def loss_and_gradient(theta: np.ndarray, features: Sequence[np.ndarray]) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of features (K, D + 1) by class under a classifier (N, D + 1), and its gradient."""
    N, count = len(features), sum(map(len, features))
    loss, gradient = 0.0, np.zeros_like(theta)
    for n, of_class in enumerate(features):
        for feature in of_class:
            probability = softmax(theta @ feature)
            loss -= np.log(probability[n]) / count
            gradient += np.outer(probability - np.eye(N)[n], feature) / count
    return loss, gradient


def adapt(p: Arrays, support: Sequence[np.ndarray], steps: int) -> np.ndarray:
    """The classifier (N, D + 1), bias last, of one task: images (K, E) of each class."""
    N = len(support)
    hidden = [np.maximum(images @ p["hidden.weight"].T + p["hidden.bias"], 0) for images in support]
    features = [np.concatenate([rows, np.ones((len(rows), 1))], axis=1) for rows in hidden]
    theta = np.tile(p["initial_row"], (N, 1))
    units = p["lstm.weight_hh"].shape[1]
    h, c = np.zeros((*theta.shape, units)), np.zeros((*theta.shape, units))
    i_last, f_last = np.zeros_like(theta), np.zeros_like(theta)
    for _ in range(steps):
        loss, gradient = loss_and_gradient(theta, features)
        new = np.zeros_like(theta)
        for n, d in np.ndindex(*theta.shape):
            x = np.array(preprocess(gradient[n, d]) + preprocess(loss))
            gates = p["lstm.weight_ih"] @ x + p["lstm.bias_ih"] + p["lstm.weight_hh"] @ h[n, d]
            i, f, g, o = np.split(gates + p["lstm.bias_hh"], 4)
            c[n, d] = sigmoid(f) * c[n, d] + sigmoid(i) * np.tanh(g)
            h[n, d] = sigmoid(o) * np.tanh(c[n, d])
            i_last[n, d] = sigmoid(
                p["input_gate.weight"][0] @ [*h[n, d], theta[n, d], i_last[n, d]] + p["input_gate.bias"][0]
            )
            f_last[n, d] = sigmoid(
                p["forget_gate.weight"][0] @ [*h[n, d], theta[n, d], f_last[n, d]] + p["forget_gate.bias"][0]
            )
            new[n, d] = f_last[n, d] * theta[n, d] - i_last[n, d] * gradient[n, d]
        theta = new
    return theta
