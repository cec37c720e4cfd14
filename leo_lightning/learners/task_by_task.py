"""Linear classifiers of scikit-learn, which fits one task at a time, on the CPU, in float64."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.errors import InputError
from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.not_trained import NotTrained


class TaskByTask(NotTrained):
    """A method whose classifier scikit-learn fits. Outer gradients do not reach the support.

    Args:
        C: weight of the support's loss against the penalty.
    """

    def __init__(self, C: float) -> None:
        super().__init__()
        if not 0 < C < math.inf:
            raise InputError(f"C is {C}: it must be a number above 0")
        self.C = C

    def check_compilable(self) -> None:
        """See `Learner.check_compilable`. scikit-learn is no graph of torch's."""
        raise InputError(f"model.compile cannot compile {type(self).__name__}; leave one of the two out")


def fit_each(
    support: Float[Tensor, "B N K E"], make: Callable[[], Any], pair: tuple[float, float]
) -> LinearClassifier:
    """Fit a classifier to the support of every task.

    A penalty on ‖w‖² leaves w in the span of the support, whose N·K images are usually far fewer than E: so
    what is fitted are coordinates in an orthonormal basis of it. The optimum is the same one.

    Args:
        support: images by class; outer gradients do not reach it.
        make: a new estimator with `fit`, and then `coef_` and `intercept_`.
        pair: of two classes scikit-learn fits one row, for the second against the first: the rows of both
            are so many times that one.
    """
    _, N, K, _ = support.shape
    labels = np.arange(N).repeat(K)
    images = support.detach().to("cpu", torch.float64).flatten(1, 2)
    basis, coordinates = torch.linalg.qr(images.transpose(1, 2))
    weights, biases = [], []
    for task in coordinates.transpose(1, 2).numpy():
        fitted = make().fit(task, labels)
        weights.append(torch.from_numpy(fitted.coef_))
        biases.append(torch.from_numpy(fitted.intercept_))
    weight, bias = torch.stack(weights) @ basis.transpose(1, 2), torch.stack(biases)
    if N == 2:
        factors = torch.tensor(pair, dtype=torch.float64)
        weight, bias = factors[:, None] * weight, factors * bias
    return LinearClassifier(weight.to(support), bias.to(support))
