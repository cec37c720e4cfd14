"""Gaussian process regression of each task's points alone, without meta-learning.

Rasmussen, Williams: Gaussian Processes for Machine Learning. MIT Press 2006, Chapters 2 and 5.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from torch import Tensor

from leo_lightning.common.errors import check_least
from leo_lightning.data.episode import Episode
from leo_lightning.learners.learner import Classifier, Learner
from leo_lightning.learners.parts.normal_mixture import Predictive


class Processes(NamedTuple):
    """A process for each task, fitted to its points."""

    fitted: Sequence[GaussianProcessRegressor]

    def __call__(self, query: Float[Tensor, "#B *points E"]) -> Float[Tensor, "B *points 1"]:
        """Means of the processes at the queries."""
        mean, _ = self.at(query.flatten(1, -2)[..., :-1])
        return mean.unflatten(1, query.shape[1:-1])[..., None]

    def select(self, tasks: Int64[Tensor, " P"]) -> "Processes":
        """The processes of some of the tasks."""
        return Processes([self.fitted[task] for task in tasks.tolist()])

    def at(self, inputs: Float[Tensor, "#B M _inputs"]) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B M"]]:
        """Mean and standard deviation, which includes the noise."""
        points = inputs.expand(len(self.fitted), -1, -1).detach().cpu().double().numpy()
        answers = [
            process.predict(x, return_std=True) for process, x in zip(self.fitted, points, strict=True)
        ]
        mean, std = (torch.from_numpy(np.stack(part)).to(inputs) for part in zip(*answers, strict=True))
        return mean, std


class GaussianProcess(Learner):
    """A process with the kernel s² RBF(l) + σ² of each task, by scikit-learn.

    s, l and σ maximise the marginal likelihood of the task's points, within bounds that the data's range
    suggests: with a handful of points it has maxima at the ends of all scales.

    Args:
        restarts: searches from random values of s, l and σ, beside the one from the middle of their bounds.
    """

    predicts = "values"
    trained = False
    compilable = False

    def __init__(self, restarts: int = 1) -> None:
        super().__init__()
        check_least(0, {"restarts": restarts})
        self.restarts = restarts

    def stages(self, support: Float[Tensor, "B 1 K E"]) -> dict[str, Processes]:
        """A process fitted to the points of every task."""
        points = support[:, 0].detach().cpu().double().numpy()
        return {"final": Processes([self._fitted(task[:, :-1], task[:, -1]) for task in points])}

    def predictive(self, episode: Episode, final: Classifier) -> Predictive:
        """A normal distribution at each point."""
        assert isinstance(final, Processes)
        mean, std = final.at(episode.query[:, 0, :, :-1])
        return Predictive(torch.ones_like(mean[:, :1]), mean[:, None], std[:, None])

    def _fitted(self, x: np.ndarray, y: np.ndarray) -> GaussianProcessRegressor:
        kernel = ConstantKernel(4.0, (0.01, 400.0)) * RBF(2.0, (0.3, 30.0)) + WhiteKernel(0.09, (1e-3, 1.0))
        process = GaussianProcessRegressor(kernel, n_restarts_optimizer=self.restarts, random_state=0)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a few points often call for a bound
            return process.fit(x, y)
