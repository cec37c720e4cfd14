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


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def lstm(weights: Weights, name: str, suffix: str, x: np.ndarray, h: np.ndarray, c: np.ndarray) -> tuple:
    """One step of an LSTM: input, forget, cell and output gates in the rows of PyTorch's weights."""
    gates = weights[f"{name}.weight_ih{suffix}"] @ x + weights[f"{name}.weight_hh{suffix}"] @ h
    gates = gates + weights[f"{name}.bias_ih{suffix}"] + weights[f"{name}.bias_hh{suffix}"]
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def support_in_context(weights: Weights, embedded: list[np.ndarray]) -> list[np.ndarray]:
    """Vinyals et al., Appendix A.2: forward LSTM, backward LSTM that starts at the end, and the input."""
    contexts = [image.copy() for image in embedded]
    for suffix, order in (("_l0", range(len(embedded))), ("_l0_reverse", reversed(range(len(embedded))))):
        h = c = np.zeros(len(embedded[0]))
        for i in order:
            h, c = lstm(weights, "context.support_lstm", suffix, embedded[i], h, c)
            contexts[i] = contexts[i] + h
    return contexts


def query_in_context(
    weights: Weights, embedded: np.ndarray, support: list[np.ndarray], steps: int
) -> np.ndarray:
    """Vinyals et al., Appendix A.1, with h of step 0 = f'(x)."""
    h, c = embedded, np.zeros(len(embedded))
    for _ in range(steps):
        attention = softmax(np.array([h @ image for image in support]))
        r = sum(a * image for a, image in zip(attention, support, strict=True))
        output, c = lstm(weights, "context.query_lstm", "", np.concatenate([embedded, r]), h, c)
        h = output + embedded
    return h


def matching(weights: Weights, support: np.ndarray, query: np.ndarray, steps: int | None) -> np.ndarray:
    """Probabilities (N,) of a query's classes (Vinyals et al., Eq. 1 and 2), with a temperature.

    `steps`: reads of the support, with full context embeddings; None: without them.
    """
    labels = [n for n, images in enumerate(support) for _ in images]
    g = [embed(weights, image) for images in support for image in images]
    f = embed(weights, query)
    if steps is not None:
        g = support_in_context(weights, g)
        f = query_in_context(weights, f, g, steps)
    attention = softmax(np.array([cosine(f, image) for image in g]) / np.exp(weights["log_temperature"]))
    probabilities = np.zeros(len(support))
    for a, label in zip(attention, labels, strict=True):
        probabilities[label] += a
    return probabilities


def relation(weights: Weights, support: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Relation scores (N,) of a query (Sung et al., Eq. 1); sum of the shots, halves of length √D."""
    scores = []
    for images in support:
        prototype = sum(embed(weights, image) for image in images)
        halves = [np.sqrt(len(x)) * x / np.sqrt(x @ x) for x in (prototype, embed(weights, query))]
        x = np.concatenate(halves)
        for layer in ("first", "second"):
            x = np.maximum(weights[f"relation.{layer}.weight"] @ x + weights[f"relation.{layer}.bias"], 0)
        scores.append(sigmoid(weights["relation.last.weight"] @ x + weights["relation.last.bias"])[0])
    return np.array(scores)


def relation_loss(scores: np.ndarray) -> float:
    """Sung et al., Eq. 2, as a mean. Scores (N, Q, N) of the queries of each class."""
    errors = []
    for n, q, m in np.ndindex(scores.shape):
        errors.append((scores[n, q, m] - (1 if m == n else 0)) ** 2)
    return float(np.mean(errors))


def siamese_pairs(weights: Weights, support: np.ndarray, query: np.ndarray) -> list[np.ndarray]:
    """Log-odds of a query with each image of each class (Koch et al.): weighted L1 distance of a pair."""
    scale = np.sqrt(len(weights["similarity.weight"])) * np.exp(weights["similarity.log_temperature"])
    alpha = -weights["similarity.weight"] / scale
    bias = weights["similarity.threshold"] / np.exp(weights["similarity.log_temperature"])
    f = embed(weights, query)
    return [
        np.array([bias + np.sum(alpha * np.abs(f - embed(weights, image))) for image in images])
        for images in support
    ]


def siamese(weights: Weights, support: np.ndarray, query: np.ndarray, pooling: str) -> np.ndarray:
    """Log-odds (N,) of a query's classes: mean over the images of a class, or the largest."""
    pairs = siamese_pairs(weights, support, query)
    return np.array([np.mean(row) if pooling == "mean" else max(row) for row in pairs])


def siamese_loss(pairs: list[np.ndarray], own: int) -> float:
    """Binary cross-entropy of a query's pairs, those of its own class and the others by halves."""
    same = np.mean([-np.log(sigmoid(x)) for x in pairs[own]])
    other = np.mean([-np.log(1 - sigmoid(x)) for n, row in enumerate(pairs) if n != own for x in row])
    return float(same + other) / 2


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(x @ x)


def dynamic_few_shot(weights: Weights, support: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Probabilities (N,) of a query's classes (Gidaris and Komodakis): cosines to generated weights."""
    logits = []
    for images in support:
        z = [unit(embed(weights, image)) for image in images]
        recalled = np.zeros_like(z[0])
        for image in z:
            asked = weights["generator.query.weight"] @ image + weights["generator.query.bias"]
            cosines = np.array([cosine(asked, key) for key in weights["generator.keys"]])
            attention = softmax(weights["generator.sharpness"] * cosines)
            for a, base in zip(attention, weights["generator.weights"], strict=True):
                recalled = recalled + a * unit(base) / len(z)
        average = sum(z) / len(z)
        made = weights["generator.average_scale"] * average + weights["generator.attention_scale"] * recalled
        logits.append(cosine(embed(weights, query), made) / np.exp(weights["log_temperature"]))
    return softmax(np.array(logits))


def predicted_parameters(weights: Weights, statistics: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Probabilities (N,) of a query's classes (Qiao et al.), with one statistic (E,) of each class."""
    mapped = {name.replace("predictor", "embedding"): value for name, value in weights.items()}
    logits = [unit(embed(mapped, unit(statistic))) @ query for statistic in statistics]
    return softmax(np.array(logits) / np.exp(weights["log_temperature"]))
