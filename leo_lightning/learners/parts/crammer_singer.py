"""A multi-class support vector machine for each task, solved by an interior-point method and differentiated.

Crammer, Singer: On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines. JMLR 2, 2001.
The machine without intercepts minimises, for images xᵢ with weights vᵢ and one-hot labels Y,

    ½ Σₖ ‖wₖ‖² + Σᵢ vᵢ (maxₖ (wₖ·xᵢ + 1 - Yᵢₖ) - wₖ·xᵢ of i's own class k).

At the optimum wₖ = Σᵢ vᵢ (Yᵢₖ - Pᵢₖ) xᵢ: each image spreads a mass of 1 over the classes that attain its
maximum. With the Gram matrix Q of the rows vᵢ xᵢ, the masses solve the dual problem

    min ½ Σₖ (Y - P)ₖᵀ Q (Y - P)ₖ + Σᵢₖ vᵢ Yᵢₖ Pᵢₖ   with P ≥ 0, Σₖ Pᵢₖ = 1.

Optimality, with the slope F(P) = Q (P - Y) + v Y, a multiplier νᵢ for each image, and Z ≥ 0 for P:

    F(P) - Z - ν = 0,   Σₖ Pᵢₖ = 1,   Pᵢₖ Zᵢₖ = μ,   and μ → 0.

A step of Newton's has dZ = (μ - P Z - Z dP) / P. That leaves a system for each class, of the size of the
support, with the matrix Aₖ = Q + diag(Zₖ / Pₖ), and one for dν with the matrix Σₖ Aₖ⁻¹, by which the masses
of an image keep their sum.

The derivative of the solution for the last μ is that of the implicit function. There Z = μ / P, so that
dZ = -(Z / P) dP, and the conditions' differentials are dF + Aₖ dPₖ - dν = 0 and Σₖ dPᵢₖ = 0, where dF is what
a change of Q does to F while P is fixed. That is Newton's system with -dF as its right-hand side. The last
lines of `masses` solve it for F.detach() - F, which is zero, but whose derivative is -dF.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor

BARRIER = 1e-10
"""The last μ."""
MOST_STEPS = 60
"""Limit on Newton's steps; 6 to 20 are usual."""
_REACH = 0.99
"""Part of the way to the boundary that a step may go."""


def machines(
    images: Float[Tensor, "B M D"], labels: Float[Tensor, "N M"], weights: Float[Tensor, "B M"]
) -> Float[Tensor, "B N D"]:
    """The rows wₖ of each task's machine, differentiable by the images.

    Args:
        images: of all classes; C, the weight of the errors against the penalty, is 1: multiply images and
            result by √C for another one.
        labels: 1 where a class (row) is that of an image.
        weights: v, numbers around 1; 0 for padding.
    """
    weighted = weights[..., None] * images
    rows = weighted.double()
    mass = masses(rows @ rows.transpose(1, 2), labels.double(), weights.double())
    return (labels - mass.to(images.dtype)) @ weighted


def masses(
    gram: Float64[Tensor, "B M M"], labels: Float64[Tensor, "N M"], weights: Float64[Tensor, "B M"]
) -> Float64[Tensor, "B N M"]:
    """P of each task, with the derivative by Q = `gram`."""
    with torch.no_grad():
        mass, slack = _solved(gram, labels, weights[:, None] * labels)
    if not gram.requires_grad:
        return mass
    slope = (mass - labels) @ gram
    return mass + _System.of(gram.detach(), slack / mass).solve(slope.detach() - slope)[0]


