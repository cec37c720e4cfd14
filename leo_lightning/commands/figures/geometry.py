"""Geometry of the inner loop: curvature of its loss in codes and in weights, and sizes of its steps."""

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.leo import LEO
from leo_lightning.learners.parts.adapted_mlp import AdaptedMLP


def curvature(
    leo: LEO, support: Float[Tensor, "B N K E"]
) -> tuple[Float[Tensor, "B in_z"], Float[Tensor, "B in_theta"]]:
    """Absolute eigenvalues of the Hessian of the support loss in z and in θ, where adaptation begins.

    The loss is the one of the inner loop: the cross-entropy *summed* over the N·K images (Eq. 5). z has N·H
    entries (one code for a class, also where K copies of it are kept), θ the N·E weights that they decode to.
    Codes decode by a linear map W_μ, beside a nearest centroid with an offset, so both Hessians are exact:
    see `spectrum`, where W_μᵀ x stands for an image x in the space of codes.

    Returns:
        Largest first, without eigenvalues that are 0 for any z and θ.
    """
    steps = leo.every_step(support)
    images = support.flatten(1, 2)
    logits = LinearClassifier(steps.decoded[0], steps.bias)(images)
    return spectrum(images @ leo.decoder.weight[: leo.embedding_size], logits), spectrum(images, logits)


def spectrum(
    features: Float[Tensor, "B M D"], logits: Float[Tensor, "B M N"]
) -> Float[Tensor, "B eigenvalues"]:
    """Absolute eigenvalues of the Hessian of a linear softmax's cross-entropy in its N·D weights.

    H = Σᵢ (diag pᵢ - pᵢ pᵢᵀ) ⊗ fᵢ fᵢᵀ, with the probabilities pᵢ and features fᵢ of image i: the Gauss-Newton
    matrix, which is the Hessian where logits are linear. With Rᵢ = diag √pᵢ - pᵢ √pᵢᵀ it is A Aᵀ with
    A = [R₁ ⊗ f₁, …, R_M ⊗ f_M], and so has the non-zero eigenvalues of Aᵀ A, which is M·N by M·N.

    Returns:
        The (N - 1) · min(M, D) largest: no others differ from 0.
    """
    (M, D), N = features.shape[1:], logits.shape[2]
    chance = logits.softmax(-1)
    root = chance.sqrt()
    factor = root.diag_embed() - chance[..., :, None] * root[..., None, :]
    gram = features @ features.transpose(1, 2)
    small = torch.einsum("bina,bjnc,bij->biajc", factor, factor, gram).flatten(3).flatten(1, 2)
    return torch.linalg.eigvalsh(small).abs().flip(-1)[:, : (N - 1) * min(M, D)]


def theta_steps(learner: LEO | AdaptedMLP, support: Float[Tensor, "B N K E"]) -> Float[Tensor, "B steps"]:
    """Distance that each inner step moves θ, the weights of the linear classifier.

    LEO's θ are N·E weights, moved first by the steps in z and then by fine-tuning. An adapted network's θ are
    the N·D weights of its head; its hidden layer, which moves as well, is left out.
    """
    if isinstance(learner, LEO):
        adaptation = learner.every_step(support)
        theta = [*adaptation.decoded, *adaptation.weights[1:]]
    else:
        start, *steps = (layers[-1].weight for layers in learner.every_step(support))
        theta = [start.expand_as(steps[-1]), *steps]
    if len(theta) == 1:
        return support.new_zeros(len(support), 0)
    return torch.stack(theta, dim=1).diff(dim=1).flatten(2).norm(dim=2)
