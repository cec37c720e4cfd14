"""iMAML: MAML with a proximal inner problem and the implicit gradient of its solution.

Rajeswaran, Finn, Kakade, Levine: Meta-Learning with Implicit Gradients. NeurIPS 2019, arXiv:1909.04630,
Algorithms 1 and 2. The network on the embeddings is described in `parts/adapted_mlp.py`.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from leo_lightning.common.errors import check_least, check_positive
from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP, inner_slope
from leo_lightning.learners.parts.fast_weights import Layer, activations, gradient
from leo_lightning.learners.parts.objectives import query_cross_entropy
from leo_lightning.learners.parts.unequal_shots import Shots, present

Map = Callable[[Float[Tensor, "B P"]], Float[Tensor, "B P"]]
"""A function of all numbers of each task's network."""


class IMAML(AdaptedMLP):
    """MAML that keeps no path of the inner loop: the outer gradient depends on its end alone.

    Inner problem of a task: φ = argmin L(φ) + λ/2 ‖φ - θ‖², L the support's mean cross-entropy; θ is the
    hidden layer and a head of zeros. It is solved by gradient steps from θ. At the solution
    ∇L(φ) + λ (φ - θ) = 0 for every θ, and so (∇²L + λ I) dφ = λ dθ: a gradient g by φ becomes
    (I + ∇²L / λ)⁻¹ g by θ. Conjugate gradients solve that system, all tasks at once, with products of ∇²L and
    a vector. The gradient is as exact as the inner solution and these steps are. It reaches the hidden layer
    alone: the support's embeddings are constants.

    Args:
        inner_lr: step size of the inner loop; inner_lr times λ and the curvature of L must stay below 2.
        steps: inner steps.
        proximal: λ, pull of the inner problem to the initialisation.
        cg_steps: steps of conjugate gradients.
    """

    compilable = False  # a backward pass within the backward pass

    def __init__(
        self,
        embedding_size: int | None = None,
        hidden_size: int = 64,
        inner_lr: float = 0.5,
        steps: int = 10,
        proximal: float = 0.1,
        cg_steps: int = 5,
        dropout: float = 0.0,
    ) -> None:
        check_positive({"proximal": proximal})
        check_least(1, {"cg_steps": cg_steps})
        self.proximal = proximal
        self.cg_steps = cg_steps
        super().__init__(embedding_size, hidden_size, inner_lr, steps, dropout)

    def adapted(self, support: Float[Tensor, "B N K E"], shots: Shots, steps: int) -> list[Layer]:
        """Hidden layer and head after so many steps, with the implicit gradient."""
        B, N = support.shape[:2]
        start = self.start(N)
        shapes = [part.shape[1:] for layer in start for part in layer]
        images, slope = support.detach().flatten(1, 2), inner_slope(support, shots)
        valid = None if shots is None else present(support, shots)

        def layers(numbers: Float[Tensor, "B P"]) -> list[Layer]:
            parts = numbers.split([shape.numel() for shape in shapes], dim=1)
            w, b, v, c = (part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True))
            return [Layer(w, b), Layer(v, c)]

        def slopes(numbers: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
            network = layers(numbers)
            inputs = activations(network, images)
            return flat(gradient(network, inputs, slope(inputs[-1])))

        def objective(numbers: Float[Tensor, "B P"]) -> Float[Tensor, "B 1"]:
            logits = activations(layers(numbers), images)[-1].unflatten(1, support.shape[1:3])
            pull = (numbers - theta).square().sum(1)
            return (query_cross_entropy(logits, valid) + self.proximal / 2 * pull)[:, None]

        theta = flat(start).expand(B, -1)
        with torch.no_grad():
            phi, value, rate = theta, objective(theta), theta.new_full((B, 1), self.inner_lr)
            for _ in range(steps):
                tried = phi - rate * (slopes(phi) + self.proximal * (phi - theta))
                reached = objective(tried)
                lower = reached <= value * (1 + 1e-6)  # a rise by rounding is not one
                phi, value = tried.where(lower, phi), reached.where(lower, value)
                rate = rate.where(lower, rate / 2)
        return layers(_Implicit.apply(theta, phi, self, slopes))  # pyright: ignore[reportArgumentType]

    def implicit_gradient(
        self, slopes: Map, phi: Float[Tensor, "B P"], by_phi: Float[Tensor, "B P"]
    ) -> Float[Tensor, "B P"]:
        """Gradient by θ of what has the gradient `by_phi` by φ; `slopes` is ∇L."""
        with torch.enable_grad():
            at = phi.detach().requires_grad_()
            slope = slopes(at)

        def matrix(vector: Float[Tensor, "B P"]) -> Float[Tensor, "B P"]:
            # ∇²L is symmetric: its product is that of a backward pass through the gradient
            (product,) = torch.autograd.grad(slope, at, vector, retain_graph=True)
            return vector + product / self.proximal

        return conjugate_gradients(matrix, by_phi, self.cg_steps)


class _Implicit(torch.autograd.Function):
    """φ as a function of θ, whose gradient a linear system gives."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, phi: Tensor, learner: IMAML, slopes: Map) -> Tensor:
        ctx.save_for_backward(phi)
        ctx.learner, ctx.slopes = learner, slopes
        return phi.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (phi,) = ctx.saved_tensors
        return ctx.learner.implicit_gradient(ctx.slopes, phi, grad), None, None, None


def flat(layers: list[Layer]) -> Float[Tensor, "B P"]:
    """All numbers of each task's network."""
    return torch.cat([part.flatten(1) for layer in layers for part in layer], dim=1)


def conjugate_gradients(matrix: Map, right: Float[Tensor, "B P"], steps: int) -> Float[Tensor, "B P"]:
    """Solve matrix(x) = right for each task, from x = 0; `matrix` is the product with a symmetric matrix.

    A task stops where its residual is zero, or its matrix is not positive: an inner problem that is far from
    its solution may have such directions.
    """
    x, residual, direction = torch.zeros_like(right), right, right
    square = residual.square().sum(1, keepdim=True)
    for _ in range(steps):
        product = matrix(direction)
        curvature = (direction * product).sum(1, keepdim=True)
        goes = curvature > 0
        length = (square / curvature).where(goes, 0.0)
        x, residual = x + length * direction, residual - length * product
        before, square = square, residual.square().sum(1, keepdim=True)
        direction = (residual + square / before * direction).where(goes, 0.0)
    return x