class _System(NamedTuple):
    """Newton's system of each task: the inverses of Aₖ, and a Cholesky factor of their sum."""

    inverses: Float64[Tensor, "B N M M"]
    factor: Float64[Tensor, "B M M"]

    @classmethod
    def of(cls, gram: Float64[Tensor, "B M M"], diagonal: Float64[Tensor, "B N M"]) -> "_System":
        """The system with Aₖ = Q + diag(diagonalₖ)."""
        factors, _ = torch.linalg.cholesky_ex(gram[:, None] + torch.diag_embed(diagonal))
        inverses = torch.cholesky_inverse(factors)
        return cls(inverses, torch.linalg.cholesky_ex(inverses.sum(1))[0])

    def solve(self, right: Float64[Tensor, "B N M"]) -> tuple[Float64[Tensor, "B N M"], Tensor]:
        """dP and dν with Aₖ dPₖ - dν = rightₖ and Σₖ dPₖ = 0."""
        free = (self.inverses @ right[..., None])[..., 0]
        shift = -torch.cholesky_solve(free.sum(1)[..., None], self.factor)[..., 0]
        return free + (self.inverses @ shift[:, None, :, None])[..., 0], shift


def _solved(
    gram: Float64[Tensor, "B M M"], labels: Float64[Tensor, "N M"], linear: Float64[Tensor, "B N M"]
) -> tuple[Float64[Tensor, "B N M"], Float64[Tensor, "B N M"]]:
    """P and Z for μ = BARRIER, by Mehrotra's predictor and corrector.

    Mehrotra: On the Implementation of a Primal-Dual Interior Point Method. SIAM Journal on Optimization 2,
    1992.
    """
    at = _Point(
        torch.full_like(linear, 1 / linear.shape[1]), torch.ones_like(linear), torch.zeros_like(linear[:, 0])
    )
    for _ in range(MOST_STEPS):
        slope = (at.mass - labels) @ gram + linear
        system = _System.of(gram, at.slack / at.mass)
        way, part = _way(system, at, slope, torch.zeros_like(linear))
        now, ahead = (point.gap().mean((1, 2))[:, None, None] for point in (at, at.moved(way, part)))
        target = (now * (ahead / now) ** 3).clamp_min(BARRIER)
        # the predictor's second-order term; not at the end, where it would move the target
        product = target - (way.mass * way.slack).where(target > BARRIER, 0.0)
        way, part = _way(system, at, slope, product)
        at = at.moved(way, part)
        if (part == 1).all() and ((at.gap() - BARRIER).abs() < 1e-6 * BARRIER).all():
            break
    return at.mass, at.slack


class _Point(NamedTuple):
    """P, Z and ν, or changes of them."""

    mass: Float64[Tensor, "B N M"]
    slack: Float64[Tensor, "B N M"]
    multiplier: Float64[Tensor, "B M"]

    def gap(self) -> Float64[Tensor, "B N M"]:
        """Products P Z."""
        return self.mass * self.slack

    def moved(self, way: "_Point", part: Float64[Tensor, "B 1 1"]) -> "_Point":
        """The point after a part of the way."""
        mass, slack = self.mass + part * way.mass, self.slack + part * way.slack
        return _Point(mass, slack, self.multiplier + part[:, 0] * way.multiplier)


def _way(
    system: _System, at: _Point, slope: Float64[Tensor, "B N M"], product: Float64[Tensor, "B N M"]
) -> tuple[_Point, Float64[Tensor, "B 1 1"]]:
    """Newton's way to P Z = product, and the part of it that P and Z can go."""
    mass, multiplier = system.solve(at.multiplier[:, None] - slope + product / at.mass)
    slack = (product - at.slack * mass) / at.mass - at.slack
    return _Point(mass, slack, multiplier), torch.minimum(_part(at.mass, mass), _part(at.slack, slack))


def _part(values: Float64[Tensor, "B N M"], change: Float64[Tensor, "B N M"]) -> Float64[Tensor, "B 1 1"]:
    """Largest part of a change, at most all of it, that leaves positive values of each task positive."""
    limit = torch.where(change < 0, -values / change, torch.inf).flatten(1).amin(1)
    return (_REACH * limit).clamp_max(1)[:, None, None]
