"""Logistic regression on the support: the baseline of "Rethinking Few-Shot Image Classification".

Tian, Wang, Krishnan, Tenenbaum, Isola: Rethinking Few-Shot Image Classification: a Good Embedding Is All You
Need? ECCV 2020, arXiv:2003.11539. As there, embeddings should be of length 1 (`normalize: l2`).
"""

from sklearn.linear_model import LogisticRegression as Estimator

from leo_lightning.learners.parts.sklearn_fit import SklearnClassifier


class LogisticRegression(SklearnClassifier):
    """Multinomial logistic regression, scikit-learn's.

    Minimises C Σᵢ vᵢ cross-entropy(xᵢ·w + b) + ½‖w‖² over the support; the bias is free. Between two classes
    that is binary logistic regression: w is the difference of the classes' rows. The weight vᵢ is 1 where
    classes have equally many images, and else n / (N nᵢ), for the nᵢ of all n images that are of its class:
    otherwise the classifier would take their numbers for how frequent the classes are.

    Args:
        C: weight of the support's cross-entropy against the penalty.
    """

    two_rows = (-0.5, 0.5)

    def estimator(self) -> Estimator:
        """scikit-learn's classifier."""
        return Estimator(C=self.C, class_weight="balanced", tol=1e-6, max_iter=10_000)
