"""Logistic regression on the support: the baseline of "Rethinking Few-Shot Image Classification".

Tian, Wang, Krishnan, Tenenbaum, Isola: Rethinking Few-Shot Image Classification: a Good Embedding Is All You
Need? ECCV 2020, arXiv:2003.11539. As there, embeddings should be of length 1 (`normalize: l2`).
"""

from functools import partial

from jaxtyping import Float, Int64
from sklearn.linear_model import LogisticRegression as Estimator
from torch import Tensor

from leo_lightning.learners.learner import LinearClassifier
from leo_lightning.learners.parts.sklearn_fit import TaskByTask, fit_each


class LogisticRegression(TaskByTask):
    """Multinomial logistic regression, scikit-learn's.

    Minimises C Σᵢ cross-entropy(xᵢ·w + b) + ½‖w‖² over the support; the bias is free. Between two classes
    that is binary logistic regression: w is the difference of the classes' rows.

    Args:
        C: weight of the support's cross-entropy against the penalty.
    """

    def __init__(self, C: float = 1.0) -> None:
        super().__init__(C)

    def stages(
        self, support: Float[Tensor, "B N K E"], shots: Int64[Tensor, "B N"] | None = None
    ) -> dict[str, LinearClassifier]:
        """See `Learner.stages`."""
        make = partial(Estimator, C=self.C, tol=1e-6, max_iter=10_000)
        return {"final": fit_each(support, make, (-0.5, 0.5), shots)}
