"""LEO for classification, written out in NumPy: one task, one pair, one image, one copy at a time.

An independent account of what LEO computes. It imports nothing of the package and uses none of its
identities: no split first layer, no delayed last layer, no single copy in evaluation, no fused gradient of
all copies. Inputs and outputs have the names and shapes of `tests/fixtures/README.md`: the same code can be
held against the authors' numbers and against the package, and writes fixtures of sizes that theirs lack.

Outer gradients need no derivation here: no function below takes an absolute value or conjugates, and all
branches look at real parts. So each is analytic in its weights, and f'(x) = Im f(x + ih) / h for a tiny h,
the "complex step", is exact to the last digits, through both inner loops.
"""

from typing import NamedTuple

import numpy as np

MIN_STD = 1e-10
TINY = 1e-30
VARIABLES = (
    "w_decoder",
    "w_encoder",
    "finetuning_lr",
    "inner_lr",
    "w_relation_0",
    "w_relation_1",
    "w_relation_2",
)

Arrays = dict[str, np.ndarray]


class Task(NamedTuple):
    """One task and everything random about it; None where nothing is."""

    support: np.ndarray  # (N, K, E)
    query: np.ndarray  # (N, Q, E)
    eps_encoder: np.ndarray | None  # (N, K, H)
    eps_decoder: np.ndarray | None  # (T + 1, N, K, E)
    mask_encoder: np.ndarray | None  # (N, K, E), factors
    mask_support: np.ndarray | None  # (T + 1 + F, N, K, E), factors
    mask_query: np.ndarray | None  # (N, Q, E), factors


def task_of(arrays: Arrays, index: int) -> Task:
    """Task `index` of a fixture's meta-batch."""

    def draw(name: str) -> np.ndarray | None:
        return arrays[name][index] if name in arrays else None

    def mask(name: str) -> np.ndarray | None:
        return arrays[name][index] / (1 - arrays["cfg_dropout_rate"]) if name in arrays else None

    return Task(
        arrays["tr_input"][index],
        arrays["val_input"][index],
        draw("eps_encoder"),
        draw("eps_decoder"),
        mask("mask_encoder"),
        mask("mask_support"),
        mask("mask_query"),
    )


# Numbers


def square(x: np.ndarray) -> np.ndarray:
    return x * x  # `**` of a complex scalar goes by logarithm and angle, which a complex step cannot stand


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x.real > 0, x, 0)


def std_of(raw: np.ndarray, offset: float) -> np.ndarray:
    std = np.exp(raw) - (1 - offset)
    return np.where(std.real > MIN_STD, std, MIN_STD)


def std_slope(raw: np.ndarray, offset: float) -> np.ndarray:
    return np.where((np.exp(raw) - (1 - offset)).real > MIN_STD, np.exp(raw), 0)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.real.max())
    return powers / powers.sum()


def cross_entropy(logits: np.ndarray, label: int) -> np.ndarray:
    largest = logits.real.max()
    return np.log(np.exp(logits - largest).sum()) + largest - logits[label]


# The model


def encode(weights: Arrays, task: Task) -> np.ndarray:
    """Mean and raw std of each class's code, the same for its K examples: (N, K, 2H)."""
    N, K, _ = task.support.shape
    images = task.support if task.mask_encoder is None else task.support * task.mask_encoder
    codes = [images[n, k] @ weights["w_encoder"] for n in range(N) for k in range(K)]
    per_example = []
    for code in codes:
        total = 0
        for partner in codes:
            hidden = relu(np.concatenate([code, partner]) @ weights["w_relation_0"])
            hidden = relu(hidden @ weights["w_relation_1"])
            total = total + hidden @ weights["w_relation_2"]
        per_example.append(total / len(codes))
    rows = []
    for n in range(N):
        of_class = sum(per_example[n * K + k] for k in range(K)) / K
        rows.append([of_class] * K)
    return np.array(rows)


