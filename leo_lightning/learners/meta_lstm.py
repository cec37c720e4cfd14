"""Meta-LSTM: the update rule of the inner loop is learned, as the gates of an LSTM.

Ravi, Larochelle: Optimization as a Model for Few-Shot Learning. ICLR 2017, Section 3. The preprocessing of
gradients and losses is that of Andrychowicz et al.: Learning to Learn by Gradient Descent by Gradient
Descent. NeurIPS 2016, arXiv:1606.04474, Appendix A.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leo_lightning.common.errors import InputError
from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP, inner_slope
from leo_lightning.learners.parts.fast_weights import Layer
from leo_lightning.learners.parts.objectives import query_cross_entropy
from leo_lightning.learners.parts.unequal_shots import Shots, present

P = 10.0
"""p of the preprocessing (Section 3.2): below exp(-p) a number is seen by its value, not its logarithm."""
FORGET = 0.99
"""Initial value of the forget gate: nearly all is kept (Section 3.3.2)."""
LSTM_SIZE = 20
"""Units of the ordinary LSTM, as in the paper."""


class MetaLSTM(AdaptedMLP):
    """The head's weights are the cell state of an LSTM, and its gradient is the candidate (Eq. 2).

    θ ← f ⊙ θ − i ⊙ ∇L(θ): the gates see what an ordinary LSTM makes of gradient and loss, θ, and their own
    last value, which begins at 0. All numbers of a head share the two LSTMs, all rows their initial value c₀.
    The head alone adapts, to features that a hidden layer learns for all tasks: the paper's LSTMs run for
    every weight of a network, which for the hidden layer would be a hundred times the work. Gradients and
    losses are constants in the outer gradient (Section 3.3.1): the hidden layer learns from queries alone.

    Args:
        inner_lr: initial value of the input gate i, between 0 and 1.
    """

    def check_rate(self) -> None:
        """Refuse a value that a gate cannot have."""
        super().check_rate()
        if not self.inner_lr < 1:
            raise InputError(f"inner_lr is {self.inner_lr}: it is a gate's value, and must be below 1")

    def make_weights(self, E: int) -> None:
        """Make the hidden layer, the LSTMs and c₀."""
        super().make_weights(E)
        self.lstm = nn.LSTMCell(4, LSTM_SIZE)
        self.forget_gate = _gate(FORGET)
        self.input_gate = _gate(self.inner_lr)
        self.initial_row = nn.Parameter(torch.zeros(self.hidden_size + 1))

    def adapted(self, support: Float[Tensor, "B N K E"], shots: Shots, steps: int) -> list[Layer]:
        """The hidden layer as it is, and the head after so many steps; its bias is the weight of a 1."""
        B, N, K, _ = support.shape
        features = F.pad(self.hidden(support.flatten(1, 2)).relu(), (0, 1), value=1.0)
        head = self.initial_row.expand(B, N, -1)
        slope, valid = inner_slope(support, shots), None if shots is None else present(support, shots)
        forget = put = torch.zeros_like(head)
        state = None
        for _ in range(steps):
            with torch.no_grad():
                logits = features @ head.transpose(1, 2)
                gradient = slope(logits).transpose(1, 2) @ features
                loss = query_cross_entropy(logits.unflatten(1, (N, K)), valid)
                loss = loss[:, None, None].expand_as(gradient)
                inputs = torch.cat([preprocessed(gradient), preprocessed(loss)], dim=-1)
            state = self.lstm(inputs.flatten(0, 2), state)
            output = state[0].unflatten(0, head.shape)
            forget = _opened(self.forget_gate, output, head, forget)
            put = _opened(self.input_gate, output, head, put)
            head = forget * head - put * gradient
        return [self.start(N)[0], Layer(head[..., :-1], head[..., -1])]

    def diagnostics(self) -> dict[str, Float[Tensor, ""]]:
        """The gates where they see nothing but zeros."""
        gates = {"input_gate": self.input_gate, "forget_gate": self.forget_gate}
        return {name: gate.bias.sigmoid().squeeze() for name, gate in gates.items()}


def preprocessed(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape 2"]:
    """Logarithm and sign of x: (log|x| / p, sign x), or (-1, eᵖ x) where |x| < e⁻ᵖ.

    Either half is continuous, and so is a clamp.
    """
    return torch.stack([x.abs().clamp_min(math.exp(-P)).log() / P, (x * math.exp(P)).clamp(-1, 1)], dim=-1)


def _gate(value: float) -> nn.Linear:
    """A gate that is at `value` whatever it sees, but for small random weights (Section 3.3.2)."""
    gate = nn.Linear(LSTM_SIZE + 2, 1)
    nn.init.uniform_(gate.weight, -0.01, 0.01)
    nn.init.constant_(gate.bias, math.log(value / (1 - value)))
    return gate


def _opened(gate: nn.Linear, output: Tensor, head: Tensor, last: Tensor) -> Float[Tensor, "B N numbers"]:
    """Value of a gate for each number of the head."""
    return gate(torch.cat([output, head[..., None], last[..., None]], dim=-1)).sigmoid().squeeze(-1)
