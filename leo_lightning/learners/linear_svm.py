"""Linear support vector machines on the support.

Fan, Chang, Hsieh, Wang, Lin: LIBLINEAR: A Library for Large Linear Classification. JMLR 9, 2008. Lee, Maji,
Ravichandran, Soatto: Meta-Learning with Differentiable Convex Optimization, CVPR 2019, train an embedding
through a multi-class machine; here nothing is trained, and each class has a machine of its own.
"""

from functools import partial

from jaxtyping import Float, Int64
from sklearn.svm import LinearSVC
from torch import Tensor

from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.parts.sklearn_fit import TaskByTask, fit_each


class LinearSVM(TaskByTask):
    """One linear support vector machine per class, against all others; scikit-learn's LinearSVC.

    Each minimises C Σᵢ max(0, 1 - yᵢ(xᵢ·w + b))² + ½(‖w‖² + b²), with y = 1 for its class and -1 for the
    others. The logits are the decision values: their order is the answer, and their softmax no probability,
    so that loss and calibration say little.

    Args:
        C: weight of the support's squared hinge loss against the penalty.
    """

    def __init__(self, C: float = 1.0) -> None:
        super().__init__(C)

    def stages(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> dict[str, LinearClassifier]:
        """See `Learner.stages`."""
        # "auto" is the primal here, whose solver draws no random numbers: `fit_each` leaves at most as many
        # dimensions as images
        make = partial(LinearSVC, C=self.C, dual="auto", tol=1e-6, max_iter=10_000)
        return {"final": fit_each(support, make, (-1.0, 1.0), shots)}
