"""Base learner: the network that LEO generates for a task, and the loss that it is adapted with.

It holds no parameters of its own: all of them, θ, are decoded from a latent code. Algorithm 1 needs no more
than these methods, so another base learner is a small file.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier


class BaseLearner(ABC):
    """Pure functions of θ, for B tasks with N codes each: one for each class, or a single one.

    As in scikit-learn, every argument of `__init__` is kept in an attribute of its name.
    """

    predicts: ClassVar[Literal["classes", "values"]]
    """Kind of answers, as in `Learner.predicts`."""

    @abstractmethod
    def initial(self, embedding_size: int) -> Float[Tensor, " D"]:
        """The parameters that training begins with, whatever the code; E numbers are an example."""

    @abstractmethod
    def predictor(self, theta: Float[Tensor, "B N D"]) -> Classifier:
        """The networks with these parameters."""

    @abstractmethod
    def gradient(
        self, theta: Float[Tensor, "B N D"], support: Float[Tensor, "B N K E"], out: Float[Tensor, "B N D"]
    ) -> Any:
        """Write the gradient of each task's loss, *summed* over its support, to `out`.

        Returns:
            What `hessian_product` needs.
        """

    @abstractmethod
    def hessian_product(
        self,
        theta: Float[Tensor, "B N D"],
        support: Float[Tensor, "B N K E"],
        passed: Any,
        direction: Float[Tensor, "B N D"],
        out: Float[Tensor, "B N D"],
    ) -> None:
        """Write the product of that loss's Hessian with a vector to `out`; `passed` is of `gradient`."""

    @abstractmethod
    def query_loss(self, prediction: Float[Tensor, "B N Q outputs"], episode: Episode) -> Float[Tensor, " B"]:
        """Mean loss of each task's queries."""

    def support_gradient(
        self, theta: Float[Tensor, "B N D"], support: Float[Tensor, "B N K E"]
    ) -> Float[Tensor, "B N D"]:
        """The same gradient, which autograd can see through; the support is data and gets none."""
        return cast(Tensor, _SupportGradient.apply(theta, support, self))


class _SupportGradient(torch.autograd.Function):
    """∇L(θ). Its Jacobian is the Hessian, which is symmetric: its adjoint is the Hessian's product, too."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, support: Tensor, base: BaseLearner) -> Tensor:
        found = torch.empty_like(theta, memory_format=torch.contiguous_format)
        ctx.base, ctx.passed = base, base.gradient(theta, support, found)
        ctx.save_for_backward(theta, support)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor, None, None]:
        (theta, support), product = ctx.saved_tensors, torch.empty_like(direction)
        ctx.base.hessian_product(theta, support, ctx.passed, direction, product)
        return product, None, None
