"""The inner loop: gradient descent that the outer gradient can see through."""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from leo_lightning.common.errors import InputError


def adapt(
    start: Float[Tensor, "*shape D"],
    gradient: Callable[[Float[Tensor, "*shape D"], int], Float[Tensor, "*shape D"]],
    rate: Float[Tensor, "*#shape D"],
    steps: int,
) -> list[Float[Tensor, "*shape D"]]:
    """Adapt `start` to every task by differentiable gradient descent (Algorithm 1, lines 10-15; Eq. 6).

    x ← x − rate ⊙ ∇ₓ Lᵗʳ(x), `steps` times. Serves latents z (D = H) and classifier weights w (D = E). The
    gradient is itself an ordinary tensor expression, so that second derivatives reach `start`, `rate` and
    all that `gradient` closes over, without `create_graph` and also under `inference_mode`, where it is
    merely evaluated. `torch.func.grad` makes one out of any loss.

    Args:
        start: z or w before adaptation.
        gradient: (x, step) to ∇ₓ of the task's loss, *summed* over its N·K images: the rate is calibrated
            to a sum.
        rate: learned step size per dimension (α for z, η for w).
        steps: number of updates.

    Returns:
        All iterates, `start` first, the adapted rows last.
    """
    iterates = [start]
    for step in range(steps):
        iterates.append(iterates[-1] - rate * gradient(iterates[-1], step))
    return iterates


def shortened(gradient: Float[Tensor, "*rows D"], longest: float | None) -> Float[Tensor, "*rows D"]:
    """Gradients of a length of at most `longest`; None: of any."""
    if longest is None:
        return gradient
    length = gradient.norm(dim=-1, keepdim=True)
    return gradient * (longest / length.clamp_min(longest))


def check_clip(gradient_clip: float | None) -> None:
    """Check the length that a gradient may have.

    Raises:
        InputError: it is not above 0.
    """
    if gradient_clip is not None and not gradient_clip > 0:
        raise InputError(f"gradient_clip is {gradient_clip}: it must be above 0, or null")
