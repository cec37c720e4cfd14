"""Linear classifiers of scikit-learn, which fits one task at a time, on the CPU, in float64."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from leo_lightning.common.errors import check_positive
from leo_lightning.learners.learner import Learner, LinearClassifier
from leo_lightning.learners.parts.unequal_shots import Shots, present_images


class SklearnClassifier(Learner):
    """A linear classifier that scikit-learn fits. Outer gradients do not reach the support.

    Args:
        C: weight of the support's loss against the penalty.
    """

    trained = False
    unequal_shots = True
    compilable = False
    two_rows: ClassVar[tuple[float, float]]
    """Factors for the rows of two classes: scikit-learn fits one row, for the second against the first."""

    def __init__(self, C: float = 1.0) -> None:
        super().__init__()
        check_positive({"C": C})
        self.C = C

    @abstractmethod
    def estimator(self) -> Any:
        """A new estimator with `fit`, and then `coef_` and `intercept_`."""

    def stages(self, support: Float[Tensor, "B N K E"], shots: Shots = None) -> dict[str, LinearClassifier]:
        """Classifiers fitted to the support of every task.

        A penalty on ‖w‖² leaves w in the span of the support, whose N·K images are usually far fewer than E:
        so coordinates in an orthonormal basis of the span are fitted. The optimum is the same one.
        """
        _, N, K, _ = support.shape
        labels, valid = torch.arange(N).repeat_interleave(K), present_images(support, shots)
        weights, biases = [], []
        for task, images in enumerate(support.detach().to("cpu", torch.float64).flatten(1, 2)):
            rows = slice(None) if valid is None else valid[task].cpu()
            basis, coordinates = torch.linalg.qr(images[rows].T)
            fitted = self.estimator().fit(coordinates.T.numpy(), labels[rows].numpy())
            weights.append(torch.from_numpy(fitted.coef_) @ basis.T)
            biases.append(torch.from_numpy(fitted.intercept_))
        weight, bias = torch.stack(weights), torch.stack(biases)
        if N == 2:
            factors = torch.tensor(self.two_rows, dtype=torch.float64)
            weight, bias = factors[:, None] * weight, factors * bias
        return {"final": LinearClassifier(weight.to(support), bias.to(support))}
