"""Linear support vector machines on the support.

Fan, Chang, Hsieh, Wang, Lin: LIBLINEAR: A Library for Large Linear Classification. JMLR 9, 2008. Lee, Maji,
Ravichandran, Soatto: Meta-Learning with Differentiable Convex Optimization, CVPR 2019, train an embedding
through a multi-class machine; here nothing is trained, and each class has a machine of its own.
"""

from sklearn.svm import LinearSVC

from leo_lightning.learners.parts.sklearn_fit import SklearnClassifier


class LinearSVM(SklearnClassifier):
    """One linear support vector machine per class, against all others; scikit-learn's LinearSVC.

    Each minimises C Σᵢ vᵢ max(0, 1 - yᵢ(xᵢ·w + b))² + ½(‖w‖² + b²), with y = 1 for its class and -1 for the
    others. As in `LogisticRegression`, v is 1 where classes have equally many images, and n / (N nᵢ)
    otherwise; the images of the other classes always weigh 1. The logits are the decision values: their order
    is the answer, and their softmax is not a probability, so that loss and calibration say little.

    Args:
        C: weight of the support's squared hinge loss against the penalty.
    """

    two_rows = (-1.0, 1.0)

    def estimator(self) -> LinearSVC:
        """scikit-learn's classifier."""
        # "auto" is the primal here, whose solver draws no random numbers: there are at most as many
        # coordinates as images
        return LinearSVC(C=self.C, class_weight="balanced", dual="auto", tol=1e-6, max_iter=10_000)
