"""Meta-LSTM: the update rule of the inner loop is learned, as the gates of an LSTM.

Ravi, Larochelle: Optimization as a Model for Few-Shot Learning. ICLR 2017, Section 3. The preprocessing of
gradients and losses is that of Andrychowicz et al.: Learning to Learn by Gradient Descent by Gradient
Descent. NeurIPS 2016, arXiv:1606.04474, Appendix A.
"""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from leo_lightning.common.errors import InputError, check_least
from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP, inner_slope
from leo_lightning.learners.parts.fast_weights import Layer
from leo_lightning.learners.parts.objectives import query_cross_entropy
from leo_lightning.learners.parts.unequal_shots import present

P = 10.0
"""p of the preprocessing (Section 3.2): below exp(-p) a number is seen by its value, not its logarithm."""
FORGET = 0.99
"""Initial value of the forget gate: nearly all is kept (Section 3.3.2)."""


class MetaLSTM(AdaptedMLP):
    """The head's weights are the cell state of an LSTM, and its gradient is the candidate (Eq. 2).

    θ ← f ⊙ θ − i ⊙ ∇L(θ): the gates see what an ordinary LSTM makes of gradient and loss, θ, and their own
    last value, which begins at 0. All numbers of a head share the two LSTMs, all rows their initial value c₀.
    The head alone adapts, to features that a hidden layer learns for all tasks: the paper's LSTMs run for
    every weight of a network, which for the hidden layer would be a hundred times the work.

    Args:
        embedding_size: E, size of an image's embedding; taken from the data.
        hidden_size: D, size of the hidden layer.
        lstm_size: units of the ordinary LSTM, 20 in the paper.
        inner_lr: initial value of the input gate i, between 0 and 1.
        steps: inner steps in training.
        test_steps: inner steps in evaluation; null: as many as in training.
        first_order: take gradients and losses for constants in the outer gradient, as the paper does (Section
            3.3.1); the hidden layer then learns from the queries alone.
        dropout: dropout rate of embeddings in training.
    """

    def __init__(
        self,
        embedding_size: int = 640,
        hidden_size: int = 64,
        lstm_size: int = 20,
        inner_lr: float = 0.5,
        steps: int = 5,
        test_steps: int | None = None,
        first_order: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(embedding_size, hidden_size, steps, test_steps, dropout)
        check_least(1, {"lstm_size": lstm_size})
        if not 0 < inner_lr < 1:
            raise InputError(f"inner_lr is {inner_lr}: it is a gate's value, and must be above 0 and below 1")
        self.lstm_size = lstm_size
        self.inner_lr = inner_lr
        self.first_order = first_order
        self.lstm = nn.LSTMCell(4, lstm_size)
        self.forget_gate = _gate(lstm_size, FORGET)
        self.input_gate = _gate(lstm_size, inner_lr)
        self.initial_row = nn.Parameter(torch.zeros(hidden_size + 1))

    def adapted(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> list[Layer]:
        """See `AdaptedMLP.adapted`. The bias is the weight of a feature that is 1."""
        B, N, K, _ = support.shape
        features = F.pad(self.hidden(support.flatten(1, 2)).relu(), (0, 1), value=1.0)
        head = self.initial_row.expand(B, N, -1)
        slope, valid = inner_slope(support, shots), None if shots is None else present(support, shots)
        forget = put = torch.zeros_like(head)
        state = None
        for _ in range(self.current_steps):
            with torch.no_grad() if self.first_order else nullcontext():
                logits = features @ head.transpose(1, 2)
                gradient = slope(logits).transpose(1, 2) @ features
                loss = query_cross_entropy(logits.unflatten(1, (N, K)), valid)
                loss = loss[:, None, None].expand_as(gradient)
                seen = torch.cat([preprocessed(gradient), preprocessed(loss)], dim=-1)
            state = self.lstm(seen.flatten(0, 2), state)
            output = state[0].unflatten(0, head.shape)
            forget = self.forget_gate(_beside(output, head, forget)).sigmoid().squeeze(-1)
            put = self.input_gate(_beside(output, head, put)).sigmoid().squeeze(-1)
            head = forget * head - put * gradient
        return [self.start(N)[0], Layer(head[..., :-1], head[..., -1])]

    @torch.no_grad()
    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """See `Outcome.diagnostics`. The gates where they see nothing but zeros."""
        gates = {"input_gate": self.input_gate, "forget_gate": self.forget_gate}
        return {name: gate.bias.sigmoid().squeeze() for name, gate in gates.items()}


def preprocessed(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape 2"]:
    """Logarithm and sign of x: (log|x| / p, sign x), or (-1, eᵖ x) where |x| < e⁻ᵖ.

    Either half is continuous, and so is a clamp.
    """
    return torch.stack([x.abs().clamp_min(math.exp(-P)).log() / P, (x * math.exp(P)).clamp(-1, 1)], dim=-1)


def _gate(lstm_size: int, value: float) -> nn.Linear:
    """A gate that is at `value` whatever it sees, but for small random weights (Section 3.3.2)."""
    gate = nn.Linear(lstm_size + 2, 1)
    nn.init.uniform_(gate.weight, -0.01, 0.01)
    nn.init.constant_(gate.bias, math.log(value / (1 - value)))
    return gate


def _beside(output: Tensor, head: Tensor, last: Tensor) -> Float[Tensor, "B N numbers inputs"]:
    return torch.cat([output, head[..., None], last[..., None]], dim=-1)
