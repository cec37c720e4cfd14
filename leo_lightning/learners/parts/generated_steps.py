"""Both inner loops of `GeneralLEO` (Algorithm 1, lines 7-13, and fine-tuning), with their adjoint by hand.

Autograd gives the same gradients (test_generated_steps.py), from a thousand small operations and all their
results. Here a step works on a few buffers, which in evaluation stay in a core's cache.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from leo_lightning.learners.parts.base_learner import BaseLearner
from leo_lightning.learners.parts.networks import relu_backward
from leo_lightning.learners.parts.perceptron import Perceptron


class InnerLoop(NamedTuple):
    """What the loops begin with, and what does not change while they run."""

    z: Float[Tensor, "B N H"]
    alpha: Float[Tensor, " H"]
    """Rate of the latent steps."""
    eta: Float[Tensor, " D"]
    """Rate of fine-tuning."""
    decoder: Perceptron
    """From H numbers to 2 D, means of θ and raw standard deviations."""
    base: BaseLearner
    support: Float[Tensor, "B N K E"]
    scales: Float[Tensor, "decodes #B N D"] | None
    """Normal numbers of each of the T + 1 decodes, times the initial standard deviation of θ; None: means."""
    latent_steps: int
    finetuning_steps: int
    longest: float | None
    """Length that gradients of θ are shortened to; None: any."""


class Iterates(NamedTuple):
    """Codes, what they are decoded to, and the last of these while it is fine-tuned."""

    latents: list[Float[Tensor, "B N H"]]
    decoded: list[Float[Tensor, "B N D"]]
    weights: list[Float[Tensor, "B N D"]]


def adapted(loop: InnerLoop) -> Iterates:
    """Adapt codes, then what they are decoded to. Gradients flow to the last θ alone."""
    final, latents, thetas = _run(loop, keep=True)
    T = loop.latent_steps
    weights = [*thetas[T:-1], final]
    return Iterates([loop.z, *latents[1:]], [*thetas[:T], weights[0]], weights)


def last_theta(loop: InnerLoop) -> Float[Tensor, "B N D"]:
    """The last θ of `adapted`, without gradients. No other is kept, which takes less time."""
    with torch.no_grad():
        return _run(loop, keep=False)[0]


def _run(loop: InnerLoop, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    *hidden, last = loop.decoder.linears()
    # the bias is the weight of an activation that is 1
    mean, raw = torch.cat([last.weight, last.bias[:, None]], dim=1).chunk(2)
    weights = [weight for layer in hidden for weight in (layer.weight, layer.bias)]
    steps: Any = _AdaptedSteps.apply(loop, keep, loop.z, loop.alpha, loop.eta, mean, raw, *weights)
    return steps


class _AdaptedSteps(torch.autograd.Function):
    """Steps on z, then on θ, and their adjoint.

    With the decoder's activations x₀ = z and xₗ = relu(Aₗ xₗ₋₁ + aₗ), and h the last of them and 1:

        d  = ε s exp(R h)                     deviation from the mean
        θ  = M h + d
        y  = f g,  f = min(1, c / |g|)        g the gradient of the support loss by θ, shortened
        q  = Mᵀ y + Rᵀ (d ⊙ y),  qₗ₋₁ = Aₗᵀ ([xₗ > 0] ⊙ qₗ),  m = q₀      the gradient by z
        z' = z - α m

    and after T such steps θ' = θ - η y, F times. Codes are rows here: h is (B·N, H' + 1).
    """

    @staticmethod
    def forward(
        ctx: Any, loop: InnerLoop, keep: bool, z: Tensor, alpha: Tensor, eta: Tensor, mean: Tensor,
        raw: Tensor, *hidden: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        base, support, scales, T, F, longest = loop[4:]
        (B, N, _), D = z.shape, len(mean)

        def room(count: int) -> Tensor:
            return z.new_empty(count if keep else 1, B, N, D)

        def at(buffer: Tensor, step: int) -> Tensor:
            return buffer[step if keep else 0]

        thetas, gradients, deviations = room(T + 1 + F), room(T + F), room(T + 1)
        carried = room(T) if keep else deviations  # d ⊙ y
        latents, activations, slopes, factors, passed = [z.flatten(0, 1)], [], [], [], []

        def gradient(step: int) -> Tensor:
            y = at(gradients, step)
            passing = base.gradient(at(thetas, step), support, y)
            factor = None
            if longest is not None:
                length = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
                y *= (factor := longest / length.clamp_min(longest))
            if keep:
                factors.append(factor)
                passed.append(passing)
            return y

        for step in range(T + 1):
            inputs = [latents[-1]]
            for weight, bias in zip(hidden[::2], hidden[1::2], strict=True):
                inputs.append(torch.addmm(bias, inputs[-1], weight.T).relu_())
            h = pad(inputs[-1], (0, 1), value=1.0)
            theta, deviation = at(thetas, step), at(deviations, step)
            torch.mm(h, mean.T, out=theta.view(-1, D))
            if scales is not None:
                torch.mm(h, raw.T, out=deviation.view(-1, D)).exp_()
                theta += deviation.mul_(scales[step])
            activations.append([*inputs, h])
            if step == T:
                break
            y = gradient(step)
            q = torch.mm(y.view(-1, D), mean[:, :-1])
            if scales is not None:
                torch.mul(y, deviation, out=at(carried, step))
                q.addmm_(at(carried, step).view(-1, D), raw[:, :-1])
            back = [q]
            for weight, x in zip(hidden[-2::-2], inputs[:0:-1], strict=True):
                back[-1] = relu_backward(back[-1], x)
                back.append(back[-1] @ weight)
            slopes.append(back)
            latents.append(torch.addcmul(latents[-1], alpha, back[-1], value=-1))
        for step in range(T, T + F):
            torch.addcmul(at(thetas, step), eta, gradient(step), value=-1, out=at(thetas, step + 1))
        ctx.loop, ctx.steps = loop, (latents, activations, slopes, factors, passed)
        ctx.save_for_backward(alpha, eta, mean, raw, *hidden, thetas, gradients, deviations, carried)
        ctx.set_materialize_grads(False)
        all_latents = torch.stack(latents).view(T + 1, *z.shape)
        ctx.mark_non_differentiable(all_latents, thetas)
        return thetas[-1].clone() if keep else thetas[0], all_latents, thetas

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *unused: None) -> tuple[Tensor | None, ...]:
        """From the last step to the first; `by_x` is the derivative of the loss by x.

        Where f < 1, its derivative is -(f / |g|²) g and |y| = c, so by_g = f (by_y - (by_y·y) y / c²). The
        way from g to θ is the Hessian's product. m is linear in y, d ⊙ y and u₀ = by_m goes up as
        uₗ = [xₗ > 0] ⊙ Aₗ uₗ₋₁, with u the last: by_y = M u + d ⊙ (R u) and by_d = y ⊙ (R u), to which θ
        adds by_θ. As ∂d/∂(R h) = d, what arrives at R h is d ⊙ by_d. From there and from by_θ, k goes down
        to z as q does. Each weight is on the way of k and on that of q, which u leads back.
        """
        if grad is None:  # the loss does not depend on the parameters
            return len(ctx.needs_input_grad) * (None,)
        base, support, scales, T, F, longest = ctx.loop[4:]
        latents, activations, slopes, factors, passed = ctx.steps
        alpha, eta, mean, raw, *hidden, thetas, gradients, deviations, carried = ctx.saved_tensors
        D = len(mean)
        by_thetas, by_raws = torch.empty_like(thetas[: T + 1]), torch.empty_like(thetas[: T + 1])
        ups, downs = [], []

        def by_theta(by_y: Tensor, step: int, out: Tensor) -> Tensor:
            """From y to θ."""
            if longest is not None:
                y, f = gradients[step], factors[step]
                along = (by_y * y).sum(-1, keepdim=True) * (f < 1) / longest**2
                by_y = by_y.addcmul_(y, along, value=-1).mul_(f)
            base.hessian_product(thetas[step], support, passed[step], by_y, out)
            return out

        by_rates, buffer = torch.zeros_like(grad), torch.empty_like(grad)
        by_last = by_thetas[T].copy_(grad)
        for step in reversed(range(T, T + F)):
            by_rates.addcmul_(by_last, gradients[step], value=-1)
            by_last += by_theta(-eta * by_last, step, buffer)
        by_z, by_alpha = torch.zeros_like(latents[0]), torch.zeros_like(alpha)
        for step in reversed(range(T + 1)):
            x, deviation = activations[step], deviations[step]
            by_d = None
            if step < T:
                by_alpha -= (by_z * slopes[step][-1]).sum(0)
                up = [-alpha * by_z]
                for weight, activation in zip(hidden[::2], x[1:-1], strict=True):
                    up.append(relu_backward(up[-1] @ weight.T, activation))
                u = pad(up[-1], (0, 1))  # the bias is not on the way
                ups.append([*up, u])
                by_y = torch.mm(u, mean.T).view_as(deviation)
                if scales is not None:
                    by_d = torch.mm(u, raw.T).view_as(deviation)
                    by_y.addcmul_(deviation, by_d)
                    by_d *= gradients[step]
                by_theta(by_y, step, by_thetas[step])
            k = torch.mm(by_thetas[step].view(-1, D), mean[:, :-1])
            if scales is not None:
                by_d = by_thetas[step] if by_d is None else by_d.add_(by_thetas[step])
                torch.mul(by_d, deviation, out=by_raws[step])
                k.addmm_(by_raws[step].view(-1, D), raw[:, :-1])
            down = [k]
            for weight, activation in zip(hidden[-2::-2], x[-2:0:-1], strict=True):
                down[-1] = relu_backward(down[-1], activation)
                down.append(down[-1] @ weight)
            downs.append(down)
            by_z = by_z + down[-1]
        downs.reverse()
        ups.reverse()
        # one product for all steps
        h, u = _rows(activations, -1), _rows(ups, -1) if ups else None
        by_mean, by_raw = h.T @ by_thetas.view(-1, D), torch.zeros_like(raw.T)
        if scales is not None:
            by_raw.addmm_(h.T, by_raws.view(-1, D))
        if u is not None:
            by_mean.addmm_(u.T, gradients[:T].view(-1, D))
            if scales is not None:
                by_raw.addmm_(u.T, carried.view(-1, D))
        by_hidden = []
        for number in range(len(hidden) // 2):
            back = len(hidden) // 2 - 1 - number
            down = _rows(downs, back)
            by_weight = down.T @ _rows(activations, number)
            if u is not None:
                by_weight.addmm_(_rows(slopes, back).T, _rows(ups, number))
            by_hidden += [by_weight, down.sum(0)]
        by_z = by_z.view(*grad.shape[:2], -1)
        return None, None, by_z, by_alpha, by_rates.sum((0, 1)), by_mean.T, by_raw.T, *by_hidden


def _rows(steps: Sequence[Sequence[Tensor]], number: int) -> Float[Tensor, "rows _width"]:
    """One entry of every step, as rows."""
    return torch.cat([step[number] for step in steps])