def decode_offset(weights: Arrays, N: int) -> float:
    return np.sqrt(2 / (N + weights["w_decoder"].shape[1] // 2))


def decode(weights: Arrays, latents: np.ndarray, eps: np.ndarray | None) -> np.ndarray:
    """Classifier weights of each copy of each class: (N, K, E)."""
    N, K, _ = latents.shape
    E = weights["w_decoder"].shape[1] // 2
    rows = []
    for n in range(N):
        row = []
        for k in range(K):
            output = latents[n, k] @ weights["w_decoder"]
            sample = output[:E]
            if eps is not None:
                sample = sample + eps[n, k] * std_of(output[E:], decode_offset(weights, N))
            row.append(sample)
        rows.append(row)
    return np.array(rows)


def predict(image: np.ndarray, classifier: np.ndarray) -> np.ndarray:
    """Logits of one image: each class's score is the mean over its copies."""
    scores = []
    for copies in classifier:
        scores.append(sum(image @ copy for copy in copies) / len(copies))
    return np.array(scores)


def support_losses(images: np.ndarray, classifier: np.ndarray) -> np.ndarray:
    """Cross-entropy of every support image: (N, K). The inner loss is their sum."""
    N, K, _ = images.shape
    return np.array(
        [[cross_entropy(predict(images[n, k], classifier), n) for k in range(K)] for n in range(N)]
    )


def weight_gradient(images: np.ndarray, classifier: np.ndarray) -> np.ndarray:
    """Gradient of the summed support loss with respect to every copy: (N, K, E)."""
    N, K, _ = images.shape
    gradient = np.zeros_like(classifier)
    for n in range(N):
        for k in range(K):
            probabilities = softmax(predict(images[n, k], classifier))
            for m in range(N):
                error = probabilities[m] - (1 if m == n else 0)
                for copy in range(K):
                    gradient[m, copy] += error * images[n, k] / K
    return gradient


def latent_gradient(
    weights: Arrays, latents: np.ndarray, eps: np.ndarray | None, images: np.ndarray
) -> np.ndarray:
    """Gradient of the summed support loss with respect to every copy of the codes: (N, K, H)."""
    N, K, _ = latents.shape
    decoder = weights["w_decoder"]
    E = decoder.shape[1] // 2
    upstream = weight_gradient(images, decode(weights, latents, eps))
    gradient = np.zeros_like(latents + decoder[0, 0])
    for n in range(N):
        for k in range(K):
            gradient[n, k] += decoder[:, :E] @ upstream[n, k]
            if eps is not None:
                slope = std_slope(latents[n, k] @ decoder[:, E:], decode_offset(weights, N))
                gradient[n, k] += decoder[:, E:] @ (upstream[n, k] * eps[n, k] * slope)
    return gradient


def solve_task(weights: Arrays, arrays: Arrays, task: Task, adapted: np.ndarray | None = None) -> Arrays:
    """All values of one task. `adapted`: the codes that the encoder penalty takes for constant."""
    N, K, _ = task.support.shape
    Q = task.query.shape[1]
    T, F = int(arrays["cfg_inner_unroll_length"]), int(arrays["cfg_finetuning_unroll_length"])
    code = encode(weights, task)
    H = code.shape[-1] // 2
    std = std_of(code[..., H:], 0)
    z = code[..., :H]
    if task.eps_encoder is not None:
        z = z + task.eps_encoder * std

    def eps(decode_number: int) -> np.ndarray | None:
        return None if task.eps_decoder is None else task.eps_decoder[decode_number]

    def images(prediction_number: int) -> np.ndarray:
        return (
            task.support if task.mask_support is None else task.support * task.mask_support[prediction_number]
        )

    latents, decoded = [z], [decode(weights, z, eps(0))]
    for step in range(T):
        slope = latent_gradient(weights, latents[-1], eps(step), images(step))
        latents.append(latents[-1] - weights["inner_lr"][0, 0] * slope)
        decoded.append(decode(weights, latents[-1], eps(step + 1)))
    tuned = [decoded[-1]]
    for step in range(F):
        slope = weight_gradient(images(T + step), tuned[-1])
        tuned.append(tuned[-1] - weights["finetuning_lr"][0, 0] * slope)

    queries = task.query if task.mask_query is None else task.query * task.mask_query
    logits = np.array([[predict(queries[n, q], tuned[-1]) for q in range(Q)] for n in range(N)])
    losses = np.array([[cross_entropy(logits[n, q], n) for q in range(Q)] for n in range(N)])
    hits = [logits[n, q].real.argmax() == n for n in range(N) for q in range(Q)]
    kl = penalty = 0.0
    if task.eps_encoder is not None:
        log_q = -square(task.eps_encoder) / 2 - np.log(std)
        log_p = -square(z) / 2
        kl = (log_q - log_p).mean()
        penalty = square((latents[-1] if adapted is None else adapted) - z).mean()
    ce = losses.mean()
    return {
        "code_params": code,
        "latents_init": latents[0],
        "latents_adapted": latents[-1],
        "latents_steps": np.array(latents),
        "inner_loss_steps": np.array([support_losses(images(i), w) for i, w in enumerate(decoded)]),
        "decoder_weights_steps": np.array(decoded),
        "classifier_weights_latent": decoded[-1],
        "finetune_weights_steps": np.array(tuned),
        "finetune_loss_steps": np.array([support_losses(images(T + i), w) for i, w in enumerate(tuned)]),
        "classifier_weights_final": tuned[-1],
        "val_logits": logits,
        "val_ce_per_example": losses,
        "val_ce": ce,
        "kl": np.asarray(kl),
        "encoder_penalty": np.asarray(penalty),
        "accuracy": np.mean(hits),
        "total_loss": ce + arrays["cfg_kl_weight"] * kl + arrays["cfg_encoder_penalty_weight"] * penalty,
    }


def regularisers(weights: Arrays, arrays: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """Weighted L2 and orthogonality penalties."""
    squares = sum(square(weights[name]).sum() for name in VARIABLES if name.startswith("w_"))
    decoder = weights["w_decoder"]
    H = len(decoder)
    total = 0
    for i in range(H):
        for j in range(H):
            norms = np.sqrt(square(decoder[i]).sum()) * np.sqrt(square(decoder[j]).sum())
            total = total + square(decoder[i] @ decoder[j] / norms - (1 if i == j else 0))
    return (
        arrays["cfg_l2_penalty_weight"] * squares / 2,
        arrays["cfg_orthogonality_penalty_weight"] * total / H**2,
    )


def solve(arrays: Arrays) -> Arrays:
    """All values of a fixture but the gradients, from its inputs."""
    weights = {name: arrays[name] for name in VARIABLES}
    tasks = [solve_task(weights, arrays, task_of(arrays, b)) for b in range(len(arrays["tr_input"]))]
    found = {name: np.array([task[name] for task in tasks]) for name in tasks[0]}
    found["l2_term"], found["orthogonality_term"] = regularisers(weights, arrays)
    found["total_loss"] = found["total_loss"] + found["l2_term"] + found["orthogonality_term"]
    found["meta_loss"] = found["total_loss"].mean()
    return found


def meta_loss(weights: Arrays, arrays: Arrays, adapted: np.ndarray) -> np.ndarray:
    """The outer loss as a function of the weights, with the adapted codes of the penalty held fixed."""
    losses = [
        solve_task(weights, arrays, task_of(arrays, b), adapted[b])["total_loss"]
        for b in range(len(arrays["tr_input"]))
    ]
    return sum(losses) / len(losses) + sum(regularisers(weights, arrays))


def outer_gradients(arrays: Arrays) -> Arrays:
    """Gradient of the meta-loss with respect to every entry of every weight, by complex steps."""
    adapted = solve(arrays)["latents_adapted"]
    weights = {name: arrays[name].astype(complex) for name in VARIABLES}
    gradients = {}
    for name, weight in weights.items():
        gradient = np.zeros(weight.shape)
        for entry in np.ndindex(weight.shape):
            weight[entry] += 1j * TINY
            gradient[entry] = meta_loss(weights, arrays, adapted).imag / TINY
            weight[entry] -= 1j * TINY
        gradients[name] = gradient
    return gradients


def optimise(arrays: Arrays, steps: int = 3, rate: float = 1e-3) -> Arrays:
    """Gradients, clipped gradients, and the weights after each step of TensorFlow's Adam."""
    arrays = dict(arrays)
    found: Arrays = {}
    first = {name: np.zeros_like(arrays[name]) for name in VARIABLES}
    second = {name: np.zeros_like(arrays[name]) for name in VARIABLES}
    for step in range(1, steps + 1):
        for name, raw in outer_gradients(arrays).items():
            by_value = np.minimum(np.maximum(raw, -0.1), 0.1)
            norm = np.sqrt(square(by_value).sum())
            clipped = by_value * 0.1 / norm if norm > 0.1 else by_value
            if step == 1:
                found |= {
                    f"grad_raw_{name}": raw,
                    f"grad_clipvalue_{name}": by_value,
                    f"grad_clipped_{name}": clipped,
                }
            first[name] = 0.9 * first[name] + 0.1 * clipped
            second[name] = 0.999 * second[name] + 0.001 * square(clipped)
            scale = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            arrays[name] = arrays[name] - scale * first[name] / (np.sqrt(second[name]) + 1e-8)
            found[f"adam{step}_{name}"] = arrays[name]
    return found


def problem(
    seed: int,
    B: int = 2,
    N: int = 3,
    K: int = 2,
    Q: int = 2,
    E: int = 4,
    H: int = 2,
    T: int = 2,
    F: int = 2,
    training: bool = True,
    dropout: float = 0.0,
) -> Arrays:
    """The inputs of a fixture: random weights, embeddings, noise and masks."""
    rng = np.random.default_rng(seed)

    def glorot(inputs: int, outputs: int) -> np.ndarray:
        return rng.uniform(-1, 1, (inputs, outputs)) * np.sqrt(6 / (inputs + outputs))

    def unit(*shape: int) -> np.ndarray:
        x = rng.normal(size=shape)
        return x / np.sqrt(square(x).sum(-1, keepdims=True))

    def labels(images: int) -> np.ndarray:
        return np.tile(np.arange(N)[None, :, None, None], (B, 1, images, 1))

    arrays = {
        "w_encoder": glorot(E, H),
        "w_relation_0": glorot(2 * H, 2 * H),
        "w_relation_1": glorot(2 * H, 2 * H),
        "w_relation_2": 1.5 * glorot(2 * H, 2 * H),
        "w_decoder": 0.4 * glorot(H, 2 * E),
        "inner_lr": rng.uniform(0.1, 0.5, (1, 1, H)),
        "finetuning_lr": rng.uniform(0.1, 0.5, (1, 1, E)),
        "tr_input": unit(B, N, K, E),
        "tr_output": labels(K),
        "val_input": unit(B, N, Q, E),
        "val_output": labels(Q),
        "variable_order": np.array(VARIABLES),
        "cfg_inner_unroll_length": np.array(T),
        "cfg_finetuning_unroll_length": np.array(F),
        "cfg_num_latents": np.array(H),
        "cfg_dropout_rate": np.array(dropout),
        "cfg_kl_weight": np.array(0.1),
        "cfg_encoder_penalty_weight": np.array(0.3),
        "cfg_l2_penalty_weight": np.array(0.01),
        "cfg_orthogonality_penalty_weight": np.array(0.2),
    }
    if training:
        arrays["eps_encoder"] = rng.normal(size=(B, N, K, H))
        arrays["eps_decoder"] = rng.normal(size=(B, T + 1, N, K, E))
        if dropout:
            for name, shape in {
                "mask_encoder": (B, N, K, E),
                "mask_support": (B, T + 1 + F, N, K, E),
                "mask_query": (B, N, Q, E),
            }.items():
                arrays[name] = (rng.random(shape) >= dropout).astype(float)
    return arrays
